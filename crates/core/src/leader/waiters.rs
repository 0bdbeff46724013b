//! Operators who wait for an outcome, and orders that are not done yet.
//!
//! Everybody is answered once: with the outcome, or that it is not known. Owned by the leader, so nobody waits longer than it leads.

use redkeep_consensus::{Mono, NodeId};

use super::{Leader, LeaderWish, Round};
use crate::{
    admin::{AdminReply, Busy, Refusal},
    ids::{Epoch, GroupId, RequestId},
    model::Applied,
    plan::Forced,
    spec::ClusterSpec,
};

/// An operator who waits for an outcome.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) id: RequestId,
    pub(crate) group: GroupId,
    /// Log index of what was proposed for it, if something was.
    pub(crate) index: Option<u64>,
    /// The epoch that the request replaces.
    pub(crate) from_epoch: Epoch,
    pub(crate) to: Option<NodeId>,
    pub(crate) since: Mono,
    pub(crate) deadline: Mono,
}

/// An operator whose order is done with the entry that was proposed for it.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: RequestId,
    pub(crate) index: u64,
    /// For people: what is done then.
    pub(crate) text: String,
}

impl Leader {
    /// Answered when the entry is applied. Leadership may move meanwhile, and then the outcome is not known.
    pub(crate) fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// The entry `index` of `term` was applied: who ordered it is answered.
    pub(crate) fn decided(&mut self, index: u64, term: u64, applied: &Applied) -> Vec<LeaderWish> {
        // What stands there in another term is not what this leader proposed.
        if term != self.term {
            return Vec::new();
        }
        let mut wishes = Vec::new();
        let rejected = match applied {
            Applied::Rejected(why) => Some(AdminReply::Refused(Refusal::Overtaken(why.clone()))),
            _ => None,
        };
        for order in self.orders.extract_if(.., |o| o.index == index) {
            let Order { id, index, text } = order;
            let done = AdminReply::Done { index, epoch: Epoch::NONE, text };
            wishes.push(LeaderWish::Reply { id, reply: rejected.clone().unwrap_or(done) });
        }
        if let Some(reply) = rejected {
            let met = self.waiters.extract_if(.., |w| w.index == Some(index));
            wishes.extend(met.map(|w| LeaderWish::Reply { id: w.id, reply: reply.clone() }));
        }
        wishes
    }

    pub(super) fn served(&mut self, round: &Round<'_>, group: &GroupId) -> Vec<LeaderWish> {
        let Some(a) = round.model.group(group).and_then(|g| g.assignment.clone()) else {
            return Vec::new();
        };
        let text = format!(
            "{} is master of {group} at epoch {}",
            round.cluster.node_name(a.master),
            a.epoch
        );
        let done = AdminReply::Done { index: a.index, epoch: a.epoch, text };
        let mut wishes = self.answer(
            group,
            |w| a.epoch > w.from_epoch && w.to.is_none_or(|to| to == a.master),
            &done,
        );
        let other = format!("{} became master instead", round.cluster.node_name(a.master));
        wishes.extend(self.answer(
            group,
            |w| a.epoch > w.from_epoch,
            &AdminReply::Refused(Refusal::Aborted(other)),
        ));
        wishes
    }

    pub(super) fn answer(
        &mut self,
        group: &GroupId,
        which: impl Fn(&Waiter) -> bool,
        reply: &AdminReply,
    ) -> Vec<LeaderWish> {
        let (done, kept) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|w| w.group == *group && which(w));
        self.waiters = kept;
        done.into_iter().map(|w| LeaderWish::Reply { id: w.id, reply: reply.clone() }).collect()
    }

    /// Remember an operator's request until its outcome is known.
    pub(crate) fn wait_for(&mut self, waiter: Waiter) {
        self.waiters.push(waiter);
    }

    pub(crate) fn force(&mut self, group: &GroupId, forced: Forced) {
        self.groups.entry(group.clone()).or_default().forced = Some(forced);
    }

    pub(crate) fn is_busy(&self, group: &GroupId) -> bool {
        self.groups.get(group).is_some_and(|g| g.pending.is_some() || g.forced.is_some())
            || self.waiters.iter().any(|w| w.group == *group)
    }

    /// The same, as an operator is told.
    pub(crate) fn busy_with(
        &self,
        now: Mono,
        group: &GroupId,
        cluster: &ClusterSpec,
    ) -> Option<Busy> {
        let Some(w) = self.waiters.iter().find(|w| w.group == *group) else {
            return self.is_busy(group).then_some(Busy::Decision);
        };
        Some(Busy::Order {
            to: w.to.map_or_else(|| "the best".to_owned(), |to| cluster.node_name(to)),
            since_ms: now.since(w.since).as_millis(),
            left_ms: w.deadline.since(now).as_millis(),
        })
    }

    /// Requests whose time is up: the outcome is not known, and a forced failover is taken back unless it is in the log.
    pub(crate) fn expire(&mut self, now: Mono) -> Vec<LeaderWish> {
        let (late, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiters).into_iter().partition(|w| now >= w.deadline);
        self.waiters = kept;
        let mut wishes = Vec::new();
        for w in late {
            let lead = self.groups.entry(w.group.clone()).or_default();
            lead.forced = lead.forced.take().filter(|f| f.request != w.id);
            let hold = lead.hold.as_ref().map_or_else(String::new, |h| format!("; last: {h}"));
            let text = format!("not done in time{hold}");
            wishes.push(LeaderWish::Reply { id: w.id, reply: AdminReply::Unknown { text } });
        }
        wishes
    }

    /// Everything still waited for ends unknown with the leadership.
    pub(crate) fn dismiss(self) -> Vec<LeaderWish> {
        let text = "leadership changed before the outcome was known; see status".to_owned();
        let reply =
            |id| LeaderWish::Reply { id, reply: AdminReply::Unknown { text: text.clone() } };
        let waiting = self.waiters.into_iter().map(|w| w.id);
        waiting.chain(self.orders.into_iter().map(|o| o.id)).map(reply).collect()
    }
}
