//! What `cargo xtask bench` runs: the measurement, as a release program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use redkeep_lab::bench::{Options, run};

/// The same faults for redkeep, Redis Sentinel, keepalived and a lower limit.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// How often each contender meets each scenario.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Only these contenders: names or their beginnings, by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these of crash, host-loss, cut, switchover, idle.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Directory for benchmarks.md and benchmarks.svg [default: docs, for a part target/bench].
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = Arguments::parse();
    let is_part = !arguments.only.is_empty() || !arguments.scenario.is_empty();
    let usual = PathBuf::from(if is_part { "target/bench" } else { "docs" });
    let options = Options {
        rounds: arguments.rounds,
        only: arguments.only,
        scenarios: arguments.scenario,
        out: arguments.out.unwrap_or(usual),
        command: format!("cargo xtask bench {}", words.join(" ")).trim_end().to_owned(),
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
