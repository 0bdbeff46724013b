//! `redkeep-nemesis SEED MINUTES DIRECTORY`: one run of `redkeep_lab::nemesis`; `cargo xtask nemesis` builds what it needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use redkeep_lab::nemesis::{Plan, run};

fn main() -> ExitCode {
    match judged() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nemesis: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was violated.
fn judged() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [seed, minutes, out] = &words[..] else {
        anyhow::bail!("usage: redkeep-nemesis SEED MINUTES DIRECTORY");
    };
    let seed = seed.parse().context("the seed is a number")?;
    let minutes: u64 = minutes.parse().context("minutes are a number")?;
    let plan = Plan::new(seed, Duration::from_secs(minutes * 60));
    println!("{plan}");
    let run = run(&plan, &PathBuf::from(out))?;
    println!("\n{}", run.report(&plan));
    Ok(run.judgement.violations.is_empty())
}
