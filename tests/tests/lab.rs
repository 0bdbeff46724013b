//! The lab proves itself: cuts cut, writers count, losses and double masters are seen, and
//! nothing is left behind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    AddressWatch, Builder, Capture, DataSet, Directory, Lab, Mono, Outcome, PASSWORD, PORT, Redis,
    RedisOptions, Reply, WallOffset, Writer, WriterSpec, arp_packets, namespaces_with, sweep,
    tcp_segments, wait_stream, wait_until,
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const LIMIT: Duration = Duration::from_secs(20);

fn at(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), PORT)
}

/// A master on `a` with the VIP and a replica on `b` to which writes flow.
fn start_pair(lab: &Lab) -> Result<(Redis, Redis)> {
    let (a, b) = (lab.host("a")?, lab.host("b")?);
    let master = Redis::start(a, RedisOptions::default())?;
    a.add_address(IpAddr::V4(VIP))?;
    let replica = Redis::start(b, RedisOptions::replica_of(at(a.address())))?;
    wait_stream(a, b, LIMIT)?;
    Ok((master, replica))
}

/// Connection attempts from `from` to `to` for a second: when sent, and whether refused, which
/// proves that the path is whole.
fn attempts(lab: &Lab, from: &str, to: &str) -> Result<Vec<(Mono, bool)>> {
    let target = SocketAddr::from((lab.host(to)?.address(), 9));
    lab.host(from)?.in_namespace(move || {
        let mut seen = Vec::new();
        let end = Mono::now() + Duration::from_secs(1);
        while Mono::now() < end {
            let sent = Mono::now();
            let limit = Duration::from_millis(10);
            let error = std::net::TcpStream::connect_timeout(&target, limit).err();
            let refused = |kind| kind == std::io::ErrorKind::ConnectionRefused;
            seen.push((sent, error.is_some_and(|error| refused(error.kind()))));
        }
        seen
    })
}

#[test]
fn cut_takes_effect_within_two_milliseconds_and_heals() -> Result<()> {
    let lab = Lab::builder().build()?;
    lab.wait_reachable("c", "a", LIMIT)?;
    let lab = std::sync::Arc::new(lab);
    let observer = std::thread::spawn({
        let lab = std::sync::Arc::clone(&lab);
        move || attempts(&lab, "c", "a")
    });
    wait_until("half a window", LIMIT, {
        let started = Mono::now();
        move || (Mono::now().since(started) > Duration::from_millis(300)).then_some(())
    })?;
    let began = Mono::now();
    let cut = lab.cut("a")?;
    ensure!(cut.since(began) < Duration::from_millis(2), "cut took {:?}", cut.since(began));
    wait_until("the window of the cut", LIMIT, move || {
        (Mono::now().since(cut) > Duration::from_millis(200)).then_some(())
    })?;
    let healed = lab.heal("a")?;
    println!("cut in {:?}", cut.since(began));
    let seen = observer.join().expect("observer")?;
    let during: Vec<_> = seen
        .iter()
        .filter(|(sent, _)| *sent > cut && *sent + Duration::from_millis(12) < healed)
        .collect();
    let before = seen.iter().filter(|(sent, whole)| *sent < began && *whole).count();
    let after = seen.iter().filter(|(sent, whole)| *sent > healed && *whole).count();
    ensure!(during.len() >= 5 && during.iter().all(|(_, whole)| !whole), "leaks: {during:?}");
    ensure!(before > 100 && after > 100, "answers before {before}, after {after}");
    Ok(())
}

/// Counts of datagrams that `listener` got from `sender`.
fn datagrams_arrive(lab: &Lab, sender: &str, listener: &str) -> Result<bool> {
    let address = SocketAddr::from((lab.host(listener)?.address(), 7000));
    let socket = lab.host(listener)?.in_namespace(move || std::net::UdpSocket::bind(address))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let sending = move || -> std::io::Result<usize> {
        std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", address)
    };
    lab.host(sender)?.in_namespace(sending)??;
    Ok(socket.recv(&mut [0; 4]).is_ok())
}

