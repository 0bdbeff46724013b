//! The master's Redis is killed: another serves at once, and what comes back is a replica.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, DataSet, Figure, GROUP, Lab, Mono, PASSWORD, Pair, RedisOptions, Verdict,
    debug_allowed, redis_at, repetitions, slowed, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// The table says 100 ms; ten times that catches a hang on a busy machine.
const SERVICE_LIMIT: Duration = Duration::from_secs(1);
/// The middle is near 20 ms; what takes longer than this is told in full, so that it can be explained.
const EXPLAIN: Duration = Duration::from_millis(50);
/// How far back an unreplicated tail may reach: `max_lag` (3 s) and one lease.
const TAIL: Duration = Duration::from_millis(3300);

/// Times until service was back: of all runs, and of those in which this machine's disk held nobody up.
struct Back {
    all: Figure,
    undisturbed: Figure,
}

impl Back {
    fn new(name: &str) -> Self {
        let undisturbed = format!("{name}, no disk stalled");
        Self { all: Figure::new(name), undisturbed: Figure::new(&undisturbed) }
    }

    fn add(&mut self, pair: &Pair, began: Mono, verdict: &Verdict) {
        let back = verdict.service_back.unwrap_or_default();
        self.all.add(back);
        if !pair.disk_stalled(began, Mono::now()) {
            self.undisturbed.add(back);
        }
    }

    fn print(&self) {
        self.all.print();
        self.undisturbed.print();
    }
}

/// Kills the master's Redis and judges the window once the old one is a replica again.
fn kill_and_return(pair: &mut Pair, data: DataSet) -> Result<Verdict> {
    let old = pair.master()?;
    let instance = pair.redis(&old)?.instance();
    let begun = Mono::now();
    let fault = match data {
        DataSet::Kept => pair.redis(&old)?.process().kill_without_waiting()?,
        // It is to be back before anybody had time to notice that it was gone.
        DataSet::Removed => {
            let fault = pair.redis(&old)?.process().kill()?;
            pair.restart_redis(&old, data)?;
            fault
        }
    };
    let taken = pair.wait_taken_by(&old, &instance, fault)?;
    if data == DataSet::Kept {
        pair.redis(&old)?.process().wait(LIMIT)?;
        pair.restart_redis(&old, data)?;
    }
    pair.wait_replica(&old, &taken, "w").with_context(|| pair.story(begun, Mono::now()))?;
    pair.keep_writing(Duration::from_millis(100))?;
    let end = Mono::now();
    let outcome = pair.outcome()?.of_reign(&instance, fault);
    let verdict = outcome.verdict(fault, end);
    println!("{old} killed, {taken} serves: {verdict}");
    let judge = || -> Result<()> {
        verdict.ensure_one_master()?;
        outcome.ensure_only_tail_lost(&instance, fault, slowed(TAIL))?;
        let back = verdict.service_back.context("no other server answered")?;
        ensure!(back < slowed(SERVICE_LIMIT), "too late");
        let log = pair.redis(&old)?.log_text();
        ensure!(!log.contains("asks for synchronization"), "{old} fed a replica: {log}");
        Ok(())
    };
    judge().with_context(|| format!("{verdict}\n{}", pair.story(begun, end)))?;
    if verdict.service_back.is_some_and(|back| back > EXPLAIN) {
        println!("{}", pair.story(begun, end));
    }
    Ok(verdict)
}

/// Moves the master back to `a`, whose own file makes it a master when it starts.
fn return_to_a(pair: &Pair) -> Result<()> {
    let old = pair.master()?;
    if old == "a" {
        return Ok(());
    }
    let fault = Mono::now();
    // On a busy machine a step may be late, which aborts it: the next attempt is as good.
    wait_until("the switchover back", LIMIT, || {
        let outcome = pair.ctl(&["switchover", GROUP, "--to", "a", "--wait", "--yes"]).ok()?;
        println!("  back to a: code {:?} {}", outcome.code, outcome.stderr.trim());
        // One whose outcome was not known, since leadership moved, may have come to pass.
        (outcome.code == Some(0) || pair.master().is_ok_and(|m| m == "a")).then_some(())
    })?;
    pair.wait_taken_over(&old, fault)?;
    pair.wait_replica(&old, "a", "w")
}

