//! The three clocks, read together (lease rule L8: after the input was taken from its queue).
//!
//! CLOCK_BOOTTIME judges what this host holds, CLOCK_MONOTONIC_RAW how long others are waited for, the wall clock is
//! for display. One thread owns a [`Clocks`]. Invariant: neither of the first two runs backwards; a kernel where one
//! does keeps no lease, so the process ends at once and the kernel's own timers fence the host.

use redkeep_core::{Mono, Now};
use rustix::time::{ClockId, clock_gettime};

/// Reads the clocks and holds them to their promise.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    boot: Mono,
    raw: Mono,
}

impl Clocks {
    pub(crate) fn now(&mut self) -> Now {
        let (boot, raw) = (read(ClockId::Boottime), read(ClockId::MonotonicRaw));
        if boot < self.boot || raw < self.raw {
            eprintln!(
                "a monotonic clock ran backwards: BOOTTIME {boot:?} after {:?}, RAW {raw:?} after {:?}",
                self.boot, self.raw
            );
            std::process::abort();
        }
        (self.boot, self.raw) = (boot, raw);
        Now { boot, raw, unix_ms: unix_us() / 1_000 }
    }
}

/// CLOCK_BOOTTIME.
pub(crate) fn boot() -> Mono {
    read(ClockId::Boottime)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of kernel traces and packet captures, for the stamps of events.
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic).0
}

/// Wall clock, microseconds since 1970; for display only.
pub(crate) fn unix_us() -> u64 {
    read(ClockId::Realtime).0 / 1_000
}

fn read(clock: ClockId) -> Mono {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Mono(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_never_run_backwards_and_the_wall_clock_is_after_2020() {
        let mut clocks = Clocks::default();
        let mut last = clocks.now();
        for _ in 0..1_000 {
            let now = clocks.now();
            assert!(now.boot >= last.boot && now.raw >= last.raw);
            last = now;
        }
        assert!(last.unix_ms > 1_577_836_800_000);
    }
}
