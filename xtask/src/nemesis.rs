//! `cargo xtask nemesis`: the lab's random faults, run with release programs.

use std::path::Path;

use anyhow::Result;

use crate::programs::{cargo, run as run_program};
use crate::{setup, verify};

/// Fails if a promise was violated.
pub(crate) fn run(root: &Path, seed: u64, minutes: u64, sentinel: bool) -> Result<()> {
    setup::require()?;
    setup::install(&setup::LOAD)?;
    verify::build_programs(root)?;
    let mut command = cargo();
    command.args(["run", "--release", "-p", "redkeep-lab", "--bin", "redkeep-nemesis", "--"]);
    command.args([seed.to_string(), minutes.to_string()]).arg(root.join("target/nemesis"));
    if sentinel {
        command.arg("sentinel");
    }
    run_program(command.current_dir(root))
}
