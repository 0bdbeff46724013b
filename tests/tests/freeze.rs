//! The master's Redis is frozen: another serves, and the thawed one answers nobody.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    Capture, ClusterFile, Figure, Frame, Lab, Mono, PORT, Pair, RedisOptions, VIP, Verdict,
    repetitions, tcp_segments,
};

const LEASE: Duration = Duration::from_millis(300);
/// How far back an unreplicated tail may reach: `max_lag` (3 s) and one lease.
const TAIL: Duration = Duration::from_millis(3300);
/// Of the group in these scenarios: asked every 50 ms, dead after two answers 100 ms late.
const PROBES: &str = "probe_interval = \"50ms\"\nprobe_timeout = \"100ms\"\nfall = 2\n";
/// From the freeze to the second late answer, at the latest.
const PROBES_FAIL_WITHIN: Duration = Duration::from_millis(250);
/// What the table allows, ten times over: it catches a hang on a busy machine.
const SERVICE_LIMIT: Duration = Duration::from_secs(3);

/// With the supervisor frozen too: service is to be back so long after the lease.
const PROMISED: Duration = Duration::from_millis(60);

/// Which processes of the master's host stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    Redis,
    RedisAndSupervisor,
}

fn start() -> Result<Pair> {
    let lab = Lab::builder().build()?;
    let mut file = ClusterFile::founding(&lab, "300ms")?;
    file.groups[0].extra = PROBES.to_owned();
    let mut pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
    pair.start_writers(&["na"])?;
    Ok(pair)
}

/// Freezes, waits for another master, thaws Redis first and the supervisor later; judges.
fn freeze_and_thaw(pair: &Pair, frozen: Frozen) -> Result<Verdict> {
    let old = pair.master()?;
    let redis = pair.redis(&old)?;
    let capture = Capture::start(pair.host("c")?, "eth0", &format!("tcp src port {PORT}"))?;
    let begun = Mono::now();
    if frozen == Frozen::RedisAndSupervisor {
        pair.supervisor(&old)?.process().freeze()?;
    }
    let fault = redis.process().freeze()?;
    let taken =
        pair.wait_taken_over(&old, fault).with_context(|| pair.story(begun, Mono::now()))?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    pair.keep_writing(LEASE)?;
    if frozen == Frozen::RedisAndSupervisor {
        let waiting = unread_requests(pair, &old)?;
        println!("{waiting} connections of {old} hold requests that were not read");
        ensure!(waiting > 0, "no request lies in the buffers of the frozen Redis");
    }
    let thawed = redis.process().thaw()?;
    pair.keep_writing(LEASE)?;
    if frozen == Frozen::RedisAndSupervisor {
        pair.supervisor(&old)?.process().thaw()?;
    }
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    pair.keep_writing(Duration::from_millis(100))?;
    let end = Mono::now();
    let outcome = pair.outcome()?.of_reign(&redis.instance(), fault);
    let verdict = outcome.verdict(fault, end);
    println!("{old} to {new}, frozen {frozen:?}: {verdict}");
    pair.tell_if_slow(&verdict, LEASE + PROMISED, begun);
    let leaked = replies_of(pair, &old, capture.finish()?, thawed)?;
    let judge = || -> Result<()> {
        verdict.ensure_one_master()?;
        outcome.ensure_silent_after(&redis.instance(), thawed)?;
        ensure!(leaked == 0, "{leaked} segments left the thawed {old} from the VIP");
        outcome.ensure_only_tail_lost(&redis.instance(), fault, TAIL)?;
        ensure!(verdict.service_back.is_some_and(|back| back < SERVICE_LIMIT), "too late");
        Ok(())
    };
    judge().with_context(|| format!("{verdict}\n{}", pair.story(begun - LEASE * 8, end)))?;
    Ok(verdict)
}

/// Connections through the VIP on a host in whose buffers lies what Redis has not read.
fn unread_requests(pair: &Pair, host: &str) -> Result<usize> {
    let local = format!("{VIP}:{PORT}");
    let listing = pair.host(host)?.run_ok(&["ss", "-Htn", "src", &local])?;
    let unread = |line: &&str| {
        let bytes = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        bytes.is_some_and(|bytes| bytes > 0)
    };
    Ok(listing.lines().filter(unread).count())
}

/// Segments with data that a host sent from the VIP after `from`, as the client's link saw them.
fn replies_of(pair: &Pair, host: &str, mut frames: Vec<Frame>, from: Mono) -> Result<usize> {
    let number = *pair.host(host)?.address_v4().octets().last().context("an address")?;
    let link = [2, 0x63, 0, 0, 0, number];
    // Bytes 6 to 11 of an Ethernet frame are its sender.
    frames.retain(|frame| frame.at > from && frame.bytes.get(6..12) == Some(&link[..]));
    let segments = tcp_segments(&frames);
    Ok(segments.iter().filter(|segment| segment.from.ip() == VIP).count())
}

#[test]
fn frozen_redis_is_replaced_and_answers_nobody_when_thawed() -> Result<()> {
    let pair = start()?;
    let mut back = Figure::new(&format!(
        "service back, Redis frozen, probes fail within {} ms",
        PROBES_FAIL_WITHIN.as_millis()
    ));
    for run in 0..repetitions(3, 10) {
        let verdict =
            freeze_and_thaw(&pair, Frozen::Redis).with_context(|| format!("run {run}"))?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

/// Nobody on the host can close anything: requests lie in Redis's buffers when it is thawed.
#[test]
fn redis_and_supervisor_frozen_together_answer_nobody_when_thawed() -> Result<()> {
    let pair = start()?;
    let mut back = Figure::new("service back, Redis and its supervisor frozen");
    for run in 0..repetitions(3, 10) {
        let verdict = freeze_and_thaw(&pair, Frozen::RedisAndSupervisor)
            .with_context(|| format!("run {run}"))?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}
