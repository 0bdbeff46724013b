//! Somebody makes a replica's Redis take writes: a person, or a Sentinel that was left running.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    DataSet, Figure, GROUP, Mono, PASSWORD, PORT, Pair, Reply, WriterSpec, drop_in, slowed,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Far longer than the probe's interval of 100 ms: what ends with the element shows.
const LEASE: &str = "5s";
/// The table says a probe's interval; five times that leaves room for a busy machine, and none for the lease.
const SHUT_WITHIN: Duration = Duration::from_millis(500);
const BESIDE: &str = "beside";

/// A pair with a writer that tries the replica's own address all the time; and that address.
fn start() -> Result<(Pair, String, SocketAddr)> {
    let mut pair = Pair::start(LEASE)?;
    pair.start_writers(&[])?;
    let master = pair.assignment("w")?.master;
    let replica = pair.other(&master)?.to_owned();
    let at = SocketAddr::new(pair.host(&replica)?.address(), PORT);
    pair.start_writer("c", WriterSpec::fresh(BESIDE, at).beside_victim())?;
    wait_until("the replica to refuse a write", LIMIT, || refused(&pair, Mono(0)).then_some(()))?;
    Ok((pair, replica, at))
}

fn refused(pair: &Pair, from: Mono) -> bool {
    let records = pair.records();
    let mut beside = records.iter().filter(|(spec, _)| spec.name == BESIDE);
    beside.any(|(_, record)| record.refusals.iter().any(|refusal| refusal.at > from))
}

/// When a client was last told by the replica, after the deed, that it had written.
fn last_taken(pair: &Pair, deed: Mono) -> Option<Duration> {
    let records = pair.records();
    let beside = records.iter().filter(|(spec, _)| spec.name == BESIDE);
    let acks = beside.flat_map(|(_, record)| &record.acks);
    acks.filter(|ack| ack.seen >= deed).map(|ack| ack.seen.since(deed)).max()
}

/// Whether its node has told that it closed the port.
fn told_closed(pair: &Pair, host: &str, from: Mono) -> bool {
    let says = |event: &serde_json::Value| {
        event["text"].as_str().is_some_and(|text| text.ends_with("its port is closed"))
    };
    let watch = pair.events().iter().find(|watch| watch.node() == host);
    let events = watch.map(redkeep_lab::EventWatch::events).unwrap_or_default();
    events.iter().any(|(at, event)| *at >= from && says(event))
}

fn judge(pair: &Pair, (host, deed): (&str, Mono), name: &str) -> Result<()> {
    ensure!(told_closed(pair, host, deed), "not told: {}", pair.story(deed, Mono::now()));
    let taken = last_taken(pair, deed).unwrap_or_default();
    let mut figure = Figure::new(&format!("writes taken beside the master, {name}"));
    figure.add(taken);
    figure.print();
    let story = || pair.story(deed, Mono::now());
    ensure!(taken < slowed(SHUT_WITHIN), "writes taken for {taken:?}\n{}", story());
    let end = Mono::now();
    let outcome = pair.outcome()?;
    let of_clients = |lost: &&redkeep_lab::LostWrite| !lost.key.contains(BESIDE);
    let lost = outcome.lost().iter().filter(of_clients).count();
    ensure!(lost == 0, "{lost} writes at the VIP are lost\n{}", story());
    for writer in ["fresh", "held"] {
        let refusals = outcome.refusals(writer, deed, end);
        ensure!(refusals.is_empty(), "{writer} was disturbed: {refusals:?}\n{}", story());
    }
    Ok(())
}

#[test]
fn replica_promoted_by_hand_takes_writes_for_no_longer_than_a_probe_and_follows_again() -> Result<()>
{
    let (pair, replica, at) = start()?;
    let before = pair.assignment("w")?;
    let deed = Mono::now();
    let done = pair.host("c")?.redis(at, PASSWORD, &["REPLICAOF", "NO", "ONE"])?;
    ensure!(done == Reply::Simple("OK".to_owned()), "{done:?}");
    pair.wait_replica(&replica, &before.master, "w")
        .with_context(|| pair.story(deed, Mono::now()))?;
    judge(&pair, (&replica, deed), "REPLICAOF NO ONE")?;
    ensure!(pair.assignment("w")?.is_as(&before), "moved: {}", pair.story(deed, Mono::now()));
    Ok(())
}

#[test]
fn replica_that_is_told_to_take_writes_is_closed_until_it_is_read_only_again() -> Result<()> {
    let (mut pair, replica, at) = start()?;
    let before = pair.assignment("w")?;
    let deed = Mono::now();
    let order = ["CONFIG", "SET", "slave-read-only", "no"];
    let done = pair.host("c")?.redis(at, PASSWORD, &order)?;
    ensure!(done == Reply::Simple("OK".to_owned()), "{done:?}");
    let words = "takes writes (replica-read-only no); its port is closed";
    let said = || {
        let explained = pair.ctl(&["-o", "json", "explain", GROUP]).ok()?.json().ok()?;
        let problems = explained["problems"].as_array()?.clone();
        problems.iter().any(|p| p["text"].as_str().is_some_and(|t| t.contains(words))).then_some(())
    };
    wait_until("explain to say so", LIMIT, said).with_context(|| pair.story(deed, Mono::now()))?;
    ensure!(pair.host("c")?.redis(at, PASSWORD, &["PING"]).is_err(), "its port is open");
    judge(&pair, (&replica, deed), "replica-read-only no")?;
    // Its file says yes.
    pair.redis(&replica)?.process().kill()?;
    drop_in(pair.host(&replica)?)?;
    pair.restart_redis(&replica, DataSet::Kept)?;
    pair.wait_replica(&replica, &before.master, "w")?;
    ensure!(pair.assignment("w")?.is_as(&before), "moved: {}", pair.story(deed, Mono::now()));
    Ok(())
}
