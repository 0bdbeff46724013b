//! `cargo xtask bench`: installs the other contenders, builds the release programs, measures.
//!
//! The measurement itself is the lab's program `redkeep-bench`, so that clients and oracle are
//! optimised code as the supervisors are.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::programs::{cargo, run as run_program};
use crate::{setup, verify};

/// What is compared with, beside what the tests need.
const CONTENDERS: [(&str, &str); 2] =
    [("redis-sentinel", "redis-sentinel"), ("keepalived", "keepalived")];

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    setup::require()?;
    setup::install(&CONTENDERS)?;
    verify::build_programs(root)?;
    let build = ["build", "--release", "-p", "redkeep-lab", "--bin", "redkeep-bench"];
    run_program(cargo().args(build).current_dir(root))?;
    let program = root.join("target/release/redkeep-bench");
    run_program(Command::new(program).args(arguments).current_dir(root))
}
