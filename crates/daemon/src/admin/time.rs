//! Lengths and points of time as protobuf knows them.

use prost_types::{Duration, Timestamp};
use redkeep_core::Span;

const NANOS: u64 = 1_000_000_000;

pub(super) fn span(span: Span) -> Duration {
    Duration { seconds: signed(span.0 / NANOS), nanos: below_a_second(span.0 % NANOS) }
}

pub(super) fn duration(duration: std::time::Duration) -> Duration {
    Duration {
        seconds: signed(duration.as_secs()),
        nanos: below_a_second(u64::from(duration.subsec_nanos())),
    }
}

/// Zero for what is negative: every rule on lengths refuses that too.
pub(super) fn to_span(duration: Duration) -> Span {
    let nanos = i128::from(duration.seconds) * i128::from(NANOS) + i128::from(duration.nanos);
    Span(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

pub(super) fn unix_ms(ms: u64) -> Timestamp {
    Timestamp { seconds: signed(ms / 1_000), nanos: below_a_second(ms % 1_000 * 1_000_000) }
}

pub(super) const fn unix_s(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

pub(super) fn unix_us(us: u64) -> Timestamp {
    Timestamp { seconds: signed(us / 1_000_000), nanos: below_a_second(us % 1_000_000 * 1_000) }
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn below_a_second(nanos: u64) -> i32 {
    i32::try_from(nanos).unwrap_or(999_999_999)
}

#[cfg(test)]
mod tests {
    use redkeep_core::Span;

    use super::{span, to_span};

    #[test]
    fn lengths_survive_both_ways() {
        for nanos in [0, 1, 999_999_999, 1_000_000_000, u64::MAX] {
            assert_eq!(to_span(span(Span(nanos))), Span(nanos));
        }
    }

    #[test]
    fn a_negative_length_is_no_length() {
        assert_eq!(to_span(prost_types::Duration { seconds: -1, nanos: 0 }), Span(0));
        assert_eq!(to_span(prost_types::Duration { seconds: i64::MAX, nanos: 0 }), Span(u64::MAX));
    }
}
