//! How much slower than the real thing this machine is.
//!
//! An emulated machine runs the same scenarios with all spans longer by one factor: leases, probes, the writers'
//! pauses and the bounds of the tests. What must never happen, such as two masters, has no factor.

use std::time::Duration;

/// The whole number in `LAB_SLOWDOWN`; 1 where there is none.
pub(crate) fn slowdown() -> u32 {
    let wanted = std::env::var("LAB_SLOWDOWN").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(1).max(1)
}

/// A span, longer by `LAB_SLOWDOWN`.
pub fn slowed(span: Duration) -> Duration {
    span * slowdown()
}

/// A span as a configuration writes it, `300ms`, longer by a factor.
pub(crate) fn times(text: &str, factor: u32) -> String {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - unit.len()];
    digits.parse::<u32>().map_or_else(|_| text.to_owned(), |n| format!("{}{unit}", n * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_a_configuration_keep_their_unit() {
        assert_eq!(times("300ms", 1), "300ms");
        assert_eq!(times("300ms", 10), "3000ms");
        assert_eq!(times("2s", 3), "6s");
    }
}
