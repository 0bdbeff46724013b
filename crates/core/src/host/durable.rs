//! `min-replicas-to-write` of the master, steered by the committed eligible set where `durability` is strict.
//!
//! With a member in the set Redis refuses writes while fewer replicas than members are attached; without one it goes on alone.
//! So a master that loses its replica stops by itself until the loss is committed, and only then goes on: whoever could be
//! promoted meanwhile lacks nothing that was acknowledged after the link ended. Level-triggered, from the applied model alone.
//! Invariants: the gate of a takeover is not opened before Redis has the number; it rises when the set with the member is
//! applied here, and falls only after a set without it is. Deliberately absent: any wait of a write for a replica (`WAIT`),
//! and what Redis says its settings are.

use redkeep_consensus::{Mono, Span};

use super::{Cx, HostGroup, Work};
use crate::{
    effect::{Action, ActionId, ActionOutcome, MinReplicas},
    model::GroupModel,
    observe::RedisView,
    plan::eligible,
    spec::{Durability, GroupSpec},
};

/// `min-replicas-max-lag`: replicas acknowledge each second and Redis counts whole ones, so a healthy replica is seen with up to
/// 1, and at an unlucky moment with 2. 0 would switch the rule off.
const MAX_LAG_S: u32 = 2;
/// What Redis has by default.
const REDIS_MAX_LAG_S: u32 = 10;
/// A setting that was refused is tried again after this.
const RETRY: Span = Span::from_secs(1);

/// What Redis was told, and is being told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Answered.
    in_force: Option<MinReplicas>,
    ordered: Option<MinReplicas>,
    setting: Work,
    /// This host made it strict in this life of Redis.
    was_strict: bool,
    /// At least what the set asks for is in force, as of the last look.
    is_enough: bool,
}

impl Told {
    /// A new tenure: what an earlier one said, or a fence since, counts for nothing.
    pub(super) fn begin(&mut self) {
        *self = Self { was_strict: self.was_strict, ..Self::default() };
    }

    /// The order goes along with a promotion.
    pub(super) fn promoting(&mut self, with: MinReplicas) {
        self.ordered = Some(with);
    }

    pub(super) fn promoted(&mut self) {
        self.in_force = self.ordered;
    }

    pub(super) fn is_enough(&self) -> bool {
        self.is_enough
    }

    pub(super) fn in_force(&self) -> Option<u32> {
        self.in_force.map(|m| m.to_write)
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.setting.deadline()
    }

    pub(super) fn answered(&mut self, now: Mono, id: ActionId, outcome: &ActionOutcome) {
        if self.setting != Work::Running(id) {
            return;
        }
        let failed = matches!(outcome, ActionOutcome::Failed(_));
        // A command that was not answered may still run.
        self.in_force = self.ordered.filter(|_| !failed);
        self.setting = if failed { Work::RetryAt(now + RETRY) } else { Work::Done };
    }

    /// The next order, if one is due.
    fn order(&mut self, now: Mono, want: MinReplicas) -> Option<MinReplicas> {
        self.is_enough = self.in_force.is_some_and(|m| m.to_write >= want.to_write);
        let free = match self.setting {
            Work::Idle | Work::Done => true,
            Work::RetryAt(at) => now >= at,
            Work::Running(_) | Work::Locking => false,
        };
        (free && self.in_force != Some(want)).then_some(want)
    }
}

impl HostGroup {
    /// What the applied model asks for.
    pub(super) fn min_replicas(&mut self, cx: &Cx<'_>, group: &GroupModel) -> MinReplicas {
        let spec = cx.cluster.group(&self.spec.id).unwrap_or(&self.spec);
        let mut members = group.eligible.len();
        if cx.mutations.lower_before_commit()
            && let RedisView::Up(o) = self.detector.view()
        {
            let lag = Span::from_secs(u64::from(MAX_LAG_S));
            members -= eligible::far_members(group, cx.cluster, lag, o).len();
        }
        let want = wanted(spec, members, self.told.was_strict);
        self.told.was_strict |= spec.durability == Durability::Strict;
        want
    }

    /// Once promoted: whatever changed since is told to Redis.
    pub(super) fn drive_min_replicas(&mut self, cx: &mut Cx<'_>, group: &GroupModel) {
        let want = self.min_replicas(cx, group);
        if let Some(order) = self.told.order(cx.now.boot, want) {
            let id = cx.sink.act(&self.spec.id, Action::SetMinReplicas(order));
            self.told.ordered = Some(order);
            self.told.setting = Work::Running(id);
        }
    }
}

fn wanted(spec: &GroupSpec, members: usize, was_strict: bool) -> MinReplicas {
    let floor = spec.min_replicas_to_write;
    match spec.durability {
        Durability::Strict => MinReplicas {
            to_write: floor.max(u32::try_from(members).unwrap_or(u32::MAX)),
            max_lag_s: Some(MAX_LAG_S),
        },
        Durability::Async => {
            MinReplicas { to_write: floor, max_lag_s: was_strict.then_some(REDIS_MAX_LAG_S) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cluster;

    fn want(durability: Durability, floor: u32, members: usize, was: bool) -> (u32, Option<u32>) {
        let mut spec = cluster().groups.remove(0);
        (spec.durability, spec.min_replicas_to_write) = (durability, floor);
        let m = wanted(&spec, members, was);
        (m.to_write, m.max_lag_s)
    }

    #[test]
    fn strict_asks_for_as_many_replicas_as_the_set_has_and_never_for_less_than_the_spec() {
        for (floor, members, to_write) in [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 1), (1, 2, 2)] {
            assert_eq!(want(Durability::Strict, floor, members, false), (to_write, Some(2)));
        }
    }

    #[test]
    fn async_asks_for_what_the_spec_says_and_gives_back_what_strict_had_taken() {
        assert_eq!(want(Durability::Async, 0, 2, false), (0, None));
        assert_eq!(want(Durability::Async, 1, 0, false), (1, None));
        assert_eq!(want(Durability::Async, 1, 2, true), (1, Some(10)));
    }

    #[test]
    fn an_order_is_given_once_and_again_when_refused_or_when_it_is_another() {
        let at = |ms: u64| Mono(ms * 1_000_000);
        let m = |to_write| MinReplicas { to_write, max_lag_s: Some(2) };
        let mut told = Told::default();
        told.promoting(m(0));
        told.promoted();
        assert_eq!(told.order(at(0), m(0)), None);
        assert!(told.is_enough());
        assert_eq!(told.order(at(0), m(1)), Some(m(1)));
        assert!(!told.is_enough(), "a gate is not opened now");
        (told.ordered, told.setting) = (Some(m(1)), Work::Running(ActionId(7)));
        assert_eq!(told.order(at(1), m(1)), None, "it is out");
        told.answered(at(2), ActionId(6), &ActionOutcome::Done);
        assert_eq!(told.in_force(), Some(0), "another's answer");
        let refused = crate::effect::ActionFailure { retry: true, text: String::new() };
        told.answered(at(2), ActionId(7), &ActionOutcome::Failed(refused));
        assert_eq!((told.in_force(), told.order(at(500), m(1))), (None, None));
        assert_eq!(told.order(at(1_002), m(1)), Some(m(1)));
        (told.ordered, told.setting) = (Some(m(1)), Work::Running(ActionId(8)));
        told.answered(at(1_003), ActionId(8), &ActionOutcome::Done);
        assert_eq!((told.in_force(), told.order(at(1_004), m(1))), (Some(1), None));
        assert_eq!(told.order(at(1_005), m(0)), Some(m(0)), "the set without it is applied");
        assert!(told.is_enough());
    }
}