/// Gives two hosts each other's link address, so that a one-way cut does not stop resolution.
fn pin_neighbours(lab: &Lab, hosts: &[(&str, u8)]) -> Result<()> {
    for (host, _) in hosts {
        for (other, number) in hosts.iter().filter(|(other, _)| other != host) {
            let address = lab.host(other)?.address().to_string();
            let link = format!("02:63:00:00:00:{number:02x}");
            let words = ["ip", "neigh", "replace", &address, "lladdr", &link, "dev", "eth0"];
            lab.host(host)?.run_ok(&words)?;
        }
    }
    Ok(())
}

#[test]
fn deaf_and_mute_are_one_way_and_spare_the_neighbour() -> Result<()> {
    let lab = Lab::builder().build()?;
    pin_neighbours(&lab, &[("a", 1), ("b", 2), ("na", 51)])?;
    let check = |expected: [bool; 4]| -> Result<()> {
        let found = [
            datagrams_arrive(&lab, "b", "a")?,
            datagrams_arrive(&lab, "a", "b")?,
            datagrams_arrive(&lab, "na", "a")?,
            datagrams_arrive(&lab, "a", "na")?,
        ];
        ensure!(found == expected, "b>a a>b na>a a>na: {found:?}, not {expected:?}");
        Ok(())
    };
    check([true; 4])?;
    lab.deaf("a")?;
    check([false, true, true, true])?;
    lab.heal("a")?;
    lab.mute("a")?;
    check([true, false, true, true])?;
    lab.heal_all()?;
    lab.cut_between("a", "b")?;
    check([false, false, true, true])?;
    lab.heal_all()?;
    check([true; 4])
}

#[test]
fn writers_count_exactly_and_nothing_is_lost_in_peace() -> Result<()> {
    let lab = Lab::builder().build()?;
    let (master, _replica) = start_pair(&lab)?;
    let client = lab.host("c")?;
    let began = Mono::now();
    let fresh = Writer::start(client, WriterSpec::fresh("fresh", at(VIP)))?;
    let held = Writer::start(client, WriterSpec::held("held", at(VIP)))?;
    fresh.wait_more(150, LIMIT)?;
    held.wait_more(150, LIMIT)?;
    ensure!(fresh.last_server().as_deref() == Some(&master.instance()), "who answered?");
    let writers = vec![fresh.finish(), held.finish()];
    let end = Mono::now();
    for (spec, record) in &writers {
        ensure!(record.refusals.is_empty(), "{}: {:?}", spec.name, record.refusals);
        let unanswered = record.sent - record.acks.len() as u64;
        ensure!(unanswered <= 3, "{}: {unanswered} of {} unanswered", spec.name, record.sent);
    }
    let sent: u64 = writers.iter().map(|(_, record)| record.sent).sum();
    let outcome = Outcome::collect(writers, client, at(VIP))?;
    ensure!(outcome.lost().is_empty(), "lost {:?}", outcome.lost());
    let size = client.redis(at(VIP), PASSWORD, &["DBSIZE"])?;
    let Reply::Integer(size) = size else { anyhow::bail!("DBSIZE: {size:?}") };
    let (acked, size) = (outcome.acked(), usize::try_from(size)?);
    ensure!(acked <= size && size as u64 <= sent, "acked {acked}, stored {size}, sent {sent}");
    let verdict = outcome.verdict(began, end);
    ensure!(verdict.acked == acked && verdict.two_masters.seen.is_zero(), "{verdict}");
    Ok(())
}

/// Promotes `b` by hand and moves the VIP there.
fn take_over_by_hand(lab: &Lab) -> Result<()> {
    let b = lab.host("b")?;
    b.redis(at(Ipv4Addr::LOCALHOST), PASSWORD, &["REPLICAOF", "NO", "ONE"])?;
    b.add_address(IpAddr::V4(VIP))?;
    Ok(())
}

