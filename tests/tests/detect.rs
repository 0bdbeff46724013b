//! A master's Redis that lives and is no use: a disk it cannot write, a role somebody gave it, a data set it loads for too long,
//! writes it holds back, a filter before its port; and two things that a takeover meets: another machine at the VIP, and hosts
//! that were all off.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, Figure, Lab, Mono, PASSWORD, PORT, Pair, RedisOptions, Reply, VIP, Verdict,
    slowed, wait_status, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// What may be lost by a failover: `max_lag` and a lease, with the second that Redis rounds by.
const TAIL: Duration = Duration::from_millis(4300);

fn pair_with(group: &str, redis: &[(&str, &str)]) -> Result<Pair> {
    let lab = Lab::builder().build()?;
    let mut file = ClusterFile::founding(&lab, "300ms")?;
    file.groups[0].extra.push_str(group);
    let mut options = RedisOptions::default();
    for (directive, value) in redis {
        options.extra.push(((*directive).to_owned(), (*value).to_owned()));
    }
    let mut pair = Pair::start_in(lab, &file, &options)?;
    pair.start_writers(&[])?;
    Ok(pair)
}

/// One command to the Redis of a host, from where the clients are.
fn order(pair: &Pair, host: &str, words: &[&str]) -> Result<Reply> {
    let at = SocketAddr::new(pair.host(host)?.address(), PORT);
    pair.host("c")?.redis(at, PASSWORD, words)
}

/// Waits until another serves, and judges the time since the fault.
fn taken_over(pair: &Pair, old: &str, fault: Mono, name: &str) -> Result<(String, Verdict)> {
    let taken = pair.wait_taken_over(old, fault).with_context(|| pair.story(fault, Mono::now()))?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    pair.keep_writing(Duration::from_millis(300))?;
    let end = Mono::now();
    let verdict = pair.outcome()?.verdict(fault, end);
    println!("{name}: {verdict}\n{}", pair.story(fault, end));
    verdict.ensure_one_master()?;
    verdict.ensure_lost_within(TAIL)?;
    let mut back = Figure::new(&format!("service back, {name}"));
    back.add(verdict.service_back.context("nobody took over")?);
    back.print();
    Ok((new, verdict))
}

/// Whether the node of a host has told an event whose text says `words`, since `from`.
fn told(pair: &Pair, host: &str, words: &str, from: Mono) -> bool {
    let says = |text: &serde_json::Value| text.as_str().is_some_and(|text| text.contains(words));
    let of_host = |watch: &&redkeep_lab::EventWatch| watch.node() == host;
    let events = pair.events().iter().find(of_host).map(redkeep_lab::EventWatch::events);
    events.unwrap_or_default().iter().any(|(at, event)| *at >= from && says(&event["text"]))
}

fn data_file(pair: &Pair, host: &str) -> Result<PathBuf> {
    Ok(pair.host(host)?.dir().join(format!("redis-{PORT}/data/dump.rdb")))
}

/// Snapshots fail since a directory that is not empty has the name of the file.
fn spoil(file: &PathBuf) -> Result<()> {
    if file.is_file() {
        std::fs::remove_file(file)?;
    }
    Ok(std::fs::create_dir_all(file.join("in-the-way"))?)
}

#[test]
fn master_that_cannot_write_its_disk_is_replaced_and_comes_back_when_it_can() -> Result<()> {
    let pair = pair_with("", &[("stop-writes-on-bgsave-error", "yes"), ("save", "2 1")])?;
    let old = pair.assignment("w")?.master;
    let file = data_file(&pair, &old)?;
    let begun = Mono::now();
    let refused = || {
        if !file.is_dir() {
            // A snapshot that was under way has put its file there.
            spoil(&file).ok()?;
        }
        let reply = order(&pair, &old, &["SET", "detect", "1"]);
        let misconf = matches!(&reply, Ok(Reply::Error(text)) if text.starts_with("MISCONF"));
        let down = told(&pair, &old, "Redis is down: DiskError", begun);
        (misconf || down).then(Mono::now)
    };
    let fault = wait_until("writes to be refused", LIMIT, refused)?;
    let (new, _) = taken_over(&pair, &old, fault, "disk error, from the first refusal")?;
    ensure!(told(&pair, &old, "Redis is down: DiskError", begun), "another reason");
    std::fs::remove_dir_all(&file)?;
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    Ok(())
}

