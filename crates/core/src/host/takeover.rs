//! Serving as master at one epoch: grant, replica element out, promote, gate and VIP, announce, verify, serve.

use redkeep_consensus::{Mono, Span};

use super::{Cx, HostGroup, RETRY, WRONG_ROLE_LOOKS, Work};
use crate::{
    effect::{Action, ActionId, ActionOutcome, EventKind},
    ids::Epoch,
    model::{Assignment, GroupModel},
    observe::TakeoverFailure,
};

/// The kernel takes the address away 1.0 to 1.75 s after the last refresh; refreshed well before.
const VIP_REFRESH: Span = Span(400_000_000);

#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) epoch: Epoch,
    forbid: Work,
    promote: Work,
    /// The gate was opened at this epoch and the lease has not lapsed since.
    open: bool,
    vip: Work,
    vip_refreshed: Mono,
    vip_refresh: Option<ActionId>,
    announced: bool,
    verify: Work,
    pub(super) serving: bool,
    pub(super) failure: Option<TakeoverFailure>,
}

impl Takeover {
    pub(super) fn vip_is_up(&self) -> bool {
        self.vip == Work::Done
    }

    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            forbid: Work::Idle,
            promote: Work::Idle,
            open: false,
            vip: Work::Idle,
            vip_refreshed: Mono(0),
            vip_refresh: None,
            announced: false,
            verify: Work::Idle,
            serving: false,
            failure: None,
        }
    }

    pub(super) fn is_promoted(&self) -> bool {
        self.promote == Work::Done
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Back to before the gate: what follows it is done again after the next grant.
    fn closed(&mut self) {
        self.open = false;
        self.announced = false;
        self.verify = Work::Idle;
        self.serving = false;
    }

    pub(super) fn lock_lost(&mut self) {
        // The address and the role stay; only the gates are gone.
        self.closed();
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        [self.forbid, self.promote, self.vip, self.verify]
            .into_iter()
            .filter_map(Work::deadline)
            .min()
    }
}

impl HostGroup {
    pub(super) fn drive_takeover(&mut self, cx: &mut Cx<'_>, group: &GroupModel, a: &Assignment) {
        if self.takeover.as_ref().is_none_or(|t| t.epoch != a.epoch) {
            self.takeover = Some(Takeover::new(a.epoch));
            self.told.begin();
            self.planned = None;
        }
        self.lapse(cx);
        let granted =
            cx.holder.has_grant(cx.now.boot, &self.spec.id, a.epoch) || cx.mutations.act_by_role();
        let now = cx.now.boot;
        let Some(t) = self.takeover.as_mut() else { return };
        if granted && t.forbid.due(now) {
            let keep = cx.mutations.keep_replica_element();
            t.forbid = if keep { Work::Done } else { Work::Locking };
            if !keep {
                self.forbid_replica(cx);
            }
        }
        let Some(t) = self.takeover.as_ref() else { return };
        if granted && t.forbid == Work::Done && t.promote.due(now) {
            self.promote(cx, group, a);
        }
        if self.takeover.as_ref().is_some_and(Takeover::is_promoted) {
            self.drive_min_replicas(cx, group);
        }
        self.drive_address(cx);
    }

    /// A life that was master already is found to be one. Somebody may have made it a copy of another Redis since it was seen last:
    /// promoted, it would serve that.
    fn promote(&mut self, cx: &mut Cx<'_>, group: &GroupModel, a: &Assignment) {
        let min_replicas = self.min_replicas(cx, group);
        self.told.promoting(min_replicas);
        let action = match a.was_master() && !cx.mutations.promote_blindly() {
            true => Action::GoOn(min_replicas),
            false => Action::Promote(min_replicas),
        };
        let action = cx.sink.act(&self.spec.id, action);
        self.replica.role_ordered(action);
        if let Some(t) = self.takeover.as_mut() {
            t.promote = Work::Running(action);
        }
    }

    /// VIP as soon as the gate may open; announcement after both; verification after the announcement.
    fn drive_address(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.boot;
        let id = self.spec.id.clone();
        let leased = cx.holder.is_open(now, &id);
        let (vip, interface) = (self.spec.vip, self.spec.interface.clone());
        let valid_seconds = valid_seconds(cx.cluster.timing.lease_ttl);
        let Some(t) = self.takeover.as_mut() else { return };
        if !t.is_promoted() || !t.open || !leased {
            return;
        }
        if t.vip.due(now) {
            let action = Action::EnsureVip { vip, interface: interface.clone(), valid_seconds };
            t.vip = Work::Running(cx.sink.act(&id, action));
            t.vip_refreshed = now;
        } else if t.vip == Work::Done
            && t.vip_refresh.is_none()
            && now.0 >= t.vip_refreshed.0 + VIP_REFRESH.0
        {
            let action = Action::EnsureVip { vip, interface: interface.clone(), valid_seconds };
            t.vip_refresh = Some(cx.sink.act(&id, action));
            t.vip_refreshed = now;
        }
        if t.vip == Work::Done && !t.announced {
            t.announced = true;
            cx.sink.act(&id, Action::Announce { vip, interface: interface.clone() });
            cx.sink.act(&id, Action::ProbeRival { vip, interface });
        }
        if t.announced && t.verify.due(now) {
            t.verify =
                Work::Running(cx.sink.act(&id, Action::VerifyVip { vip, port: self.spec.port }));
        }
        if t.verify == Work::Done && !t.serving {
            t.serving = true;
            t.failure = None;
        }
    }

