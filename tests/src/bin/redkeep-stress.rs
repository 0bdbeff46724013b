//! `redkeep-stress MINUTES LEASE...`: see `redkeep_lab::stress`; `cargo xtask stress` builds what it needs. Fails if the pair of the
//! first lease moved.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use redkeep_lab::stress::run;

fn main() -> ExitCode {
    match stayed() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stress: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn stayed() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [minutes, leases @ ..] = &words[..] else {
        anyhow::bail!("usage: redkeep-stress MINUTES LEASE...");
    };
    let minutes: u64 = minutes.parse().context("minutes are a number")?;
    let found = run(leases, Duration::from_secs(minutes * 60))?;
    for found in &found {
        println!("{found}");
    }
    Ok(found.first().is_some_and(|first| first.failovers() == 0))
}