/// The append-only file's disk is full: a file system of its own, which the lab unmounts.
#[test]
fn master_that_cannot_write_its_append_only_file_is_replaced() -> Result<()> {
    let lab = Lab::builder().build()?;
    let disk = lab.host("a")?.dir().join(format!("redis-{PORT}/data"));
    std::fs::create_dir_all(&disk)?;
    let mount = ["-t", "tmpfs", "-o", "size=32m", "tmpfs"];
    let mounted = Command::new("mount").args(mount).arg(&disk).status()?;
    ensure!(mounted.success(), "no tmpfs");
    let file = ClusterFile::founding(&lab, "300ms")?;
    let extra = [("appendonly", "yes"), ("save", "")];
    let extra = extra.map(|(word, value)| (word.to_owned(), value.to_owned())).to_vec();
    let options = RedisOptions { extra, ..RedisOptions::default() };
    let mut pair = Pair::start_in(lab, &file, &options)?;
    pair.start_writers(&[])?;
    ensure!(pair.assignment("w")?.master == "a", "the disk is a's");
    let (begun, filler) = (Mono::now(), disk.join("filler"));
    let full = std::fs::write(&filler, vec![0; 64 << 20]);
    ensure!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull), "not full");
    let refused = || {
        let reply = order(&pair, "a", &["SET", "detect", "1"]);
        let full = "MISCONF Errors writing to the AOF file";
        let misconf = matches!(&reply, Ok(Reply::Error(text)) if text.starts_with(full));
        let down = told(&pair, "a", "Redis is down: DiskError", begun);
        (misconf || down).then(Mono::now)
    };
    let fault = wait_until("writes to be refused", LIMIT, refused)?;
    let (new, _) = taken_over(&pair, "a", fault, "full disk of an append-only file")?;
    ensure!(told(&pair, "a", "Redis is down: DiskError", begun), "another reason");
    std::fs::remove_file(&filler)?;
    pair.wait_replica("a", &new, "w").with_context(|| pair.story(begun, Mono::now()))
}

#[test]
fn master_that_is_made_a_replica_by_hand_serves_again_and_keeps_its_data() -> Result<()> {
    let pair = pair_with("", &[])?;
    let before = pair.assignment("w")?;
    let other = pair.other(&before.master)?.to_owned();
    let at = pair.host(&other)?.address().to_string();
    let fault = Mono::now();
    let done = order(&pair, &before.master, &["REPLICAOF", &at, &PORT.to_string()])?;
    ensure!(done == Reply::Simple("OK".to_owned()), "{done:?}");
    let fenced = || told(&pair, &before.master, "changed role by itself", fault).then_some(());
    wait_until("the fence", LIMIT, fenced).with_context(|| pair.story(fault, Mono::now()))?;
    pair.keep_writing(Duration::from_millis(500))?;
    let end = Mono::now();
    let after = pair.assignment("w")?;
    let verdict = pair.outcome()?.verdict(fault, end);
    println!("REPLICAOF by hand at {}, then {after:?}: {verdict}", before.master);
    println!("{}", pair.story(fault, end));
    verdict.ensure_one_master()?;
    ensure!(verdict.lost == 0, "lost {}", verdict.lost);
    ensure!(after.epoch > before.epoch, "no new epoch: {after:?}");
    let mut gap = Figure::new("write gap, REPLICAOF by hand");
    gap.add(verdict.write_gap);
    gap.print();
    let replica = pair.other(&after.master)?.to_owned();
    pair.wait_replica(&replica, &after.master, "w")
}

/// `DEBUG RELOAD` loads in the same process; a delay for each key makes it long.
#[test]
fn master_that_loads_for_longer_than_its_timeout_is_replaced() -> Result<()> {
    let debug =
        [("enable-debug-command", "yes"), ("loading-process-events-interval-bytes", "1024")];
    let pair = pair_with("loading_timeout = \"1s\"\n", &debug)?;
    let old = pair.assignment("w")?.master;
    order(&pair, &old, &["DEBUG", "POPULATE", "6000"])?;
    order(&pair, &old, &["CONFIG", "SET", "key-load-delay", "1500"])?;
    let address = pair.host(&old)?.address().to_string();
    let mut command = Command::new("redis-cli");
    command.args(["-h", &address, "-p", &PORT.to_string(), "--no-auth-warning", "-a", PASSWORD]);
    let fault = Mono::now();
    let _reload = pair.host("c")?.spawn("reload", command.args(["DEBUG", "RELOAD"]))?;
    let (new, verdict) = taken_over(&pair, &old, fault, "LOADING, loading_timeout 1 s")?;
    ensure!(told(&pair, &old, "Redis is down: LoadingTooLong", fault), "another reason");
    ensure!(verdict.service_back >= Some(Duration::from_secs(1)), "before its time");
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(fault, Mono::now()))
}

