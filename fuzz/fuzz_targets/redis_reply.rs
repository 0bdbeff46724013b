//! `redis_reply`, for libFuzzer; what it checks is in `crates/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (redkeep_fuzz::TARGETS[2].1)(data));