#[test]
fn unreplicated_writes_are_reported_lost() -> Result<()> {
    let lab = Lab::builder().build()?;
    let (master, replica) = start_pair(&lab)?;
    let writer = Writer::start(lab.host("c")?, WriterSpec::held("w", at(VIP)))?;
    writer.wait_more(100, LIMIT)?;
    let cut = lab.cut_between("a", "b")?;
    writer.wait_more(100, LIMIT)?;
    let killed = master.process().kill()?;
    lab.host("a")?.remove_address(IpAddr::V4(VIP))?;
    take_over_by_hand(&lab)?;
    writer.wait_other_server(&master.instance(), killed, LIMIT)?;
    writer.wait_more(50, LIMIT)?;
    let outcome = Outcome::collect(vec![writer.finish()], lab.host("c")?, at(VIP))?;
    let verdict = outcome.verdict(killed, Mono::now());
    ensure!(outcome.lost().len() >= 95, "only {} lost", outcome.lost().len());
    let early = outcome.lost().iter().filter(|lost| lost.ack.seen < cut).count();
    // One write may be acknowledged before the cut and not yet be on its way to the replica.
    ensure!(early <= 1, "{early} lost before the cut");
    ensure!(verdict.lost == outcome.lost().len(), "{verdict}");
    ensure!(verdict.service_back.is_some() && verdict.two_masters.seen.is_zero(), "{verdict}");
    ensure!(verdict.new_server == Some(replica.instance()), "{verdict}");
    ensure!(replica.promotions(WallOffset::measure()).len() == 1, "{}", replica.log_text());
    Ok(())
}

#[test]
fn two_masters_are_reported() -> Result<()> {
    let lab = Lab::builder().build()?;
    let (master, _replica) = start_pair(&lab)?;
    let clients = Writer::start(lab.host("c")?, WriterSpec::fresh("clients", at(VIP)))?;
    let spec = WriterSpec::held("victim", at(VIP)).beside_victim();
    let victim = Writer::start(lab.host("na")?, spec)?;
    clients.wait_more(20, LIMIT)?;
    victim.wait_more(20, LIMIT)?;
    let cut = lab.cut("a")?;
    take_over_by_hand(&lab)?;
    let first = clients.wait_other_server(&master.instance(), cut, LIMIT)?;
    victim.wait_more(100, LIMIT)?;
    let end = Mono::now();
    let writers = vec![clients.finish(), victim.finish()];
    let outcome = Outcome::collect(writers, lab.host("c")?, at(VIP))?;
    let verdict = outcome.verdict(cut, end);
    let (two, span) = (verdict.two_masters, end.since(first.seen));
    ensure!(two.writes >= 90 && verdict.lost >= 90, "{verdict}");
    ensure!(two.proven > span / 2 && two.seen <= span, "{verdict}, window {span:?}");
    Ok(())
}

#[test]
fn writers_go_where_their_directory_says_at_once() -> Result<()> {
    let lab = Lab::builder().build()?;
    let (master, replica) = start_pair(&lab)?;
    let directory = Directory::new(at(lab.host("a")?.address()));
    // Nobody answers at their target, so each answer is the directory's doing.
    let nowhere = at(lab.host("w")?.address());
    let specs = [WriterSpec::fresh("fresh", nowhere), WriterSpec::held("held", nowhere)];
    let mut writers = Vec::new();
    for spec in specs {
        let writer = Writer::start(lab.host("c")?, spec.following(directory.clone()))?;
        writer.wait_more(50, LIMIT)?;
        ensure!(writer.last_server().as_deref() == Some(&master.instance()), "who answered?");
        writers.push(writer);
    }
    take_over_by_hand(&lab)?;
    let moved = Mono::now();
    directory.set(at(lab.host("b")?.address()));
    for writer in writers {
        let ack = writer.wait_other_server(&master.instance(), moved, LIMIT)?;
        ensure!(*ack.server == *replica.instance(), "{} answered", ack.server);
        // The old master lives: a writer that held on to it would write there for ever.
        writer.wait_more(50, LIMIT)?;
        let (spec, record) = writer.finish();
        let last = record.acks.last().context("no acknowledgement")?;
        ensure!(*last.server == *replica.instance(), "{} is back at {}", spec.name, last.server);
    }
    Ok(())
}

