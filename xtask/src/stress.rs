//! `cargo xtask stress`: pairs on a machine whose cores are all busy, run with release programs.

use std::path::Path;

use anyhow::Result;

use crate::programs::{cargo, run as run_program};
use crate::{setup, verify};

/// Fails if the pair with the first lease was failed over.
pub(crate) fn run(root: &Path, minutes: u64, leases: &[String]) -> Result<()> {
    setup::require()?;
    setup::install(&setup::LOAD)?;
    verify::build_programs(root)?;
    let mut command = cargo();
    command.args(["run", "--release", "-p", "redkeep-lab", "--bin", "redkeep-stress", "--"]);
    command.arg(minutes.to_string()).args(leases);
    run_program(command.current_dir(root))
}
