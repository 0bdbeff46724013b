//! What the others told this leader, and when.

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, Span};

use crate::{
    ids::{GroupId, RunId},
    observe::{Led, RedisObservation, RedisView, Report},
    plan::history::goes_on,
};

/// What the leader knows of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeView {
    pub heard: Option<Mono>,
    pub report: Option<Report>,
    /// It was silent, and has not reported since: what it said before is over, its Redis may be another by now.
    pub outdated: bool,
    /// The last observation of each group's Redis there, and when it was told; stays when the Redis dies.
    observed: BTreeMap<GroupId, (Mono, RedisObservation)>,
    /// The same of the life before, where there was another.
    before: BTreeMap<GroupId, (Mono, RedisObservation)>,
    /// Where the data of the last tenure there stood while it served, and when that was told.
    led: BTreeMap<GroupId, (Mono, Led)>,
}

impl NodeView {
    /// Something of it arrived.
    pub(crate) fn hear(&mut self, now: Mono, silent_after: Span) {
        self.outdated |= self.heard.is_some_and(|heard| now.since(heard) > silent_after);
        self.heard = Some(now);
    }

    /// Take a report in; false if a newer one came before it.
    pub(crate) fn take(&mut self, now: Mono, report: Report) -> bool {
        self.heard = Some(now);
        let newest = self.report.as_ref().map_or((0, 0), |r| (r.incarnation, r.seq));
        if (report.incarnation, report.seq) <= newest {
            return false;
        }
        for g in &report.groups {
            if let RedisView::Up(o) = &g.redis {
                self.observe(now, &g.group, o);
            }
            if let Some(led) = &g.led {
                self.note_led(now, &g.group, led);
            }
        }
        self.report = Some(report);
        self.outdated = false;
        true
    }

    fn observe(&mut self, now: Mono, group: &GroupId, o: &RedisObservation) {
        let old = self.observed.insert(group.clone(), (now, o.clone()));
        if let Some(old) = old.filter(|(_, old)| old.run_id != o.run_id) {
            self.before.insert(group.clone(), old);
        }
    }

    /// A supervisor that restarted knows only what is there now: other data than before are not taken for the master's.
    fn note_led(&mut self, now: Mono, group: &GroupId, led: &Led) {
        let known = self.led.get(group).map(|(_, known)| known);
        let is_next = known.is_none_or(|known| match led.epoch == known.epoch {
            true => goes_on(&led.data, &known.data),
            false => led.epoch > known.epoch,
        });
        if is_next {
            self.led.insert(group.clone(), (now, led.clone()));
        }
    }

    /// The data set that served there last, and when it was told.
    pub fn led(&self, group: &GroupId) -> Option<(Mono, &Led)> {
        self.led.get(group).map(|(at, led)| (*at, led))
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
        let mut view = Self { heard: Some(heard), ..Self::default() };
        for g in &report.groups {
            // Another life was seen before this one; of the same life, it was seen last.
            let of_report =
                g.redis.observation().filter(|o| before.is_none_or(|b| b.run_id != o.run_id));
            for o in before.into_iter().chain(of_report) {
                view.observe(heard, &g.group, o);
            }
            if let Some(led) = &g.led {
                view.note_led(heard, &g.group, led);
            }
        }
        view.report = Some(report);
        view
    }
}
