//! `cargo xtask test`: every step by name, with its time; all are run, one failure fails all.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::programs::{cargo, run as run_program};
use crate::{setup, tidy};

/// One thing that must hold.
struct Step {
    name: &'static str,
    /// Whether `--quick` runs it too.
    quick: bool,
    action: fn(&Path) -> Result<()>,
}

const STEPS: [Step; 11] = [
    Step {
        name: "setup",
        quick: false,
        action: |_| setup::require().and_then(|()| setup::install(&setup::LOAD)),
    },
    Step { name: "format", quick: true, action: format },
    Step { name: "clippy", quick: true, action: clippy },
    Step { name: "tidy", quick: true, action: tidy::run },
    Step { name: "proto lint", quick: true, action: tidy::run_proto },
    Step { name: "deny", quick: false, action: deny },
    Step { name: "unit and simulation tests", quick: true, action: unit_tests },
    Step { name: "fresh seeds", quick: false, action: fresh_seeds },
    Step { name: "release build", quick: false, action: release_build },
    Step { name: "namespace tests", quick: false, action: namespace_tests },
    Step { name: "documentation", quick: false, action: documentation },
];

struct Finished {
    name: &'static str,
    took: Duration,
    failure: Option<anyhow::Error>,
}

/// Runs the steps and prints a summary.
pub(crate) fn run(root: &Path, quick: bool) -> Result<()> {
    let started = Instant::now();
    let mut finished = Vec::new();
    for step in STEPS.iter().filter(|step| step.quick || !quick) {
        println!("\n==> {}", step.name);
        let began = Instant::now();
        let failure = (step.action)(root).err();
        if let Some(error) = &failure {
            println!("{} failed: {error:#}", step.name);
        }
        finished.push(Finished { name: step.name, took: began.elapsed(), failure });
    }
    for prefix in redkeep_lab::sweep().unwrap_or_default() {
        println!("swept leftovers of {prefix}");
    }
    summarise(&finished, started.elapsed())
}

fn summarise(finished: &[Finished], took: Duration) -> Result<()> {
    println!("\n==> summary");
    for step in finished {
        let word = if step.failure.is_none() { "ok" } else { "FAILED" };
        println!("{:>8.1} s  {word:<6}  {}", step.took.as_secs_f64(), step.name);
    }
    println!("{:>8.1} s  in all", took.as_secs_f64());
    let failed = finished.iter().filter(|step| step.failure.is_some()).count();
    ensure!(failed == 0, "{failed} of {} steps failed", finished.len());
    Ok(())
}

fn format(root: &Path) -> Result<()> {
    run_program(cargo().args(["fmt", "--all", "--check"]).current_dir(root))
}

fn clippy(root: &Path) -> Result<()> {
    run_program(
        cargo()
            .args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
            .current_dir(root),
    )
}

/// Tests of the lab run apart: they need the release programs and namespaces to themselves.
fn unit_tests(root: &Path) -> Result<()> {
    run_program(
        cargo()
            .args(["test", "--no-fail-fast", "--workspace", "--exclude", "redkeep-lab"])
            .current_dir(root),
    )
}

/// Seeds that no run took before. Which they are is printed first; one that fails, with how to repeat and to keep it.
fn fresh_seeds(root: &Path) -> Result<()> {
    let seeds = ["run", "--fresh", "1000", "--once", "--threads", "2"];
    run_program(
        cargo().args(["run", "--package", "redkeep-sim", "--"]).args(seeds).current_dir(root),
    )
}

fn release_build(root: &Path) -> Result<()> {
    // Not the whole workspace: the simulator switches deliberate bugs into the core's build.
    build_programs(root)
}

fn namespace_tests(root: &Path) -> Result<()> {
    run_program(
        cargo()
            .args([
                "test",
                "--no-fail-fast",
                "--release",
                "-p",
                "redkeep-lab",
                "--",
                "--test-threads=1",
            ])
            .current_dir(root),
    )
}

fn documentation(root: &Path) -> Result<()> {
    run_program(
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(root),
    )
}

fn deny(root: &Path) -> Result<()> {
    if !has_cargo_deny() {
        println!("cargo-deny is missing; building it takes minutes, once");
        run_program(cargo().args(["install", "cargo-deny", "--locked"]))?;
    }
    let check = |option: &str, what: &[&str]| {
        run_program(cargo().args(["deny", option, "check"]).args(what).current_dir(root))
    };
    check("--locked", &["licenses", "bans", "sources"])?;
    if has_advisory_database() {
        // The first check fetched the manifests of all targets.
        check("--offline", &["advisories"])
    } else {
        println!("advisories: not checked, no database here; `cargo deny fetch db` gets it");
        Ok(())
    }
}

fn has_cargo_deny() -> bool {
    let output = cargo().args(["deny", "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

fn has_advisory_database() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let Some(databases) = home.map(|home| home.join("advisory-dbs")) else { return false };
    std::fs::read_dir(databases).is_ok_and(|mut entries| entries.next().is_some())
}

/// Builds the programs that the demo runs, unless others are named in the environment.
pub(crate) fn build_programs(root: &Path) -> Result<()> {
    if ["REDKEEPD", "REDKEEPCTL"].iter().all(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut command: Command = cargo();
    command.args(["build", "--release", "-p", "redkeep-daemon", "-p", "redkeep-ctl"]);
    run_program(command.current_dir(root))
}
