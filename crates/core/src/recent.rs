//! What happened of late and holds back what is to happen: automatic failovers, and what operators acknowledged.
//!
//! Kept by every node, so that the next leader knows it too. Each counts from its own apply: no clock is compared. What was
//! applied from the log of an earlier life, or came with a snapshot, is of unknown age and counts for nothing. Owned by the
//! core; the leader reads it.

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, Span};

use crate::ids::GroupId;

/// Failovers within this time happen at once, and an acknowledgement holds for as long.
pub(crate) const AT_ONCE: Span = Span::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The last automatic move of each group's master.
    failovers: BTreeMap<GroupId, Mono>,
    acknowledged: BTreeMap<GroupId, Mono>,
}

impl Recent {
    pub(crate) fn failed_over(&mut self, now: Mono, group: &GroupId) {
        self.failovers.insert(group.clone(), now);
    }

    /// An operator has seen what happened to `group`: its cooldown is over.
    pub(crate) fn acknowledge(&mut self, now: Mono, group: &GroupId) {
        self.failovers.remove(group);
        self.acknowledged.insert(group.clone(), now);
    }

    /// What is left of a cooldown of `length` after the last automatic failover.
    pub(crate) fn cooldown_left(&self, now: Mono, group: &GroupId, length: Span) -> Span {
        let since = self.failovers.get(group).map(|at| now.since(*at));
        Span(since.map_or(0, |since| length.0.saturating_sub(since.0)))
    }

    /// Its failover belongs to what happens now.
    pub(crate) fn failed_over_just_now(&self, now: Mono, group: &GroupId) -> bool {
        self.failovers.get(group).is_some_and(|at| now.since(*at) < AT_ONCE)
    }

    pub(crate) fn acknowledged_just_now(&self, now: Mono, group: &GroupId) -> bool {
        self.acknowledged.get(group).is_some_and(|at| now.since(*at) < AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = 1_000_000_000;

    #[test]
    fn a_cooldown_counts_from_the_last_failover_and_ends_when_it_is_acknowledged() {
        let (mut recent, group) = (Recent::default(), GroupId::new("g"));
        let left = |recent: &Recent, at| {
            recent.cooldown_left(Mono(at * SEC), &group, Span::from_secs(100)).0 / SEC
        };
        assert_eq!(left(&recent, 1), 0);
        recent.failed_over(Mono(10 * SEC), &group);
        assert_eq!([left(&recent, 10), left(&recent, 70), left(&recent, 110)], [100, 40, 0]);
        recent.acknowledge(Mono(20 * SEC), &group);
        assert_eq!(left(&recent, 20), 0);
    }

    #[test]
    fn a_failover_and_an_acknowledgement_count_for_a_minute() {
        let (mut recent, group) = (Recent::default(), GroupId::new("g"));
        recent.failed_over(Mono(10 * SEC), &group);
        let counts = |recent: &Recent, at| {
            let now = Mono(at * SEC);
            (recent.failed_over_just_now(now, &group), recent.acknowledged_just_now(now, &group))
        };
        assert_eq!([counts(&recent, 69), counts(&recent, 70)], [(true, false), (false, false)]);
        recent.acknowledge(Mono(60 * SEC), &group);
        assert_eq!([counts(&recent, 61), counts(&recent, 120)], [(false, true), (false, false)]);
    }
}
