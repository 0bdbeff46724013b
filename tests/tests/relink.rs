//! A replica that was out of reach for long: how soon after it may be promoted again, and at what cost.
//!
//! TCP sends again at doubling intervals, so a connection that was cut for 14 s is silent until 25 s after the cut.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{DataSet, Figure, Lab, Mono, PASSWORD, PORT, Pair, slowed, wait_until};

const CUT: Duration = Duration::from_secs(14);

/// What the master at `host` answers.
fn ask(pair: &Pair, host: &str, words: &[&str]) -> Result<String> {
    let at = SocketAddr::new(pair.host(host)?.address(), PORT);
    let reply = pair.host("c")?.redis(at, PASSWORD, words)?;
    Ok(reply.text().with_context(|| format!("{words:?} is answered {reply:?}"))?.to_owned())
}

/// Full copies that the Redis of `host` has sent.
fn copies(pair: &Pair, host: &str) -> Result<u32> {
    let text = ask(pair, host, &["INFO", "stats"])?;
    let count = text.lines().find_map(|line| line.trim().strip_prefix("sync_full:"));
    Ok(count.context("no sync_full")?.parse()?)
}

/// Heals everything, and waits until `b` may be promoted; how long that took.
fn heal(pair: &Pair, since: Mono) -> Result<Duration> {
    let healed = pair.lab().heal_all()?;
    pair.wait_replica("b", "a", "w").with_context(|| pair.story(since, Mono::now()))?;
    Ok(Mono::now().since(healed))
}

fn cut_for_long(name: &str, cut: impl FnOnce(&Lab) -> Result<Mono>) -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let before = copies(&pair, "a")?;
    let since = cut(pair.lab())?;
    pair.keep_writing(CUT)?;
    let mut eligible = Figure::new(&format!("eligible again, {name} for 14 s"));
    eligible.add(heal(&pair, since)?);
    eligible.print();
    pair.keep_writing(Duration::from_secs(1))?;
    ensure!(copies(&pair, "a")? == before, "the replica was copied anew");
    let outcome = pair.outcome()?;
    let verdict = outcome.verdict(since, Mono::now());
    ensure!(verdict.lost == 0 && verdict.service_back.is_none(), "{verdict}");
    Ok(())
}

#[test]
fn replica_whose_host_was_cut_off_for_long_goes_on_where_it_was() -> Result<()> {
    cut_for_long("replica's host cut off", |lab| lab.cut("b"))
}

#[test]
fn replica_whose_link_alone_was_cut_for_long_goes_on_where_it_was() -> Result<()> {
    cut_for_long("link between the Redis hosts cut", |lab| lab.cut_between("a", "b"))
}

/// A Redis that starts behind a cut sends its SYN at doubling intervals.
#[test]
fn replica_that_was_started_behind_a_cut_follows_when_it_is_healed() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let since = pair.lab().cut("b")?;
    pair.redis("b")?.process().kill()?;
    pair.restart_redis("b", DataSet::Kept)?;
    pair.keep_writing(CUT)?;
    let mut eligible = Figure::new("eligible again, replica started behind a cut of 14 s");
    eligible.add(heal(&pair, since)?);
    eligible.print();
    Ok(())
}

/// Found by random faults: a lease that lapsed behind a cut had reset the connection at the master's side, and the replica waited for
/// the rest of its copy until `repl-timeout`, here ten minutes.
#[test]
fn copy_that_the_master_gave_up_behind_a_cut_is_begun_anew() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    // Microseconds for each key: some seconds for what was written so far.
    ask(&pair, "a", &["CONFIG", "SET", "rdb-key-save-delay", "10000"])?;
    pair.redis("b")?.process().kill()?;
    pair.restart_redis("b", DataSet::Removed)?;
    wait_until("a copy to be under way", slowed(Duration::from_secs(30)), || {
        let info = ask(&pair, "a", &["INFO", "replication"]).ok()?;
        info.contains("state=wait_bgsave").then_some(())
    })?;
    let since = pair.lab().cut_between("a", "b")?;
    let replica = pair.host("b")?.address().to_string();
    let port = format!(":{PORT}");
    pair.host("a")?.run_ok(&["ss", "-K", "-t", "dst", &replica, "sport", "=", &port])?;
    wait_until("the master to give it up", slowed(Duration::from_secs(30)), || {
        let info = ask(&pair, "a", &["INFO", "replication"]).ok()?;
        info.contains("connected_slaves:0").then_some(())
    })?;
    ask(&pair, "a", &["CONFIG", "SET", "rdb-key-save-delay", "0"])?;
    let mut eligible = Figure::new("eligible again, the master gave up its copy behind a cut");
    eligible.add(heal(&pair, since)?);
    eligible.print();
    Ok(())
}
