//! Members of the eligible set that have been far from their master for long: a renewal names them, and they leave the set.
//!
//! Only time in which something could be acknowledged counts. Owned by the host of the master.

use redkeep_consensus::Mono;

use super::{Cx, HostGroup};
use crate::{
    model::GroupModel,
    observe::{EligibleMember, RedisView},
    plan::eligible,
};

#[derive(Debug)]
pub(super) struct Lag {
    /// Members of the eligible set that were not close, and since when.
    far_since: Vec<(EligibleMember, Mono)>,
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
            far_before_start: open_at_start,
            open_since: Mono(0),
            closed_since: None,
        }
    }

    /// Another node is master.
    pub(super) fn clear(&mut self) {
        self.far_since.clear();
        self.closed_since = None;
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
        self.lag.far_since.iter().filter(|(_, s)| long(s)).map(|(m, _)| m.clone()).collect()
    }
}
