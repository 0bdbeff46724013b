//! `redkeep-nemesis SEED MINUTES DIRECTORY [sentinel]`: one run of `redkeep_lab::nemesis`; `cargo xtask nemesis` builds what it needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use redkeep_lab::nemesis::{Plan, run, run_sentinel};

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
    let (seed, minutes, out, sentinel) = match &words[..] {
        [seed, minutes, out] => (seed, minutes, out, false),
        [seed, minutes, out, rival] if rival == "sentinel" => (seed, minutes, out, true),
        _ => anyhow::bail!("usage: redkeep-nemesis SEED MINUTES DIRECTORY [sentinel]"),
    };
    let seed = seed.parse().context("the seed is a number")?;
    let minutes: u64 = minutes.parse().context("minutes are a number")?;
    let plan = Plan::new(seed, Duration::from_secs(minutes * 60));
    println!("{plan}");
    let out = PathBuf::from(out);
    if sentinel {
        let run = run_sentinel(&plan, &out)?;
        println!("\n{}", run.report(&plan));
        // What Sentinel does is no failure of ours.
        return Ok(true);
    }
    let run = run(&plan, &out)?;
    println!("\n{}", run.report(&plan));
    Ok(run.judgement.violations.is_empty())
}
