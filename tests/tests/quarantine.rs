//! An old master comes back with writes that the new one lacks: they are kept, and only then overwritten.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, DataSet, GROUP, Lab, LostWrite, Mono, PASSWORD, Pair, RedisOptions, Reply, ctl,
    slowed, wait_until,
};
use serde_json::Value;

const LEASE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(30);
/// Of a Redis that is no member of anything.
const OTHER_PORT: u16 = 7777;
/// Keys asked for at once.
const KEYS_A_REQUEST: usize = 200;

/// The master's host was cut off with clients on its side, and is a replica's again.
struct Returned {
    pair: Pair,
    old: String,
    begun: Mono,
    /// Acknowledged by it and not in the new master.
    lost: Vec<LostWrite>,
}

/// `behind`: what happens to the old master behind the cut.
fn cut_off_and_back(
    mut pair: Pair,
    behind: impl FnOnce(&mut Pair, &str) -> Result<()>,
) -> Result<Returned> {
    pair.start_writers(&["na", "nb"])?;
    let old = pair.master()?;
    ensure!(kept(&pair, &old)?.is_empty(), "something is kept already");
    let begun = Mono::now();
    let fault = pair.lab().cut(&old)?;
    let taken =
        pair.wait_taken_over(&old, fault).with_context(|| pair.story(begun, Mono::now()))?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    pair.keep_writing(slowed(LEASE))?;
    behind(&mut pair, &old)?;
    pair.lab().heal(&old)?;
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    pair.keep_writing(Duration::from_millis(100))?;
    let outcome = pair.outcome()?;
    let verdict = outcome.verdict(fault, Mono::now());
    println!("{old} cut off, {new} took over: {verdict}");
    verdict.ensure_one_master()?;
    let lost = outcome.lost().to_vec();
    ensure!(!lost.is_empty(), "the cut cost nothing: there is no tail");
    Ok(Returned { pair, old, begun, lost })
}

/// What `node` says that it keeps.
fn kept(pair: &Pair, node: &str) -> Result<Vec<Value>> {
    let said = ctl(pair.lab(), node, node, &["-o", "json", "quarantine", "list"])?.json()?;
    Ok(said["entries"].as_array().context("no entries")?.clone())
}

/// What a supervisor told since, in order.
fn told(pair: &Pair, node: &str, since: Mono) -> Vec<Value> {
    let watch = pair.events().iter().find(|watch| watch.node() == node);
    let events = watch.map(redkeep_lab::EventWatch::events).unwrap_or_default();
    events.into_iter().filter(|(at, _)| *at >= since).map(|(_, event)| event).collect()
}

fn position(events: &[Value], kind: &str) -> Result<usize> {
    let found = events.iter().position(|event| event["kind"].as_str() == Some(kind));
    found.with_context(|| format!("no event {kind} in {events:#?}"))
}

/// Those of the lost writes that a Redis has which is started from `file`.
fn read_back(pair: &Pair, file: &Path, lost: &[LostWrite]) -> Result<usize> {
    let client = pair.host("c")?;
    let directory = client.dir().join("from-quarantine");
    std::fs::create_dir_all(&directory)?;
    std::fs::copy(file, directory.join("dump.rdb"))?;
    let mut command = Command::new("redis-server");
    command.args(["--port", &OTHER_PORT.to_string(), "--bind", "*", "--requirepass", PASSWORD]);
    command.args(["--save", "", "--dbfilename", "dump.rdb", "--dir"]).arg(&directory);
    let server = client.spawn("from-quarantine", &command)?;
    let at = SocketAddr::new(client.address(), OTHER_PORT);
    wait_until("the kept file to be loaded", LIMIT, || {
        let answer = client.redis(at, PASSWORD, &["PING"]).ok()?;
        (answer.text().as_deref() == Some("PONG")).then_some(())
    })
    .with_context(|| server.log_text())?;
    let mut connection = client.connect(at, PASSWORD)?;
    let mut found = 0;
    for writes in lost.chunks(KEYS_A_REQUEST) {
        let mut words = vec!["MGET"];
        words.extend(writes.iter().map(|write| write.key.as_str()));
        let reply = connection.call(&words)?;
        let same = |(write, value): &(&LostWrite, &Reply)| {
            value.text().as_deref() == Some(write.key.as_str())
        };
        found += writes.iter().zip(reply.elements()).filter(same).count();
    }
    server.kill()?;
    Ok(found)
}

