//! The lab's only time: CLOCK_MONOTONIC, shared by all namespaces of one kernel.
//!
//! Stamps of the writers, of the faults and of the processes' logs can therefore be compared
//! directly. Logs that carry wall-clock stamps are converted once, by [`WallOffset`]; the wall
//! clock is used for nothing else.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The present instant.
    pub fn now() -> Self {
        Mono(read_ns(ClockId::Monotonic))
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Signed distance from `origin` in milliseconds, for reports.
    pub fn millis_from(self, origin: Mono) -> f64 {
        if self >= origin {
            self.since(origin).as_secs_f64() * 1e3
        } else {
            -(origin.since(self).as_secs_f64() * 1e3)
        }
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, by: Duration) -> Mono {
        Mono(self.0.saturating_add(as_ns(by)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;

    fn sub(self, by: Duration) -> Mono {
        Mono(self.0.saturating_sub(as_ns(by)))
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1000)
    }
}

/// Difference between the wall clock and CLOCK_MONOTONIC, taken once.
///
/// A step of the wall clock between the two readings of a run would shift converted stamps.
#[derive(Clone, Copy, Debug)]
pub struct WallOffset {
    offset_ns: u64,
}

impl WallOffset {
    /// Reads both clocks now.
    pub fn measure() -> Self {
        let wall = read_ns(ClockId::Realtime);
        WallOffset { offset_ns: wall.saturating_sub(read_ns(ClockId::Monotonic)) }
    }

    /// Converts nanoseconds since the Unix epoch.
    pub fn to_mono(self, wall_ns: u64) -> Mono {
        Mono(wall_ns.saturating_sub(self.offset_ns))
    }
}

/// Nanoseconds since the Unix epoch of an RFC 3339 stamp in UTC (`2026-01-31T10:20:30.123456Z`).
pub fn parse_rfc3339_utc(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once('T')?;
    let clock = rest.strip_suffix('Z')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let date: Vec<i64> = date.split('-').map(str::parse).collect::<Result<_, _>>().ok()?;
    let clock: Vec<u64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let ([year, month, day], [hour, minute, second]) = (&date[..], &clock[..]) else {
        return None;
    };
    let days = u64::try_from(days_from_civil(*year, *month, *day)).ok()?;
    let whole = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(whole * 1_000_000_000 + digits.parse::<u64>().ok()?)
}

/// Days since 1970-01-01 of a civil date (Howard Hinnant's `days_from_civil`).
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn read_ns(clock: ClockId) -> u64 {
    let spec = clock_gettime(clock);
    let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(spec.tv_nsec).unwrap_or(0)
}

fn as_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_stamp_is_read_to_the_nanosecond() {
        let ns = parse_rfc3339_utc("2026-01-31T10:20:30.123456Z");
        assert_eq!(ns, Some(1_769_854_830_123_456_000));
        assert_eq!(parse_rfc3339_utc("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(parse_rfc3339_utc("yesterday"), None);
    }

    #[test]
    fn distance_is_signed() {
        let origin = Mono(5_000_000);
        assert!((Mono(3_000_000).millis_from(origin) + 2.0).abs() < 1e-9);
        assert_eq!(Mono(3).since(origin), Duration::ZERO);
    }
}
