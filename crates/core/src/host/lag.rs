//! Members of the eligible set that have been far from their master for long: a renewal names them, and they leave the set.
//!
//! Only time in which something could be acknowledged counts. Owned by the host of the master.

use redkeep_consensus::{Mono, Span};

use super::{Cx, HostGroup};
use crate::{
    model::GroupModel,
    observe::{EligibleMember, RedisView},
    plan::eligible,
};

/// A replica acknowledges once a second, so what it has is known that late.
const ACKNOWLEDGEMENTS: Span = Span::from_secs(1);

/// What a member has yet to acknowledge.
#[derive(Debug)]
struct Owed {
    member: EligibleMember,
    /// The offset that settles it.
    offset: u64,
    since: Mono,
}

/// Offsets that members owe, each since it was first seen to be owed.
#[derive(Debug, Default)]
struct Debts(Vec<Owed>);

impl Debts {
    /// Of `members`, those that did not acknowledge within `limit` what the master had, less `allowed` bytes. A link that ends, as by
    /// a gate that closes, settles nothing.
    fn overdue(
        &mut self,
        now: Mono,
        (limit, allowed): (Span, u64),
        master: u64,
        (members, acknowledged): (&[EligibleMember], &[(EligibleMember, u64)]),
    ) -> Vec<EligibleMember> {
        self.0.retain(|owed| {
            let known = acknowledged.iter().find(|(m, _)| *m == owed.member);
            members.contains(&owed.member) && known.is_none_or(|(_, offset)| *offset < owed.offset)
        });
        let due = master.saturating_sub(allowed);
        for (member, offset) in acknowledged {
            let owes = self.0.iter().any(|owed| owed.member == *member);
            if *offset < due && !owes {
                self.0.push(Owed { member: member.clone(), offset: due, since: now });
            }
        }
        let long = |owed: &&Owed| now.since(owed.since) >= limit;
        self.0.iter().filter(long).map(|owed| owed.member.clone()).collect()
    }

    /// Time in which nothing could be acknowledged does not count.
    fn put_off(&mut self, gap: u64) {
        for owed in &mut self.0 {
            owed.since.0 = owed.since.0.saturating_add(gap);
        }
    }
}

#[derive(Debug)]
pub(super) struct Lag {
    /// Members of the eligible set that were not close, and since when.
    far_since: Vec<(EligibleMember, Mono)>,
    /// Members that are heard, and have not acknowledged all. One that is heard and does not hear acknowledges each second an
    /// offset that stands still.
    owed: Debts,
    /// Members that lack more bytes than they may.
    bytes: Debts,
    /// The gate was open when this life of the supervisor began: since when a member is far is not known.
    far_before_start: bool,
    /// When the gate was opened after it had been closed.
    open_since: Mono,
    /// Since when the gate is closed at the master; the time of `far_since` stands still meanwhile.
    closed_since: Option<Mono>,
}

impl Lag {
    pub(super) fn new(open_at_start: bool) -> Self {
        Self {
            far_since: Vec::new(),
            owed: Debts::default(),
            bytes: Debts::default(),
            far_before_start: open_at_start,
            open_since: Mono(0),
            closed_since: None,
        }
    }

    /// Another node is master.
    pub(super) fn clear(&mut self) {
        self.far_since.clear();
        self.owed.0.clear();
        self.bytes.0.clear();
        self.closed_since = None;
    }
}

impl HostGroup {
    /// Members of the eligible set that have not been near the master for `max_lag`, or lack more than `max_lag_bytes` of what it
    /// had two seconds ago.
    pub(super) fn lagging(&mut self, cx: &Cx<'_>, group: &GroupModel) -> Vec<EligibleMember> {
        let RedisView::Up(o) = self.detector.view() else { return Vec::new() };
        // Behind a closed gate nothing is acknowledged, and the replicas' links are cut by it: that time does not count.
        let open = cx.holder.is_open(cx.now.boot, self.id());
        if !o.is_master() || !open {
            self.lag.closed_since.get_or_insert(cx.now.boot);
            return Vec::new();
        }
        if let Some(closed) = self.lag.closed_since.take() {
            // Until this life's first grant the gate was open by the life before, if it was.
            if !self.lag.far_before_start {
                self.lag.open_since = cx.now.boot;
            }
            let gap = cx.now.boot.0.saturating_sub(closed.0);
            for (_, since) in &mut self.lag.far_since {
                since.0 = since.0.saturating_add(gap);
            }
            self.lag.owed.put_off(gap);
            self.lag.bytes.put_off(gap);
        }
        let acknowledged = eligible::acknowledged(group, cx.cluster, o);
        let known = (group.eligible.as_slice(), acknowledged.as_slice());
        let limit = self.spec.max_lag + ACKNOWLEDGEMENTS;
        let (now, allowed) = (cx.now.boot, self.spec.max_lag_bytes);
        let mut lagging = self.lag.owed.overdue(now, (limit, 0), o.offset, known);
        if allowed > 0 {
            // An acknowledgement, some time for Redis's cron, and the probe that shows it.
            let seen = ACKNOWLEDGEMENTS.max(Span(self.spec.probe.interval.0 * 2));
            let late = (ACKNOWLEDGEMENTS + seen, allowed);
            lagging.extend(self.lag.bytes.overdue(now, late, o.offset, known));
        }
        let far = eligible::far_members(group, cx.cluster, self.spec.max_lag, o);
        self.lag.far_since.retain(|(m, _)| far.iter().any(|(x, _)| x == m));
        // What was acknowledged before this life began counts too: who is far at its first look has been for long.
        let from_before = std::mem::take(&mut self.lag.far_before_start);
        for (m, lag) in far {
            if !self.lag.far_since.iter().any(|(x, _)| *x == m) {
                let since = (cx.now.boot - lag).max(self.lag.open_since);
                self.lag.far_since.push((m, if from_before { Mono(0) } else { since }));
            }
        }
        let limit = self.spec.max_lag.0;
        let long = |since: &Mono| cx.now.boot.0.saturating_sub(since.0) >= limit;
        let far = self.lag.far_since.iter().filter(|(_, s)| long(s)).map(|(m, _)| m.clone());
        lagging.extend(far);
        lagging.sort();
        lagging.dedup();
        lagging
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::RunId, ids::node_id};

