//! What the others told this leader, and when.

use std::collections::BTreeMap;

use redkeep_consensus::Mono;

use crate::{
    ids::{GroupId, RunId},
    observe::{RedisObservation, RedisView, Report},
};

/// What the leader knows of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeView {
    pub heard: Option<Mono>,
    pub report: Option<Report>,
    /// The last observation of each group's Redis there, and when it was told; stays when the Redis dies.
    observed: BTreeMap<GroupId, (Mono, RedisObservation)>,
    /// The same of the life before, where there was another.
    before: BTreeMap<GroupId, (Mono, RedisObservation)>,
}

impl NodeView {
    /// Take a report in; false if a newer one came before it.
    pub(crate) fn take(&mut self, now: Mono, report: Report) -> bool {
        self.heard = Some(now);
        let newest = self.report.as_ref().map_or((0, 0), |r| (r.incarnation, r.seq));
        if (report.incarnation, report.seq) <= newest {
            return false;
        }
        for g in &report.groups {
            if let RedisView::Up(o) = &g.redis {
                let old = self.observed.insert(g.group.clone(), (now, o.clone()));
                if let Some(old) = old.filter(|(_, old)| old.run_id != o.run_id) {
                    self.before.insert(g.group.clone(), old);
                }
            }
        }
        self.report = Some(report);
        true
    }

    pub fn last_observation(&self, group: &GroupId) -> Option<&RedisObservation> {
        self.last_look(group).map(|(_, seen)| seen)
    }

    /// With when it was told.
    pub fn last_look(&self, group: &GroupId) -> Option<(Mono, &RedisObservation)> {
        self.observed.get(group).map(|(at, seen)| (*at, seen))
    }

    /// The last look at that life of it, with when it was told.
    pub fn last_look_at(&self, group: &GroupId, life: &RunId) -> Option<(Mono, &RedisObservation)> {
        let looks = [self.observed.get(group), self.before.get(group)];
        let found = looks.into_iter().flatten().find(|(_, seen)| seen.run_id == *life)?;
        Some((found.0, &found.1))
    }
}

#[cfg(test)]
impl NodeView {
    pub(crate) fn for_test(heard: Mono, report: Report, before: Option<&RedisObservation>) -> Self {
        let mut observed = BTreeMap::new();
        for g in &report.groups {
            if let Some(o) = before.or(g.redis.observation()) {
                observed.insert(g.group.clone(), (heard, o.clone()));
            }
        }
        Self { heard: Some(heard), report: Some(report), observed, before: BTreeMap::new() }
    }
}
