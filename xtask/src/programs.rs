//! Other programs run to their end, and ended with this one.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// Process groups of the programs that run now.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static HOOK: Once = Once::new();

/// `cargo`, the one that runs this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a program with our output and no input; Ctrl-C is passed on to its process group.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = status_of(command).with_context(|| format!("run {name}"))?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

fn status_of(command: &mut Command) -> Result<ExitStatus> {
    HOOK.call_once(|| redkeep_lab::before_exit_by_signal(interrupt_running));
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    let group = i32::try_from(child.id()).context("pid")?;
    running().insert(group);
    let status = child.wait();
    running().remove(&group);
    Ok(status?)
}

/// SIGTERM, then a short while for them to clean up.
fn interrupt_running() {
    let groups: Vec<Pid> = running().iter().copied().filter_map(Pid::from_raw).collect();
    for group in &groups {
        // It may have ended by now.
        let _ = kill_process_group(*group, Signal::TERM);
    }
    let all_gone = || groups.iter().all(|group| kill_process_group(*group, Signal::CONT).is_err());
    let limit = std::time::Duration::from_secs(20);
    let waited = redkeep_lab::wait_until("programs to end", limit, || all_gone().then_some(()));
    if let Err(error) = waited {
        eprintln!("xtask: {error}");
    }
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
