//! Leading from where the masters can be heard, and who may replace them.
//!
//! A leader that does not hear a master's node would count it as lost when its lease is over, although others may hear it
//! well: only one link is cut. So it asks them, and hands its leadership to one that is answered. Nor does it hand on to a
//! node that is not. A master that is heard and confirms no grant is left where it is: it might confirm none to anybody, and
//! leadership would wander instead of the master.
//!
//! A leader that hears nobody who may be promoted can name nobody should the master fail, although another node hears both. It
//! hands on likewise, but later and at most once a second: nothing is lost yet. And later still for a voter that it does not hear:
//! one that was away while this node was added does not know it, and learns of it from a leader that it knows. The same question
//! tells whether a replica's dead link can be renewed. Nothing here grants, fences or assigns; a wrong answer costs an election,
//! or a link that is made twice.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_consensus::{Mono, NodeId, Span};

use super::Core;
use crate::{
    effect::Effect,
    ids::Now,
    leader::{DeadLink, LeaderWish},
    message::{PeerMessage, Reach, ReachStep},
};

/// A candidate counts as not heard after a lease, but not before this: it reports that often at rest.
const CANDIDATE_SILENCE_MIN: Span = Span(300_000_000);

/// A voter counts as not heard after this: no service depends on it, and most come back by themselves.
const VOTER_SILENCE: Span = Span::from_secs(3);
/// Others are asked about it so often, for as long as it is away.
const VOTER_ASKED_EVERY: Span = Span::from_secs(1);
/// Who answers must have heard it for so long: one that comes back is heard by others a moment before the leader hears it.
const VOTER_HEARD_FOR: Span = Span::from_secs(2);

/// What others answered, by (who, of whom).
#[derive(Debug, Default)]
pub(crate) struct Reaches(BTreeMap<(NodeId, NodeId), Answer>);

#[derive(Clone, Copy, Debug)]
struct Answer {
    asked_at: Mono,
    /// When the newest question was asked that was answered.
    heard: Option<Mono>,
    /// And the first since when none was left unanswered.
    since: Option<Mono>,
}

impl Reaches {
    /// `via` was answered by `target` not longer than `age` ago.
    fn is_heard(&self, via: NodeId, target: NodeId, now: Mono, age: Span) -> bool {
        let heard = self.0.get(&(via, target)).and_then(|a| a.heard);
        heard.is_some_and(|at| now.since(at) < age)
    }

    /// The question for `via`, unless it was asked less than `every` ago.
    fn ask(&mut self, via: NodeId, target: NodeId, now: Mono, every: Span) -> bool {
        let known = self.0.get(&(via, target));
        if known.is_some_and(|a| now.since(a.asked_at) < every) {
            return false;
        }
        let heard = known.and_then(|a| a.heard);
        // Answers from before a time without questions say nothing of that time.
        let goes_on =
            |a: &&Answer| a.heard == Some(a.asked_at) && now.since(a.asked_at) <= Span(every.0 * 2);
        let since = known.filter(goes_on).and_then(|a| a.since);
        self.0.insert((via, target), Answer { asked_at: now, heard, since });
        true
    }

    /// Every question of at least that long was answered.
    fn is_heard_for(&self, via: NodeId, target: NodeId, now: Mono, long: Span) -> bool {
        let since = self.0.get(&(via, target)).and_then(|a| a.since);
        since.is_some_and(|at| now.since(at) >= long)
    }

    fn heard(&mut self, via: NodeId, target: NodeId, asked_at: Mono) {
        if let Some(answer) = self.0.get_mut(&(via, target)).filter(|a| a.asked_at >= asked_at) {
            answer.heard = answer.heard.max(Some(asked_at));
            // Questions wait on their way to a node that is away, and are all answered when it is back.
            if asked_at == answer.asked_at {
                answer.since.get_or_insert(asked_at);
            }
        }
    }
}