    /// The lease ran out by itself: the kernel has closed already, so take the address away too.
    fn lapse(&mut self, cx: &mut Cx<'_>) {
        let over = !cx.holder.is_open(cx.now.boot, &self.spec.id);
        let Some(t) = self.takeover.as_mut().filter(|t| t.open && over) else { return };
        t.closed();
        let had_vip = t.vip_is_up();
        self.tell(cx, EventKind::LeaseLost);
        self.clear_address(cx, had_vip);
        if let Some(t) = self.takeover.as_mut() {
            t.vip = Work::Idle;
        }
    }

    pub(super) fn gate_opened(&mut self, cx: &mut Cx<'_>) {
        self.guarded = true;
        let Some(t) = self.takeover.as_mut() else { return };
        if !t.open {
            t.open = true;
            self.tell(cx, EventKind::LeaseGranted);
        }
    }

    pub(super) fn replica_forbidden(&mut self, cx: &mut Cx<'_>, ok: bool) {
        self.replica.forbidden(ok);
        let Some(t) = self.takeover.as_mut().filter(|t| t.forbid == Work::Locking) else { return };
        t.forbid = if ok { Work::Done } else { Work::RetryAt(Mono(cx.now.boot.0 + RETRY.0)) };
        if !ok {
            t.failure = Some(TakeoverFailure::Lock);
        }
    }

    pub(super) fn takeover_action_done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ActionId,
        outcome: &ActionOutcome,
    ) {
        let now = cx.now.boot;
        let Some(t) = self.takeover.as_mut() else { return };
        let mut told = None;
        if t.promote == Work::Running(id) {
            if t.promote.settle(now, outcome) {
                told = Some(EventKind::Promoted);
                self.told.promoted();
            } else if *outcome == ActionOutcome::NotMaster {
                self.wrong_role = WRONG_ROLE_LOOKS;
            } else {
                t.failure = Some(TakeoverFailure::Promote);
            }
        } else if t.vip == Work::Running(id) {
            if t.vip.settle(now, outcome) {
                told = Some(EventKind::VipUp);
            } else {
                t.failure = Some(TakeoverFailure::Vip);
            }
        } else if t.vip_refresh == Some(id) {
            t.vip_refresh = None;
            if matches!(outcome, ActionOutcome::Failed(_)) {
                t.vip = Work::Idle;
            }
        } else if t.verify == Work::Running(id) && !t.verify.settle(now, outcome) {
            t.failure = Some(TakeoverFailure::NotAnsweringAtVip);
        }
        if let Some(kind) = told {
            if kind == EventKind::Promoted {
                self.probe_now(cx);
            }
            self.tell(cx, kind);
        }
    }

    /// Somebody took the address away under a valid lease: back at once.
    pub(super) fn vip_removed(&mut self, cx: &mut Cx<'_>) {
        let leased = cx.holder.is_open(cx.now.boot, &self.spec.id);
        let Some(t) = self.takeover.as_mut().filter(|t| t.open && t.vip == Work::Done && leased)
        else {
            return;
        };
        t.vip = Work::Idle;
        t.vip_refresh = None;
        t.announced = false;
        self.tell(cx, EventKind::VipRestored);
        self.drive_address(cx);
    }

    /// The address is on the link. Without a lease it must not be.
    pub(super) fn vip_present(&mut self, cx: &mut Cx<'_>) {
        let Some(master) = self.model(cx).and_then(|g| g.master()) else { return };
        let until = cx.holder.open_until(&self.spec.id);
        // Before the first grant of this life the address may be ours from the life before; its lifetime ends it.
        let from_before = master == self.me && self.fence.is_none() && until.is_none();
        let leased = until.is_some_and(|until| cx.now.boot < until);
        if !leased && !from_before {
            self.tell(cx, EventKind::VipStray);
            let (vip, interface) = (self.spec.vip, self.spec.interface.clone());
            cx.sink.act(&self.spec.id, Action::RemoveVip { vip, interface });
        }
    }

    pub(super) fn announce_again(&mut self, cx: &mut Cx<'_>) {
        if let Some(t) = self.takeover.as_mut().filter(|t| t.open) {
            // A link that was down has lost its IPv6 addresses.
            t.vip = Work::Idle;
            t.announced = false;
        }
        self.drive_address(cx);
    }
}

/// Shortest lifetime in whole seconds that outlasts a lease and a refresh interval.
fn valid_seconds(ttl: Span) -> u32 {
    let nanos = ttl.0.max(VIP_REFRESH.0 * 2);
    u32::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}
