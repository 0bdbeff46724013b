//! `cargo xtask fuzz`: the targets of `crates/fuzz` under libFuzzer, by cargo-fuzz.
//!
//! What a run finds goes to `target/fuzz/corpus`; `--keep` merges what is new of it into the committed `fuzz/corpus`,
//! which an ordinary test replays. An input that breaks something is written to `fuzz/artifacts`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

use crate::programs::{cargo, run as run_program};
use crate::setup;

/// Names as in `fuzz/Cargo.toml`.
const TARGETS: [&str; 4] = ["wal_record", "peer_envelope", "redis_reply", "config"];

/// Longer inputs are not kept: the committed corpus stays small.
const KEPT_BYTES_MAX: u64 = 1500;

/// What to do.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only this one.
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
    /// For how long each is run.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Afterwards add what is new to the committed corpus.
    #[arg(long)]
    keep: bool,
    /// First write the seeds, which tests make from real values, into the committed corpus.
    #[arg(long)]
    seeds: bool,
}

/// Fails if an input broke something.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    require()?;
    if options.seeds {
        let mut command = cargo();
        command.args(["test", "-p", "redkeep-fuzz", "--test", "seeds"]);
        run_program(command.env("FUZZ_SEEDS", root.join("fuzz/corpus")).current_dir(root))?;
    }
    let chosen = |name: &&str| options.target.as_deref().is_none_or(|only| only == *name);
    for target in TARGETS.into_iter().filter(chosen) {
        let found = root.join("target/fuzz/corpus").join(target);
        let kept = root.join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&found)?;
        std::fs::create_dir_all(&kept)?;
        if options.minutes > 0 {
            println!("\n==> {target}, {} min", options.minutes);
            let time = format!("-max_total_time={}", u64::from(options.minutes) * 60);
            run_program(libfuzzer(root, target).arg(&found).arg(&kept).args(["--", &time]))?;
        }
        if options.keep {
            let small = root.join("target/fuzz/small").join(target);
            copy_small(&found, &small)?;
            let merge = ["--", "-set_cover_merge=1", "-max_len=4096"];
            run_program(libfuzzer(root, target).arg(&kept).arg(&small).args(merge))?;
        }
    }
    Ok(())
}

fn copy_small(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.metadata()?.len() <= KEPT_BYTES_MAX {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn require() -> Result<()> {
    let installed = cargo().args(["fuzz", "--version"]).output().is_ok_and(|o| o.status.success());
    ensure!(installed, "cargo-fuzz is missing: `cargo install cargo-fuzz --locked`");
    let compiler = ["c++", "g++", "clang++"].into_iter().any(|name| setup::find(name).is_some());
    ensure!(compiler, "no C++ compiler, for libFuzzer: install one (Debian: g++)");
    Ok(())
}

fn libfuzzer(root: &Path, target: &str) -> Command {
    let mut command = cargo();
    command.args(["fuzz", "run", "--fuzz-dir", "fuzz", "--target-dir", "target/fuzz", target]);
    // The address sanitizer is an unstable option of the compiler; no other toolchain is needed for it.
    command.env("RUSTC_BOOTSTRAP", "1").current_dir(root);
    command
}