impl Core {
    /// Pass a question on, or take its answer.
    pub(super) fn reach_message(&mut self, from: NodeId, reach: Reach) {
        let (to, step) = match reach.step {
            ReachStep::Ask if from == reach.asker => (reach.target, ReachStep::Ping),
            ReachStep::Ping if reach.target == self.me => (from, ReachStep::Pong),
            ReachStep::Pong if from == reach.target => (reach.asker, ReachStep::Heard),
            ReachStep::Heard => {
                if let Some(l) = self.leader.as_mut().filter(|_| reach.asker == self.me) {
                    l.reaches.heard(from, reach.target, reach.asked_at);
                }
                return;
            }
            ReachStep::Ask | ReachStep::Ping | ReachStep::Pong => return,
        };
        self.sink.push(Effect::Send { to, message: PeerMessage::Reach(Reach { step, ..reach }) });
    }

    /// Hand on to a node that hears a master which this one does not hear, while the master's lease still runs.
    pub(super) fn lead_from_where_masters_are_heard(&mut self, now: Now) {
        let silence = self.silence();
        let lost: Vec<NodeId> =
            self.masters_silent_at().filter(|(_, at)| *at <= now.boot).map(|(m, _)| m).collect();
        let may_move = self.consensus.transferee().is_none() && !self.mutations.lead_unheard();
        if lost.is_empty() || !may_move {
            return;
        }
        let me = self.me;
        let mut others: Vec<NodeId> =
            self.consensus.voters().iter().copied().filter(|v| *v != me).collect();
        others.sort_by_key(|v| (self.burden(*v), *v));
        for target in lost {
            let via = others.iter().copied().filter(|v| *v != target).collect::<Vec<_>>();
            if let Some(to) = via.iter().find(|v| self.is_heard_by(**v, target, now, silence)) {
                tracing::info!(%to, %target, "leadership moves to a node that hears a master which this one does not");
                self.hand_on(now, *to);
                return;
            }
            for v in via {
                self.ask_reach(v, target, now, Span(silence.0 / 5));
            }
        }
    }

    /// Hand on to a node that hears all masters, and a candidate where this one hears none.
    pub(super) fn lead_from_where_candidates_are_heard(&mut self, now: Now) {
        let lost: Vec<BTreeSet<NodeId>> = self
            .candidates_silent_at()
            .filter_map(|(nodes, at)| at.is_some_and(|at| at <= now.boot).then_some(nodes))
            .collect();
        let masters_are_heard = self.masters_silent_at().all(|(_, at)| at > now.boot);
        let may_move = self.may_hand_on(now) && !self.mutations.lead_unheard();
        if lost.is_empty() || !masters_are_heard || !may_move {
            return;
        }
        let every = self.silence();
        for (_, to) in self.others_heard(now, every) {
            let hears = self.hears_all_masters(to, now, every);
            let mut finds = false;
            for nodes in &lost {
                finds |= self.hears_one_of(to, nodes, now, every);
            }
            if hears && finds && self.hears_candidates_of_mine(to, now, every) {
                tracing::info!(%to, "leadership moves to a node that hears a candidate where this one hears none");
                self.hand_on(now, to);
                return;
            }
        }
    }

    /// Hand on to a node that hears a voter which this one does not, and whom else this one hears.
    pub(super) fn lead_from_where_voters_are_heard(&mut self, now: Now) {
        let silent = self.voters_silent_at().filter(|(_, at)| *at <= now.boot);
        let lost: Vec<NodeId> = silent.map(|(voter, _)| voter).collect();
        let masters_are_heard = self.masters_silent_at().all(|(_, at)| at > now.boot);
        if lost.is_empty() || !masters_are_heard || !self.may_hand_on(now) {
            return;
        }
        let age = self.timing().lease_ttl;
        for (_, to) in self.others_heard(now, self.candidate_silence()) {
            let hears = self.hears_as_much(to, now, VOTER_ASKED_EVERY);
            let for_long = |v: &NodeId| {
                let leader = self.leader.as_ref();
                leader.is_some_and(|l| l.reaches.is_heard_for(to, *v, now.boot, VOTER_HEARD_FOR))
            };
            let finds = |v: &NodeId| self.is_heard_by(to, *v, now, age) && for_long(v);
            if hears && lost.iter().any(finds) {
                tracing::info!(%to, "leadership moves to a node that hears a voter which this one does not");
                self.hand_on(now, to);
                return;
            }
            for voter in &lost {
                self.ask_reach(to, *voter, now, VOTER_ASKED_EVERY);
            }
        }
    }