trait TakenOver {
    /// Waits until a member other than `old` acknowledges; its name.
    fn wait_taken_by(&self, old: &str, instance: &str, fault: Mono) -> Result<String>;
}

impl TakenOver for Pair {
    fn wait_taken_by(&self, old: &str, instance: &str, fault: Mono) -> Result<String> {
        for writer in &self.writers()[..2] {
            let ack = writer
                .wait_other_server(instance, fault, LIMIT)
                .with_context(|| self.story(fault, Mono::now()))?;
            let name = ack.server.split(':').next().unwrap_or_default().to_owned();
            ensure!(name != old, "{old} serves again, as {}", ack.server);
        }
        self.master()
    }
}

#[test]
fn killed_redis_is_replaced_at_once_and_returns_as_a_replica() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na"])?;
    let mut back = Back::new("service back, Redis killed");
    let mut lost = 0;
    for run in 0..repetitions(3, 20) {
        let began = Mono::now();
        let verdict =
            kill_and_return(&mut pair, DataSet::Kept).with_context(|| format!("run {run}"))?;
        back.add(&pair, began, &verdict);
        lost += verdict.lost;
    }
    back.print();
    println!("FIGURE lost of the tail, Redis killed: {lost} in all runs");
    Ok(())
}

/// The empty one is a master by its own file, as a container without its volume is.
#[test]
fn redis_restarted_empty_never_feeds_a_replica() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na"])?;
    let mut back = Back::new("service back, Redis killed and at once restarted empty");
    for run in 0..repetitions(3, 10) {
        let began = Mono::now();
        let verdict =
            kill_and_return(&mut pair, DataSet::Removed).with_context(|| format!("run {run}"))?;
        back.add(&pair, began, &verdict);
        return_to_a(&pair).with_context(|| format!("after run {run}"))?;
    }
    back.print();
    Ok(())
}

/// The kernel closes a dying process's sockets only after it has freed its memory.
#[test]
fn killed_redis_with_a_large_heap_is_replaced_as_fast() -> Result<()> {
    let lab = Lab::builder().build()?;
    let file = ClusterFile::founding(&lab, "300ms")?;
    let mut options = RedisOptions::default();
    options.extra.extend(debug_allowed()?);
    let mut pair = Pair::start_in(lab, &file, &options)?;
    let megabytes = repetitions(300, 3000);
    fill(&pair, megabytes)?;
    pair.start_writers(&["na"])?;
    let verdict = kill_and_return(&mut pair, DataSet::Kept)?;
    let mut back = Figure::new(&format!("service back, Redis killed with {megabytes} MB in it"));
    back.add(verdict.service_back.unwrap_or_default());
    back.print();
    Ok(())
}

/// Megabytes of data in the master alone, in steps too short to look like a hang.
fn fill(pair: &Pair, megabytes: usize) -> Result<()> {
    let master = pair.redis(&pair.assignment("w")?.master)?;
    let mut step = 0;
    // A connection may break on a busy machine; keys have a prefix of their own in each step.
    wait_until("the master to be full", LIMIT, || {
        let at = redis_at(redkeep_lab::VIP);
        let mut connection = pair.host("c").ok()?.connect(at, PASSWORD).ok()?;
        while master.process().usage().ok()?.resident < (megabytes as u64) * 1_000_000 {
            step += 1;
            let prefix = format!("fill{step}");
            connection.call(&["DEBUG", "POPULATE", "5", &prefix, "1000000"]).ok()?;
        }
        Some(())
    })?;
    let rules = pair.assignment("w")?.master;
    ensure!(pair.redis(&rules)?.instance() == master.instance(), "{rules} took over meanwhile");
    Ok(())
}
