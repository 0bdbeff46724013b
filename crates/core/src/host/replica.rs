//! Not being master: give back what an earlier tenure held, follow the master that serves, and let clients read from a true replica.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use redkeep_consensus::{Mono, Span};

use super::{Cx, HostGroup};
use crate::{
    effect::{Action, ActionId, ActionOutcome, EventKind, LockOp},
    ids::Epoch,
    lease::holder::lock_item,
    model::Assignment,
    observe::{RedisObservation, RedisRole, RedisView},
};

/// A refused or failed `REPLICAOF` is tried again after this.
const FOLLOW_RETRY: Span = Span(200_000_000);

/// A link that was renewed needs a moment to show it.
const RELINK_EVERY: Span = Span(1_000_000_000);

#[derive(Debug)]
pub(super) struct ReplicaSide {
    /// Connections from before this Redis was a replica may hold replies of a master; they are reset before the
    /// replica element opens the port, else such a reply would leave late (lease-review R1).
    tainted: bool,
    destroying: Option<ActionId>,
    follow: Option<ActionId>,
    follow_retry: Option<Mono>,
    relinked_at: Option<Mono>,
    permitted_at: Option<Mono>,
    /// The replica element may be in the kernel: it was there at the start or was ordered, and not ordered out since.
    element: bool,
    /// An observation came since the element was last renewed, and since the last role-changing command was answered.
    fresh: bool,
    /// Role-changing commands that were handed out. A timed-out one may still run, which `settled` then tells.
    changing: BTreeSet<ActionId>,
}

impl ReplicaSide {
    /// `element`: the kernel held one when the supervisor started.
    pub(super) fn new(element: bool) -> Self {
        Self {
            tainted: !element,
            element,
            destroying: None,
            follow: None,
            follow_retry: None,
            relinked_at: None,
            permitted_at: None,
            fresh: false,
            changing: BTreeSet::new(),
        }
    }

    /// From here on, what was seen of the role is out of date (lease-review R6).
    pub(super) fn role_ordered(&mut self, id: ActionId) {
        self.fresh = false;
        self.changing.insert(id);
    }

    pub(super) fn role_answered(&mut self, id: ActionId) {
        if self.changing.remove(&id) {
            self.fresh = false;
        }
    }

    pub(super) fn taint(&mut self) {
        self.tainted = true;
        self.permitted_at = None;
        self.destroying = None;
    }

    pub(super) fn observed(&mut self, o: &RedisObservation) {
        self.fresh = self.changing.is_empty();
        if o.takes_writes() {
            self.taint();
        }
    }

    pub(super) fn redis_died(&mut self) {
        self.taint();
        self.follow = None;
        self.follow_retry = None;
    }

    /// What is ordered later is carried out later, so only a refusal tells anything new.
    pub(super) fn forbidden(&mut self, ok: bool) {
        self.permitted_at = None;
        self.element |= !ok;
    }

    /// The table was made anew, without it.
    pub(super) fn lock_lost(&mut self) {
        self.permitted_at = None;
        self.element = false;
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.follow_retry
    }
}

impl HostGroup {
    /// Another node is master: gates and VIP of an earlier tenure go, once.
    pub(super) fn release(&mut self, cx: &mut Cx<'_>, a: &Assignment) {
        if self.released {
            return;
        }
        self.released = true;
        let left = self.takeover.take();
        let held = self.fence.take().is_some() || left.is_some();
        self.planned = None;
        self.wrong_role = 0;
        self.lag.clear();
        cx.holder.drop_group(&self.spec.id);
        let adopting = a.is_adopting();
        if self.guarded || !adopting {
            cx.sink.lock(LockOp::Close { item: lock_item(&self.spec, 0) });
        }
        if held || self.replica.tainted && !adopting {
            self.replica.taint();
            if self.departure.is_none() {
                self.clear_address(cx, left.is_some_and(|t| t.vip_is_up()));
                // Who came in before the lock closed.
                cx.sink.act(&self.spec.id, Action::DestroySockets { port: self.spec.port });
            }
        }
    }

    pub(super) fn forbid_replica(&mut self, cx: &mut Cx<'_>) {
        self.replica.element = false;
        cx.sink.lock(LockOp::ForbidReplica { item: lock_item(&self.spec, 0) });
    }

    /// Somebody made this Redis take writes, by `REPLICAOF NO ONE` or `replica-read-only no`, and the element that clients read
    /// through lets them write: out at once, not when it ends by itself. Then nobody gets in and no answer out, and clients are
    /// told so by a reset.
    pub(super) fn shut_writable(&mut self, cx: &mut Cx<'_>, o: &RedisObservation) {
        let shut = !self.replica.element || self.broken.is || cx.mutations.writable_stays_open();
        if shut || !o.takes_writes() {
            return;
        }
        self.forbid_replica(cx);
        let port = self.spec.port;
        // What was tainted is reset once more before the port opens again.
        cx.sink.act(&self.spec.id, Action::DestroySockets { port });
        let role = if o.is_master() { "a master" } else { "a replica that takes writes" };
        self.tell(cx, EventKind::WritableByHand { role });
    }

