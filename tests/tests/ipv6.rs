//! A cluster that speaks IPv6 from end to end: peers, operators, replication and the VIP.
//!
//! The faults are those of the other files, one of each kind; what differs is the family.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    Advertisement, Capture, ClusterFile, DataSet, Figure, Lab, Mono, Pair, RedisOptions, VIP_V6,
    Verdict, advertisements, repetitions, wait_until,
};

const LEASE: Duration = Duration::from_millis(300);
/// Writes of this long before the fault tell who was master.
const WARM: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);

fn start() -> Result<Pair> {
    let lab = Lab::builder().ipv6().build()?;
    let file = ClusterFile::founding(&lab, "300ms")?;
    ensure!(file.nodes.iter().all(|(_, address)| address.is_ipv6()), "{:?}", file.nodes);
    Pair::start_in(lab, &file, &RedisOptions::default())
}

/// The link address that the lab gives to a host.
fn link_of(pair: &Pair, host: &str) -> Result<[u8; 6]> {
    let [_, _, _, number] = pair.host(host)?.address_v4().octets();
    Ok([2, 0x63, 0, 0, 0, number])
}

/// The first unsolicited advertisement of the VIP by a host that a client's link carried since `from`.
fn announced(
    pair: &Pair,
    seen: &[Advertisement],
    by: &str,
    from: Mono,
) -> Result<Option<Advertisement>> {
    let link = link_of(pair, by)?;
    let is_it = |found: &&Advertisement| {
        let unsolicited = found.target == VIP_V6 && !found.solicited && found.overrides;
        found.at >= from && found.sender_link == link && unsolicited
    };
    Ok(seen.iter().find(is_it).copied())
}

/// Waits until `old` follows the new master, judges the window, and returns what it proved.
fn judge(pair: &Pair, (old, begun, fault): (&str, Mono, Mono)) -> Result<Verdict> {
    let new = pair.master()?;
    pair.wait_replica(old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    pair.keep_writing(WARM)?;
    let end = Mono::now();
    let verdict = pair.outcome()?.since(begun - WARM).verdict(fault, end);
    println!("{old} to {new}: {verdict}");
    let told = || format!("{verdict}\n{}", pair.story(begun, end));
    verdict.ensure_one_master().with_context(told)?;
    ensure!(verdict.service_back.is_some(), "nobody took over: {}", told());
    Ok(verdict)
}

#[test]
fn killed_redis_is_replaced_through_an_ipv6_vip_and_the_new_master_announces_it() -> Result<()> {
    let mut pair = start()?;
    pair.start_writers(&["na"])?;
    let mut back = Figure::new("service back through an IPv6 VIP, Redis killed");
    for _ in 0..repetitions(2, 10) {
        let old = pair.master()?;
        let heard = Capture::start(pair.host("c")?, "eth0", "icmp6")?;
        let begun = Mono::now();
        let fault = pair.redis(&old)?.process().kill()?;
        let taken = pair.wait_taken_over(&old, fault)?;
        let new = pair.master()?;
        let seen = advertisements(&heard.finish()?);
        let told = announced(&pair, &seen, &new, fault)?
            .with_context(|| format!("{new} announced nothing: {seen:?}"))?;
        println!("announced {:.1} ms after the fault", told.at.millis_from(fault));
        ensure!(told.at <= taken.seen, "{told:?}, but first answer at {:?}", taken.seen);
        pair.restart_redis(&old, DataSet::Kept)?;
        back.add(judge(&pair, (&old, begun, fault))?.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

#[test]
fn host_cut_off_loses_an_ipv6_service_within_its_lease() -> Result<()> {
    let mut pair = start()?;
    pair.start_writers(&["na", "nb"])?;
    let mut back = Figure::new("service back through an IPv6 VIP, host cut off");
    for _ in 0..repetitions(1, 5) {
        let old = pair.master()?;
        let begun = Mono::now();
        let fault = pair.lab().cut(&old)?;
        pair.wait_taken_over(&old, fault).with_context(|| pair.story(begun, Mono::now()))?;
        pair.keep_writing(LEASE)?;
        pair.lab().heal(&old)?;
        let verdict = judge(&pair, (&old, begun, fault))?;
        verdict.ensure_lost_within(LEASE)?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

/// When the kernel of a host lost the VIP and when it had it again.
fn mended(pair: &Pair, host: &str, from: Mono) -> Option<(Mono, Mono)> {
    let witness = format!("kernel {host}");
    let mut moments = pair.address_moments();
    moments.retain(|moment| moment.witness == witness && moment.at >= from);
    let lost = moments.iter().position(|moment| moment.what == format!("lost {VIP_V6}"))?;
    let back = moments[lost..].iter().find(|moment| moment.what == format!("has {VIP_V6}"))?;
    Some((moments[lost].at, back.at))
}

#[test]
fn ipv6_vip_removed_by_hand_is_back_and_a_stray_one_is_removed() -> Result<()> {
    let mut pair = start()?;
    pair.start_writers(&[])?;
    let before = pair.assignment("w")?;
    let mut back = Figure::new("IPv6 VIP back after ip addr del");
    for _ in 0..repetitions(3, 20) {
        let begun = Mono::now();
        pair.host(&before.master)?.remove_address(IpAddr::V6(VIP_V6))?;
        let seen = || mended(&pair, &before.master, begun);
        let (lost, again) = wait_until("the VIP to be back", LIMIT, seen)
            .with_context(|| pair.story(begun, Mono::now()))?;
        back.add(again.since(lost));
        pair.keep_writing(LEASE)?;
    }
    back.print();
    ensure!(back.worst() < Duration::from_millis(500), "too late");
    let other = pair.other(&before.master)?.to_owned();
    add_stray(&pair, &other, VIP_V6)?;
    let gone = || (!pair.host(&other).ok()?.has_address(IpAddr::V6(VIP_V6)).ok()?).then_some(());
    wait_until("the stray VIP to be removed", LIMIT, gone)?;
    pair.keep_writing(LEASE)?;
    let after = pair.assignment("w")?;
    ensure!(after.is_as(&before), "moved: {after:?}");
    let outcome = pair.finish_writers()?;
    ensure!(outcome.lost().is_empty(), "lost {} writes", outcome.lost().len());
    Ok(())
}

/// Without duplicate address detection, which would find the master's.
fn add_stray(pair: &Pair, host: &str, address: Ipv6Addr) -> Result<()> {
    let text = format!("{address}/128");
    pair.host(host)?.run_ok(&["ip", "addr", "add", &text, "dev", "eth0", "nodad"]).map(drop)
}
