//! Durability strict: a master that misses its replica refuses writes until the log says that the replica is lost.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, DataSet, Failure, Figure, Lab, Mono, PASSWORD, PORT, Pair, RedisOptions, Reply,
    wait_status, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a clear distance between the refusal (3 to 4 s) and the commit.
const MAX_LAG: &str = "durability = \"strict\"\nmax_lag = \"8s\"\n";

fn strict_pair(extra: &str) -> Result<Pair> {
    let lab = Lab::builder().build()?;
    let mut file = ClusterFile::founding(&lab, "300ms")?;
    file.groups[0].extra.push_str(extra);
    let mut pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
    pair.start_writers(&[])?;
    wait_asked(&pair, "a", 1)?;
    Ok(pair)
}

/// `min-replicas-to-write` of a host's Redis.
fn asked(pair: &Pair, host: &str) -> Result<String> {
    let at = SocketAddr::new(pair.host(host)?.address(), PORT);
    let words = ["CONFIG", "GET", "min-replicas-to-write"];
    let reply = pair.host("c")?.redis(at, PASSWORD, &words)?;
    reply.elements().get(1).and_then(Reply::text).context("no such setting")
}

fn wait_asked(pair: &Pair, host: &str, number: u64) -> Result<()> {
    let text = number.to_string();
    let it = || asked(pair, host).ok().filter(|it| *it == text);
    wait_until(&format!("{host} to ask for {number} replicas"), LIMIT, it)?;
    let shown = |status: &serde_json::Value| {
        let group = &status["groups"][0];
        group["durability"] == "strict" && group["min_replicas"] == number
    };
    wait_status(pair.lab(), "w", "the status to say so", LIMIT, shown).map(drop)
}

/// When the node of a host applied a set, since `from`.
fn applied(pair: &Pair, host: &str, text: &str, from: Mono) -> Option<Mono> {
    let watch = pair.events().iter().find(|watch| watch.node() == host)?;
    let is_it = |(at, event): &(Mono, serde_json::Value)| *at >= from && event["text"] == text;
    watch.events().into_iter().find(is_it).map(|(at, _)| at)
}

#[test]
fn silent_replica_stops_writes_until_its_loss_is_committed() -> Result<()> {
    let pair = strict_pair(MAX_LAG)?;
    let held = &pair.writers()[1];
    let cut = pair.lab().cut_between("a", "b")?;
    let refused = || {
        let record = held.record();
        let is_it = |failure: &Failure| matches!(failure, Failure::Answer(text) if text.starts_with("NOREPLICAS"));
        let first = record.refusals.iter().find(|r| r.at > cut && is_it(&r.failure));
        first.map(|refusal| refusal.at)
    };
    let stopped = wait_until("writes to be refused", LIMIT, refused)
        .with_context(|| pair.story(cut, Mono::now()))?;
    let empty = || applied(&pair, "a", "the eligible set is empty", cut);
    let committed = wait_until("the replica to leave the set", LIMIT, empty)?;
    held.wait_more(50, LIMIT)?;
    let end = Mono::now();
    let record = held.record();
    let between = record.acks.iter().filter(|ack| ack.seen > stopped && ack.seen < committed);
    ensure!(between.count() == 0, "acknowledged before the commit\n{}", pair.story(cut, end));
    let went_on = record.acks.iter().find(|ack| ack.seen > committed).context("no write")?;
    for (name, from, to) in [
        ("writes refused, from the cut", cut, stopped),
        ("writes go on, from the commit", committed, went_on.seen),
    ] {
        let mut figure = Figure::new(name);
        figure.add(to.since(from));
        figure.print();
    }
    ensure!(stopped.since(cut) < Duration::from_secs(6), "{:?}", stopped.since(cut));
    wait_asked(&pair, "a", 0)?;
    pair.lab().heal_all()?;
    pair.wait_replica("b", "a", "w")?;
    wait_asked(&pair, "a", 1)?;
    let verdict = pair.outcome()?.verdict(cut, Mono::now());
    ensure!(verdict.lost == 0 && verdict.service_back.is_none(), "{verdict}");
    Ok(())
}

#[test]
fn dead_replica_costs_milliseconds_and_a_failover_loses_no_more_than_before() -> Result<()> {
    let mut pair = strict_pair("durability = \"strict\"\n")?;
    let killed = pair.redis("b")?.process().kill()?;
    pair.keep_writing(Duration::from_millis(500))?;
    let verdict = pair.outcome()?.since(killed - Duration::from_millis(100));
    let verdict = verdict.verdict(killed, Mono::now());
    let mut gap = Figure::new("write gap, the replica of a strict pair killed");
    gap.add(verdict.write_gap);
    gap.print();
    ensure!(verdict.lost == 0 && verdict.service_back.is_none(), "{verdict}");
    wait_asked(&pair, "a", 0)?;
    pair.restart_redis("b", DataSet::Kept)?;
    pair.wait_replica("b", "a", "w")?;
    wait_asked(&pair, "a", 1)?;
    let fault = pair.redis("a")?.process().kill()?;
    pair.wait_taken_over("a", fault)?;
    wait_asked(&pair, "b", 0)?;
    pair.restart_redis("a", DataSet::Kept)?;
    pair.wait_replica("a", "b", "w")?;
    wait_asked(&pair, "b", 1)?;
    let verdict = pair.outcome()?.verdict(fault, Mono::now());
    println!("a strict pair's master killed: {verdict}");
    verdict.ensure_one_master()?;
    verdict.ensure_lost_within(Duration::from_secs(1))
}

#[test]
fn switchover_of_a_strict_pair_loses_nothing_and_the_new_master_asks_for_the_old_one() -> Result<()>
{
    let pair = strict_pair("durability = \"strict\"\n")?;
    let begun = Mono::now();
    let said = pair.ctl(&["switchover", "pair", "--wait", "--yes"])?;
    ensure!(said.code == Some(0), "{said:?}");
    pair.wait_taken_over("a", begun)?;
    wait_asked(&pair, "b", 1)?;
    pair.keep_writing(Duration::from_millis(300))?;
    let verdict = pair.outcome()?.verdict(begun, Mono::now());
    println!("switchover of a strict pair: {verdict}");
    let mut gap = Figure::new("write gap, switchover of a strict pair");
    gap.add(verdict.write_gap);
    gap.print();
    verdict.ensure_one_master()?;
    ensure!(verdict.lost == 0, "{verdict}");
    Ok(())
}

#[test]
fn restarted_supervisor_leaves_what_redis_was_told() -> Result<()> {
    let mut pair = strict_pair("durability = \"strict\"\n")?;
    pair.supervisor("a")?.process().kill()?;
    let restarted = pair.restart_supervisor("a")?;
    let mut lowest = "1".to_owned();
    wait_until("a second and a half", LIMIT, || {
        if let Ok(it) = asked(&pair, "a") {
            lowest = it.min(lowest.clone());
        }
        (Mono::now().since(restarted) > Duration::from_millis(1500)).then_some(())
    })?;
    ensure!(lowest == "1", "it asked for {lowest}");
    pair.keep_writing(Duration::from_millis(300))?;
    wait_asked(&pair, "a", 1)
}
