//! `redkeepd`: the supervisor that runs beside each Redis, and on each witness. A library only so that the fuzzers
//! reach what reads foreign input; its one function for everybody else is [`main`].
//!
//! Exit codes: 0 done, 1 failed at run time, 2 the configuration or the command line is wrong (not worth a restart),
//! 3 this node must not run (its identity is in doubt; not worth a restart either).

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

mod admin;
mod alarm;
mod clock;
mod config;
mod driver;
mod executor;
mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod host_lock;
mod inbox;
mod json_lines;
mod log;
mod peer;
mod sd_notify;
mod stop;
mod supervisor;
mod tls;
mod watching;

use config::{Config, ConfigError};

const EXIT_USAGE: u8 = 2;
const EXIT_IDENTITY: u8 = 3;

/// Quorum supervisor for Redis and Valkey pairs.
#[derive(Debug, Parser)]
#[command(name = "redkeepd", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file of this node.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check or show a configuration file.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Close Redis ports in the kernel; for the boot unit and for the drop-in of the Redis unit.
    Guard(guard::GuardArguments),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every problem, or what the numbers promise.
    Check { file: PathBuf },
    /// Print the effective file, defaults written out.
    Show { file: PathBuf },
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Command::Config { command: ConfigCommand::Check { file } }), _) => {
            print(&file, config::consequences)
        }
        (Some(Command::Config { command: ConfigCommand::Show { file } }), _) => {
            print(&file, config::effective)
        }
        (Some(Command::Guard(arguments)), _) => guarded(&arguments),
        (None, Some(file)) => match Config::load(&file) {
            Ok(config) => run(config),
            Err(error) => refuse(&error),
        },
        (None, None) => ExitCode::from(EXIT_USAGE),
    }
}

/// Whether the command line is one of ours; for the units in `deploy/`.
#[cfg(test)]
fn parses<'a>(words: impl Iterator<Item = &'a str>) -> Result<(), clap::Error> {
    Arguments::try_parse_from(std::iter::once("redkeepd").chain(words)).map(|_| ())
}

fn run(config: Config) -> ExitCode {
    match supervisor::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref::<peer::identity::MustNotRun>().is_some() => {
            say(&format!("redkeepd: {error}"));
            ExitCode::from(EXIT_IDENTITY)
        }
        Err(error) => report(Err(error)),
    }
}

fn guarded(arguments: &guard::GuardArguments) -> ExitCode {
    match guard::run(arguments) {
        Err(guard::GuardError::Config(error)) => refuse(&error),
        other => report(other.map_err(anyhow::Error::from)),
    }
}

fn print(file: &Path, show: impl Fn(&Config) -> String) -> ExitCode {
    match Config::load(file) {
        Ok(config) => {
            // A closed pipe means that the reader has seen enough.
            let _ = std::io::stdout().write_all(show(&config).as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    say(&format!("redkeepd: {}", executor::lock::chain(error)));
    ExitCode::from(EXIT_USAGE)
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("redkeepd: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}
