//! What clients were told, and what became of it.
//!
//! A tenure is the time in which one host serves a group at one epoch. Its first acknowledgement is where the data of
//! the old master is compared with the new one's. What may be lost there depends on the cause: nothing by a switchover,
//! nothing that `WAIT` confirmed, else only what was acknowledged within a bound of the old tenure's end; by a cold start what no
//! disk has that the leader knew of. A master that handed over by a switchover and comes back when the new one failed lacks
//! nothing that it had acknowledged itself.

use std::collections::BTreeMap;

use redkeep_core::{Epoch, Span, command::Cause, spec::ClusterSpec};

use crate::{check::Violation, clock::Real, redis::WriteId};

/// Scheduling, probes and replication delay on top of lease and lag; and two pauses while a gate was closed, of which up to
/// `GAP_COUNTED` each counts as served.
const SLACK: Span = Span::from_millis(600);

/// Of a longer time between two acknowledgements only this much counts as served.
const GAP_COUNTED: Span = Span::from_millis(200);

/// The last writes may be missing in an append-only file that counts as the fullest data set.
const AOF_TAIL: usize = 40;

/// An answer that reached a client.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub group: usize,
    pub host: usize,
    pub write: WriteId,
    pub at: Real,
    /// Writes that the fullest other member holds, as far as its supervisor can be asked.
    pub elsewhere: usize,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    host: usize,
    epoch: Epoch,
    cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    write: WriteId,
    epoch: Epoch,
    /// The group's serving time then: pauses between acknowledgements do not count.
    at: Span,
}

#[derive(Debug, Default)]
struct Group {
    /// By host: the last tenure that it opened.
    opened: Vec<Option<Tenure>>,
    /// The newest tenure that acknowledged something, and when it last did.
    acked: Option<(Tenure, Real)>,
    /// Time in which acknowledgements followed each other closely.
    served: Span,
    /// Acknowledged and not lost, in order.
    kept: Vec<Kept>,
    /// Why each epoch was assigned, whether it was ever opened or not.
    causes: BTreeMap<Epoch, Cause>,
    /// Who opened each epoch.
    masters: BTreeMap<Epoch, usize>,
    /// At a cold start of this epoch: what the others had.
    passed_over: Option<(Epoch, Vec<OnDisk>)>,
}

/// A host, and the writes that its Redis read.
type OnDisk = (usize, Vec<WriteId>);

/// What a change of masters may lose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Loss {
    Nothing,
    Tail,
    Anything,
}

impl Group {
    /// The most that any assignment after `old` up to `new` may lose. A master that nobody reached is replaced like one that failed:
    /// behind a filter its clients may go on for as long as it is not found, and the replica gets nothing of that; but it is
    /// promoted only from the eligible set, which it leaves when it lags by more than `max_lag`. So the bound is the same.
    fn loss_after(&self, old: Epoch, new: Epoch) -> Loss {
        let of = |cause: &Cause| match cause {
            Cause::Switchover | Cause::SwitchoverBack => Loss::Nothing,
            Cause::MasterDown | Cause::NodeSilent | Cause::MasterUnreached => Loss::Tail,
            Cause::Adopted | Cause::Operator | Cause::ColdStart => Loss::Anything,
        };
        self.causes.range(old.next()..=new).map(|(_, c)| of(c)).max().unwrap_or(Loss::Anything)
    }

    /// The epoch that `host` ended by a switchover, if it is master again because the new one failed.
    fn handed_over(&self, host: usize, epoch: Epoch) -> Option<Epoch> {
        let (own, new) = (Epoch(epoch.0.checked_sub(2)?), Epoch(epoch.0 - 1));
        let failed = matches!(
            self.causes.get(&epoch)?,
            Cause::MasterDown | Cause::NodeSilent | Cause::MasterUnreached
        );
        let planned = *self.causes.get(&new)? == Cause::Switchover;
        (failed && planned && *self.masters.get(&own)? == host).then_some(own)
    }
}

#[derive(Debug)]
pub struct Ledger {
    groups: Vec<Group>,
    confirmed: std::collections::BTreeSet<WriteId>,
    bounds: Vec<Span>,
}

