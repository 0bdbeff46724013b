//! The order of a takeover on the wire: VIP, announcements in both forms, then other replicas.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    Arp, Capture, ClusterFile, DataSet, Lab, Mono, PORT, Pair, RedisOptions, Segment, VIP,
    arp_packets, tcp_segments, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Three Redis, on `a`, `b` and `d`, and two witnesses, since nodes must be odd in number.
fn three_members() -> Result<Pair> {
    let lab = Lab::builder().host("d", 4).host("x", 5).build()?;
    let mut file = ClusterFile::founding(&lab, "300ms")?;
    for name in ["d", "x"] {
        file.nodes.push((name.to_owned(), lab.host(name)?.address()));
    }
    file.groups[0].members.push("d".to_owned());
    Pair::start_in(lab, &file, &RedisOptions::default())
}

/// What was seen at one member.
struct Seen {
    host: &'static str,
    arps: Vec<Arp>,
    /// Commands that repoint this member's Redis, by whatever way they came.
    repointed: Vec<Segment>,
}

/// Of a member: its announcements on `eth0`, commands to its Redis there and on `lo`.
fn capture(pair: &Pair, host: &'static str) -> Result<impl FnOnce() -> Result<Seen> + use<>> {
    let at = pair.host(host)?;
    let wire = Capture::start(at, "eth0", &format!("arp or tcp dst port {PORT}"))?;
    let local = Capture::start(at, "lo", &format!("tcp dst port {PORT}"))?;
    let own = at.address();
    Ok(move || {
        let (wire, local) = (wire.finish()?, local.finish()?);
        let mut segments = tcp_segments(&local);
        let to_self = |segment: &Segment| segment.to.ip() == own;
        segments.extend(tcp_segments(&wire).into_iter().filter(to_self));
        segments.retain(Segment::repoints);
        segments.sort_by_key(|segment| segment.at);
        Ok(Seen { host, arps: arp_packets(&wire), repointed: segments })
    })
}

#[test]
fn vip_and_announcements_come_before_any_other_replica_is_repointed() -> Result<()> {
    let mut pair = three_members()?;
    pair.start_writers(&[])?;
    pair.wait_replica("b", "a", "w")?;
    pair.wait_replica("d", "a", "w")?;
    let captures = [capture(&pair, "a")?, capture(&pair, "b")?, capture(&pair, "d")?];
    let fault = pair.redis("a")?.process().kill()?;
    let taken = pair.wait_taken_over("a", fault)?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    let third = if new == "b" { "d" } else { "b" };
    pair.restart_redis("a", DataSet::Kept)?;
    pair.wait_replica(third, &new, "w").with_context(|| pair.story(fault, Mono::now()))?;
    pair.wait_replica("a", &new, "w").with_context(|| pair.story(fault, Mono::now()))?;
    let has = format!("has {VIP}");
    let vip_at = wait_until("the kernel's word on the VIP", LIMIT, || {
        let moments = pair.address_moments();
        let mut later = moments.into_iter().filter(|it| it.at > fault && it.witness.contains(&new));
        later.find(|moment| moment.what == has).map(|moment| moment.at)
    })?;
    let seen: Vec<Seen> = captures.into_iter().map(|end| end()).collect::<Result<_>>()?;
    let judged = judge(&seen, &new, third, (fault, vip_at));
    let end = Mono::now();
    judged.with_context(|| pair.story(fault, end))?;
    let verdict = pair.finish_writers()?.verdict(fault, end);
    verdict.ensure_one_master()
}

fn judge(seen: &[Seen], new: &str, third: &str, (fault, vip_at): (Mono, Mono)) -> Result<()> {
    let of = |host: &str| seen.iter().find(|seen| seen.host == host).context("a capture");
    let announced = |operation: u16| {
        let arps = of(new)?.arps.iter();
        let mut own = arps.filter(|arp| arp.is_announcement() && arp.sender == VIP);
        let first = own.find(|arp| arp.operation == operation && arp.at > fault);
        first.map(|arp| arp.at).with_context(|| format!("no announcement of form {operation}"))
    };
    let (request, reply) = (announced(1)?, announced(2)?);
    let repointed = |host: &str| -> Result<&Segment> {
        let found = of(host)?.repointed.iter().find(|segment| segment.at > fault);
        found.with_context(|| format!("{host} was never repointed"))
    };
    let offset = |at: Mono| at.millis_from(fault);
    println!(
        "{new}: VIP {:+.1} ms, announced as request {:+.1} ms, as reply {:+.1} ms; \
         {third} repointed {:+.1} ms, a {:+.1} ms",
        offset(vip_at),
        offset(request),
        offset(reply),
        offset(repointed(third)?.at),
        offset(repointed("a")?.at),
    );
    for host in [third, "a"] {
        let first = repointed(host)?;
        ensure!(vip_at < first.at, "{host} was repointed before {new} had the VIP");
        ensure!(request < first.at && reply < first.at, "{host} was repointed unannounced");
        let target = SocketAddr::from((VIP, PORT));
        ensure!(first.to != target, "the command went to the VIP");
    }
    Ok(())
}
