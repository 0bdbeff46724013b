//! A pause of writes that we asked for ourselves, during a switchover.
//!
//! Redis before 6.2 knows only a pause of everything: until it ends nobody is answered, we neither. Then the offset that
//! was read with the pause is the last one, and asking for it again would wait for the pause's end, in which the lease runs out.

#![expect(clippy::disallowed_types, reason = "Redis ends a pause by the wall clock")]

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// What Redis measures a pause in.
const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(super) struct OwnPause(Mutex<Option<Pause>>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Until when writes may be held back.
    until: Instant,
    everything: Option<Everything>,
}

/// Nothing is executed until then.
#[derive(Clone, Copy, Debug)]
struct Everything {
    offset: u64,
    ends: Instant,
    /// Redis ends a pause by the wall clock, which can be set.
    ends_wall: SystemTime,
}

/// An instant by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both(Instant, SystemTime);

impl Both {
    pub(super) fn now() -> Self {
        Both(Instant::now(), SystemTime::now())
    }
}

impl OwnPause {
    pub(super) fn begins(&self, until: Instant) {
        self.set(Some(Pause { until, everything: None }));
    }

    /// Redis holds everything back at `offset`, for `length` from a moment after `asked` on.
    pub(super) fn holds_everything(&self, offset: u64, asked: Both, length: Duration) {
        let length = length.saturating_sub(MILLISECOND);
        let everything = Everything { offset, ends: asked.0 + length, ends_wall: asked.1 + length };
        if let Some(pause) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            pause.everything = Some(everything);
        }
    }

    pub(super) fn ended(&self) {
        self.set(None);
    }

    pub(super) fn runs(&self) -> bool {
        self.get().is_some_and(|pause| Instant::now() < pause.until)
    }

    /// The offset at which Redis stands still, if at `now` it certainly does.
    pub(super) fn frozen_at(&self, now: Both) -> Option<u64> {
        let everything = self.get()?.everything?;
        (now.0 < everything.ends && now.1 < everything.ends_wall).then_some(everything.offset)
    }

    fn get(&self) -> Option<Pause> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, pause: Option<Pause>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pause_of_everything_stands_still_until_it_ends_by_either_clock() {
        let asked = Both::now();
        let later = |mono: Duration, wall: Duration| Both(asked.0 + mono, asked.1 + wall);
        let pause = OwnPause::default();
        pause.holds_everything(7, asked, SECOND);
        assert_eq!(pause.frozen_at(asked), None, "it never began");
        pause.begins(asked.0 + SECOND * 2);
        assert_eq!(pause.frozen_at(asked), None, "writes alone: others may be answered");
        pause.holds_everything(7, asked, SECOND);
        let near = SECOND - MILLISECOND * 2;
        assert_eq!(pause.frozen_at(later(near, near)), Some(7));
        assert_eq!(pause.frozen_at(later(SECOND, near)), None);
        assert_eq!(pause.frozen_at(later(near, SECOND)), None, "the wall clock was set");
        pause.ended();
        assert_eq!(pause.frozen_at(asked), None);
    }
}
