//! What the fuzzers found worth keeping, and what was seeded, holds without a fuzzer too.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use redkeep_fuzz::TARGETS;

/// A corpus is kept small: `cargo xtask fuzz --keep` minimises it.
const BYTES_MAX: u64 = 500_000;

fn files(target: &str) -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let listed = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_of_every_target_holds() {
    for (name, target) in TARGETS {
        let (files, mut bytes) = (files(name), 0);
        assert!(files.len() >= 5, "{name} has {} inputs", files.len());
        for file in &files {
            let data = fs::read(file).unwrap();
            bytes += data.len() as u64;
            let held = std::panic::catch_unwind(|| target(&data));
            assert!(held.is_ok(), "{} of {name}", file.display());
        }
        assert!(bytes <= BYTES_MAX, "{name} has {bytes} bytes");
        println!("{name}: {} inputs, {bytes} bytes", files.len());
    }
}