impl Ledger {
    #[must_use]
    pub fn new(spec: &ClusterSpec, hosts: usize) -> Self {
        let group = || Group { opened: vec![None; hosts], ..Group::default() };
        let second = Span::from_secs(1);
        let lease = spec.timing.wait_for(spec.timing.lease_ttl);
        Self {
            groups: spec.groups.iter().map(|_| group()).collect(),
            confirmed: std::collections::BTreeSet::new(),
            // Redis tells a replica's lag in whole seconds.
            bounds: spec.groups.iter().map(|g| g.max_lag + second + lease + SLACK).collect(),
        }
    }

    /// A node applied an assignment.
    pub fn assigned(&mut self, group: usize, epoch: Epoch, cause: Cause) {
        self.groups[group].causes.insert(epoch, cause);
    }

    /// A gate was opened. True if that began a tenure.
    pub fn opened(&mut self, group: usize, host: usize, view: (Epoch, Option<Cause>)) -> bool {
        let (epoch, cause) = view;
        let slot = &mut self.groups[group].opened[host];
        let new = slot.is_none_or(|t| t.epoch != epoch);
        *slot = Some(Tenure { host, epoch, cause });
        self.groups[group].masters.insert(epoch, host);
        new
    }

    /// `host`, which opened `epoch`, had handed over to a master that failed at once.
    #[must_use]
    pub fn goes_on(&self, group: usize, host: usize, epoch: Epoch) -> bool {
        self.groups[group].handed_over(host, epoch).is_some()
    }

    /// `host`, which opened `epoch`, was not the master before.
    #[must_use]
    pub fn moved(&self, group: usize, host: usize, epoch: Epoch) -> bool {
        let before = Epoch(epoch.0.saturating_sub(1));
        self.groups[group].masters.get(&before).is_some_and(|old| *old != host)
    }

    /// A cold start passed over these data sets.
    pub fn passed_over(&mut self, group: usize, epoch: Epoch, others: Vec<OnDisk>) {
        self.groups[group].passed_over = Some((epoch, others));
    }

    pub fn confirmed(&mut self, write: WriteId) {
        self.confirmed.insert(write);
    }

    /// An answer reached a client; `log` is the data of the Redis that gave it. How many earlier writes are lost.
    ///
    /// # Errors
    /// An older master answers after a newer one, or something is lost that must not be.
    pub fn acknowledged(
        &mut self,
        answer: Acknowledged,
        log: &[WriteId],
        written: WriteId,
    ) -> Result<usize, Violation> {
        let Acknowledged { group, host, write, at, elsewhere } = answer;
        let adopted = Tenure { host, epoch: Epoch::NONE, cause: None };
        let g = &mut self.groups[group];
        let tenure = g.opened[host].unwrap_or(adopted);
        let before = g.acked;
        let mut lost = 0;
        if let Some((old, _)) = before {
            if tenure.epoch < old.epoch {
                let (epoch, newer) = (tenure.epoch, old.epoch);
                return Err(Violation::StaleAcknowledgement { group, host, write, epoch, newer });
            }
            if tenure.epoch == old.epoch && old.host != host {
                let (before, epoch) = (old.host, tenure.epoch);
                return Err(Violation::EpochTwice { group, host, before, epoch });
            }
            if tenure.epoch > old.epoch {
                lost = self.begin_tenure(group, (tenure, old.epoch), (log, written), elsewhere)?;
            }
        }
        let g = &mut self.groups[group];
        g.served += before.map_or(Span(0), |(_, last)| at.since(last).min(GAP_COUNTED));
        g.acked = Some((tenure, at));
        let at = g.served;
        g.kept.push(Kept { write, epoch: tenure.epoch, at });
        Ok(lost)
    }

