//! Failures that come at once: which groups they are, and which of them an operator has acknowledged.
//!
//! Many masters that fail at once are more often a fault of the network, of the supervisors or of somebody's roll-out than of
//! the masters, and a failover of each makes it worse. So above the limit nobody is failed over by itself until an operator has
//! looked, or the masters are back. Owned by the leader; the next leader sees the same failures, and the acknowledgements of
//! the last minute (`recent.rs`). Deliberately absent: what the brake holds back, which is the planner's.

use redkeep_consensus::Span;

use super::{Leader, Round};
use crate::{
    command::Cause,
    ids::GroupId,
    observe::RedisView,
    plan::{MassFailure, next_in_line, unreached},
};

impl Leader {
    /// Look at every group, before any of them is planned: so that all are judged by the same number.
    pub(super) fn count_failing(&mut self, round: &Round<'_>) {
        self.failing = 0;
        if round.cluster.mass_failure_limit == 0 {
            return;
        }
        for id in round.model.groups.keys() {
            self.groups.entry(id.clone()).or_default();
            let fails = self.fails(round, id);
            let known = round.recent.acknowledged_just_now(round.now.boot, id);
            let lead = self.groups.entry(id.clone()).or_default();
            // An acknowledgement ends with the failure that it is about.
            lead.acknowledged &= fails;
            lead.counts = fails && !lead.acknowledged && !known;
            self.failing += usize::from(lead.counts);
        }
    }

    /// The group is one of those that fail at once.
    pub(crate) fn counts(&self, id: &GroupId) -> bool {
        self.groups.get(id).is_some_and(|lead| lead.counts)
    }

    fn is_acknowledged(&self, round: &Round<'_>, id: &GroupId) -> bool {
        self.groups.get(id).is_some_and(|lead| lead.acknowledged)
            || round.recent.acknowledged_just_now(round.now.boot, id)
    }

    /// An operator has seen how it is with `group`, or with all of them.
    pub(super) fn acknowledged(&mut self, round: &Round<'_>, group: Option<&GroupId>) {
        let all = round.model.groups.keys();
        for id in all.filter(|id| group.is_none_or(|g| g == *id)) {
            self.groups.entry(id.clone()).or_default().acknowledged = true;
        }
    }

    /// What the planner of `id` goes by; none where the brake is off or has been acknowledged.
    pub(super) fn mass_failure(&self, round: &Round<'_>, id: &GroupId) -> Option<MassFailure> {
        let limit = round.cluster.mass_failure_limit;
        let above = usize::try_from(limit).is_ok_and(|limit| limit > 0 && self.failing > limit);
        (above && !self.is_acknowledged(round, id))
            .then_some(MassFailure { failing: self.failing, limit })
    }

    /// It needs a failover that nobody ordered, or had one just now.
    fn fails(&mut self, round: &Round<'_>, id: &GroupId) -> bool {
        if round.recent.failed_over_just_now(round.now.boot, id) {
            return true;
        }
        let lease_over = self.grantor.wait_left(round.now.raw, id) == Span(0);
        let (Some(c), Some(lead)) = (self.candidates(round, id), self.groups.get(id)) else {
            return false;
        };
        let Some(a) = c.group.assignment.as_ref().filter(|a| !a.is_adopting()) else {
            return false;
        };
        if lead.forced.is_some() || c.group.switchover.is_some() {
            return false;
        }
        let Some(report) = c.report(a.master) else { return true };
        let limit = round.cluster.timing.takeover_timeout;
        let late = !a.serving
            && a.cause != Cause::Adopted
            && round.now.boot.since(self.assigned_at(lead)) > limit;
        let fenced = report.fenced.is_some_and(|f| f.epoch == a.epoch);
        let ended = lease_over || fenced;
        late || match &report.redis {
            RedisView::Down(_) => true,
            RedisView::Unknown | RedisView::Doubtful(..) => ended,
            // It may go on, unless the planner would name another: by the very same rule.
            RedisView::Up(_) if ended => {
                let cause = if fenced { Cause::MasterDown } else { Cause::NodeSilent };
                next_in_line(&c, a, cause).is_none_or(|next| next.node != a.master)
            }
            RedisView::Up(_) => {
                let well = lead
                    .well_since
                    .is_some_and(|at| round.now.boot.since(at) >= unreached::well_enough_after(&c));
                well && unreached::by_majority(&c, round.cluster).is_some()
            }
        }
    }
}

#[cfg(test)]
#[path = "mass_tests.rs"]
mod tests;
