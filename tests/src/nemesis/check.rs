//! The checker: what a history proves against the system, from outside.
//!
//! It uses what clients, kernels and Redis's own logs say, and what was done to the hosts; of what supervisors say only
//! whom the group named as master, and when. Replication is a stream, so what a takeover loses is the last part of a reign: each lost write needs a fault
//! that can have cost it, and no later write of its reign may have survived.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::history::{Deed, History, Reign, Write};
use super::plan::Fault;
use crate::time::Mono;

/// The promises by which a history is judged.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub lease: Duration,
    pub max_lag: Duration,
    /// Longest time until all is well after the last fault.
    pub heal: Duration,
}

/// A replica whose link broke is back by then: Redis tries once a second, then catches up.
const RELINK: Duration = Duration::from_secs(2);

/// Hosts that have a Redis.
const MEMBERS: [&str; 2] = ["a", "b"];

/// Why an acknowledged write may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Acknowledged by a master within its last lease after it was cut off, frozen or left alone.
    LastLease,
    /// Acknowledged before the end of a reign and not replicated.
    Tail,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    pub acknowledged: usize,
    pub confirmed: usize,
    pub reigns: usize,
    /// Longest time that two servers are proven to have acknowledged.
    pub two_masters: Duration,
    /// Lost for a reason, and the largest distance from the end of its reign.
    pub lost: BTreeMap<Class, (usize, Duration)>,
    /// Time in which two kernels had the VIP; the lock decides who answers, so it is told only.
    pub two_holders: Duration,
    /// Longest time in which nobody was acknowledged, and when it began; told only, since two faults may overlap.
    pub silence: (Duration, f64),
    pub healed: Option<Duration>,
    /// What must not be; empty = all is well.
    pub violations: Vec<String>,
}

impl Judgement {
    /// A run in which nothing was done or nothing confirmed proves nothing, however clean it looks.
    pub fn demand_substance(&mut self, history: &History) {
        if !history.deeds.iter().any(|deed| deed.done) {
            self.violations.push("no fault was done: the run proves nothing".to_owned());
        }
        if self.confirmed == 0 {
            self.violations
                .push("no write was confirmed: the run proves nothing of WAIT".to_owned());
        }
    }
}

/// The writes of one reign, by the instant they were read.
type Reigned<'a> = Vec<Vec<&'a Write>>;

/// Judges a history.
pub fn judge(history: &History, bounds: &Bounds) -> Judgement {
    let mut reigns = history.reigns.clone();
    reigns.sort_by_key(|reign| reign.since);
    let mut found = Judgement {
        acknowledged: history.writes.len(),
        confirmed: history.writes.iter().filter(|write| write.ack.confirmed).count(),
        two_holders: two_holders(history),
        silence: silence(history),
        healed: history.healed,
        ..Judgement::default()
    };
    let reigned = by_reign(history, &reigns);
    found.reigns = reigned.iter().filter(|writes| !writes.is_empty()).count();
    strangers(history, &reigns, &mut found);
    let renewed = renewed(history, &reigns);
    one_master(history, (&renewed, &by_reign(history, &renewed)), &mut found);
    // By Redis's own logs: being named again changes no data set, so it excuses no loss.
    for index in 0..reigned.len() {
        losses(history, &reigned, (index, bounds), &mut found);
    }
    confirmed_losses(history, &mut found);
    if history.writes.is_empty() {
        found.violations.push("nothing was acknowledged: the run proves nothing".to_owned());
    }
    match history.healed {
        Some(span) if span <= bounds.heal => {}
        Some(span) => {
            let seconds = span.as_secs_f64();
            found.violations.push(format!("healthy only {seconds:.1} s after the last fault"));
        }
        None => {
            let why = history.ailment.as_deref().unwrap_or_default();
            found.violations.push(format!("not healthy after the last fault: {why}"));
        }
    }
    found
}

