//! Values with units as people write them: `"300ms"`, `"10%"`, `"10.99.0.100/32"`.

use std::net::IpAddr;

use redkeep_core::{Span, spec::Vip};

/// `"300ms"`, `"1.5s"`, `"10m"`; units us, ms, s, m, h. A number without a unit is refused: nobody agrees what it means.
pub(super) fn duration(text: &str) -> Option<Span> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let unit_ns: u64 = match unit {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    if fraction.len() > 9 || number.ends_with('.') || fraction.contains('.') {
        return None;
    }
    let whole_ns = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    let fraction_ns = if fraction.is_empty() {
        0
    } else {
        let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        u64::try_from(
            u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit_ns) / u128::from(scale),
        )
        .ok()?
    };
    whole_ns.checked_add(fraction_ns).map(Span)
}

/// The shortest exact form that [`duration`] reads back.
pub(super) fn show_duration(span: Span) -> String {
    const UNITS: [(u64, &str); 4] =
        [(60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    if span.0 == 0 {
        return "0s".to_owned();
    }
    for (size, unit) in UNITS {
        if span.0.is_multiple_of(size) {
            return format!("{}{unit}", span.0 / size);
        }
    }
    // A fraction of another unit may end in nanoseconds.
    let text = format!("{}.{:03}", span.0 / 1_000, span.0 % 1_000);
    format!("{}us", text.trim_end_matches('0'))
}

/// `"20GiB"`, or `"0"`; units KiB, MiB, GiB, TiB, whole numbers.
pub(super) fn bytes(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, size) = BYTES.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

const BYTES: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The shortest form that [`bytes`] reads back.
pub(super) fn show_bytes(bytes: u64) -> String {
    let whole = BYTES.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    whole.map_or_else(|| bytes.to_string(), |(name, size)| format!("{}{name}", bytes / size))
}

/// `"10%"` or `"0.5%"` in parts per million.
pub(super) fn percent_ppm(text: &str) -> Option<u64> {
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 4 {
        return None;
    }
    let fraction_ppm = format!("{fraction:0<4}").parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(10_000)?.checked_add(fraction_ppm)
}

pub(super) fn show_ppm(ppm: u64) -> String {
    if ppm.is_multiple_of(10_000) {
        return format!("{}%", ppm / 10_000);
    }
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{}%", text.trim_end_matches('0'))
}

/// `"ADDRESS/PREFIX"` of either family.
pub(super) fn vip(text: &str) -> Option<Vip> {
    let (addr, prefix) = text.split_once('/')?;
    let addr = addr.parse::<IpAddr>().ok()?;
    let prefix = prefix.parse::<u8>().ok()?;
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    (prefix >= 1 && prefix <= longest).then_some(Vip { addr, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_are_exact() {
        let cases = [
            ("300ms", Some(300_000_000)),
            ("1s", Some(1_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0s", Some(0)),
            ("250us", Some(250_000)),
            ("10m", Some(600_000_000_000)),
            ("2h", Some(7_200_000_000_000)),
            ("300", None),
            ("ms", None),
            ("-1s", None),
            ("1.s", None),
            (".5s", None),
            ("1 s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("99999999999999h", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(duration(text), want.map(Span), "{text}");
        }
    }

    #[test]
    fn shown_durations_read_back() {
        let odd = [1, 1_001, 300_000_010, 10_000_000_500];
        let even = [0, 1_000, 300_000_000, 1_500_000_000, 90_000_000_000, 3_600_000_000_000];
        for ns in odd.into_iter().chain(even) {
            assert_eq!(duration(&show_duration(Span(ns))), Some(Span(ns)));
        }
    }

    #[test]
    fn sizes_need_a_unit_and_read_back() {
        for (text, bytes_of) in [
            ("0", 0),
            ("1KiB", 1 << 10),
            ("20GiB", 20 << 30),
            ("3TiB", 3 << 40),
            ("1500MiB", 1500 << 20),
        ] {
            assert_eq!(bytes(text), Some(bytes_of), "{text}");
            assert_eq!(show_bytes(bytes_of), text);
        }
        assert_eq!(bytes("0GiB"), Some(0));
        for text in ["", "20", "GiB", "1.5GiB", "20GB", "20 GiB", "-1KiB", "99999999999TiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn percentages_become_parts_per_million_and_back() {
        for (text, ppm) in [("10%", 100_000), ("0.5%", 5_000), ("1%", 10_000), ("0.0001%", 1)] {
            assert_eq!(percent_ppm(text), Some(ppm), "{text}");
            assert_eq!(show_ppm(ppm), text);
        }
        for text in ["10", "%", "-1%", "1.%x", "1.23456%"] {
            assert_eq!(percent_ppm(text), None, "{text}");
        }
    }

    #[test]
    fn a_vip_needs_a_prefix_of_its_family() {
        assert!(vip("10.0.0.1/32").is_some());
        assert!(vip("fd00::1/128").is_some());
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0.1/0", "fd00::1/129", "name/32"] {
            assert!(vip(text).is_none(), "{text}");
        }
    }
}
