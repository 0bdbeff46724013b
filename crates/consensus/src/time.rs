//! Monotonic time as plain numbers.
//!
//! A [`Mono`] means something only beside another `Mono` of the same clock and the same boot.
//! Arithmetic saturates, because a clock reading out of order must not end the process here.

use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

/// A point in time: nanoseconds since an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Mono {
    /// The latest point that can be named; used for "no deadline".
    pub const MAX: Mono = Mono(u64::MAX);

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// The longest length that can be named.
    pub const MAX: Span = Span(u64::MAX);

    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Span {
        Span(nanos)
    }

    #[must_use]
    pub const fn from_micros(micros: u64) -> Span {
        Span(micros.saturating_mul(1_000))
    }

    #[must_use]
    pub const fn from_millis(millis: u64) -> Span {
        Span(millis.saturating_mul(1_000_000))
    }

    #[must_use]
    pub const fn from_secs(secs: u64) -> Span {
        Span(secs.saturating_mul(1_000_000_000))
    }

    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds, rounded down.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds, for display and metrics.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn saturating_sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }

    /// `self * numerator / denominator`, rounded up, so that a waiting side waits long enough.
    ///
    /// # Panics
    /// When `denominator` is zero.
    #[must_use]
    pub fn mul_ratio(self, numerator: u64, denominator: u64) -> Span {
        let product = u128::from(self.0) * u128::from(numerator);
        let quotient = product.div_ceil(u128::from(denominator));
        Span(u64::try_from(quotient).unwrap_or(u64::MAX))
    }

    /// `self * factor`, rounded up; zero for a negative factor or NaN.
    #[must_use]
    pub fn mul_f64(self, factor: f64) -> Span {
        Span((self.0 as f64 * factor).ceil() as u64)
    }
}

impl Add<Span> for Mono {
    type Output = Mono;
    fn add(self, span: Span) -> Mono {
        Mono(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Mono {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Mono {
    type Output = Mono;
    fn sub(self, span: Span) -> Mono {
        Mono(self.0.saturating_sub(span.0))
    }
}

impl Sub<Mono> for Mono {
    type Output = Span;
    fn sub(self, earlier: Mono) -> Span {
        self.since(earlier)
    }
}

impl Add<Span> for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl AddAssign<Span> for Span {
    fn add_assign(&mut self, other: Span) {
        *self = *self + other;
    }
}

impl Sub<Span> for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        self.saturating_sub(other)
    }
}

impl Mul<u64> for Span {
    type Output = Span;
    fn mul(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
}

impl Div<u64> for Span {
    type Output = Span;
    fn div(self, divisor: u64) -> Span {
        Span(self.0 / divisor)
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Span {
        Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> std::time::Duration {
        std::time::Duration::from_nanos(span.0)
    }
}

impl fmt::Display for Span {
    /// The largest unit that needs no fraction: `2s`, `300ms`, `250us`, `7ns`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
        for (nanos, unit) in UNITS {
            if self.0 >= nanos && self.0.is_multiple_of(nanos) {
                return write!(f, "{}{unit}", self.0 / nanos);
            }
        }
        if self.0 == 0 { write!(f, "0ms") } else { write!(f, "{}ns", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_print_in_the_largest_whole_unit() {
        for (span, text) in [
            (Span::from_millis(300), "300ms"),
            (Span::from_secs(2), "2s"),
            (Span::from_millis(1500), "1500ms"),
            (Span::from_micros(250), "250us"),
            (Span(7), "7ns"),
            (Span::ZERO, "0ms"),
        ] {
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn arithmetic_saturates_and_ratios_round_up() {
        assert_eq!(Mono(5) - Mono(9), Span::ZERO);
        assert_eq!(Mono::MAX + Span(1), Mono::MAX);
        assert_eq!(Span(10).mul_ratio(11, 10), Span(11));
        assert_eq!(Span(1).mul_ratio(1, 3), Span(1));
        assert_eq!(Span::MAX.mul_ratio(2, 1), Span::MAX);
        assert_eq!(Span(100).mul_f64(1.1), Span(111), "binary 1.1 is a little over 1.1");
        assert_eq!(Span(100).mul_f64(f64::NAN), Span::ZERO);
    }
}