#[test]
fn frozen_master_is_heard_again_after_the_thaw() -> Result<()> {
    let lab = Lab::builder().build()?;
    let (master, _replica) = start_pair(&lab)?;
    let writer = Writer::start(lab.host("c")?, WriterSpec::held("w", at(VIP)))?;
    writer.wait_more(50, LIMIT)?;
    master.process().freeze()?;
    // The writer gives up after 0.5 s and leaves its request in the server's buffer.
    wait_until("an abandoned request", LIMIT, || {
        let record = writer.record();
        (!record.refusals.is_empty()).then_some(())
    })?;
    let thawed = master.process().thaw()?;
    writer.wait_more(50, LIMIT)?;
    let (_, record) = writer.finish();
    let slow = Duration::from_millis(500);
    let late = record.acks.iter().filter(|ack| ack.seen.since(ack.sent) > slow).count();
    ensure!(late >= 1 && record.acks.iter().any(|ack| ack.seen > thawed), "{late} late answers");
    Ok(())
}

#[test]
fn capture_shows_announcements_and_commands_in_order() -> Result<()> {
    let lab = Lab::builder().build()?;
    let b = lab.host("b")?;
    Redis::start(b, RedisOptions::default())?;
    let capture = Capture::start(b, "eth0", "arp or tcp port 16465")?;
    let addresses = AddressWatch::start(b)?;
    let began = Mono::now();
    b.add_address(IpAddr::V4(VIP))?;
    lab.host("c")?.redis(at(VIP), PASSWORD, &["slaveof", "no", "one"])?;
    let end = Mono::now();
    let frames = capture.finish()?;
    let arps = arp_packets(&frames);
    let announced = arps.iter().find(|arp| arp.is_announcement() && arp.sender == VIP);
    let announced = announced.with_context(|| format!("no announcement in {arps:?}"))?;
    ensure!(announced.sender_link == [2, 0x63, 0, 0, 0, 2], "{announced:?}");
    let segments = tcp_segments(&frames);
    let repointed = segments.iter().find(|segment| segment.repoints()).context("no command")?;
    ensure!(repointed.to == at(VIP), "{repointed:?}");
    ensure!(began < announced.at && announced.at < repointed.at && repointed.at < end, "order");
    let had =
        wait_until("the watch", LIMIT, || addresses.moments(IpAddr::V4(VIP)).first().cloned())?;
    ensure!(had.at > began && had.at < repointed.at, "{had:?} from {began} to {}", announced.at);
    Ok(())
}

#[test]
fn restarted_redis_has_another_name_and_its_data_as_asked() -> Result<()> {
    let lab = Lab::builder().build()?;
    let a = lab.host("a")?;
    let mut redis = Redis::start(a, RedisOptions::default())?;
    let local = at(Ipv4Addr::LOCALHOST);
    a.redis(local, PASSWORD, &["SET", "k", "v"])?;
    a.redis(local, PASSWORD, &["SAVE"])?;
    for (data, expected) in [(DataSet::Kept, Some(b"v".to_vec())), (DataSet::Removed, None)] {
        let name = redis.instance();
        redis.process().kill()?;
        redis.start_again(a, data)?;
        redis.wait_ready()?;
        ensure!(redis.instance() != name, "{name} twice");
        ensure!(a.redis(local, PASSWORD, &["GET", "k"])? == Reply::Bulk(expected), "{data:?}");
    }
    Ok(())
}

