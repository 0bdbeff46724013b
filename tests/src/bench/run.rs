//! One run: a fresh lab, one contender, one fault, one verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::contender::{Contender, Kind};
use super::stage::Stage;
use crate::time::Mono;
use crate::verdict::{Outcome, Verdict};

/// Clients that wait for longer than this after service was back are told of in full.
const UNEXPLAINED: Duration = Duration::from_millis(30);

/// What happens to the master on `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scenario {
    /// `kill -9` of its Redis.
    Crash,
    /// Its host falls silent and all of its processes are killed.
    HostLoss,
    /// Its host is cut off with a client beside it, and lives on.
    Cut,
    /// Planned.
    Switchover,
}

impl Scenario {
    pub(super) const ALL: [Scenario; 4] =
        [Scenario::Crash, Scenario::HostLoss, Scenario::Cut, Scenario::Switchover];

    /// Its word on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Crash => "crash",
            Scenario::HostLoss => "host-loss",
            Scenario::Cut => "cut",
            Scenario::Switchover => "switchover",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Scenario::Crash => "Crash: kill -9 of the master's Redis",
            Scenario::HostLoss => {
                "Host loss: the master's host is silent at once, all processes killed"
            }
            Scenario::Cut => "Cut: the master's host is cut off, with a client beside it",
            Scenario::Switchover => "Switchover: planned, under load",
        }
    }
}

/// Runs it; the lab and all that ran in it are gone afterwards.
pub(super) fn run_once(kind: Kind, scenario: Scenario, round: usize) -> Result<Verdict> {
    let mut stage = Stage::build()?;
    let contender = kind.start(&stage).with_context(|| format!("start {}", kind.name()))?;
    stage.start_writers(contender.directory())?;
    if scenario == Scenario::Cut {
        stage.start_neighbour(contender.directory())?;
    }
    // Each round meets other phases of polls and adverts of up to a second.
    stage.wait_more(100 + (round * 97) % 400)?;
    ensure!(stage.master()? == "a", "the master is not on a");
    let fault = strike(&stage, contender.as_ref(), scenario)?;
    stage.wait_taken_over("a", fault)?;
    // What comes after a cut is the question there: two seconds of it.
    stage.wait_more(if scenario == Scenario::Cut { 400 } else { 100 })?;
    let end = Mono::now();
    let outcome = stage.finish_writers()?;
    let verdict = outcome.verdict(fault, end);
    if verdict.service_back.is_some_and(|back| verdict.write_gap > back + UNEXPLAINED) {
        print!("{}", story(&outcome, fault, end));
    }
    Ok(verdict)
}

/// Each client's pauses of more than [`UNEXPLAINED`], and what it was refused in them.
fn story(outcome: &Outcome, fault: Mono, end: Mono) -> String {
    let mut text = String::new();
    for (spec, record) in outcome.writers() {
        let acks: Vec<_> =
            record.acks.iter().filter(|ack| ack.seen >= fault && ack.seen < end).collect();
        for pair in acks.windows(2).filter(|pair| pair[1].seen.since(pair[0].seen) > UNEXPLAINED) {
            let (from, to) = (pair[0].seen, pair[1].seen);
            let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
            for refusal in outcome.refusals(&spec.name, from, to) {
                *kinds.entry(format!("{:?}", refusal.failure)).or_default() += 1;
            }
            let _ = writeln!(
                text,
                "  {}: {} at {:.1} ms, then {} at {:.1} ms; between {kinds:?}",
                spec.name,
                pair[0].server,
                from.millis_from(fault),
                pair[1].server,
                to.millis_from(fault)
            );
        }
    }
    text
}

fn strike(stage: &Stage, contender: &dyn Contender, scenario: Scenario) -> Result<Mono> {
    match scenario {
        Scenario::Crash => stage.redis("a")?.process().kill_without_waiting(),
        Scenario::HostLoss => {
            let at = stage.lab().cut("a")?;
            contender.host_lost(false)?;
            stage.lab().power_off("a")?;
            Ok(at)
        }
        Scenario::Cut => {
            let at = stage.lab().cut("a")?;
            contender.host_lost(true)?;
            Ok(at)
        }
        Scenario::Switchover => {
            let at = Mono::now();
            contender.switch_over(stage, "a")?;
            Ok(at)
        }
    }
}