#[test]
fn master_that_answers_and_holds_writes_back_is_replaced() -> Result<()> {
    let pair = pair_with("", &[])?;
    let old = pair.assignment("w")?.master;
    let fault = Mono::now();
    order(&pair, &old, &["CLIENT", "PAUSE", "600000", "WRITE"])?;
    let (new, verdict) = taken_over(&pair, &old, fault, "CLIENT PAUSE WRITE by hand")?;
    ensure!(told(&pair, &old, "Redis is down: WritesHeld", fault), "another reason");
    ensure!(verdict.lost == 0, "lost {}", verdict.lost);
    ensure!(verdict.service_back < Some(slowed(Duration::from_secs(10))), "{verdict}");
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(fault, Mono::now()))
}

/// A pause that is over in time is none of our business.
#[test]
fn short_pause_of_writes_moves_nothing() -> Result<()> {
    let pair = pair_with("", &[])?;
    let before = pair.assignment("w")?;
    let fault = Mono::now();
    order(&pair, &before.master, &["CLIENT", "PAUSE", "200", "WRITE"])?;
    pair.keep_writing(Duration::from_secs(3))?;
    ensure!(pair.assignment("w")?.is_as(&before), "moved");
    let verdict = pair.outcome()?.verdict(fault, Mono::now());
    ensure!(verdict.lost == 0 && verdict.service_back.is_none(), "{verdict}");
    Ok(())
}

/// Before the port of Redis at a host; its supervisor is heard as before.
fn filter(pair: &Pair, host: &str, from: &[&str]) -> Result<Mono> {
    let from = from.iter().map(|name| Ok(pair.host(name)?.address()));
    pair.host(host)?.filter_port(PORT, &from.collect::<Result<Vec<_>>>()?)
}

/// The filter is still there when the old master follows; then it goes, and nothing moves again.
fn filtered_master_is_moved(from: &[&str], name: &str) -> Result<()> {
    let pair = pair_with("", &[])?;
    // Leadership is at the witness, and every node has looked at the master.
    wait_status(pair.lab(), "w", "w to lead", LIMIT, |status| status["leader"] == "w")?;
    pair.keep_writing(slowed(Duration::from_millis(1500)))?;
    let before = pair.assignment("w")?;
    let old = before.master.clone();
    let fault = filter(&pair, &old, from)?;
    let (new, verdict) = taken_over(&pair, &old, fault, name)?;
    ensure!(
        told(&pair, &old, "a majority of nodes cannot reach its Redis", fault),
        "another reason"
    );
    ensure!(told(&pair, "w", "master unreached", fault), "another cause");
    let unreached = format!("Redis at {old} cannot be reached from here");
    ensure!(
        told(&pair, "w", &unreached, fault) && told(&pair, &new, &unreached, fault),
        "not told"
    );
    // A second between looks, three probes that time out, and the move.
    ensure!(verdict.service_back < Some(slowed(Duration::from_millis(2500))), "{verdict}");
    ensure!(!from.is_empty() || verdict.lost == 0, "nobody could write there: {verdict}");
    let is_back = |status: &serde_json::Value| {
        status["groups"][0]["eligible"][0]["node"].as_str() == Some(old.as_str())
    };
    wait_status(pair.lab(), "w", "the old master to be eligible", LIMIT, is_back)
        .with_context(|| pair.story(fault, Mono::now()))?;
    pair.keep_writing(slowed(Duration::from_millis(2500)))?;
    pair.host(&old)?.lift_filters()?;
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(fault, Mono::now()))?;
    pair.wait_healthy()?;
    let after = pair.assignment("w")?;
    ensure!(
        (&after.master, after.epoch) == (&new, before.epoch + 1),
        "moved again: {after:?}\n{}",
        pair.story(fault, Mono::now())
    );
    Ok(())
}