#[test]
fn writes_that_only_the_old_master_has_are_kept_before_it_is_repointed() -> Result<()> {
    let returned = cut_off_and_back(Pair::start("300ms")?, |_, _| Ok(()))?;
    ensure_all_kept(&returned)
}

/// It saves its data set, tail included, and reads it again. From Redis 7 on the file says of which history it is.
#[test]
fn a_tail_that_was_saved_by_a_restart_behind_the_cut_is_kept() -> Result<()> {
    let restart = |pair: &mut Pair, old: &str| {
        pair.redis(old)?.process().terminate()?;
        pair.redis(old)?.process().wait(LIMIT)?;
        pair.restart_redis(old, DataSet::Kept).map(drop)
    };
    ensure_all_kept(&cut_off_and_back(Pair::start("300ms")?, restart)?)
}

/// One file at the old master's node, kept before it was repointed, with every lost write in it.
fn ensure_all_kept(returned: &Returned) -> Result<()> {
    let Returned { pair, old, begun, lost } = returned;
    let entries = kept(pair, old)?;
    ensure!(entries.len() == 1, "{entries:#?}");
    let entry = &entries[0];
    let gap = entry["gap_bytes"].as_u64().context("the gap is not known")?;
    ensure!(gap > 0 && entry["epoch"].as_u64() == Some(2), "{entry:#}");
    let events = told(pair, old, *begun);
    let (quarantined, following) =
        (position(&events, "quarantined")?, position(&events, "following")?);
    ensure!(quarantined < following, "repointed before: {events:#?}");
    let text = events[quarantined]["text"].as_str().unwrap_or_default();
    ensure!(text.contains(&format!("{gap} bytes")), "{text}");
    let path = entry["path"].as_str().context("no path")?;
    let found = read_back(pair, Path::new(path), lost)?;
    let stamp = |at: usize| events[at]["mono_ns"].as_u64().unwrap_or_default();
    let serving = events.iter().rposition(|event| event["kind"].as_str() == Some("serving"));
    let took = serving.map(|at| stamp(quarantined).saturating_sub(stamp(at)) / 1_000_000);
    println!(
        "{gap} bytes of the stream, {} acknowledged writes lost, {found} of them in the {} bytes kept {took:?} ms after the master was known to serve",
        lost.len(),
        entry["size_bytes"],
    );
    ensure!(found == lost.len(), "{found} of {} lost writes are in {path}", lost.len());
    Ok(())
}

#[test]
fn a_data_set_beyond_the_bound_is_told_and_overwritten() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut file = ClusterFile::founding(&lab, "300ms")?;
    file.extra.push_str("\n[quarantine]\nmax_bytes = \"1KiB\"\n");
    let pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
    let Returned { pair, old, begun, .. } = cut_off_and_back(pair, |_, _| Ok(()))?;
    ensure!(kept(&pair, &old)?.is_empty(), "kept beyond the bound");
    let events = told(&pair, &old, begun);
    let (failed, following) =
        (position(&events, "quarantine_failed")?, position(&events, "following")?);
    ensure!(failed < following, "repointed before: {events:#?}");
    let text = events[failed]["text"].as_str().unwrap_or_default();
    ensure!(
        text.contains("max_bytes is 1024") && text.contains("bytes of what was written here"),
        "{text}"
    );
    println!("{text}");
    Ok(())
}

/// Expired keys make a master's offset grow by itself; a master that hands over is paused, so nothing expires in between.
#[test]
fn a_switchover_while_keys_expire_keeps_nothing_aside() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let old = pair.master()?;
    let begun = Mono::now();
    let mut connection = pair.host("c")?.connect(pair.vip(), PASSWORD)?;
    for number in 0..3000 {
        let (key, life_ms) = (format!("short:{number}"), (50 + number % 2000).to_string());
        connection.call(&["SET", &key, "value", "PX", &life_ms])?;
    }
    let said = pair.ctl(&["switchover", GROUP])?;
    ensure!(said.code == Some(0), "{said:?}");
    let taken = pair.wait_taken_over(&old, begun)?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    let events = told(&pair, &old, begun);
    ensure!(position(&events, "following").is_ok(), "not repointed: {events:#?}");
    for kind in ["quarantined", "quarantine_failed"] {
        ensure!(position(&events, kind).is_err(), "{kind} in a switchover: {events:#?}");
    }
    ensure!(kept(&pair, &old)?.is_empty(), "kept for nothing");
    Ok(())
}