/// The logged reigns, and one more for each assignment of a host whose Redis has been a master before: if it was never
/// made a replica since, its log knows no new beginning.
fn renewed(history: &History, logged: &[Reign]) -> Vec<Reign> {
    let mut reigns = logged.to_vec();
    for (at, host) in history.assignments() {
        let own = |reign: &&Reign| host_of(&reign.server) == host && reign.since <= at;
        let last = logged.iter().rev().find(own);
        reigns.extend(last.map(|reign| Reign { since: at, ..reign.clone() }));
    }
    reigns.sort_by_key(|reign| reign.since);
    reigns
}

/// A write belongs to the latest reign of its server that began before its answer was read, so one that arrived
/// around a new reign's beginning counts for that: it cannot prove a second master.
fn reign_of(write: &Write, reigns: &[Reign]) -> Option<usize> {
    let own = |reign: &Reign| reign.server == *write.ack.server && reign.since <= write.ack.seen;
    reigns.iter().rposition(own)
}

fn by_reign<'a>(history: &'a History, reigns: &[Reign]) -> Reigned<'a> {
    let mut reigned: Reigned<'a> = vec![Vec::new(); reigns.len()];
    for write in &history.writes {
        if let Some(index) = reign_of(write, reigns) {
            reigned[index].push(write);
        }
    }
    for writes in &mut reigned {
        writes.sort_by_key(|write| write.ack.seen);
    }
    reigned
}

fn strangers(history: &History, reigns: &[Reign], found: &mut Judgement) {
    let mut strangers: BTreeMap<&str, usize> = BTreeMap::new();
    for write in history.writes.iter().filter(|write| reign_of(write, reigns).is_none()) {
        *strangers.entry(&write.ack.server).or_default() += 1;
    }
    for (server, count) in strangers {
        let text = format!("{server} acknowledged {count} writes and was never a master");
        found.violations.push(text);
    }
}

/// Nobody acknowledges once a later reign has acknowledged.
fn one_master(history: &History, reigned: (&[Reign], &Reigned<'_>), found: &mut Judgement) {
    let (reigns, writes) = reigned;
    for (index, own) in writes.iter().enumerate() {
        let later = (index + 1..writes.len()).filter_map(|later| first_of(reigns, writes, later));
        let Some(first) = later.min_by_key(|write| write.ack.seen) else { continue };
        let proven = |write: &&&Write| write.ack.absent_at > first.ack.seen;
        let late: Vec<&&Write> = own.iter().filter(proven).collect();
        let Some(last) = late.iter().max_by_key(|write| write.ack.absent_at) else { continue };
        let span = last.ack.absent_at.since(first.ack.seen);
        found.two_masters = found.two_masters.max(span);
        found.violations.push(format!(
            "two masters for {:.1} ms: {} (master since {} ms) acknowledged {} writes after {} had at {} ms",
            span.as_secs_f64() * 1e3,
            reigns[index].server,
            history.millis(reigns[index].since),
            late.len(),
            first.ack.server,
            history.millis(first.ack.seen),
        ));
    }
}

/// The first write that was acknowledged in a reign. If its server has reigned before, an answer that may have been on
/// its way when the reign began proves nothing.
fn first_of<'a>(reigns: &[Reign], reigned: &Reigned<'a>, index: usize) -> Option<&'a Write> {
    let Reign { server, since } = &reigns[index];
    let again = reigns[..index].iter().any(|reign| reign.server == *server);
    let own = |write: &&&Write| !again || write.ack.absent_at >= *since;
    reigned[index].iter().find(own).copied()
}

fn confirmed_losses(history: &History, found: &mut Judgement) {
    let lost: Vec<&Write> =
        history.writes.iter().filter(|write| write.lost && write.ack.confirmed).collect();
    if let Some(first) = lost.iter().min_by_key(|write| write.ack.seen) {
        let (count, told) = (lost.len(), tell(history, first));
        found.violations.push(format!("{count} writes confirmed by WAIT are lost, first {told}"));
    }
}

