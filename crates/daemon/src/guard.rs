//! `redkeepd guard`: ports closed in the kernel without a supervisor (lease rule 9: closed unless granted).
//!
//! `--ports` is for the boot unit, which runs before Redis: it makes the lock's tables, closed. `--close` is for the
//! drop-in of the Redis unit: it takes one port out of everything before each start, whatever state the supervisor is in.

use anyhow::Context as _;
use clap::Args;
use redkeep_agent::lock::{LockError, close_ports, install_closed};

use crate::executor::lock::lock_config;

/// What to close.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct GuardArguments {
    /// Make the lock's tables, closed for these ports (separated by commas).
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    ports: Vec<u16>,
    /// Close one port before its Redis starts.
    #[arg(long, value_name = "PORT")]
    close: Option<u16>,
}

pub(crate) fn run(arguments: &GuardArguments) -> anyhow::Result<()> {
    let config = lock_config(Vec::new(), Vec::new());
    if let Some(port) = arguments.close {
        return close_ports(&config, &[port])
            .with_context(|| format!("port {port} cannot be closed: Redis must not start"));
    }
    match install_closed(&config, &arguments.ports) {
        // A supervisor is running: it guards by itself.
        Ok(()) | Err(LockError::OwnedByAnother) => Ok(()),
        Err(error) => Err(error).context("the lock's tables cannot be made: Redis must not start"),
    }
}
