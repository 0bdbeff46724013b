//! `redkeepd guard`: ports closed in the kernel without a supervisor (closed unless granted).
//!
//! `--config` or `--ports` is for the boot unit, which runs before Redis: it makes the lock's tables, closed. `--close`
//! is for the drop-in of the Redis unit: it shuts one port before each start, whatever state the supervisor is in.

use std::path::PathBuf;

use clap::Args;
use redkeep_agent::lock::{LockError, close_ports, install_closed};

use crate::{
    config::{Config, ConfigError},
    executor::lock::{links, lock_config},
};

/// What to close.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct GuardArguments {
    /// Make the lock's tables, closed for the ports of this host's groups.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make the lock's tables, closed for these ports (separated by commas).
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    ports: Vec<u16>,
    /// Close one port before its Redis starts.
    #[arg(long, value_name = "PORT")]
    close: Option<u16>,
}

/// Why ports may be open: Redis must not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("port {port} cannot be closed: Redis must not start")]
    Close { port: u16, source: LockError },
    #[error("the lock's tables cannot be made: Redis must not start")]
    Install { source: LockError },
}

pub(crate) fn run(arguments: &GuardArguments) -> Result<(), GuardError> {
    if let Some(port) = arguments.close {
        let config = lock_config(Vec::new(), Vec::new());
        return close_ports(&config, &[port]).map_err(|source| GuardError::Close { port, source });
    }
    let (links, ports) = match &arguments.config {
        None => (Vec::new(), arguments.ports.clone()),
        Some(file) => {
            let config = Config::load(file)?;
            let ports = config.local_groups().map(|g| g.port).collect();
            (links(&config.spec, config.node_id), ports)
        }
    };
    match install_closed(&lock_config(links, Vec::new()), &ports) {
        // A supervisor is running: it guards by itself.
        Ok(()) | Err(LockError::OwnedByAnother) => Ok(()),
        Err(source) => Err(GuardError::Install { source }),
    }
}