fn losses(
    history: &History,
    reigned: &Reigned<'_>,
    (index, bounds): (usize, &Bounds),
    found: &mut Judgement,
) {
    let own = &reigned[index];
    let lost: Vec<&Write> = own.iter().filter(|write| write.lost).copied().collect();
    let end = end_of_losses(reigned, index);
    let last_survivor = own.iter().filter(|write| !write.lost).map(|write| write.ack.sent).max();
    let mut unexplained: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
    for write in lost {
        let distance = end.since(write.ack.seen);
        let outlived = last_survivor.is_some_and(|sent| sent > write.ack.seen);
        let why_not = if outlived {
            "although a later write of the same master survived"
        } else if distance > bounds.lease + bounds.max_lag {
            "further than lease + max_lag from the end of its master"
        } else {
            match class_of(history, write, bounds) {
                Some(class) => {
                    let entry = found.lost.entry(class).or_default();
                    *entry = (entry.0 + 1, entry.1.max(distance));
                    continue;
                }
                None => "without a fault that can have cost them",
            }
        };
        unexplained.entry(why_not).or_default().push(write);
    }
    for (why_not, writes) in unexplained {
        let (count, told) = (writes.len(), tell(history, writes[0]));
        found.violations.push(format!("{count} writes are lost {why_not}, first {told}"));
    }
}

/// When the master whose end cost these writes stopped: a later one that lost all it had acknowledged inherited
/// the gap, and its end counts.
fn end_of_losses(reigned: &Reigned<'_>, index: usize) -> Mono {
    let mut end = Mono(0);
    for (offset, writes) in reigned[index..].iter().enumerate() {
        let Some(last) = writes.last() else { continue };
        if offset > 0 && writes.iter().any(|write| !write.lost) {
            break;
        }
        end = end.max(last.ack.seen);
    }
    end
}

fn class_of(history: &History, write: &Write, bounds: &Bounds) -> Option<Class> {
    let at = write.ack.seen;
    let host = host_of(&write.ack.server);
    let done = history.deeds.iter().filter(|deed| deed.done);
    let mut class = None;
    for deed in done {
        let own = deed.host == host || deed.host == "all";
        let alone = deed.from + alone_for(deed.fault, bounds);
        if own && at >= deed.from && at <= alone {
            return Some(Class::LastLease);
        }
        // Nobody can have renewed its lease meanwhile, so this fault excuses nothing that came later.
        if own && ends_lease(deed.fault) && at > alone && at <= deed.to {
            return None;
        }
        let reach = bounds.lease + bounds.max_lag;
        let near = at + reach >= deed.from && at <= deed.to + RELINK;
        if near && can_leave_a_tail(deed, host) {
            class = Some(Class::Tail);
        }
    }
    class
}

/// For how long after the fault its host may go on acknowledging what nobody replicates
/// (docs/failure-modes.md: one lease; deaf, two more grants; margin for timers and late reads).
fn alone_for(fault: Fault, bounds: &Bounds) -> Duration {
    let wait = bounds.lease * 11 / 10 + Duration::from_millis(25);
    match fault {
        Fault::Deaf => wait + bounds.lease * 7 / 12,
        Fault::Cut
        | Fault::Mute
        | Fault::CutLink(_)
        | Fault::FreezeSupervisor
        | Fault::FreezeHost
        | Fault::KillSupervisor
        | Fault::KillAllSupervisors
        | Fault::Power
        | Fault::Starve => wait,
        Fault::KillRedis
        | Fault::EmptyRedis
        | Fault::FreezeRedis
        | Fault::FilterPort
        | Fault::DeleteVip
        | Fault::FlushRules
        | Fault::Sabotage
        | Fault::Switchover
        // When the log has to grow, if ever: what that costs is the tail of a reign.
        | Fault::FullDisk
        | Fault::Join => Duration::ZERO,
    }
}

/// Whether it keeps its host from any grant for as long as it lasts.
fn ends_lease(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Cut
            | Fault::Deaf
            | Fault::Mute
            | Fault::FreezeSupervisor
            | Fault::FreezeHost
            | Fault::KillSupervisor
            | Fault::KillAllSupervisors
            | Fault::Power
    )
}

