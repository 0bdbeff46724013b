//! Who may be promoted, in which order, and which rule excludes each of the others.

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    ids::RunId,
    leader::NodeView,
    model::GroupModel,
    observe::{Fenced, GroupReport, RedisObservation, RedisView, Report, TakeoverFailure},
    plan::{Exclusion, history::shared_offset},
    spec::GroupSpec,
};

/// A member that may be promoted now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub node: NodeId,
    pub run_id: RunId,
    pub offset: u64,
    pub keys: u64,
    /// What the last master wrote is known to be its own history, up to some point; also where that master is not known.
    pub same_history: bool,
    /// Up to where it has what the last master wrote; its own offset where that master is not known; 0 of another history.
    pub shared: u64,
    pub priority: u32,
}

/// How the members are judged.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pub group: &'a GroupModel,
    pub spec: &'a GroupSpec,
    pub nodes: &'a BTreeMap<NodeId, NodeView>,
    pub now_boot: Mono,
    /// A node not heard for longer is silent.
    pub silent_after: Span,
    /// The old master may be named again if the same life of its Redis is well.
    pub old_master: bool,
    /// An operator said that data may be lost: the eligible set does not count.
    pub allow_data_loss: bool,
    /// Deliberate bug for the simulator.
    pub ignore_eligible: bool,
}

impl<'a> Candidates<'a> {
    /// The report of a node that is heard, and that reported since it was silent.
    pub(crate) fn heard(&self, node: NodeId) -> Option<&'a Report> {
        let view = self.nodes.get(&node)?;
        let silent = self.now_boot.since(view.heard?) > self.silent_after;
        view.report.as_ref().filter(|_| !silent && !view.outdated)
    }

    /// The rule that excludes `node`, or the candidate.
    pub fn judge(&self, node: NodeId) -> Result<Candidate, Exclusion> {
        let priority = self.spec.priority(node);
        let report = self.report(node).ok_or(Exclusion::SupervisorSilent)?;
        let redis = match &report.redis {
            RedisView::Up(o) => o,
            RedisView::Unknown => return Err(Exclusion::NotProbed),
            RedisView::Doubtful(..) | RedisView::Down(_) => return Err(Exclusion::RedisDown),
        };
        // Nothing would be opened there.
        if report.takeover_failure == Some(TakeoverFailure::Lock) {
            return Err(Exclusion::Lock);
        }
        let is_master = self.group.master() == Some(node);
        if is_master {
            self.judge_old_master(node, redis)?;
        }
        // The same life named again adds no second writer.
        if !redis.bypass.is_empty() && !self.is_master_s_life(node, redis) {
            return Err(Exclusion::Bypass { open: redis.bypass.clone() });
        }
        if !is_master {
            self.judge_replica(node, redis)?;
        }
        // The old master is not promoted by going on.
        if priority == 0 && !is_master && !self.allow_data_loss {
            return Err(Exclusion::NeverPromote);
        }
        let shared = self.shared(redis);
        Ok(Candidate {
            node,
            run_id: redis.run_id.clone(),
            offset: redis.offset,
            keys: redis.keys,
            same_history: shared.is_some(),
            shared: shared.unwrap_or(0),
            priority,
        })
    }

    fn judge_old_master(&self, node: NodeId, redis: &RedisObservation) -> Result<(), Exclusion> {
        if self.allow_data_loss {
            return Ok(());
        }
        // It lives, and may have become a copy of another Redis.
        let same_life = self.is_master_s_life(node, redis);
        if same_life && self.is_stray(node) {
            return Err(Exclusion::OtherHistory);
        }
        match (self.old_master, same_life) {
            (false, _) => Err(Exclusion::IsMaster),
            (true, false) => Err(Exclusion::Restarted),
            (true, true) => Ok(()),
        }
    }

    fn is_master_s_life(&self, node: NodeId, redis: &RedisObservation) -> bool {
        let assigned = self.group.assignment.as_ref();
        assigned.is_some_and(|a| a.master == node && a.run_id == redis.run_id)
    }

    fn judge_replica(&self, node: NodeId, redis: &RedisObservation) -> Result<(), Exclusion> {
        if self.allow_data_loss || self.ignore_eligible {
            return Ok(());
        }
        if self.group.is_eligible(node, &redis.run_id) {
            return match self.is_stray(node) {
                true => Err(Exclusion::OtherHistory),
                false if self.is_emptied(redis) => Err(Exclusion::Empty),
                false => Ok(()),
            };
        }
        let was = self.group.eligible.iter().any(|m| m.node == node);
        Err(if was { Exclusion::Restarted } else { Exclusion::NotEligible })
    }

    /// The master's node is heard, and finds no keys there.
    pub(crate) fn has_empty_master(&self) -> bool {
        let report = self.group.master().and_then(|master| self.report(master));
        matches!(report.map(|r| &r.redis), Some(RedisView::Up(o)) if o.is_master() && o.keys == 0)
    }

    /// The group's report of a node that is heard.
    #[must_use]
    pub fn report(&self, node: NodeId) -> Option<&GroupReport> {
        self.heard(node)?.group(&self.spec.id)
    }

    /// The newest fence `node` ever reported to this leader.
    #[must_use]
    pub fn fenced(&self, node: NodeId) -> Option<Fenced> {
        self.nodes.get(&node)?.report.as_ref()?.group(&self.spec.id)?.fenced
    }

    fn shared(&self, redis: &RedisObservation) -> Option<u64> {
        match self.last_look_at_master() {
            Some((_, master)) => shared_offset(&redis.lineage(), &master),
            None => Some(redis.offset),
        }
    }

    /// All that may be promoted, best first: same history, highest offset in it, the master's node on a tie, priority, node id.
    /// What one has beyond the master's history does not count: clients of this master never saw it.
    #[must_use]
    pub fn ranked(&self) -> Vec<Candidate> {
        let mut all: Vec<Candidate> =
            self.spec.members.iter().filter_map(|m| self.judge(m.node).ok()).collect();
        let master = self.group.master();
        all.sort_by(|x, y| {
            y.same_history
                .cmp(&x.same_history)
                .then(y.shared.cmp(&x.shared))
                .then((master == Some(y.node)).cmp(&(master == Some(x.node))))
                .then(y.priority.cmp(&x.priority))
                .then(x.node.cmp(&y.node))
        });
        all
    }
}
