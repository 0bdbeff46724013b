//! Members of the eligible set that have been far from their master for long: a renewal names them, and they leave the set.
//!
//! Only time in which something could be acknowledged counts. Owned by the host of the master.

use redkeep_consensus::{Mono, Span};

use super::{Cx, HostGroup};
use crate::{
    model::GroupModel,
    observe::{EligibleMember, RedisObservation, RedisView},
    plan::eligible,
};

/// A replica acknowledges once a second, so what it has is known that late.
const ACKNOWLEDGEMENTS: Span = Span::from_secs(1);

/// What a member has yet to acknowledge.
#[derive(Debug)]
struct Owed {
    member: EligibleMember,
    /// The master's offset then.
    offset: u64,
    since: Mono,
}

#[derive(Debug)]
pub(super) struct Lag {
    /// Members of the eligible set that were not close, and since when.
    far_since: Vec<(EligibleMember, Mono)>,
    /// Members that are heard, and have not acknowledged all. One that is heard and does not hear acknowledges each second an
    /// offset that stands still.
    owed: Vec<Owed>,
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
            owed: Vec::new(),
            far_before_start: open_at_start,
            open_since: Mono(0),
            closed_since: None,
        }
    }

    /// Another node is master.
    pub(super) fn clear(&mut self) {
        self.far_since.clear();
        self.owed.clear();
        self.closed_since = None;
    }

    /// Members that did not acknowledge within `limit` what the master had.
    fn behind(
        &mut self,
        now: Mono,
        limit: Span,
        master: &RedisObservation,
        acknowledged: &[(EligibleMember, u64)],
    ) -> Vec<EligibleMember> {
        self.owed.retain(|owed| {
            let known = acknowledged.iter().find(|(m, _)| *m == owed.member);
            known.is_some_and(|(_, offset)| *offset < owed.offset)
        });
        for (member, offset) in acknowledged {
            let owes = self.owed.iter().any(|owed| owed.member == *member);
            if *offset < master.offset && !owes {
                let member = member.clone();
                self.owed.push(Owed { member, offset: master.offset, since: now });
            }
        }
        let long = |owed: &&Owed| now.since(owed.since) >= limit;
        self.owed.iter().filter(long).map(|owed| owed.member.clone()).collect()
    }
}

impl HostGroup {
    /// Members of the eligible set that have not been near the master for `max_lag`.
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
            for owed in &mut self.lag.owed {
                owed.since.0 = owed.since.0.saturating_add(gap);
            }
        }
        let acknowledged = eligible::acknowledged(group, cx.cluster, o);
        let limit = self.spec.max_lag + ACKNOWLEDGEMENTS;
        let mut lagging = self.lag.behind(cx.now.boot, limit, o, &acknowledged);
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
    use crate::{ids::RunId, ids::node_id, observe::RedisRole};

    const SEC: u64 = 1_000_000_000;
    const LIMIT: Span = Span::from_secs(2);

    fn master(offset: u64) -> RedisObservation {
        RedisObservation {
            run_id: RunId::new("run-a"),
            role: RedisRole::Master,
            replication_id: "h".to_owned(),
            previous: None,
            offset,
            keys: 1,
            backlog_from: None,
            replicas: Vec::new(),
            version: "7.0.15".to_owned(),
            settled: true,
            bypass: Vec::new(),
        }
    }

    /// Found by the simulator, seeds 4135 and 4230.
    #[test]
    fn a_member_whose_acknowledged_offset_stands_still_is_behind() {
        let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
        let mut lag = Lag::new(false);
        let mut look = |at: u64, written, acknowledged| {
            let acknowledged = [(b.clone(), acknowledged)];
            lag.behind(Mono(at * SEC), LIMIT, &master(written), &acknowledged).len()
        };
        // It acknowledges a second late, under load.
        assert_eq!([look(1, 100, 90), look(2, 110, 100), look(3, 120, 110)], [0; 3]);
        assert_eq!(look(4, 130, 110), 0, "what it owes since second 3");
        assert_eq!(look(5, 140, 119), 1, "and after the limit");
        assert_eq!(look(6, 150, 120), 0, "acknowledged; what came since counts anew");
        assert_eq!(look(7, 150, 150), 0);
        assert_eq!(look(99, 150, 150), 0, "nothing is owed");
    }
}