    const SEC: u64 = 1_000_000_000;
    const LIMIT: Span = Span::from_secs(2);
    const GONE: u64 = u64::MAX;

    fn looks(allowed: u64, limit: Span) -> impl FnMut(u64, u64, u64) -> usize {
        let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
        let mut debts = Debts::default();
        move |at_ms, written, acknowledged| {
            let known = [(b.clone(), acknowledged)];
            // A link that is gone acknowledges nothing.
            let known = if acknowledged == GONE { &[] } else { &known[..] };
            let at = Mono(at_ms * SEC / 1000);
            debts.overdue(at, (limit, allowed), written, (std::slice::from_ref(&b), known)).len()
        }
    }

    /// Found by the simulator, seeds 4135 and 4230.
    #[test]
    fn a_member_whose_acknowledged_offset_stands_still_is_behind() {
        let mut look = looks(0, LIMIT);
        // It acknowledges a second late, under load.
        assert_eq!([look(1000, 100, 90), look(2000, 110, 100), look(3000, 120, 110)], [0; 3]);
        assert_eq!(look(4000, 130, 110), 0, "what it owes since second 3");
        assert_eq!(look(5000, 140, 119), 1, "and after the limit");
        assert_eq!(look(6000, 150, 120), 0, "acknowledged; what came since counts anew");
        assert_eq!(look(7000, 150, 150), 0);
        assert_eq!(look(99_000, 150, 150), 0, "nothing is owed");
    }

    /// Found by the simulator, seeds 96 and 1831 of masters behind a filter: a fence ended the link, the same master was named
    /// again, and its replica was eligible for twice as long.
    #[test]
    fn what_a_member_owes_outlives_its_link() {
        let mut look = looks(0, LIMIT);
        assert_eq!([look(1000, 100, 90), look(2000, 110, GONE), look(2999, 120, GONE)], [0; 3]);
        assert_eq!(look(3000, 120, GONE), 1);
        assert_eq!(look(3100, 120, 90), 1, "it is back, and has not got it yet");
        assert_eq!(look(3200, 120, 100), 0);
    }

    #[test]
    fn who_has_left_the_set_owes_nothing() {
        let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
        let (mut debts, members) = (Debts::default(), [b.clone()]);
        let mut look = |at, members: &[_], acknowledged: &[_]| {
            debts.overdue(Mono(at * SEC), (LIMIT, 0), 100, (members, acknowledged)).len()
        };
        assert_eq!(look(1, &members, &[(b, 90)]), 0);
        assert_eq!(look(2, &[], &[]), 0);
        assert_eq!(look(9, &members, &[]), 0);
    }

    /// Acknowledgements come once a second: what was written since the last is not lacking.
    #[test]
    fn a_member_lacks_too_much_if_an_acknowledgement_does_not_show_it() {
        let mut look = looks(50, ACKNOWLEDGEMENTS);
        assert_eq!([look(0, 100, 100), look(500, 900, 100), look(999, 1800, 100)], [0; 3]);
        assert_eq!(look(1000, 1850, 860), 0, "it has what the master had half a second before");
        assert_eq!([look(1900, 3000, 860), look(1999, 3000, 860)], [0; 2], "1800 are due at 2.0");
        assert_eq!(look(2000, 3000, 860), 1);
        assert_eq!(look(2100, 3000, 1800), 0, "the rest is due in a second");
        assert_eq!(look(3100, 3000, 2949), 1, "one byte too few");
        assert_eq!(look(3200, 3000, 2950), 0);
    }
}
