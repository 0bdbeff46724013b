//! What tests and demo need besides cargo: a few Debian packages, installed if they are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::programs;

/// Programs and the Debian packages that hold them.
const NEEDED: [(&str, &str); 6] = [
    ("redis-server", "redis-server"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("arping", "iputils-arping"),
    ("setpriv", "util-linux"),
];

/// What keeps all cores busy, where that is asked for.
pub(crate) const LOAD: [(&str, &str); 1] = [("stress-ng", "stress-ng")];

/// invoke-rc.d asks this program whether a package may start its service; 101 forbids it
/// (/usr/share/doc/init-system-helpers/README.policy-rc.d.gz).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing and says what.
pub(crate) fn run() -> Result<()> {
    install(&NEEDED)
}

/// Installs those of `needed`, programs and their packages, that are missing.
pub(crate) fn install(needed: &[(&str, &'static str)]) -> Result<()> {
    let missing = missing_packages(needed);
    if missing.is_empty() {
        println!("setup: nothing to install");
        return Ok(());
    }
    let listed = missing.join(" ");
    ensure!(
        rustix::process::geteuid().is_root(),
        "missing: {listed}; run `cargo xtask setup` as root, or install them yourself"
    );
    ensure!(find("apt-get").is_some(), "missing: {listed}; no apt-get here, install them yourself");
    println!("setup: installing {listed}");
    let policy = ForbidServices::enter()?;
    let outcome = apt_get(&["update"]).and_then(|()| {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(&missing);
        apt_get(&arguments)
    });
    drop(policy);
    outcome?;
    let still = missing_packages(needed);
    ensure!(still.is_empty(), "still missing after the installation: {}", still.join(" "));
    Ok(())
}

/// Fails with what to do, unless everything is here and this is root; installs it if it may.
pub(crate) fn require() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces need root: run this as root");
    }
    run()
}

fn missing_packages(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    let absent = needed.iter().filter(|(program, _)| find(program).is_none());
    absent.map(|(_, package)| *package).collect()
}

/// Looks in PATH and where Debian keeps what is meant for root.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    programs::run(
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1"),
    )
}

/// While it lives, packages do not start services: the tests bring their own Redis.
struct ForbidServices {
    ours: bool,
}

impl ForbidServices {
    fn enter() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = Path::new(POLICY);
        if path.exists() {
            // The machine's own policy stands.
            return Ok(ForbidServices { ours: false });
        }
        std::fs::write(path, "#!/bin/sh\nexit 101\n").context("forbid services")?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        Ok(ForbidServices { ours: true })
    }
}

impl Drop for ForbidServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("setup: {POLICY} is left behind: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
