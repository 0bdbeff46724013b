//! Times of the wire as numbers and words.

use std::time::Duration;

use prost_types::{Duration as PbDuration, Timestamp};

/// Whole milliseconds; what is negative counts as none.
pub(super) fn ms(length: PbDuration) -> u64 {
    Duration::try_from(length).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// RFC 3339, UTC, milliseconds.
pub(super) fn rfc3339(mut at: Timestamp) -> String {
    at.nanos -= at.nanos % 1_000_000;
    let text = at.to_string();
    // prost writes as few digits as needed; columns want them all.
    match text.strip_suffix('Z') {
        Some(whole) if !whole.contains('.') => format!("{whole}.000Z"),
        Some(_) | None => text,
    }
}

/// Since then, by this host's wall clock.
#[allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "shown to people, never compared"
)]
pub(super) fn ms_ago(at: Timestamp) -> Option<u64> {
    let at: std::time::SystemTime = at.try_into().ok()?;
    let ago = std::time::SystemTime::now().duration_since(at).ok()?;
    u64::try_from(ago.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp};

    use super::{ms, rfc3339};

    #[test]
    fn times_have_milliseconds() {
        let at = |nanos| rfc3339(Timestamp { seconds: 1_700_000_000, nanos });
        assert_eq!(at(0), "2023-11-14T22:13:20.000Z");
        assert_eq!(at(123_456_789), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn lengths_are_whole_milliseconds() {
        assert_eq!(ms(Duration { seconds: 1, nanos: 999_999 }), 1_000);
        assert_eq!(ms(Duration { seconds: -1, nanos: 0 }), 0);
    }
}
