//! A host whose links fail, in any direction, with its supervisor well, dead or frozen.
//!
//! Each scenario cuts the master's host off together with a client on its side, waits until
//! another host serves, heals the cut, and looks for every acknowledged write at the end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, DataSet, Figure, GROUP, Lab, Mono, Pair, RedisOptions, Verdict, repetitions,
    slowed, wait_status, wait_until,
};

const LEASE: Duration = Duration::from_millis(300);
/// Writes of this long before the fault tell who was master.
const WARM: Duration = Duration::from_millis(100);
/// The table says three leases; ten times that catches a hang on a busy machine.
const SERVICE_LIMIT: Duration = Duration::from_secs(9);

#[derive(Clone, Copy, Debug)]
enum Cut {
    Off,
    Deaf,
    Mute,
}

impl Cut {
    fn apply(self, lab: &Lab, host: &str) -> Result<Mono> {
        match self {
            Cut::Off => lab.cut(host),
            Cut::Deaf => lab.deaf(host),
            Cut::Mute => lab.mute(host),
        }
    }
}

/// State of the supervisor beside the master when its host is cut off.
#[derive(Clone, Copy, Debug)]
enum Supervised {
    Well,
    Killed,
    Frozen,
}

/// One cut of the present master's host, from fault to healed; returns what it proved.
fn cut_and_heal(pair: &mut Pair, cut: Cut, supervised: Supervised) -> Result<Verdict> {
    let old = pair.master()?;
    let begun = Mono::now();
    match supervised {
        Supervised::Well => {}
        Supervised::Killed => drop(pair.supervisor(&old)?.process().kill()?),
        Supervised::Frozen => drop(pair.supervisor(&old)?.process().freeze()?),
    }
    let fault = cut.apply(pair.lab(), &old)?;
    recover(pair, (&old, begun, fault), supervised)
}

