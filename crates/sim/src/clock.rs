//! True time, and the clocks of a host, which differ from it in offset and rate.
//!
//! CLOCK_BOOTTIME and the kernel's jiffies are slewed (chrony: up to 8 %), CLOCK_MONOTONIC_RAW is not and is off
//! by the crystal's error alone. Whoever arms a kernel timer is judged by the slewed one, whoever waits by the raw one.

use redkeep_core::{Mono, Now, Span};

/// True time: nanoseconds since the world began. Nobody inside the world can read it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Real(pub u64);

impl Real {
    #[must_use]
    pub const fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
    #[must_use]
    pub const fn after_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
    /// Time since `earlier`; zero if that lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// A clock that runs at a rate of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    from: Real,
    value: u64,
    /// Rate minus one, in parts per million.
    skew_ppm: i64,
    /// With its machine.
    stands: bool,
}

impl Clock {
    #[must_use]
    pub const fn new(value: u64, skew_ppm: i64) -> Self {
        Self { from: Real(0), value, skew_ppm, stands: false }
    }

    fn rate(&self) -> u128 {
        u128::try_from(1_000_000 + self.skew_ppm).unwrap_or(1)
    }

    #[must_use]
    pub fn read(&self, at: Real) -> u64 {
        if self.stands {
            return self.value;
        }
        let passed = u128::from(at.since(self.from).0) * self.rate() / 1_000_000;
        self.value + u64::try_from(passed).unwrap_or(u64::MAX / 2)
    }

    /// First true time at which the clock shows `value` or more, at its present rate and if it does not stand still.
    #[must_use]
    pub fn real_of(&self, value: u64) -> Real {
        let left = u128::from(value.saturating_sub(self.value)) * 1_000_000;
        let passed = left.div_ceil(self.rate());
        Real(self.from.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    pub fn set_skew(&mut self, at: Real, skew_ppm: i64) {
        *self = Self { from: at, value: self.read(at), skew_ppm, ..*self };
    }

    fn set_standing(&mut self, at: Real, stands: bool) {
        *self = Self { from: at, value: self.read(at), stands, ..*self };
    }
}

/// The clocks of one host.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    /// CLOCK_BOOTTIME; the kernel's set timeouts follow the same rate.
    pub boot: Clock,
    /// CLOCK_MONOTONIC_RAW.
    pub raw: Clock,
    /// Error of the wall clock; it decides nothing.
    pub unix_offset_ms: u64,
    /// The wall clock is set every 200 ms, to anywhere within a few years.
    pub wall_jumps: bool,
}

impl HostClock {
    /// The machine is paused: all of its clocks are.
    pub fn stop(&mut self, at: Real) {
        self.boot.set_standing(at, true);
        self.raw.set_standing(at, true);
    }

    /// The machine goes on.
    pub fn go(&mut self, at: Real) {
        self.boot.set_standing(at, false);
        self.raw.set_standing(at, false);
    }

    #[must_use]
    pub fn now(&self, at: Real) -> Now {
        Now {
            boot: Mono(self.boot.read(at)),
            raw: Mono(self.raw.read(at)),
            unix_ms: self.unix_offset_ms + at.0 / 1_000_000 + self.jump_ms(at),
        }
    }

    fn jump_ms(&self, at: Real) -> u64 {
        let step = (at.0 / 200_000_000).wrapping_add(self.unix_offset_ms);
        let anywhere = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000_000_000;
        if self.wall_jumps { anywhere } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_of_is_the_inverse_of_read_at_every_rate() {
        for skew in [-80_000, -50, 0, 50, 80_000] {
            let clock = Clock::new(5_000, skew);
            let at = clock.real_of(1_000_000_000);
            assert!(clock.read(at) >= 1_000_000_000);
            assert!(clock.read(Real(at.0 - 2)) < 1_000_000_000);
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_where_it_was() {
        let mut clock = Clock::new(7, 0);
        clock.set_standing(Real(100), true);
        assert_eq!(clock.read(Real(5_000)), 107);
        clock.set_skew(Real(5_000), 1_000_000);
        clock.set_standing(Real(6_000), false);
        assert_eq!(clock.read(Real(6_010)), 127);
        assert_eq!(clock.real_of(127), Real(6_010));
    }

    #[test]
    fn a_change_of_rate_never_moves_the_clock() {
        let mut clock = Clock::new(0, 80_000);
        let before = clock.read(Real(1_000_000));
        clock.set_skew(Real(1_000_000), -80_000);
        assert_eq!(clock.read(Real(1_000_000)), before);
        assert_eq!(clock.read(Real(2_000_000)), before + 920_000);
    }
}
