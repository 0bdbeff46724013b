//! What a leader does after each input: plan, propose, and only then grant; and who had better lead.

use redkeep_consensus::{NodeId, Span};

use super::Core;
use crate::{
    codec,
    command::{Body, Command},
    effect::Effect,
    ids::{GroupId, Now},
    leader::LeaderWish,
};

/// A transfer of leadership is tried this often at most.
const TRANSFER_EVERY: Span = Span(1_000_000_000);

impl Core {
    pub(super) fn lead(&mut self, now: Now) {
        let Some(mut leader) = self.leader.take() else { return };
        let paused = |g: &GroupId| self.pause_left(now, g).is_some();
        let round = self.round(now, &paused);
        let mut wishes = leader.expire(now.boot);
        wishes.extend(leader.plan_all(&round));
        self.leader = Some(leader);
        self.carry_out(now, wishes);
        // Planning was carried out before any grant is given (L6): a decision taken now stands against it.
        let Some(mut leader) = self.leader.take() else { return };
        let grants = leader.grant_all(&self.round(now, &|_| false));
        self.leader = Some(leader);
        self.carry_out(now, grants);
        self.bootstrap(now);
        self.mend_membership(now);
        self.mend_links(now);
        self.lead_from_where_masters_are_heard(now);
        self.lead_from_where_candidates_are_heard(now);
        self.lead_from_where_voters_are_heard(now);
        self.prefer_free_leader(now);
    }

    pub(super) fn carry_out(&mut self, now: Now, wishes: Vec<LeaderWish>) {
        for wish in wishes {
            match wish {
                LeaderWish::Propose { group, body, is_assign } => {
                    let index = self.propose(now, body);
                    if let Some(l) = self.leader.as_mut() {
                        l.proposed(now, &group, is_assign, index);
                    }
                }
                LeaderWish::Send { to, message } if to == self.me => {
                    self.loopback.push_back(message);
                }
                LeaderWish::Send { to, message } => self.sink.push(Effect::Send { to, message }),
                LeaderWish::Reply { id, reply } => self.sink.push(Effect::Reply { id, reply }),
            }
        }
    }

    pub(super) fn propose(&mut self, now: Now, body: Body) -> Option<u64> {
        let data = codec::encode_command(&Command { at_unix_ms: now.unix_ms, body });
        match self.consensus.propose(now.boot, data) {
            Ok(p) => Some(p.index),
            Err(error) => {
                tracing::debug!(%error, "not proposed");
                None
            }
        }
    }

    /// The first leader writes the configured spec into the log.
    pub(super) fn bootstrap(&mut self, now: Now) {
        if self.model.spec.is_none() && !self.bootstrap_proposed {
            let spec = self.initial_spec.clone();
            self.bootstrap_proposed = self.propose(now, Body::Bootstrap(spec)).is_some();
        }
    }

    /// Leadership moves off a node that holds a VIP, to a witness best: so losing a master's host costs no election.
    pub(super) fn prefer_free_leader(&mut self, now: Now) {
        if !self.may_hand_on(now) {
            return;
        }
        let fresh = self.timing().lease_ttl;
        let own = self.burden(self.me);
        let best = self.others_heard(now, fresh).first().copied().filter(|(b, _)| *b < own);
        // A new leader takes every lease for granted just now: a group whose master is silent would wait that much
        // longer. A holder renews after a third of its lease.
        let half = Span(fresh.0 / 2);
        let attended = |n: NodeId| n == self.me || self.is_heard_within(n, now, half);
        let quiet = |g: &crate::model::GroupModel| {
            let serves = g.assignment.as_ref().is_some_and(|a| a.serving && attended(a.master));
            serves && g.switchover.is_none()
        };
        if let (Some((_, to)), true) = (best, self.model.groups.values().all(quiet))
            && self.hears_as_much(to, now, TRANSFER_EVERY)
        {
            self.hand_on(now, to);
        }
    }

    /// Leadership has not moved just now, and nobody waits for it.
    pub(super) fn may_hand_on(&self, now: Now) -> bool {
        let Some(leader) = &self.leader else { return false };
        let rested = now.boot.0 >= self.last_transfer.0.max(leader.since().0) + TRANSFER_EVERY.0;
        // An operator who waits would not learn the outcome.
        let busy = || self.model.groups.keys().any(|g| leader.is_busy(g));
        rested && self.consensus.transferee().is_none() && !busy()
    }

    pub(super) fn hand_on(&mut self, now: Now, to: NodeId) {
        self.last_transfer = now.boot;
        self.consensus.transfer_leader(now.boot, to);
    }

    /// Other voters that were heard within `span`, each behind its burden: who had better lead comes first.
    pub(super) fn others_heard(&self, now: Now, span: Span) -> Vec<(u8, NodeId)> {
        let voters = self.consensus.voters().iter().copied();
        let heard = voters.filter(|v| *v != self.me && self.is_heard_within(*v, now, span));
        let mut others: Vec<_> = heard.map(|v| (self.burden(v), v)).collect();
        others.sort_unstable();
        others
    }

    /// How badly a node is suited to lead: a witness best, a holder of a VIP worst.
    pub(super) fn burden(&self, node: NodeId) -> u8 {
        let member = self.spec().groups.iter().any(|g| g.is_member(node));
        u8::from(member) + u8::from(self.holds_a_group(node))
    }
}
