//! `redkeepctl`: the operator's command line.
//!
//! It knows `redkeep.admin.v1` and nothing of the core. What it prints with `-o json` are structs of its own
//! ([`view`]), so that the wire may move. Exit codes: 0 done, 1 refused, 2 usage, 3 unreachable (nothing was done),
//! 4 outcome unknown. Deliberately absent: state, retries of writes, and any decision.

mod args;
mod connect;
mod failure;
mod out;
mod show;
mod table;
mod verb;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Args, failure::Failure, out::Out};

fn main() -> ExitCode {
    // clap itself ends with 2 on wrong usage and with 0 on --help and --version.
    let args = Args::parse();
    let mut out = Out::stdout(args.output);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(verb::run(&args, &mut out)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("redkeepctl: {failure}");
            for hint in failure.hints() {
                eprintln!("  {hint}");
            }
            ExitCode::from(failure.code())
        }
    }
}