#[test]
fn master_that_nobody_else_can_reach_is_replaced() -> Result<()> {
    filtered_master_is_moved(&[], "port filtered for all others")
}

/// Clients still write there: what they write until the fence is the tail.
#[test]
fn master_that_the_other_nodes_cannot_reach_is_replaced() -> Result<()> {
    filtered_master_is_moved(&["a", "b", "w"], "port filtered for the other nodes")
}

#[test]
fn master_that_one_node_cannot_reach_stays_and_it_is_told() -> Result<()> {
    let pair = pair_with("", &[])?;
    let before = pair.assignment("w")?;
    let other = pair.other(&before.master)?.to_owned();
    pair.keep_writing(slowed(Duration::from_millis(1500)))?;
    let fault = filter(&pair, &before.master, &[&other])?;
    let words = format!("cannot be reached from {other} (no answer within");
    let said = || {
        let explained =
            pair.ctl(&["-o", "json", "explain", redkeep_lab::GROUP]).ok()?.json().ok()?;
        let problems = explained["problems"].as_array()?.clone();
        let says = |p: &serde_json::Value| p["text"].as_str().is_some_and(|t| t.contains(&words));
        problems.iter().any(says).then_some(())
    };
    wait_until("explain to say who does not reach it", LIMIT, said)
        .with_context(|| pair.story(fault, Mono::now()))?;
    pair.keep_writing(slowed(Duration::from_secs(5)))?;
    let end = Mono::now();
    ensure!(pair.assignment("w")?.is_as(&before), "moved: {}", pair.story(fault, end));
    let verdict = pair.outcome()?.verdict(fault, end);
    ensure!(verdict.lost == 0 && verdict.service_back.is_none(), "{verdict}");
    pair.host(&before.master)?.lift_filters()?;
    pair.wait_healthy()?;
    ensure!(pair.assignment("w")?.is_as(&before), "moved: {}", pair.story(fault, Mono::now()));
    Ok(())
}

#[test]
fn another_machine_at_the_vip_is_told_at_the_takeover() -> Result<()> {
    let pair = pair_with("", &[])?;
    let old = pair.assignment("w")?.master;
    let beside = if old == "a" { "nb" } else { "na" };
    let address = format!("{VIP}/32");
    pair.host(beside)?.run_ok(&["ip", "addr", "add", &address, "dev", "eth0"])?;
    let fault = pair.redis(&old)?.process().kill()?;
    let new = pair.other(&old)?.to_owned();
    let rival = || told(&pair, &new, "another host answers for the VIP", fault).then(Mono::now);
    let seen =
        wait_until("the event", LIMIT, rival).with_context(|| pair.story(fault, Mono::now()))?;
    let mut figure = Figure::new("rival told, from the fault");
    figure.add(seen.since(fault));
    figure.print();
    pair.host(beside)?.remove_address(IpAddr::V4(VIP))?;
    pair.wait_taken_over(&old, fault).map(drop)
}

/// Nobody serves when they come back; what the last master had on disk counts.
#[test]
fn hosts_that_were_all_off_serve_again_with_the_data_of_the_last_master() -> Result<()> {
    let mut pair = pair_with("", &[("appendonly", "yes"), ("appendfsync", "always")])?;
    let old = pair.assignment("w")?.master;
    ensure!(old == "a", "only a's file makes a master");
    pair.keep_writing(Duration::from_millis(500))?;
    let fault = Mono::now();
    let (off, started) = pair.restart_all_hosts()?;
    let serves = |status: &serde_json::Value| {
        let group = &status["groups"][0];
        group["serving"] == true && group["master"] == "a"
    };
    wait_status(pair.lab(), "w", "the last master to serve", LIMIT, serves)?;
    let instance = pair.redis("a")?.instance();
    let held = &pair.writers()[1];
    wait_until("a write to be answered by it", LIMIT, || {
        held.last_server().filter(|server| **server == *instance)
    })?;
    let mut figure = Figure::new("service back, all hosts restarted, from the supervisors' start");
    figure.add(Mono::now().since(started));
    figure.print();
    println!("all off after {:.0} ms", off.millis_from(fault));
    let outcome = pair.outcome()?;
    ensure!(outcome.lost().is_empty(), "lost {} writes", outcome.lost().len());
    pair.wait_replica("b", "a", "w")
}
