//! Orders that a person, or a Sentinel that was left running, gives to a Redis behind its supervisor's back.
//!
//! The checkers' bound for the time in which such a Redis is a second writer: its supervisor sees it at its next probe and takes
//! the replica element out, so a probe's interval and what the way to the kernel takes. While nobody can see it (the supervisor, its
//! host or that Redis is stopped or gone) or the kernel does not answer, the bound begins anew: then the element ends by itself.

use redkeep_core::Span;

use crate::{
    clock::Real,
    fault::{FaultKind, Planned},
    net::Endpoint,
    redis::{Phase, Role},
    world::{
        World,
        event::{Group, Undo},
        next,
    },
};

/// On top of a probe's interval: two batches for the lock that are slow (40 ms each), and the steps between.
const SLACK: Span = Span::from_millis(100);

/// A Redis that was made writable by hand, and until when that is excused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    host: Endpoint,
    group: Group,
    until: Real,
}

impl World {
    /// `REPLICAOF NO ONE`, or `CONFIG SET replica-read-only no` until it is set back.
    pub(super) fn order_by_hand(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        let leased = self.hosts[host].leased(self.port(group), self.now);
        let redis = self.hosts[host].redis[group].as_ref();
        // By the guarded port, as everybody.
        let open = self.hosts[host].passes(self.port(group), self.now);
        let Some(redis) = redis.filter(|r| r.runs() && r.role != Role::Master && open && !leased)
        else {
            return false;
        };
        let life = redis.life;
        let until = self.now.after(self.seen_within(group));
        self.hands.push(Hand { host, group, until });
        if fault.kind == FaultKind::PromoteByHand {
            let history = next(&mut self.counters.redis);
            self.leave_upstream(host, group);
            self.cut_replicas_of_new_master(host, group);
            if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                redis.promote(history);
            }
        } else {
            self.set_writable(host, group, (life, true));
            self.undo_after(fault.lasts, Undo::ReadOnly { host, group, life });
        }
        self.note(format_args!("{host} g{group} redis {life} is made writable by hand"));
        true
    }

    /// The master is made a copy of another Redis: its data are gone, and whoever follows it must not get these.
    pub(super) fn stray_by_hand(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        let redis = self.hosts[host].redis[group].as_ref();
        let open = self.hosts[host].passes(self.port(group), self.now);
        if !redis.is_some_and(|r| r.runs() && r.role == Role::Master && open) {
            return false;
        }
        let history = next(&mut self.counters.redis);
        self.cut_replicas(host, group);
        if let Some(redis) = self.hosts[host].redis[group].as_mut() {
            redis.stray(host, history);
        }
        self.note(format_args!("{host} g{group} is made a copy of another Redis by hand"));
        true
    }

    pub(super) fn set_writable(&mut self, host: Endpoint, group: Group, (life, to): (u64, bool)) {
        let redis = self.hosts[host].redis[group].as_mut();
        if let Some(redis) = redis.filter(|r| r.life == life) {
            redis.writable = to;
        }
    }

    fn seen_within(&self, group: Group) -> Span {
        self.spec.groups[group].probe.interval + SLACK
    }

    /// What this host's Redis takes beside the master is still excused.
    pub(super) fn is_by_hand(&self, host: Endpoint, group: Group) -> bool {
        self.hands.iter().any(|h| (h.host, h.group) == (host, group))
    }

    /// After each event, before the checkers look.
    pub(super) fn follow_hands(&mut self) {
        if self.hands.is_empty() {
            return;
        }
        let mut hands = std::mem::take(&mut self.hands);
        for hand in &mut hands {
            if self.is_blind(hand.host, hand.group) {
                hand.until = hand.until.max(self.now.after(self.seen_within(hand.group)));
            }
        }
        hands.retain(|hand| self.now <= hand.until);
        self.hands = hands;
    }

    /// Nobody looks at that Redis, or what follows from a look does not reach the kernel.
    fn is_blind(&self, host: Endpoint, group: Group) -> bool {
        let h = &self.hosts[host];
        let seen = h.redis[group].as_ref().is_some_and(|r| r.phase == Phase::Up && r.frozen == 0);
        !seen || !h.powered || !h.runs() || h.standing > 0 || self.now < h.lock_stalled_until
    }
}
