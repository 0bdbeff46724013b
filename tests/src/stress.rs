//! Nothing fails, and every core of the machine is busy: does a group move that need not?
//!
//! One pair for each lease, all at once on the same cores, so each is worse off than it would be alone. `stress-ng` keeps as many
//! workers busy as there are cores, at the priority of everybody else.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::expect::Assignment;
use crate::lab::Lab;
use crate::pair::Pair;
use crate::process::wait_until;
use crate::redis::RedisOptions;
use crate::supervisor::ClusterFile;
use crate::time::Mono;
use crate::timeline::EventWatch;
use crate::verdict::Verdict;

/// What became of one pair.
#[derive(Debug)]
pub struct Found {
    pub lease: String,
    pub before: Assignment,
    pub after: Assignment,
    /// Events of all nodes, by kind.
    pub events: BTreeMap<String, usize>,
    pub verdict: Verdict,
}

impl Found {
    /// Epochs that were assigned meanwhile: each is a failover that nothing called for.
    pub fn failovers(&self) -> u64 {
        self.after.epoch - self.before.epoch
    }
}

/// Runs a pair for each of `leases` for `length`, all cores busy.
pub fn run(leases: &[String], length: Duration) -> Result<Vec<Found>> {
    let mut pairs = Vec::new();
    for lease in leases {
        let lab = Lab::builder().build()?;
        let file = ClusterFile::founding(&lab, lease)?;
        let mut pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
        pair.start_writers(&[])?;
        let before = pair.assignment("w")?;
        pairs.push((lease, pair, before));
    }
    let (_, first, _) = pairs.first().context("no lease is named")?;
    let mut stress = Command::new("stress-ng");
    // 0 workers: one for each core.
    stress.args(["--cpu", "0", "--timeout", &format!("{}s", length.as_secs())]);
    let begun = Mono::now();
    let busy = first.host("c")?.spawn("stress-ng", &stress)?;
    let is_over = || (!busy.is_running()).then_some(());
    wait_until("stress-ng to end", length + Duration::from_secs(60), is_over)?;
    let end = Mono::now();
    ensure!(end.since(begun) >= length, "stress-ng ended early: {}", busy.log_text());
    pairs
        .into_iter()
        .map(|(lease, pair, before)| found(lease, &pair, before, (begun, end)))
        .collect()
}

fn found(lease: &str, pair: &Pair, before: Assignment, (begun, end): (Mono, Mono)) -> Result<Found> {
    pair.wait_healthy()?;
    let mut events = BTreeMap::new();
    for (_, event) in
        pair.events().iter().flat_map(EventWatch::events).filter(|(at, _)| *at > begun)
    {
        let kind = event["kind"].as_str().unwrap_or_default().to_owned();
        *events.entry(kind).or_default() += 1;
    }
    let after = pair.assignment("w")?;
    let verdict = pair.outcome()?.since(begun).verdict(begun, end);
    Ok(Found { lease: lease.to_owned(), before, after, events, verdict })
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: Vec<String> =
            self.events.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let v = &self.verdict;
        writeln!(
            f,
            "lease {}: {} failovers; acknowledged {}, lost {}; longest write gap {:.1} ms; two masters {:.1} ms",
            self.lease,
            self.failovers(),
            v.acked,
            v.lost,
            v.write_gap.as_secs_f64() * 1e3,
            v.two_masters.proven.as_secs_f64() * 1e3,
        )?;
        write!(f, "  events of all nodes: {}", events.join(", "))
    }
}