#[test]
fn rebooted_host_has_only_its_own_addresses_and_no_rules() -> Result<()> {
    let lab = Lab::builder().build()?;
    let a = lab.host("a")?;
    let redis = Redis::start(a, RedisOptions::default())?;
    a.add_address(IpAddr::V4(VIP))?;
    a.run_ok(&["nft", "add", "table", "inet", "leftover"])?;
    lab.power_off("a")?;
    ensure!(!redis.process().is_running(), "Redis survived the loss of power");
    ensure!(!lab.reaches("c", "a")?, "the host without power answers");
    lab.power_on("a")?;
    lab.wait_reachable("c", "a", LIMIT)?;
    ensure!(!a.has_address(IpAddr::V4(VIP))?, "the VIP survived");
    ensure!(a.has_address(IpAddr::V6(a.address_v6()))?, "no IPv6 address");
    ensure!(a.run_ok(&["nft", "list", "ruleset"])?.is_empty(), "rules survived");
    Ok(())
}

#[test]
fn dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Builder::default().build()?;
    let (prefix, dir) = (lab.prefix().to_owned(), lab.dir().to_owned());
    let redis = Redis::start(lab.host("a")?, RedisOptions::default())?;
    let pid = redis.process().pid();
    ensure!(namespaces_with(&prefix).len() == 7, "{:?}", namespaces_with(&prefix));
    drop(lab);
    ensure!(namespaces_with(&prefix).is_empty() && !dir.exists(), "{prefix} left something");
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ensure!(state.is_empty() || state.contains(") Z "), "Redis lives on: {state}");
    Ok(())
}

/// Not a test of its own: the victim of the two tests below, run in a process of its own.
#[test]
fn victim_of_signals() -> Result<()> {
    let Some(report) = std::env::var_os("REDKEEP_LAB_VICTIM") else { return Ok(()) };
    let lab = Lab::builder().build()?;
    let _redis = Redis::start(lab.host("a")?, RedisOptions::default())?;
    std::fs::write(report, lab.prefix())?;
    wait_until("the signal", Duration::from_secs(60), || None)
}

/// Starts the victim, waits until its lab stands, ends it by `signal`; returns its prefix.
fn end_victim_by(signal: rustix::process::Signal) -> Result<String> {
    let report = std::env::temp_dir().join(format!("victim-{}-{signal:?}", std::process::id()));
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "victim_of_signals", "--nocapture"])
        .env("REDKEEP_LAB_VICTIM", &report)
        .spawn()?;
    let prefix = wait_until("the victim's lab", LIMIT, || {
        let text = std::fs::read_to_string(&report).ok()?;
        (!text.is_empty()).then_some(text)
    })?;
    std::fs::remove_file(&report)?;
    ensure!(!namespaces_with(&prefix).is_empty(), "the victim has no lab");
    let pid = rustix::process::Pid::from_child(&victim);
    rustix::process::kill_process(pid, signal)?;
    let status = wait_until("the victim's end", LIMIT, || victim.try_wait().ok().flatten())?;
    ensure!(!status.success(), "the victim ended by itself");
    Ok(prefix)
}

#[test]
fn interrupted_run_cleans_up_itself() -> Result<()> {
    let prefix = end_victim_by(rustix::process::Signal::INT)?;
    let left = namespaces_with(&prefix);
    ensure!(left.is_empty(), "left {left:?}");
    Ok(())
}

#[test]
fn killed_run_is_swept_by_the_next() -> Result<()> {
    let prefix = end_victim_by(rustix::process::Signal::KILL)?;
    // Another test's lab may sweep at the same time; what counts is that nothing stays.
    wait_until("the leftovers to be swept", LIMIT, || {
        sweep().ok()?;
        namespaces_with(&prefix).is_empty().then_some(())
    })
    .context(prefix)
}
