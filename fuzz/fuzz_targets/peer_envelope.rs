//! `peer_envelope`, for libFuzzer; what it checks is in `crates/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (redkeep_fuzz::TARGETS[1].1)(data));