    fn begin_tenure(
        &mut self,
        group: usize,
        change: (Tenure, Epoch),
        data: (&[WriteId], WriteId),
        elsewhere: usize,
    ) -> Result<usize, Violation> {
        let (tenure, old_epoch) = change;
        let (log, written) = data;
        let present = present(log, written);
        let g = &mut self.groups[group];
        let end = g.served;
        let is_there = |k: &Kept| present.get(k.write as usize).copied().unwrap_or(false);
        let (kept, lost): (Vec<Kept>, Vec<Kept>) = g.kept.iter().partition(|k| is_there(k));
        g.kept = kept;
        let epoch = tenure.epoch;
        if let Some(own) = g.handed_over(tenure.host, epoch) {
            let missing = lost.iter().filter(|k| k.epoch <= own).count();
            if missing > 0 {
                return Err(Violation::SwitchoverLost { group, epoch, lost: missing });
            }
        }
        // The log holds at least the write that is being acknowledged.
        if elsewhere > 1 && log.len() <= 1 && !by_operator(tenure.cause) {
            let host = tenure.host;
            return Err(Violation::EmptyServes { group, host, epoch, elsewhere });
        }
        if let Some((_, others)) = g.passed_over.take().filter(|(at, _)| *at == epoch) {
            for (host, log) in others {
                let had = self::present(&log, written);
                let had = |k: &&Kept| had.get(k.write as usize).copied().unwrap_or(false);
                let lost = lost.iter().filter(had).count();
                if lost > AOF_TAIL {
                    return Err(Violation::ColdStartLost { group, epoch, host, lost });
                }
            }
        }
        let bounded = match g.loss_after(old_epoch, epoch) {
            Loss::Nothing if !lost.is_empty() => {
                return Err(Violation::SwitchoverLost { group, epoch, lost: lost.len() });
            }
            Loss::Nothing | Loss::Tail => true,
            Loss::Anything => false,
        };
        for k in lost.iter().filter(|_| bounded) {
            if self.confirmed.contains(&k.write) {
                return Err(Violation::ConfirmedLost { group, epoch, write: k.write });
            }
            let (before_end, bound) = (end - k.at, self.bounds[group]);
            if before_end > bound {
                return Err(Violation::LostTooOld {
                    group,
                    epoch,
                    write: k.write,
                    before_end,
                    bound,
                });
            }
        }
        Ok(lost.len())
    }

    /// Everything that was acknowledged and not written off is in the master's data.
    ///
    /// # Errors
    /// The first that is not.
    pub fn at_end(&self, group: usize, log: &[WriteId], written: WriteId) -> Result<(), Violation> {
        let present = present(log, written);
        let missing = self.groups[group]
            .kept
            .iter()
            .find(|k| !present.get(k.write as usize).copied().unwrap_or(false));
        missing.map_or(Ok(()), |k| Err(Violation::MissingAtEnd { group, write: k.write }))
    }

    /// When the group last acknowledged anything.
    #[must_use]
    pub fn last_acknowledged(&self, group: usize) -> Option<Real> {
        self.groups[group].acked.map(|(_, at)| at)
    }

    /// The last tenure that `host` opened was ordered by an operator.
    #[must_use]
    pub fn named_by_operator(&self, group: usize, host: usize) -> bool {
        by_operator(self.groups[group].opened[host].and_then(|t| t.cause))
    }
}

fn by_operator(cause: Option<Cause>) -> bool {
    matches!(cause, Some(Cause::Operator))
}

fn present(log: &[WriteId], written: WriteId) -> Vec<bool> {
    let mut present = vec![false; written as usize];
    for write in log {
        if let Some(p) = present.get_mut(*write as usize) {
            *p = true;
        }
    }
    present
}

#[cfg(test)]
mod tests {
    use crate::plan::{Layout, Plan, Profile};

    use super::*;

    fn ledger() -> Ledger {
        let knobs = Plan::draw(1, Layout::Trio, Profile::Calm).knobs();
        Ledger::new(&crate::world::spec_of(Layout::Trio, &knobs), 3)
    }
    fn ack(host: usize, write: WriteId, at_ms: u64) -> Acknowledged {
        Acknowledged { group: 0, host, write, at: Real(at_ms * 1_000_000), elsewhere: 0 }
    }
    fn open(l: &mut Ledger, host: usize, epoch: u64, cause: Cause) {
        l.assigned(0, Epoch(epoch), cause);
        l.opened(0, host, (Epoch(epoch), Some(cause)));
    }

    #[test]
    fn an_answer_of_the_old_master_after_the_new_one_is_caught() {
        let mut l = ledger();
        open(&mut l, 0, 1, Cause::Adopted);
        open(&mut l, 1, 2, Cause::NodeSilent);
        assert!(l.acknowledged(ack(0, 0, 1), &[0], 9).is_ok());
        assert!(l.acknowledged(ack(1, 1, 2), &[0, 1], 9).is_ok());
        assert!(matches!(
            l.acknowledged(ack(0, 2, 3), &[0, 2], 9),
            Err(Violation::StaleAcknowledgement { newer: Epoch(2), .. })
        ));
    }

    #[test]
    fn two_hosts_that_answer_at_one_epoch_are_caught() {
        let mut l = ledger();
        open(&mut l, 0, 1, Cause::Adopted);
        open(&mut l, 1, 1, Cause::Adopted);
        assert!(l.acknowledged(ack(0, 0, 1), &[0], 9).is_ok());
        let outcome = l.acknowledged(ack(1, 1, 2), &[0, 1], 9);
        assert!(matches!(outcome, Err(Violation::EpochTwice { before: 0, .. })), "{outcome:?}");
    }

