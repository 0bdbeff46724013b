//! One run: the pair, the plan's faults, the wait for health, what became of each write, the verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::act::{NODES, Stage};
use super::check::{Bounds, Judgement, judge};
use super::course::carry_out;
use super::guests::Guests;
use super::history::{Deed, History};
use super::plan::{Fault, Plan};
use crate::cleanup::copy_logs;
use crate::disk;
use crate::expect::Assignment;
use crate::lab::Lab;
use crate::pair::{Pair, is_healthy};
use crate::process::wait_until;
use crate::redis::{PASSWORD, PORT, RedisOptions};
use crate::resp::Reply;
use crate::supervisor::{ClusterFile, status};
use crate::time::Mono;
use crate::timeline::EventWatch;
use crate::verdict::Outcome;
use crate::writer::WriterSpec;

const LEASE: Duration = Duration::from_millis(300);
/// The same for the file.
pub(super) const LEASE_TTL: &str = "300ms";
/// `max_lag` is not in the lab's file, so it is the default.
const BOUNDS: Bounds =
    Bounds { lease: LEASE, max_lag: Duration::from_secs(3), heal: Duration::from_secs(10) };
/// How long health is waited for, beyond what is promised, to tell slow from never.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// For so long all has to be well before it counts.
const STEADY: Duration = Duration::from_secs(1);

/// What a run left.
#[derive(Debug)]
pub struct Run {
    pub history: History,
    pub judgement: Judgement,
    /// Where `history.jsonl` is, and the logs if there is a violation.
    pub dir: PathBuf,
}

impl Run {
    /// Judges a history and saves it in a directory of its own below `out`.
    pub(super) fn conclude(history: History, out: &Path, name: &str) -> Result<Self> {
        let mut judgement = judge(&history, &BOUNDS);
        judgement.demand_substance(&history);
        let dir = out.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        history.save(&dir.join("history.jsonl"))?;
        Ok(Run { history, judgement, dir })
    }

