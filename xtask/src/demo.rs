//! `cargo xtask demo`: three hosts, a client that writes through the VIP, and four acts.
//!
//! Every figure printed was measured in the run: instants come from the supervisors' events,
//! the kernels' address notifications and the clients; losses from reading every acknowledged
//! key back at the end of its act.

mod stage;
mod story;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{DataSet, Mono, Outcome, wait_until};

use self::stage::{GROUP, Stage};
use crate::{setup, verify};

const LIMIT: Duration = Duration::from_secs(30);

/// What an act did and when.
struct Act {
    title: &'static str,
    fault: Mono,
    /// What happened, in the words of the timeline's zero.
    deed: String,
    end: Mono,
}

pub(crate) fn run(root: &Path, keep: bool, lease: Duration) -> Result<()> {
    setup::require()?;
    verify::build_programs(root)?;
    let mut stage = Stage::build(lease)?;
    println!("{}", stage.describe(lease));
    let mut begun = Mono::now();
    for act in [kill_redis, cut_off, bring_back, switch_over] {
        let act = act(&mut stage)?;
        begun = tell(&stage, &act, begun)?;
    }
    stage.stop_writers();
    if keep {
        leave_running(&stage)?;
    }
    Ok(())
}

/// Act 1: the master's Redis dies; started again, it becomes a replica.
fn kill_redis(stage: &mut Stage) -> Result<Act> {
    let old = stage.master()?;
    let fault = stage.redis(&old)?.process().kill_without_waiting()?;
    stage.wait_taken_over(&old, fault)?;
    stage.redis(&old)?.process().wait(LIMIT)?;
    stage.restart_redis(&old, DataSet::Kept)?;
    stage.wait_healthy()?;
    let deed = format!("kill -9 of the master's Redis on {old}");
    Ok(Act { title: "the master's Redis is killed", fault, deed, end: Mono::now() })
}

/// Act 2: the master's host is cut off, with a client on its side.
fn cut_off(stage: &mut Stage) -> Result<Act> {
    let old = stage.master()?;
    let fault = stage.lab().cut(&old)?;
    stage.wait_taken_over(&old, fault)?;
    // The act lasts until the clients have seen the new master for a while.
    stage.clients().wait_more(200, LIMIT)?;
    let deed = format!("host {old} is cut off, with a client on its side");
    stage.cut_host = Some(old);
    Ok(Act { title: "the master's host is cut off", fault, deed, end: Mono::now() })
}

/// Act 3: the host comes back and becomes a replica.
fn bring_back(stage: &mut Stage) -> Result<Act> {
    let host = stage.cut_host.take().context("no host is cut off")?;
    let fault = stage.lab().heal(&host)?;
    stage.wait_healthy()?;
    let deed = format!("the cut of {host} is healed");
    Ok(Act { title: "the host is brought back", fault, deed, end: Mono::now() })
}

/// Act 4: a planned switchover under load.
fn switch_over(stage: &mut Stage) -> Result<Act> {
    let old = stage.master()?;
    let fault = Mono::now();
    let outcome = stage.ctl(&["--timeout", "10s", "switchover", GROUP, "--wait", "--yes"])?;
    ensure!(outcome.code == Some(0), "switchover: {}{}", outcome.stdout, outcome.stderr);
    stage.wait_taken_over(&old, fault)?;
    stage.wait_healthy()?;
    let deed = format!("redkeepctl switchover {GROUP}, away from {old}");
    Ok(Act { title: "a planned switchover under load", fault, deed, end: Mono::now() })
}

/// Prints an act; returns the instant from which the next one's writes count.
fn tell(stage: &Stage, act: &Act, since: Mono) -> Result<Mono> {
    let outcome = Outcome::collect(stage.records(), stage.client()?, stage.vip())?;
    let outcome = outcome.since(since);
    let verdict = outcome.verdict(act.fault, act.end);
    println!("\n== {}\n", act.title);
    print!("{}", story::timeline(stage, act.fault, act.end, &act.deed, &verdict));
    println!("\n   {verdict}");
    Ok(act.end)
}

fn leave_running(stage: &Stage) -> Result<()> {
    println!("\nThe hosts are left running until Ctrl-C. From another terminal:\n");
    for line in stage.commands()? {
        println!("  {line}");
    }
    println!();
    // Ctrl-C ends the process through the lab's own handler, which removes everything.
    wait_until("Ctrl-C", Duration::MAX, || None)
}
