//! Where the programs under test are.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Path of `redkeepd`: environment `REDKEEPD`, else the newest profile built, release first.
pub fn redkeepd() -> Result<PathBuf> {
    locate("redkeepd", "REDKEEPD")
}

/// Path of `redkeepctl`: environment `REDKEEPCTL`, else as for `redkeepd`.
pub fn redkeepctl() -> Result<PathBuf> {
    locate("redkeepctl", "REDKEEPCTL")
}

/// Cargo's target directory of the running program.
pub(crate) fn target_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let is_target = |dir: &&std::path::Path| dir.join("CACHEDIR.TAG").exists();
    program.ancestors().find(is_target).map(std::path::Path::to_path_buf)
}

fn locate(program: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    if let Some(target) = target_dir() {
        for profile in ["release", "debug"] {
            let path = target.join(profile).join(program);
            if path.exists() {
                return Ok(path);
            }
        }
    }
    bail!("{program} is not built: run `cargo build --release`, or name it in {variable}")
}
