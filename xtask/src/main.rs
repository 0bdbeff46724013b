//! Project chores: `setup`, `tidy`, `test`, `demo`, `bench`, `nemesis`, `stress`, `fuzz`, `vm`. `.ci/run` runs `test` and nothing else.
//!
//! Everything here drives other programs; no rule of the product lives here.

mod bench;
mod demo;
mod fuzz;
mod nemesis;
mod programs;
mod servers;
mod setup;
mod stress;
mod tidy;
mod verify;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the project")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Clone, Debug, Subcommand)]
enum Chore {
    /// Install the Debian packages that tests and demo need.
    Setup,
    /// Check the house rules over the whole tree.
    Tidy,
    /// Format, lints, rules, licences, tests, namespaces, documentation: all that must hold.
    Test {
        /// Without licences, release build, namespace tests and documentation.
        #[arg(long)]
        quick: bool,
        /// Only what speaks to a Redis, once for each of these servers: `all`, or names by comma.
        #[arg(long, value_name = "NAMES", conflicts_with = "quick")]
        servers: Option<String>,
    },
    /// Three hosts, real Redis, real faults, as a timeline.
    Demo {
        /// Leave the hosts running at the end, until Ctrl-C.
        #[arg(long)]
        keep: bool,
        /// Length of a lease.
        #[arg(long, default_value = "300ms", value_parser = parse_span)]
        lease: Duration,
    },
    /// Random faults on three hosts with writers all the while, and a verdict over the whole history.
    Nemesis {
        /// The same seed plans the same faults.
        #[arg(long)]
        seed: u64,
        /// For how long faults happen.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// The same for a pair under Redis Sentinel, as far as its faults mean something there: what does the checker see?
        #[arg(long)]
        sentinel: bool,
    },
    /// Nothing fails and all cores are busy (stress-ng): does anything move?
    Stress {
        /// For how long.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// A pair for each, all at once; that of the first must not move.
        #[arg(long, value_delimiter = ',', default_value = "1s,300ms")]
        leases: Vec<String>,
    },
    /// Mutated bytes for everything that reads foreign ones, under libFuzzer and a sanitizer.
    Fuzz(fuzz::Options),
    /// The same faults for redkeep, Redis Sentinel, keepalived and a lower limit; `bench --help` has its options.
    #[command(disable_help_flag = true)]
    Bench {
        /// For the measuring program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kernel tests and some scenarios on Debian's stock kernel, emulated: half an hour, not part of `test`.
    Vm {
        /// Only test programs whose name contains this.
        #[arg(default_value = "")]
        only: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let root = workspace_root()?;
    match chore {
        Chore::Setup => setup::run(),
        Chore::Tidy => tidy::run(&root),
        Chore::Test { servers: Some(servers), .. } => servers::run_all(&root, &servers),
        Chore::Test { quick, servers: None } => verify::run(&root, quick),
        Chore::Demo { keep, lease } => demo::run(&root, keep, lease),
        Chore::Nemesis { seed, minutes, sentinel } => nemesis::run(&root, seed, minutes, sentinel),
        Chore::Stress { minutes, leases } => stress::run(&root, minutes, &leases),
        Chore::Fuzz(options) => fuzz::run(&root, &options),
        Chore::Bench { arguments } => bench::run(&root, &arguments),
        Chore::Vm { only } => vm::run(&root, &only),
    }
}

fn workspace_root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest.parent().context("xtask has no parent directory")?.to_owned())
}

/// `300ms` or `2s`.
fn parse_span(text: &str) -> Result<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return Ok(Duration::from_millis(millis.parse().context("milliseconds")?));
    }
    if let Some(seconds) = text.strip_suffix('s') {
        return Ok(Duration::from_secs(seconds.parse().context("seconds")?));
    }
    bail!("write a length of time as 300ms or 2s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_carry_their_unit() {
        assert_eq!(parse_span("300ms").ok(), Some(Duration::from_millis(300)));
        assert_eq!(parse_span("2s").ok(), Some(Duration::from_secs(2)));
        assert!(parse_span("300").is_err() && parse_span("xs").is_err());
    }
}
