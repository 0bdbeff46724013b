//! `cargo xtask demo`: three hosts, a client that writes through the VIP, and four acts.
//!
//! Every figure printed was measured in the run: instants come from the supervisors' events,
//! the kernels' address notifications and the clients; losses from reading every acknowledged
//! key back at the end of its act.

mod story;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{ADMIN_PORT, DataSet, GROUP, Mono, PORT, Pair, VIP, redkeepctl, wait_until};

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

/// The pair, and what one act leaves for the next.
struct Stage {
    pair: Pair,
    cut_host: Option<String>,
}

pub(crate) fn run(root: &Path, keep: bool, lease: Duration) -> Result<()> {
    setup::require()?;
    verify::build_programs(root)?;
    println!(
        "hosts a and b with Redis on port {PORT}, witness w, VIP {VIP}, lease {} ms\n\
         clients on c, and na beside a, nb beside b; one of c's opens a connection every 5 ms",
        lease.as_millis()
    );
    let pair = Pair::start(&format!("{}ms", lease.as_millis()))?;
    let mut stage = Stage { pair, cut_host: None };
    let mut begun = Mono::now();
    stage.pair.start_writers(&["na", "nb"])?;
    for act in [kill_redis, cut_off, bring_back, switch_over] {
        let act = act(&mut stage)?;
        begun = tell(&stage.pair, &act, begun)?;
    }
    let whole = stage.pair.finish_writers()?;
    println!("\nin all: acknowledged {}, lost {}", whole.acked(), whole.lost().len());
    if keep {
        leave_running(&stage.pair)?;
    }
    Ok(())
}

/// Act 1: the master's Redis dies; started again, it becomes a replica.
fn kill_redis(stage: &mut Stage) -> Result<Act> {
    let pair = &mut stage.pair;
    let old = pair.master()?;
    let fault = pair.redis(&old)?.process().kill_without_waiting()?;
    pair.wait_taken_over(&old, fault)?;
    pair.redis(&old)?.process().wait(LIMIT)?;
    pair.restart_redis(&old, DataSet::Kept)?;
    pair.wait_healthy()?;
    let deed = format!("kill -9 of the master's Redis on {old}");
    Ok(Act { title: "the master's Redis is killed", fault, deed, end: Mono::now() })
}

/// Act 2: the master's host is cut off, with a client on its side.
fn cut_off(stage: &mut Stage) -> Result<Act> {
    let pair = &stage.pair;
    let old = pair.master()?;
    let fault = pair.lab().cut(&old)?;
    pair.wait_taken_over(&old, fault)?;
    // The act lasts until the clients have used the new master for a while.
    pair.writers()[0].wait_more(200, LIMIT)?;
    let deed = format!("host {old} is cut off, with a client on its side");
    stage.cut_host = Some(old);
    Ok(Act { title: "the master's host is cut off", fault, deed, end: Mono::now() })
}

/// Act 3: the host comes back and becomes a replica.
fn bring_back(stage: &mut Stage) -> Result<Act> {
    let host = stage.cut_host.take().context("no host is cut off")?;
    let fault = stage.pair.lab().heal(&host)?;
    stage.pair.wait_healthy()?;
    let deed = format!("the cut of {host} is healed");
    Ok(Act { title: "the host is brought back", fault, deed, end: Mono::now() })
}

/// Act 4: a planned switchover under load.
fn switch_over(stage: &mut Stage) -> Result<Act> {
    let pair = &stage.pair;
    let old = pair.master()?;
    let fault = Mono::now();
    let outcome = pair.ctl(&["switchover", GROUP, "--wait", "--yes"])?;
    ensure!(outcome.code == Some(0), "switchover: {}{}", outcome.stdout, outcome.stderr);
    pair.wait_taken_over(&old, fault)?;
    pair.wait_healthy()?;
    let deed = format!("redkeepctl switchover {GROUP} --wait, away from {old}");
    Ok(Act { title: "a planned switchover under load", fault, deed, end: Mono::now() })
}

/// Prints an act; returns the instant from which the next one's writes count.
fn tell(pair: &Pair, act: &Act, since: Mono) -> Result<Mono> {
    let verdict = pair.outcome()?.since(since).verdict(act.fault, act.end);
    println!("\n== {}\n", act.title);
    print!("{}", story::timeline(pair, act, &verdict));
    let steps = story::steps(pair, act, &verdict);
    if steps.is_empty() {
        println!("\n   {verdict}");
    } else {
        println!("\n   {steps}\n   {verdict}");
    }
    Ok(act.end)
}

fn leave_running(pair: &Pair) -> Result<()> {
    let program = redkeepctl()?;
    let witness = pair.host("w")?;
    println!("\nThe hosts are left running until Ctrl-C. From another terminal:\n");
    for verb in ["status", "history", "explain pair", "events", "switchover pair --wait"] {
        println!(
            "  ip netns exec {} {} --endpoint {} {verb}",
            witness.namespace(),
            program.display(),
            SocketAddr::new(witness.address(), ADMIN_PORT)
        );
    }
    println!();
    // Ctrl-C ends the process through the lab's own handler, which removes everything.
    wait_until("Ctrl-C", Duration::MAX, || None)
}
