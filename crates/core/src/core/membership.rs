//! Raft's membership follows the nodes of the spec, one change at a time.
//!
//! Who joins follows the log as a learner first and votes once it has caught up, so a newcomer that is slow or absent costs
//! no majority. Who leaves is taken out; a leader that leaves hands on first. The leader compares and mends at each turn:
//! nothing is remembered, so another leader goes on where this one stopped.

use redkeep_consensus::{MembershipChange, NodeId};

use super::{Core, admin::Next};
use crate::{
    admin::{Busy, NodeRefusal, Refusal},
    command::Body,
    ids::{GroupId, Now},
    spec::{Member, NodeSpec},
};

/// Below this many nodes the loss of one stops the cluster.
const NODES_MIN: usize = 3;
/// A learner may vote when it lacks no more entries than this: they are under way to it.
const CAUGHT_UP: u64 = 16;

impl Core {
    pub(super) fn mend_membership(&mut self, now: Now) {
        let Some(change) = self.next_membership_change(now) else { return };
        if change == MembershipChange::Remove(self.me) {
            self.hand_on_before_leaving(now);
            return;
        }
        match self.consensus.propose_membership(now.boot, change) {
            Ok(proposed) => tracing::info!(?change, index = proposed.index, "membership"),
            Err(error) => tracing::trace!(?change, %error, "membership"),
        }
    }

    fn next_membership_change(&self, now: Now) -> Option<MembershipChange> {
        let spec = self.model.spec.as_ref().filter(|_| self.leader.is_some())?;
        let (voters, learners) = (self.consensus.voters(), self.consensus.learners());
        let known = |n: &NodeSpec| voters.contains(&n.id) || learners.contains(&n.id);
        if let Some(new) = spec.nodes.iter().find(|n| !known(n)) {
            return Some(MembershipChange::AddLearner(new.id));
        }
        let ready = |n: &&NodeId| spec.node(**n).is_some() && self.may_vote(**n, now);
        if let Some(learner) = learners.iter().find(ready) {
            return Some(MembershipChange::Promote(*learner));
        }
        let gone = voters.iter().chain(learners).find(|n| spec.node(**n).is_none())?;
        let rest: Vec<NodeId> = voters.iter().copied().filter(|v| v != gone).collect();
        let kept = self.heard_of(&rest, now) > rest.len() / 2;
        kept.then_some(MembershipChange::Remove(*gone))
    }

    /// It has caught up, and with it a majority is heard.
    fn may_vote(&self, learner: NodeId, now: Now) -> bool {
        let has = self.consensus.matched(learner).unwrap_or(0);
        let mut after = self.consensus.voters().to_vec();
        after.push(learner);
        has + CAUGHT_UP >= self.consensus.last_index()
            && self.is_heard_within(learner, now, self.timing().lease_ttl)
            && self.heard_of(&after, now) > after.len() / 2
    }

    fn heard_of(&self, nodes: &[NodeId], now: Now) -> usize {
        let ttl = self.timing().lease_ttl;
        nodes.iter().filter(|n| **n == self.me || self.is_heard_within(**n, now, ttl)).count()
    }

    fn hand_on_before_leaving(&mut self, now: Now) {
        if !self.may_hand_on(now) {
            return;
        }
        let ttl = self.timing().lease_ttl;
        let others = self.others_heard(now, ttl);
        if let Some((_, to)) = others.into_iter().find(|(_, n)| self.spec().node(*n).is_some()) {
            self.hand_on(now, to);
        }
    }

    pub(super) fn add_node(&self, node: NodeSpec, dry_run: bool) -> Next {
        let name = node.name.clone();
        if let Err(why) = self.model.check_joining(&node) {
            return refused(name, "join", why.into());
        }
        let nodes = self.spec().nodes.len() + 1;
        let odd = if nodes.is_multiple_of(2) {
            format!("; {nodes} nodes survive no more failures than {}", nodes - 1)
        } else {
            String::new()
        };
        let then = "votes once its supervisor runs with `join = true` and has caught up";
        if dry_run {
            return self.would(format!("would add {name}; it {then}{odd}"));
        }
        let text = format!("{name} is added; it {then}{odd}");
        Next::Propose { body: Body::AddNode(node), text }
    }

    pub(super) fn remove_node(&self, now: Now, node: NodeId, dry_run: bool) -> Next {
        let name = self.spec().node_name(node);
        // Another removal may be in the log and not in the spec yet.
        if self.applied < self.removal_at {
            return Next::refused(Refusal::Busy(Busy::Removal));
        }
        if let Err(why) = self.check_node_leaves(now, node) {
            return refused(name, "leave", why);
        }
        if dry_run {
            return self.would(format!("would take {name} out; its name cannot come back"));
        }
        let text = format!("{name} is taken out; stop its supervisor, its name cannot come back");
        Next::Propose { body: Body::RemoveNode { node }, text }
    }

    /// From the entry on nobody keeps links to who leaves, and Raft takes it out by the votes of those that stay: they alone
    /// have to be a majority of all that vote now, or it never happens. Who joined and has no vote yet does not count.
    fn check_node_leaves(&self, now: Now, node: NodeId) -> Result<(), NodeRefusal> {
        self.model.check_leaving(node)?;
        let voters = self.consensus.voters();
        let stays = |v: &NodeId| *v != node && self.spec().node(*v).is_some();
        let rest: Vec<NodeId> = voters.iter().copied().filter(stays).collect();
        if rest.len() < NODES_MIN {
            return Err(NodeRefusal::TooFew { left: rest.len() });
        }
        let (heard, of) = (self.heard_of(&rest, now), voters.len());
        if heard <= of / 2 { Err(NodeRefusal::NoMajority { heard, of }) } else { Ok(()) }
    }

    pub(super) fn add_member(&self, group: GroupId, member: Member, dry_run: bool) -> Next {
        let name = self.spec().node_name(member.node);
        if let Err(why) = self.model.check_new_member(&group, member.node) {
            return refused(name, "become a member", why.into());
        }
        let then = "its Redis is made a replica, and what it holds is replaced";
        if dry_run {
            return self.would(format!("would make {name} a member of {group}: {then}"));
        }
        let text = format!("{name} is a member of {group}: {then}");
        Next::Propose { body: Body::AddMember { group, member }, text }
    }

    pub(super) fn remove_member(&self, group: GroupId, node: NodeId, dry_run: bool) -> Next {
        let name = self.spec().node_name(node);
        if let Err(why) = self.model.check_old_member(&group, node) {
            return refused(name, "leave the group", why.into());
        }
        let then = "its port stays closed, and its Redis may be stopped";
        if dry_run {
            return self.would(format!("would take {name} out of {group}: {then}"));
        }
        let text = format!("{name} is no member of {group} any more: {then}");
        Next::Propose { body: Body::RemoveMember { group, node }, text }
    }
}

fn refused(node: String, what: &'static str, why: NodeRefusal) -> Next {
    Next::refused(Refusal::Node { node, what, why })
}