    /// One page: what was done, what was found, where to read on.
    pub fn report(&self, plan: &Plan) -> String {
        let done: Vec<_> = self.history.deeds.iter().filter(|deed| deed.done).collect();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for deed in &done {
            *kinds.entry(deed.fault.to_string()).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let mut text =
            format!("seed {}: {} of {} faults done", plan.seed, done.len(), plan.steps.len());
        let _ = writeln!(text, ": {}", kinds.join(", "));
        for deed in self.history.deeds.iter().filter(|deed| deed.done && deed.note.is_some()) {
            let _ = writeln!(
                text,
                "the lab had trouble: {:.1} ms {deed}",
                self.history.millis(deed.from)
            );
        }
        let _ =
            write!(text, "{}history: {}", self.judgement, self.dir.join("history.jsonl").display());
        text
    }
}

/// Runs a plan; its files go to a directory of their own below `out`.
pub fn run(plan: &Plan, out: &Path) -> Result<Run> {
    let lab = Guests::hosts(Lab::builder()).build()?;
    if plan.steps.iter().any(|step| step.fault == Fault::FullDisk) {
        for node in NODES {
            disk::give_small_disk(lab.host(node)?)?;
        }
    }
    let mut file = ClusterFile::founding(&lab, LEASE_TTL)?;
    // A small disk has no room for data sets beside the log: nothing would ever be kept there.
    file.quarantine_beside_redis = true;
    let mut pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
    pair.start_writers(&["na", "nb"])?;
    let replicas = wait_replicas(&status(pair.lab(), "w")?)?;
    pair.start_writer("c", WriterSpec::confirmed("wait", pair.vip(), replicas))?;
    println!("writers fresh, held and wait (WAIT {replicas}) on c, na beside a, nb beside b");
    let origin = Mono::now();
    let mut stage = Stage::new(pair);
    let done = carry_out(&mut stage, plan, origin, |deed| tell(deed, origin));
    let mut history = History { origin: Some(origin), ..History::default() };
    done.and_then(|()| stage.mend_all()).context("the lab failed")?;
    stage.watch_again()?;
    let calm = stage.faults.deeds.iter().map(|deed| deed.to).max().unwrap_or(origin);
    match wait_well(&stage.pair, calm) {
        Ok(well) => history.healed = Some(well.since(calm)),
        Err(_) => history.ailment = ailment(&stage.pair, calm),
    }
    collect(&mut stage, &mut history)?;
    let run = Run::conclude(history, out, &format!("seed-{}", plan.seed))?;
    if !run.judgement.violations.is_empty() {
        copy_logs(stage.pair.lab().dir(), &run.dir).context("keep the logs")?;
    }
    Ok(run)
}

/// Tells one line of a fault that has begun or was left out.
fn tell(deed: &Deed, origin: Mono) {
    let at = deed.from.since(origin).as_secs_f64();
    let note = deed.note.as_deref().map(|note| format!(" ({note})")).unwrap_or_default();
    let skipped = if deed.done { "" } else { "left out: " };
    println!("{at:>9.3} s  {skipped}{} at {}{note}", deed.fault, deed.host);
}

/// Waits until all is well and stays so; since when. A leader that was deaf may step down only after it hears again.
fn wait_well(pair: &Pair, calm: Mono) -> Result<Mono> {
    let mut well = None;
    wait_until("all to be well", PATIENCE, || {
        if ailment(pair, calm).is_some() {
            well = None;
            return None;
        }
        let since = *well.get_or_insert_with(Mono::now);
        (Mono::now().since(since) >= STEADY).then_some(since)
    })
}

fn wait_replicas(status: &Value) -> Result<u32> {
    let count =
        status["groups"][0]["wait_replicas"].as_u64().context("status prints no n for WAIT")?;
    u32::try_from(count).context("n of WAIT")
}

/// What is not yet well: `status`, a writer without an acknowledgement since, or a replica out of sync.
fn ailment(pair: &Pair, since: Mono) -> Option<String> {
    for writer in pair.writers() {
        let acked = writer.last_ack().is_some_and(|ack| ack.sent > since);
        if !acked {
            return Some(format!("writer {} gets no acknowledgement", writer.spec().name));
        }
    }
    let status = match status(pair.lab(), "w") {
        Ok(status) => status,
        Err(error) => return Some(format!("no status: {error:#}")),
    };
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let heard = |node: &Value| node["heard"] == true && node["applied"] == status["applied"];
    let clean = is_healthy(&status) && status["groups"][0]["hold"].is_null();
    if !clean || nodes.is_empty() || !nodes.iter().all(heard) {
        return Some(format!("status: {status}"));
    }
    let Some(assignment) = Assignment::of(&status) else { return Some("no assignment".to_owned()) };
    out_of_sync(pair, &assignment.master).err().map(|error| format!("{error:#}"))
}

/// Fails unless the other member follows `master` and has all that the master had when it was asked first.
fn out_of_sync(pair: &Pair, master: &str) -> Result<()> {
    let client = pair.host("c")?;
    let offset = |host: &str, index: usize| -> Result<i64> {
        let at = std::net::SocketAddr::new(pair.host(host)?.address(), PORT);
        let role = client.redis(at, PASSWORD, &["ROLE"])?;
        match role.elements().get(index) {
            Some(Reply::Integer(offset)) => Ok(*offset),
            _ => anyhow::bail!("{host} answers ROLE with {role:?}"),
        }
    };
    let replica = pair.other(master)?;
    let wanted = offset(master, 1)?;
    let has = offset(replica, 4)?;
    anyhow::ensure!(has >= wanted, "{replica} has {has} of {wanted} bytes of {master}");
    Ok(())
}

/// Ends the writers, reads every acknowledged key at the VIP, and puts all witnesses' words together.
fn collect(stage: &mut Stage, history: &mut History) -> Result<()> {
    let pair = &mut stage.pair;
    let records = pair.end_writers();
    let outcome = pair.outcome_of(records.clone());
    if let Err(error) = &outcome {
        let text = format!("; no write could be looked for: {error:#}");
        history.healed = None;
        history.ailment.get_or_insert_default().push_str(&text);
    }
    let lost = outcome.as_ref().map_or(&[][..], Outcome::lost);
    history.take(&records, lost, [pair.redis("a")?, pair.redis("b")?]);
    history.addresses = pair.address_moments();
    history.events = pair.events().iter().flat_map(EventWatch::events).collect();
    history.deeds.append(&mut stage.faults.deeds);
    Ok(())
}
