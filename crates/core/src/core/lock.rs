//! A kernel lock that could not be put back: nothing that was armed counts, and another attempt is made by a timer.

use redkeep_consensus::{Mono, Span};

use super::Core;
use crate::{effect::LockOp, ids::Now};

/// Between two attempts.
const RETRY: Span = Span::from_millis(500);

/// The next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    At(Mono),
    /// It was ordered, and not answered yet.
    Out,
}

impl Core {
    pub(super) fn lock_broken(&mut self, now: Now) {
        self.holder.lock_lost();
        self.lock_attempt.get_or_insert(Attempt::At(now.boot + RETRY));
        self.each_host(now, |h, cx| h.lock_broken(cx));
    }

    /// The answer to an attempt: all tables are new and closed, or as they were.
    pub(super) fn lock_restored(&mut self, now: Now, ok: bool) {
        if ok {
            self.lock_attempt = None;
            self.holder.lock_lost();
            self.each_host(now, |h, cx| h.lock_restored(cx));
        } else {
            self.lock_attempt = None;
            self.lock_broken(now);
        }
    }

    pub(super) fn restore_lock(&mut self, now: Now) {
        if self.lock_attempt.is_some_and(|a| matches!(a, Attempt::At(at) if now.boot >= at)) {
            self.lock_attempt = Some(Attempt::Out);
            self.sink.lock(LockOp::Restore);
        }
    }

    pub(super) fn lock_deadline(&self) -> Option<Mono> {
        match self.lock_attempt? {
            Attempt::At(at) => Some(at),
            Attempt::Out => None,
        }
    }
}