/// Waits for the takeover, gives the supervisor back, heals, and judges.
fn recover(
    pair: &mut Pair,
    (old, begun, fault): (&str, Mono, Mono),
    supervised: Supervised,
) -> Result<Verdict> {
    let taken = pair.wait_taken_over(old, fault).with_context(|| pair.story(begun, Mono::now()))?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    pair.keep_writing(slowed(LEASE))?;
    match supervised {
        Supervised::Well => {}
        Supervised::Killed => drop(pair.restart_supervisor(old)?),
        Supervised::Frozen => drop(pair.supervisor(old)?.process().thaw()?),
    }
    // Awake again or not, it is still cut off: nobody tells it that another took over.
    pair.keep_writing(LEASE)?;
    pair.lab().heal(old)?;
    pair.wait_replica(old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    pair.keep_writing(Duration::from_millis(100))?;
    let end = Mono::now();
    let verdict = pair.outcome()?.since(begun - slowed(WARM)).verdict(fault, end);
    println!("{old} to {new}, supervisor {supervised:?}: {verdict}");
    let judge = || {
        verdict.ensure_one_master()?;
        verdict.ensure_lost_within(slowed(LEASE))?;
        ensure!(verdict.service_back.is_some_and(|back| back < slowed(SERVICE_LIMIT)), "too late");
        Ok(())
    };
    judge().with_context(|| format!("{verdict}\n{}", pair.story(begun, end)))?;
    Ok(verdict)
}

fn cut_scenario(cut: Cut, supervised: Supervised) -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na", "nb"])?;
    let mut back = Figure::new(&format!("service back, host {cut:?}, supervisor {supervised:?}"));
    for _ in 0..repetitions(1, 5) {
        let verdict = cut_and_heal(&mut pair, cut, supervised)?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

#[test]
fn host_cut_off_loses_the_service_within_its_lease() -> Result<()> {
    cut_scenario(Cut::Off, Supervised::Well)
}

#[test]
fn host_cut_off_with_a_dead_supervisor_stops_by_itself() -> Result<()> {
    cut_scenario(Cut::Off, Supervised::Killed)
}

#[test]
fn host_cut_off_with_a_frozen_supervisor_stops_by_itself() -> Result<()> {
    cut_scenario(Cut::Off, Supervised::Frozen)
}

#[test]
fn deaf_host_stops_serving() -> Result<()> {
    cut_scenario(Cut::Deaf, Supervised::Well)
}

#[test]
fn deaf_host_with_a_dead_supervisor_stops_by_itself() -> Result<()> {
    cut_scenario(Cut::Deaf, Supervised::Killed)
}

#[test]
fn deaf_host_with_a_frozen_supervisor_stops_by_itself() -> Result<()> {
    cut_scenario(Cut::Deaf, Supervised::Frozen)
}

#[test]
fn mute_host_stops_serving() -> Result<()> {
    cut_scenario(Cut::Mute, Supervised::Well)
}

#[test]
fn mute_host_with_a_dead_supervisor_stops_by_itself() -> Result<()> {
    cut_scenario(Cut::Mute, Supervised::Killed)
}

#[test]
fn mute_host_with_a_frozen_supervisor_stops_by_itself() -> Result<()> {
    cut_scenario(Cut::Mute, Supervised::Frozen)
}

/// SplitMix64 (Steele, Lea, Flood 2014): instants that are the same in each run.
struct Instants(u64);

impl Instants {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros((mixed ^ (mixed >> 31)) % limit_us)
    }
}

/// Spins, so that the instant is met to the microsecond.
fn wait_for_instant(at: Mono) {
    while Mono::now() < at {
        std::hint::spin_loop();
    }
}

/// A renewal goes out every third of a lease; two thirds cover each step of it.
#[test]
fn holder_frozen_at_any_instant_of_a_renewal_stays_closed_when_thawed() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na", "nb"])?;
    let mut instants = Instants(1);
    let mut back = Figure::new("service back, holder frozen at a random instant and cut off");
    for run in 0..repetitions(4, 50) {
        let old = pair.master()?;
        let begun = Mono::now();
        let delay = instants.below(LEASE * 2 / 3);
        wait_for_instant(begun + delay);
        pair.supervisor(&old)?.process().freeze()?;
        let fault = pair.lab().cut(&old)?;
        let verdict = recover(&mut pair, (&old, begun, fault), Supervised::Frozen)
            .with_context(|| format!("run {run}, frozen after {delay:?}"))?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

/// Three members: the first is killed, the second is frozen and cut off while it takes over,
/// the third must serve, and the thawed second must not.
#[test]
fn candidate_frozen_at_any_instant_of_a_takeover_stays_closed_when_thawed() -> Result<()> {
    let mut instants = Instants(2);
    let mut back = Figure::new("service back, candidate frozen in its takeover and cut off");
    let mut pair = three_members()?;
    pair.start_writers(&["na", "nb", "nd"])?;
    for run in 0..repetitions(4, 50) {
        let delay = instants.below(Duration::from_millis(25));
        let verdict = freeze_in_takeover(&mut pair, delay)
            .with_context(|| format!("run {run}, frozen {delay:?} after the kill"))?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

fn three_members() -> Result<Pair> {
    let lab = Lab::builder().host("d", 4).neighbour("nd", 54, "d").host("x", 5).build()?;
    let mut file = ClusterFile::founding(&lab, "300ms")?;
    // Five voters: x is a second witness.
    for name in ["d", "x"] {
        file.nodes.push((name.to_owned(), lab.host(name)?.address()));
    }
    file.groups[0].members.push("d".to_owned());
    Pair::start_in(lab, &file, &RedisOptions::default())
}

fn freeze_in_takeover(pair: &mut Pair, delay: Duration) -> Result<Verdict> {
    let first = pair.master()?;
    let begun = Mono::now();
    // Whom the leader chooses shows only when the takeover is nearly done, so it is asked before.
    let second = preferred(pair, &first)?;
    let killed = pair.redis(&first)?.process().kill_without_waiting()?;
    wait_for_instant(killed + delay);
    pair.supervisor(&second)?.process().freeze()?;
    let fault = pair.lab().cut(&second)?;
    let third = ["a", "b", "d"].into_iter().find(|name| *name != first && *name != second);
    let third = third.context("no third member")?;
    let instance = pair.redis(third)?.instance();
    let what = format!("{third} to serve after {first} and {second}");
    wait_until(&what, Duration::from_secs(30), || {
        pair.writers()[0].last_server().filter(|server| **server == *instance)
    })
    .with_context(|| pair.story(begun, Mono::now()))?;
    pair.keep_writing(LEASE)?;
    pair.supervisor(&second)?.process().thaw()?;
    pair.keep_writing(LEASE)?;
    pair.lab().heal(&second)?;
    pair.redis(&first)?.process().wait(Duration::from_secs(30))?;
    pair.restart_redis(&first, DataSet::Kept)?;
    for member in [&first, &second] {
        pair.wait_replica(member, third, "w").with_context(|| pair.story(begun, Mono::now()))?;
    }
    let end = Mono::now();
    let outcome = pair.outcome()?.since(begun - slowed(WARM));
    let verdict = outcome.verdict(fault, end);
    println!("{first} killed, {second} frozen after {delay:?}, {third} serves: {verdict}");
    let judge = || -> Result<()> {
        ensure_in_turn(&outcome, pair.redis(third)?.instance().as_str(), fault)?;
        verdict.ensure_lost_within(LEASE)
    };
    judge().with_context(|| format!("{verdict}\n{}", pair.story(begun, end)))?;
    Ok(verdict)
}

/// Nobody else acknowledges once the last of the three did.
fn ensure_in_turn(outcome: &redkeep_lab::Outcome, last: &str, fault: Mono) -> Result<()> {
    let acks = || outcome.writers().iter().flat_map(|(_, record)| &record.acks);
    let first_of_last = acks().filter(|ack| *ack.server == *last && ack.seen > fault);
    let first = first_of_last.min_by_key(|ack| ack.seen).context("the third never served")?;
    let late: Vec<_> = acks()
        .filter(|ack| *ack.server != *last)
        .filter(|ack| ack.absent_at > first.seen || ack.sent > first.seen)
        .collect();
    ensure!(late.is_empty(), "two masters: {} writes, {:?}", late.len(), late.first());
    Ok(())
}

/// Of two equal candidates the one that the leader would choose, as `explain` ranks them.
fn preferred(pair: &Pair, master: &str) -> Result<String> {
    let said = pair.ctl(&["-o", "json", "explain", GROUP])?.json()?;
    let candidates = said["candidates"].as_array().context("no candidates")?;
    let names = candidates.iter().filter_map(|candidate| candidate["node"].as_str());
    let name = names.into_iter().find(|name| *name != master);
    name.map(str::to_owned).with_context(|| format!("no candidate in {said}"))
}

#[test]
fn cut_between_the_two_redis_hosts_moves_nothing() -> Result<()> {
    cut_between_the_redis_hosts("w")
}

/// The leader itself does not hear the master any more: it asks the witness, and lets it lead.
#[test]
fn cut_between_the_master_and_a_leading_replica_moves_nothing() -> Result<()> {
    cut_between_the_redis_hosts("b")
}

fn wait_leader(pair: &Pair, leader: &str) -> Result<()> {
    let what = format!("{leader} to lead");
    wait_status(pair.lab(), "w", &what, Duration::from_secs(20), |status| {
        status["leader"].as_str() == Some(leader)
    })?;
    Ok(())
}

fn cut_between_the_redis_hosts(leader: &str) -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    wait_leader(&pair, "w")?;
    let before = pair.assignment("w")?;
    if leader != "w" {
        let said = pair.ctl(&["leader", "transfer", leader, "--wait"])?;
        ensure!(said.code == Some(0), "{said:?}");
    }
    let fault = pair.lab().cut_between("a", "b")?;
    pair.keep_writing(LEASE * 10)?;
    let healed = pair.lab().heal_all()?;
    pair.wait_replica("b", "a", "w")?;
    pair.keep_writing(LEASE)?;
    let end = Mono::now();
    let after = pair.assignment("w")?;
    let verdict = pair.outcome()?.verdict(fault, end);
    println!("link cut for {:?}, {leader} led: {verdict}", healed.since(fault));
    let judge = || -> Result<()> {
        ensure!(after.is_as(&before), "moved: {after:?}");
        ensure!(verdict.service_back.is_none(), "another server answered: {verdict}");
        ensure!(verdict.lost == 0, "{verdict}");
        ensure!(!pair.vip_was_lost(fault, end), "the VIP was gone");
        Ok(())
    };
    judge().with_context(|| pair.story(fault, end))?;
    let title = format!("write gap, link between the Redis hosts cut, {leader} led");
    let mut gap = Figure::new(&title);
    gap.add(verdict.write_gap);
    gap.print();
    ensure!(verdict.write_gap < LEASE, "writes stopped: {verdict}");
    Ok(())
}

/// Found by random faults: who hears no announcement goes on sending to where the VIP was, for as long as its kernel trusts that
/// (15 to 53 s). The cut outlasts the announcements that follow a takeover at once.
#[test]
fn client_that_was_cut_off_when_the_vip_moved_finds_it_when_the_cut_is_healed() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na"])?;
    let old = pair.master()?;
    pair.lab().cut("na")?;
    let said = pair.ctl(&["switchover", GROUP, "--wait", "--yes"])?;
    ensure!(said.code == Some(0), "{said:?}");
    pair.keep_writing(Duration::from_secs(7))?;
    let left = pair.redis(&old)?.instance();
    let healed = pair.lab().heal_all()?;
    let ack =
        pair.writers()[2].wait_other_server(&left, healed, slowed(Duration::from_secs(10)))?;
    let mut found = Figure::new("the VIP is found, after a cut of 7 s in which it moved");
    found.add(ack.seen.since(healed));
    found.print();
    Ok(())
}
