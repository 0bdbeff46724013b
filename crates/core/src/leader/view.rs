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
    /// The last observation of the life before, while the present one is empty: what was there, wherever it is now.
    before_emptied: BTreeMap<GroupId, RedisObservation>,
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
                self.observe(&g.group, o);
            }
        }
        self.report = Some(report);
        true
    }

    fn observe(&mut self, group: &GroupId, o: &RedisObservation) {
        let last = self.observed.insert(group.clone(), o.clone());
        if o.keys > 0 {
            self.before_emptied.remove(group);
        } else if let Some(last) = last.filter(|l| l.run_id != o.run_id && l.keys > 0) {
            self.before_emptied.insert(group.clone(), last);
        }
    }

    /// Its Redis came back empty, and held this many keys when this leader saw its last life.
    pub fn keys_before_emptied(&self, group: &GroupId) -> u64 {
        self.before_emptied.get(group).map_or(0, |o| o.keys)
    }

    pub fn last_observation(&self, group: &GroupId) -> Option<&RedisObservation> {
        self.observed.get(group)
    }
}

#[cfg(test)]
impl NodeView {
    pub(crate) fn for_test(heard: Mono, report: Report, before: Option<&RedisObservation>) -> Self {
        let mut view = Self { heard: Some(heard), ..Self::default() };
        for g in &report.groups {
            // Another life was seen before this one; of the same life, it was seen last.
            let of_report =
                g.redis.observation().filter(|o| before.is_none_or(|b| b.run_id != o.run_id));
            for o in before.into_iter().chain(of_report) {
                view.observe(&g.group, o);
            }
        }
        view.report = Some(report);
        view
    }
}
