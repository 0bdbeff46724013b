//! What every node does for its leader and by its leave: asks for leases, opens what was granted, looks at masters, reports.

use redkeep_consensus::Mono;

use super::Core;
use crate::{
    effect::Effect,
    ids::{Epoch, GroupId, Now},
    lease::holder::Claim,
    message::{PeerMessage, Renew},
    observe::Report,
};

impl Core {
    pub(super) fn open_gates(&mut self, now: Now) {
        let hosts = &self.hosts;
        let ready = |g: &GroupId, e: Epoch| hosts.get(g).is_some_and(|h| h.may_open(e));
        for op in self.holder.open(now.boot, ready) {
            self.sink.lock(op);
        }
    }

    /// Arm and, when the kernel has answered, ask. Nothing is armed while nobody could be asked.
    pub(super) fn renew(&mut self, now: Now) {
        let may_act = self.caught_up || self.mutations.act_on_old_model();
        if self.leader_id.is_none() || !may_act {
            return;
        }
        let mut claims = Vec::new();
        let mut urgent = false;
        self.each_host(now, |h, cx| {
            if let Some((spec, request)) = h.claim(cx) {
                urgent |= h.is_urgent(cx);
                claims.push(Claim { spec, request });
            }
        });
        let timing = self.timing();
        self.has_claims = !claims.is_empty();
        if !claims.is_empty() && self.holder.is_due(now.boot, timing, urgent) {
            let op = self.holder.arm(now.boot, timing, &claims);
            if self.mutations.arm_after_grant() {
                if let Some(renew) = self.holder.defer(op) {
                    self.ask_leader(renew);
                }
            } else {
                self.sink.lock(op);
            }
        }
    }

    pub(super) fn look_at_others(&mut self, now: Now) {
        let cluster = self.model.spec.as_ref().unwrap_or(&self.initial_spec);
        self.sights.look(now.boot, self.me, (&self.model, cluster), &mut self.sink);
    }

    /// Tell the leader how things are here: on every change, and again while the last one is young, should it be lost with
    /// its connection. How far replication has come is told at the next probe anyway. That this node lives is told by
    /// whatever it sends.
    pub(super) fn report(&mut self, now: Now) {
        if self.leader_id.is_none() {
            return;
        }
        let groups: Vec<_> =
            self.hosts.values().map(|h| h.report(now.boot, &self.holder)).collect();
        let sights = self.sights.told();
        let last = self.last_report.as_ref().map(|(_, r)| r);
        let same = |r: &Report| r.groups == groups && r.sights == sights;
        if !last.is_some_and(|r| same(r) && r.applied == self.applied) {
            if !last.is_some_and(|r| r.is_but_progress(&groups, &sights)) {
                self.news_at = now.boot;
            }
        } else if self.report_again().is_some_and(|at| now.boot < at) {
            return;
        }
        self.report_seq += 1;
        let report = Report {
            incarnation: self.incarnation,
            seq: self.report_seq,
            applied: self.applied,
            groups,
            sights,
        };
        self.last_report = Some((now.boot, report.clone()));
        self.send_to_leader(PeerMessage::Report(report));
    }

    /// When the last report is to be repeated.
    pub(super) fn report_again(&self) -> Option<Mono> {
        let (sent, _) = self.last_report.as_ref()?;
        let timing = self.timing();
        let young = sent.since(self.news_at) < timing.lease_ttl;
        let interval = if young { timing.renew_interval() } else { timing.lease_ttl };
        Some(*sent + interval)
    }

    pub(super) fn ask_leader(&mut self, renew: Renew) {
        let term = self.consensus.term();
        self.send_to_leader(PeerMessage::Renew { renew, term });
    }

    fn send_to_leader(&mut self, message: PeerMessage) {
        match self.leader_id {
            Some(id) if id == self.me => self.loopback.push_back(message),
            Some(to) => self.sink.push(Effect::Send { to, message }),
            None => {}
        }
    }
}
