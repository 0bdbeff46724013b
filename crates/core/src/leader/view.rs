//! What the others told this leader, and when.

use std::collections::BTreeMap;

use redkeep_consensus::Mono;

use crate::{
    ids::GroupId,
    observe::{RedisObservation, RedisView, Report},
};

/// What the leader knows of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeView {
    pub heard: Option<Mono>,
    pub report: Option<Report>,
    /// The last observation of each group's Redis there; stays when the Redis dies.
    observed: BTreeMap<GroupId, RedisObservation>,
}

impl NodeView {
    /// Take a report in; false if a newer one came before it.
    pub(super) fn take(&mut self, now: Mono, report: Report) -> bool {
        self.heard = Some(now);
        let newest = self.report.as_ref().map_or((0, 0), |r| (r.incarnation, r.seq));
        if (report.incarnation, report.seq) <= newest {
            return false;
        }
        for g in &report.groups {
            if let RedisView::Up(o) = &g.redis {
                self.observed.insert(g.group.clone(), o.clone());
            }
        }
        self.report = Some(report);
        true
    }

    pub fn last_observation(&self, group: &GroupId) -> Option<&RedisObservation> {
        self.observed.get(group)
    }
}

#[cfg(test)]
impl NodeView {
    pub(crate) fn for_test(heard: Mono, report: Report, before: Option<&RedisObservation>) -> Self {
        let mut observed = BTreeMap::new();
        for g in &report.groups {
            if let Some(o) = before.or(g.redis.observation()) {
                observed.insert(g.group.clone(), o.clone());
            }
        }
        Self { heard: Some(heard), report: Some(report), observed }
    }
}
