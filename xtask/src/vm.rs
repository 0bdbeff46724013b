//! `cargo xtask vm`: the kernel tests and some scenarios on Debian's stock kernel, in an emulated machine.
//!
//! The product's target is Debian 12, whose kernel (6.1) lacks what newer ones have: tables that
//! their owner alone can flush, pidfds of threads. QEMU without KVM runs it anywhere, slowly. Times mean
//! nothing there, so all spans of the scenarios are longer by [`SLOWDOWN`]; what must never happen is judged as
//! everywhere. Nothing is installed as the host's kernel: the package is unpacked below `target/vm`.

mod image;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::programs::{cargo, run as run_program};
use crate::{setup, verify};

/// Programs and the Debian packages that hold them.
const NEEDED: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("strip", "binutils"),
    ("dpkg-deb", "dpkg"),
];
/// By how much all spans of the lab's scenarios are longer.
const SLOWDOWN: &str = "20";
/// What runs: a test program of a crate, and filters of its tests.
///
/// Of the lab what depends on the kernel's version: a death seen without pidfds of threads, a lease
/// that ends in the kernel, a table that anybody can flush.
const PLAN: [(&str, &str); 13] = [
    ("kernel_adopt", ""),
    ("kernel_announce", ""),
    ("kernel_holder", ""),
    ("kernel_lock", ""),
    ("kernel_sockdiag", ""),
    ("kernel_vip", ""),
    ("kernel_watch", ""),
    ("redis_control", ""),
    ("redis_probe", ""),
    ("redis_process", ""),
    ("crash", "killed_redis_is_replaced"),
    ("cuts", "host_cut_off_loses"),
    ("hands", ""),
];

/// Runs the lines of the plan whose program's name contains `only`.
pub(crate) fn run(root: &Path, only: &str) -> Result<()> {
    setup::require()?;
    setup::install(&NEEDED)?;
    verify::build_programs(root)?;
    let plan: Vec<_> = PLAN.into_iter().filter(|(program, _)| program.contains(only)).collect();
    ensure!(!plan.is_empty(), "no test program's name contains {only:?}");
    let built = build_tests(root)?;
    let image = image::Image::create(&root.join("target/vm"))?;
    for (name, _) in &plan {
        let path = built.iter().find(|(built, _)| built == name);
        let (_, path) = path.with_context(|| format!("no test program {name} was built"))?;
        image.add_test(path, name)?;
    }
    for program in [redkeep_lab::redkeepd()?, redkeep_lab::redkeepctl()?] {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        image.add_test(&program, &name)?;
    }
    let lines: String = plan.iter().map(|(name, filters)| format!("{name} {filters}\n")).collect();
    image.add_text("tests/plan", &lines)?;
    let init =
        include_str!("vm/init.sh").replace("LAB_SLOWDOWN=1", &format!("LAB_SLOWDOWN={SLOWDOWN}"));
    image.add_text("init", &init)?;
    let (kernel, initramfs) = image.finish()?;
    boot(&kernel, &initramfs)
}

/// Name and path of each test program of the agent and the lab.
fn build_tests(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut command = cargo();
    command.args(["test", "--release", "--no-run", "-p", "redkeep-agent", "-p", "redkeep-lab"]);
    command.arg("--message-format=json-render-diagnostics").current_dir(root);
    let output = command.stderr(std::process::Stdio::inherit()).output().context("run cargo")?;
    ensure!(output.status.success(), "the tests do not build");
    let mut built = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("read cargo's JSON")?;
        if let (Some(path), Some(name)) =
            (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            built.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(built)
}

/// Boots, and believes nothing but the word that `init.sh` writes to the second serial line.
fn boot(kernel: &Path, initramfs: &Path) -> Result<()> {
    let verdict = initramfs.with_extension("verdict");
    let line = format!("file:{}", verdict.display());
    // Not that of an earlier run.
    std::fs::write(&verdict, "")?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"]);
    qemu.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"]);
    qemu.args(["-serial", &line]);
    qemu.args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    run_program(&mut qemu)?;
    let said = std::fs::read_to_string(&verdict)?;
    ensure!(said.trim() == "passed", "not all has passed");
    Ok(())
}
