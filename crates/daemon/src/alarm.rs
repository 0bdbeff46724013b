//! The driver's alarm: a timer of the kernel on CLOCK_BOOTTIME.
//!
//! The core counts in that clock, which goes on in suspend. The runtime's own timers do not, are a millisecond coarse, and
//! wake the thread once more for each boundary of their wheel: at rest that was every third wake.

use std::{io, os::fd::OwnedFd};

use redkeep_core::Mono;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set: Option<Mono>,
}

impl Alarm {
    /// Within the runtime that will wait for it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        #[expect(
            deprecated,
            reason = "unsound only for types that may close their descriptor; OwnedFd cannot"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, set: None })
    }

    /// Until CLOCK_BOOTTIME is `at`, at once if it is already. May be dropped and asked again.
    ///
    /// # Errors
    /// The kernel refuses; then nobody would wake the core.
    pub(crate) async fn wait(&mut self, at: Mono) -> io::Result<()> {
        // An instant of zero would switch the timer off.
        let at = at.max(Mono(1));
        if self.set != Some(at) {
            let value = Timespec {
                tv_sec: i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: (at.0 % 1_000_000_000) as _,
            };
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let new = Itimerspec { it_interval: once, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &new)?;
            self.set = Some(at);
        }
        loop {
            let mut guard = self.timer.readable().await?;
            let mut count = [0; 8];
            match guard.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?)) {
                Ok(read) => {
                    read?;
                    guard.clear_ready();
                    self.set = None;
                    return Ok(());
                }
                // It was set anew meanwhile.
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn it_rings_at_its_time_and_at_once_for_the_past() {
        let mut alarm = Alarm::new().unwrap();
        let at = Mono(clock::boot().0 + 20_000_000);
        alarm.wait(at).await.unwrap();
        assert!(clock::boot() >= at);
        alarm.wait(Mono(0)).await.unwrap();
        alarm.wait(at).await.unwrap();
    }

    #[tokio::test]
    async fn the_time_that_was_asked_last_counts() {
        let mut alarm = Alarm::new().unwrap();
        let now = clock::boot().0;
        let far = alarm.wait(Mono(now + 3_600_000_000_000));
        assert!(tokio::time::timeout(Duration::from_millis(5), far).await.is_err());
        let near = Mono(now + 30_000_000);
        alarm.wait(near).await.unwrap();
        assert!(clock::boot() >= near);
        // One that rang unheard, and was then set anew, does not ring early.
        let soon = alarm.wait(Mono(clock::boot().0 + 2_000_000));
        assert!(tokio::time::timeout(Duration::ZERO, soon).await.is_err());
        Alarm::new().unwrap().wait(Mono(clock::boot().0 + 10_000_000)).await.unwrap();
        let later = Mono(clock::boot().0 + 20_000_000);
        alarm.wait(later).await.unwrap();
        assert!(clock::boot() >= later);
    }
}
