//! A kernel lock that cannot be put back: the port may be open to all, so writes are shut by what is left.
//!
//! Redis is told to refuse writes, connections are reset and the VIP goes; the core tries to put the lock back by a timer
//! (`core/lock.rs`), and each failure does the same again for what came meanwhile. Invariants: this is no fence, since the kernel has
//! acknowledged nothing, so other nodes wait for the lease as ever; nothing is asked for or opened until the tables are made anew.
//! Deliberately absent: anything at a true replica, which takes no writes, and at a port that was never guarded.

use super::{Cx, HostGroup};
use crate::effect::{Action, ActionId, EventKind};

#[derive(Debug, Default)]
pub(super) struct Broken {
    pub(super) is: bool,
    /// One order to shut writes is out at a time.
    shutting: Option<ActionId>,
}

impl Broken {
    pub(super) fn redis_died(&mut self) {
        self.shutting = None;
    }

    pub(super) fn action_done(&mut self, id: ActionId) {
        self.shutting = self.shutting.filter(|out| *out != id);
    }
}

impl HostGroup {
    /// Told, or not mended by another attempt.
    pub(crate) fn lock_broken(&mut self, cx: &mut Cx<'_>) {
        if !self.broken.is {
            self.broken.is = true;
            self.lock_is_lost = false;
            self.tell(cx, EventKind::LockBroken);
        }
        if !self.guarded {
            return;
        }
        let writable = self.detector.answering().is_some_and(|o| o.takes_writes());
        if writable && self.broken.shutting.is_none() {
            self.broken.shutting = Some(cx.sink.act(&self.spec.id, Action::ShutWrites));
        }
        // Begun anew when the lock is back: that gives Redis its setting back, too.
        if let Some(t) = self.takeover.take() {
            self.clear_address(cx, t.vip_is_up());
        } else if let Some(departure) = self.departure.take() {
            self.clear_address(cx, departure.had_vip());
        } else if writable {
            let port = self.spec.port;
            cx.sink.act(&self.spec.id, Action::DestroySockets { port });
        }
    }

    /// The tables were made anew, closed.
    pub(crate) fn lock_restored(&mut self, cx: &mut Cx<'_>) {
        let was = std::mem::take(&mut self.broken);
        self.replica.lock_lost();
        if was.is {
            self.tell(cx, EventKind::LockRestored);
        }
    }
}