/// Whether it can have ended the reign of `host`, or kept its replica from following. One at a witness can do neither.
fn can_leave_a_tail(deed: &Deed, host: &str) -> bool {
    let harmless = [Fault::DeleteVip, Fault::FlushRules, Fault::Switchover, Fault::Join];
    if deed.host == host || deed.host == "all" {
        return !harmless.contains(&deed.fault);
    }
    // The supervisor of a replica, its log and the port of its Redis have no part in replication.
    let stops_replication = matches!(
        deed.fault,
        Fault::KillRedis
            | Fault::EmptyRedis
            | Fault::FreezeRedis
            | Fault::FreezeHost
            | Fault::Power
            | Fault::Cut
            | Fault::Deaf
            | Fault::Mute
            | Fault::CutLink(_)
    );
    stops_replication && MEMBERS.contains(&deed.host.as_str())
}

fn host_of(server: &str) -> &str {
    server.split(':').next().unwrap_or_default()
}

fn tell(history: &History, write: &Write) -> String {
    let (ack, writer) = (&write.ack, &write.writer);
    let (at, server) = (history.millis(ack.seen), &ack.server);
    format!("{writer} {} acknowledged by {server} at {at} ms", ack.sequence)
}

fn silence(history: &History) -> (Duration, f64) {
    let mut seen: Vec<Mono> = history.writes.iter().map(|write| write.ack.seen).collect();
    seen.sort();
    let gaps = seen.windows(2).map(|pair| (pair[1].since(pair[0]), pair[0]));
    let (longest, began) = gaps.max().unwrap_or((Duration::ZERO, Mono(0)));
    (longest, history.millis(began))
}

/// Longest time in which the kernels of two hosts had the VIP; power off takes it away unseen.
fn two_holders(history: &History) -> Duration {
    let mut steps: Vec<(Mono, &str, bool)> = Vec::new();
    for moment in &history.addresses {
        let host = moment.witness.split(' ').next_back().unwrap_or_default();
        steps.push((moment.at, host, moment.what.starts_with("has")));
    }
    let off = |deed: &&Deed| deed.done && deed.fault == Fault::Power;
    for deed in history.deeds.iter().filter(off) {
        steps.push((deed.from, &deed.host, false));
    }
    steps.sort();
    let mut holders: BTreeMap<&str, Mono> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for (at, host, present) in steps {
        if present {
            holders.entry(host).or_insert(at);
        } else if let Some(since) = holders.remove(host) {
            let others = holders.values().map(|other| at.since(since.max(*other)));
            longest = longest.max(others.max().unwrap_or_default());
        }
    }
    longest
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::LastLease => "within a lease of a cut, freeze or lost supervisor",
            Class::Tail => "in the unreplicated tail of a reign",
        })
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |span: Duration| span.as_secs_f64() * 1e3;
        writeln!(
            f,
            "acknowledged {}, of these {} confirmed by WAIT; {} reigns",
            self.acknowledged, self.confirmed, self.reigns
        )?;
        writeln!(f, "two masters, proven:        {:.1} ms", millis(self.two_masters))?;
        for class in [Class::LastLease, Class::Tail] {
            let (count, distance) = self.lost.get(&class).copied().unwrap_or_default();
            write!(f, "lost {class}: {count}")?;
            if count > 0 {
                write!(f, ", at most {:.1} ms before the end of a reign", millis(distance))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "VIP at two hosts:           {:.1} ms", millis(self.two_holders))?;
        let (longest, began) = self.silence;
        let longest = millis(longest);
        writeln!(f, "nobody was acknowledged for: {longest:.1} ms at most, from {began:.1} ms")?;
        match self.healed {
            Some(span) => writeln!(f, "healthy after the last fault: {:.1} ms", millis(span))?,
            None => writeln!(f, "healthy after the last fault: never")?,
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        writeln!(f, "verdict: {}", if self.violations.is_empty() { "good" } else { "BAD" })
    }
}

#[cfg(test)]
mod tests;