    #[test]
    fn a_switchover_may_lose_nothing_and_a_failover_the_tail_only() {
        for (cause, at_ms, caught) in [
            (Cause::Switchover, 99_999, true),
            (Cause::NodeSilent, 99_999, false),
            (Cause::NodeSilent, 10, true),
            (Cause::ColdStart, 10, false),
        ] {
            let mut l = ledger();
            open(&mut l, 0, 1, Cause::Adopted);
            open(&mut l, 1, 2, cause);
            l.acknowledged(ack(0, 0, 1), &[0], 9).unwrap();
            l.acknowledged(ack(0, 1, at_ms), &[0, 1], 9).unwrap();
            for later in (at_ms..100_000).step_by(100).skip(1) {
                l.acknowledged(ack(0, 2, later), &[0, 1, 2], 9).unwrap();
            }
            l.acknowledged(ack(0, 2, 100_000), &[0, 1, 2], 9).unwrap();
            let outcome = l.acknowledged(ack(1, 3, 100_500), &[0, 2, 3], 9);
            assert_eq!(outcome.is_err(), caught, "{cause:?} {at_ms}");
        }
    }

    #[test]
    fn a_cold_start_loses_nothing_of_what_a_disk_had() {
        let writes: Vec<WriteId> = (0..100).collect();
        for (had, caught) in [(100, true), (41, true), (40, false), (0, false)] {
            let mut l = ledger();
            open(&mut l, 0, 1, Cause::Adopted);
            for w in &writes {
                l.acknowledged(ack(0, *w, u64::from(*w)), &writes[..=*w as usize], 200).unwrap();
            }
            open(&mut l, 1, 2, Cause::ColdStart);
            l.passed_over(0, Epoch(2), vec![(0, writes[..had].to_vec())]);
            let outcome = l.acknowledged(ack(1, 100, 500), &[100], 200);
            assert_eq!(outcome.is_err(), caught, "{had}: {outcome:?}");
        }
    }

    #[test]
    fn a_master_that_handed_over_and_goes_on_lacks_nothing_of_its_own() {
        let began = |cause| {
            let mut l = ledger();
            open(&mut l, 0, 1, Cause::Adopted);
            l.acknowledged(ack(0, 0, 1), &[0], 9).unwrap();
            open(&mut l, 1, 2, cause);
            l.acknowledged(ack(1, 1, 2), &[0, 1], 9).unwrap();
            open(&mut l, 0, 3, Cause::MasterDown);
            l
        };
        let own_lost = began(Cause::Switchover).acknowledged(ack(0, 2, 3), &[2], 9);
        assert!(matches!(own_lost, Err(Violation::SwitchoverLost { lost: 1, .. })), "{own_lost:?}");
        assert_eq!(began(Cause::Switchover).acknowledged(ack(0, 2, 3), &[0, 2], 9), Ok(1));
        assert_eq!(began(Cause::MasterDown).acknowledged(ack(0, 2, 3), &[2], 9), Ok(2));
    }

    #[test]
    fn an_empty_data_set_serves_only_where_no_other_is_fuller() {
        for (elsewhere, caught) in [(0, false), (5, true)] {
            let mut l = ledger();
            open(&mut l, 0, 1, Cause::Adopted);
            open(&mut l, 1, 2, Cause::ColdStart);
            l.acknowledged(ack(0, 0, 1), &[0], 9).unwrap();
            let outcome = l.acknowledged(Acknowledged { elsewhere, ..ack(1, 1, 9) }, &[1], 9);
            assert_eq!(outcome.is_err(), caught);
        }
    }

    #[test]
    fn a_confirmed_write_is_never_lost() {
        let mut l = ledger();
        open(&mut l, 0, 1, Cause::Adopted);
        open(&mut l, 1, 2, Cause::MasterDown);
        l.acknowledged(ack(0, 0, 1), &[0], 9).unwrap();
        l.acknowledged(ack(0, 1, 2), &[0, 1], 9).unwrap();
        l.confirmed(1);
        let outcome = l.acknowledged(ack(1, 2, 3), &[0, 2], 9);
        assert!(matches!(outcome, Err(Violation::ConfirmedLost { write: 1, .. })));
    }
}