    pub(super) fn as_replica(&mut self, cx: &mut Cx<'_>, a: &Assignment) {
        let Some(o) = self.detector.answering().cloned() else { return };
        self.follow(cx, a, &o);
        if matches!(self.detector.view(), RedisView::Up(_)) {
            self.permit(cx, a, &o);
        }
    }

    /// VIP first: only a master whose `Serving` is committed is followed. And nothing is overwritten that only this Redis holds.
    fn follow(&mut self, cx: &mut Cx<'_>, a: &Assignment, o: &RedisObservation) {
        let serving = a.serving || cx.mutations.skip_serving();
        let Some(master) = cx.cluster.redis_addr(a.master, &self.spec) else { return };
        let waiting = self.replica.follow_retry.is_some_and(|at| cx.now.boot < at);
        let follows = follows(o, master);
        if serving && follows {
            self.quarantine.follows(a.epoch);
        }
        if !serving || waiting || self.replica.follow.is_some() || follows {
            return;
        }
        if !self.may_overwrite(cx, a, o, master) {
            return;
        }
        self.replica.follow_retry = None;
        let id = cx.sink.act(&self.spec.id, Action::Follow { master });
        self.replica.follow = Some(id);
        self.replica.role_ordered(id);
        self.tell(cx, EventKind::Following { master });
    }

    /// The leader says that the link is dead and the path is open. Never at a master, and never beside a change of role.
    pub(crate) fn relink_requested(&mut self, cx: &mut Cx<'_>, epoch: Epoch) {
        let Some(a) = self.model(cx).and_then(|g| g.assignment.as_ref()) else { return };
        let Some(master) = cx.cluster.redis_addr(a.master, &self.spec) else { return };
        let RedisView::Up(o) = self.detector.view() else { return };
        let present = a.master != self.me && a.epoch == epoch && a.serving;
        let side = &self.replica;
        let recent = side.relinked_at.is_some_and(|at| cx.now.boot.since(at) < RELINK_EVERY);
        if present && !recent && side.changing.is_empty() && o.settled && follows(o, master) {
            self.replica.relinked_at = Some(cx.now.boot);
            cx.sink.act(&self.spec.id, Action::Relink { master });
        }
    }

    fn permit(&mut self, cx: &mut Cx<'_>, a: &Assignment, o: &RedisObservation) {
        let read_only = matches!(o.role, RedisRole::Replica { read_only: true, .. });
        if !read_only
            || !o.settled
            || self.broken.is
            || self.replica.follow.is_some()
            || !self.replica.fresh
        {
            return;
        }
        let adopting = a.is_adopting();
        if self.replica.tainted && adopting && !self.guarded {
            // A pair that runs as it is has always been a replica here: nobody is disturbed.
            self.replica.tainted = false;
        }
        if self.replica.tainted {
            if self.replica.destroying.is_none() {
                let port = self.spec.port;
                self.replica.destroying =
                    Some(cx.sink.act(&self.spec.id, Action::DestroySockets { port }));
            }
            return;
        }
        let ttl = cx.cluster.timing.lease_ttl;
        let recent = self.replica.permitted_at.is_some_and(|at| cx.now.boot.0 < at.0 + ttl.0 / 5);
        if !recent {
            self.replica.permitted_at = Some(cx.now.boot);
            self.replica.element = true;
            self.replica.fresh = false;
            cx.sink.lock(LockOp::PermitReplica { item: lock_item(&self.spec, 0), ttl });
        }
    }

    pub(super) fn replica_action_done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ActionId,
        outcome: &ActionOutcome,
    ) {
        let ok = !matches!(outcome, ActionOutcome::Failed(_));
        self.replica.role_answered(id);
        if self.replica.destroying == Some(id) {
            self.replica.destroying = None;
            self.replica.tainted = !ok;
        }
        if self.replica.follow == Some(id) {
            self.replica.follow = None;
            self.replica.follow_retry = Some(Mono(cx.now.boot.0 + FOLLOW_RETRY.0));
            if ok {
                self.probe_now(cx);
            }
        }
    }
}

fn follows(o: &RedisObservation, master: SocketAddr) -> bool {
    match &o.role {
        RedisRole::Master => false,
        RedisRole::Replica { master_host, master_port, .. } => {
            *master_port == master.port() && *master_host == master.ip().to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::replica;

    /// Found by the simulator: a promotion that a frozen Redis had not answered ran under a replica element that was
    /// permitted by what had been seen before it.
    #[test]
    fn what_was_seen_before_a_role_change_was_answered_permits_nothing() {
        let mut side = ReplicaSide::new(true);
        side.observed(&replica("1"));
        assert!(side.fresh);
        side.role_ordered(ActionId(1));
        assert!(!side.fresh);
        side.observed(&replica("1"));
        assert!(!side.fresh, "it may have been on its way already");
        side.role_answered(ActionId(1));
        assert!(!side.fresh);
        side.observed(&replica("1"));
        assert!(side.fresh);
    }
}
