//! Giving up a tenure: gates out, epoch burned, then the report (L5). Redis commands never delay it.
//!
//! What a report must make durable is that this node never arms at that epoch again. A tenure is an epoch and one life of Redis,
//! both named by the `Assign` in the log: where the kernel says that this life is over, it is durable already, and nothing is
//! written (ADR 0028).

use redkeep_consensus::Mono;

use super::{Cx, HostGroup, RETRY, departure::Departure};
use crate::{
    effect::{Action, ActionId, ActionOutcome, Effect, EventKind, LockOp},
    ids::Epoch,
    lease::holder::lock_item,
    observe::{FenceCause, Fenced},
};

/// `*1\r\n$4\r\nPING\r\n`, which Redis adds to the stream by itself each `repl-ping-replica-period`, also while writes are paused
/// (`replicationCron` of its replication.c). No write is that short: the shortest, `FLUSHDB`, is 17 bytes.
const PING_BYTES: u64 = 14;

#[derive(Debug)]
pub(super) struct Fence {
    epoch: Epoch,
    cause: FenceCause,
    closed: bool,
    close_retry: Option<Mono>,
    is_durable: bool,
    /// Switchover: the offset that the target confirmed before the gates closed.
    planned_offset: Option<u64>,
    reading: Option<ActionId>,
    offset: u64,
    offset_known: bool,
    told: bool,
}

impl Fence {
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn burned(&mut self, epoch: Epoch) {
        self.is_durable |= epoch >= self.epoch;
    }

    fn is_done(&self) -> bool {
        self.closed && self.is_durable && self.offset_known
    }

    pub(super) fn fenced(&self) -> Option<Fenced> {
        self.is_done().then_some(Fenced {
            epoch: self.epoch,
            offset: self.offset,
            confirmed_by_target: self.planned_offset.is_some_and(|confirmed| {
                self.offset == confirmed || self.offset == confirmed + PING_BYTES
            }),
            cause: self.cause,
        })
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.close_retry
    }
}

impl HostGroup {
    /// Begin the fence: the lock and the burn at once; for sockets and address see `departure.rs`.
    pub(super) fn start_fence(
        &mut self,
        cx: &mut Cx<'_>,
        epoch: Epoch,
        cause: FenceCause,
        planned: Option<u64>,
    ) {
        let is_durable = self.burned >= epoch
            || cause == FenceCause::RedisDead
            || cx.mutations.fence_not_burned();
        self.tell(cx, EventKind::Fencing { cause });
        cx.holder.drop_group(&self.spec.id);
        self.close_gates(cx);
        if !is_durable {
            cx.sink.push(Effect::Burn { group: self.spec.id.clone(), epoch });
        }
        if planned.is_some() {
            cx.sink.act(&self.spec.id, Action::ShutWrites);
        }
        let had_vip = self.takeover.take().is_some_and(|t| t.vip_is_up());
        self.departure = Some(Departure::new(cx.now.boot, had_vip));
        self.wrong_role = 0;
        self.replica.taint();
        self.fence = Some(Fence {
            epoch,
            cause,
            closed: false,
            close_retry: None,
            is_durable,
            planned_offset: planned,
            reading: None,
            offset: self.detector.last_offset(),
            offset_known: planned.is_none(),
            told: false,
        });
    }

    /// An adopted master that never opened is not guarded yet: without that, closed gates close nothing.
    fn close_gates(&mut self, cx: &mut Cx<'_>) {
        if !self.guarded {
            self.guarded = true;
            cx.sink.lock(LockOp::Guard { item: lock_item(&self.spec, 0) });
        }
        cx.sink.lock(LockOp::Close { item: lock_item(&self.spec, 0) });
    }

    pub(super) fn address_removed(
        &mut self,
        cx: &mut Cx<'_>,
        id: ActionId,
        outcome: &ActionOutcome,
    ) {
        if self.removing == Some(id) {
            self.removing = None;
            if *outcome == ActionOutcome::Done {
                self.tell(cx, EventKind::VipGone);
            }
        }
    }

    pub(super) fn gate_closed(&mut self, cx: &mut Cx<'_>, ok: bool) {
        let guarded = self.guarded;
        let Some(f) = self.fence.as_mut() else { return };
        if !ok || !guarded {
            f.close_retry = Some(Mono(cx.now.boot.0 + RETRY.0));
            return;
        }
        f.closed = true;
        f.close_retry = None;
        if f.planned_offset.is_some() && f.reading.is_none() {
            f.reading = Some(cx.sink.act(&self.spec.id, Action::ReadOffset));
        }
    }

    pub(super) fn fence_action_done(
        &mut self,
        _cx: &mut Cx<'_>,
        id: ActionId,
        outcome: &ActionOutcome,
    ) {
        let Some(f) = self.fence.as_mut().filter(|f| f.reading == Some(id)) else { return };
        match outcome {
            ActionOutcome::Offset(offset) => f.offset = *offset,
            // Not read: the target cannot be said to have it all, so the old master is named again.
            ActionOutcome::Failed(_)
            | ActionOutcome::Done
            | ActionOutcome::NotMaster
            | ActionOutcome::Rival(_)
            | ActionOutcome::Compared(_)
            | ActionOutcome::Kept(_) => {
                f.planned_offset = None;
            }
        }
        f.offset_known = true;
    }

    pub(super) fn drive_fence(&mut self, cx: &mut Cx<'_>) {
        let Some(f) = self.fence.as_mut() else { return };
        if f.close_retry.is_some_and(|at| cx.now.boot >= at) && !self.broken.is {
            f.close_retry = None;
            self.close_gates(cx);
        }
        let Some(f) = self.fence.as_mut() else { return };
        if f.is_done() && !f.told {
            f.told = true;
            let kind = EventKind::Fenced { cause: f.cause, offset: f.offset };
            self.tell(cx, kind);
        }
    }
}