    /// `to` hears whom this node hears; all questions are asked at once.
    pub(super) fn hears_as_much(&mut self, to: NodeId, now: Now, every: Span) -> bool {
        let masters = self.hears_all_masters(to, now, every);
        let candidates = self.hears_candidates_of_mine(to, now, every);
        let mut all = masters && candidates;
        for (_, voter) in self.others_heard(now, self.candidate_silence()) {
            all &= self.hears_one_of(to, &BTreeSet::from([voter]), now, every);
        }
        all
    }

    /// The other voters, and from when on each counts as not heard; none where this node does not lead.
    fn voters_silent_at(&self) -> impl Iterator<Item = (NodeId, Mono)> {
        self.leader.iter().flat_map(move |leader| {
            let others = self.consensus.voters().iter().copied().filter(|v| *v != self.me);
            others.map(move |v| (v, leader.heard_at(v) + VOTER_SILENCE))
        })
    }

    /// For each group of which this node hears a candidate (or is one), `to` hears one too; asked where it is not known.
    fn hears_candidates_of_mine(&mut self, to: NodeId, now: Now, every: Span) -> bool {
        let heard = self.candidates_silent_at();
        let heard: Vec<BTreeSet<NodeId>> = heard
            .filter_map(|(nodes, at)| at.is_none_or(|at| at > now.boot).then_some(nodes))
            .collect();
        let mut all = true;
        for nodes in &heard {
            all &= self.hears_one_of(to, nodes, now, every);
        }
        all
    }

    /// `to` is one of `nodes`, or is answered by one; asked where it is not known.
    fn hears_one_of(
        &mut self,
        to: NodeId,
        nodes: &BTreeSet<NodeId>,
        now: Now,
        every: Span,
    ) -> bool {
        let age = self.timing().lease_ttl;
        if nodes.iter().any(|n| *n == to || self.is_heard_by(to, *n, now, age)) {
            return true;
        }
        for node in nodes {
            self.ask_reach(to, *node, now, every);
        }
        false
    }

    /// Nodes of each eligible set, and from when on this node hears none of them; never, if it is one itself.
    fn candidates_silent_at(&self) -> impl Iterator<Item = (BTreeSet<NodeId>, Option<Mono>)> {
        let silence = self.candidate_silence();
        self.leader.iter().flat_map(move |leader| {
            let sets = self.model.groups.values().filter(|g| !g.eligible.is_empty());
            sets.map(move |g| {
                let nodes: BTreeSet<NodeId> = g.eligible.iter().map(|m| m.node).collect();
                let heard = nodes.iter().map(|n| leader.heard_at(*n)).max();
                let at = heard.unwrap_or_default() + silence;
                let at = (!nodes.contains(&self.me)).then_some(at);
                (nodes, at)
            })
        })
    }

    pub(super) fn is_heard_within(&self, node: NodeId, now: Now, span: Span) -> bool {
        let heard = self.leader.as_ref().and_then(|l| l.nodes().get(&node)?.heard);
        heard.is_some_and(|at| now.boot.since(at) < span)
    }

    /// A replica whose link to its master is dead, although the way between their nodes is open, is asked to make another.
    pub(super) fn mend_links(&mut self, now: Now) {
        let Some(mut leader) = self.leader.take() else { return };
        let dead = leader.dead_links(&self.round(now, &|_| false));
        self.leader = Some(leader);
        let may = !self.mutations.never_relink();
        for link in dead.into_iter().filter(|_| may) {
            if !self.is_way_open(&link, now) {
                continue;
            }
            if let Some(l) = self.leader.as_mut() {
                l.asked_to_relink(now.boot, &link);
            }
            tracing::info!(group = %link.group, replica = %link.replica, "a replica's link to its master is dead although they can reach each other: it is asked to make another");
            let DeadLink { group, epoch, replica: to, .. } = link;
            let message = PeerMessage::RelinkRequest { group, epoch };
            self.carry_out(now, vec![LeaderWish::Send { to, message }]);
        }
    }

    /// Both nodes were answered by each other not long ago; asked where it is not known.
    fn is_way_open(&mut self, link: &DeadLink, now: Now) -> bool {
        let age = self.timing().lease_ttl;
        let own = match self.me {
            me if me == link.master => Some(link.replica),
            me if me == link.replica => Some(link.master),
            _ => None,
        };
        if let Some(other) = own {
            return self.is_heard_within(other, now, self.silence());
        }
        let open = self.is_heard_by(link.replica, link.master, now, age);
        if !open {
            self.ask_reach(link.replica, link.master, now, age);
        }
        open
    }

    fn candidate_silence(&self) -> Span {
        self.timing().lease_ttl.max(CANDIDATE_SILENCE_MIN)
    }

    /// A leader that does not hear a master for so long asks others.
    fn silence(&self) -> Span {
        Span(self.timing().lease_ttl.0 / 3)
    }

    /// The other masters, and from when on each counts as not heard; none where this node does not lead.
    fn masters_silent_at(&self) -> impl Iterator<Item = (NodeId, Mono)> {
        let silence = self.silence();
        self.leader.iter().flat_map(move |leader| {
            let masters = self.other_masters().into_iter();
            masters.map(move |master| (master, leader.heard_at(master) + silence))
        })
    }

    /// When to look at that again, if nothing is heard meanwhile.
    pub(super) fn reach_deadline(&self, now: Now) -> Option<Mono> {
        let candidates = self.candidates_silent_at().filter_map(|(_, at)| at);
        let masters = self.masters_silent_at().map(|(_, at)| at);
        let voters = self.voters_silent_at().map(|(_, at)| at);
        masters.chain(candidates).chain(voters).filter(|at| *at > now.boot).min()
    }

    /// Whether `to` is known to hear all masters; asked where it is not known.
    fn hears_all_masters(&mut self, to: NodeId, now: Now, every: Span) -> bool {
        let age = self.timing().lease_ttl;
        let masters: Vec<NodeId> =
            self.other_masters().into_iter().filter(|master| *master != to).collect();
        let unknown: Vec<NodeId> =
            masters.into_iter().filter(|m| !self.is_heard_by(to, *m, now, age)).collect();
        for target in &unknown {
            self.ask_reach(to, *target, now, every);
        }
        unknown.is_empty()
    }

    /// Nodes beside this one that hold a group.
    fn other_masters(&self) -> BTreeSet<NodeId> {
        let me = self.me;
        self.model.groups.values().filter_map(|g| g.master()).filter(|m| *m != me).collect()
    }

    fn is_heard_by(&self, via: NodeId, target: NodeId, now: Now, age: Span) -> bool {
        self.leader.as_ref().is_some_and(|l| l.reaches.is_heard(via, target, now.boot, age))
    }

    fn ask_reach(&mut self, via: NodeId, target: NodeId, now: Now, every: Span) {
        let Some(leader) = self.leader.as_mut() else { return };
        if leader.reaches.ask(via, target, now.boot, every) {
            let reach = Reach { step: ReachStep::Ask, target, asker: self.me, asked_at: now.boot };
            self.sink.push(Effect::Send { to: via, message: PeerMessage::Reach(reach) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::node_id;

    /// Found by a test with real Redis: an answer of ten seconds ago and one question that was answered late looked like ten seconds
    /// of answers.
    #[test]
    fn what_was_heard_before_a_time_without_questions_does_not_count() {
        let (via, target, every) = (node_id("a"), node_id("b"), Span::from_secs(1));
        let at = |s: u64| Mono(s * 1_000_000_000);
        let mut reaches = Reaches::default();
        for s in 1..4 {
            assert!(reaches.ask(via, target, at(s), every));
            reaches.heard(via, target, at(s));
        }
        assert!(reaches.is_heard_for(via, target, at(3), Span::from_secs(2)));
        reaches.ask(via, target, at(13), every);
        reaches.heard(via, target, at(13));
        assert!(!reaches.is_heard_for(via, target, at(13), Span::from_secs(2)));
        // Nor what was heard before a question that nobody answered.
        reaches.ask(via, target, at(14), every);
        reaches.ask(via, target, at(15), every);
        reaches.heard(via, target, at(14));
        reaches.heard(via, target, at(15));
        assert!(!reaches.is_heard_for(via, target, at(15), Span::from_secs(1)));
    }
}
