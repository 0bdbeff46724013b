//! A process of a lab host: its own process group, its output in a file, killed with the lab.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::NamespaceThread;
use crate::time::Mono;

/// A handle; clones are the same process. Dropping it leaves the process running.
#[derive(Clone, Debug)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` on the thread of a namespace, with stdout and stderr appended to `log`.
    ///
    /// `setpriv` sets the parent-death signal and then becomes the program, so the process is a
    /// direct child and dies with this one even by SIGKILL.
    pub(crate) fn start(
        thread: &NamespaceThread,
        name: &str,
        command: &Command,
        log: &Path,
    ) -> Result<Process> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        wrapped.args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(key, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = thread
            .run(move || wrapped.spawn())?
            .with_context(|| format!("start {name} by setpriv (util-linux)"))?;
        let pid = child.id();
        let child = Mutex::new(child);
        let inner = Inner { name: name.to_owned(), pid, log: log.to_owned(), child };
        Ok(Process { inner: Arc::new(inner) })
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// File with the process's stdout and stderr.
    pub fn log_path(&self) -> &Path {
        &self.inner.log
    }

    /// What the process has printed so far.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.inner.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// SIGKILL; returns the instant just before the signal. The death itself is waited for.
    pub fn kill(&self) -> Result<Mono> {
        let at = self.kill_without_waiting()?;
        self.wait(Duration::from_secs(30))?;
        Ok(at)
    }

    /// SIGKILL without waiting: freeing a large heap takes the kernel a while.
    pub fn kill_without_waiting(&self) -> Result<Mono> {
        self.signal(Signal::KILL)
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<Mono> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<Mono> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM.
    pub fn terminate(&self) -> Result<Mono> {
        self.signal(Signal::TERM)
    }

    /// SIGINT.
    pub fn interrupt(&self) -> Result<Mono> {
        self.signal(Signal::INT)
    }

    /// SIGUSR1, by which some programs print their counts.
    pub(crate) fn report(&self) -> Result<Mono> {
        self.signal(Signal::USR1)
    }

    /// Sends a signal unless the process has ended; returns the instant just before.
    fn signal(&self, signal: Signal) -> Result<Mono> {
        let mut child = self.lock();
        let at = Mono::now();
        // The lock and `try_wait` keep the pid from being another process's by now.
        if child.try_wait()?.is_none() {
            let raw = i32::try_from(self.inner.pid).context("pid")?;
            let pid = Pid::from_raw(raw).context("pid")?;
            kill_process(pid, signal)
                .with_context(|| format!("signal {signal:?} to {}", self.inner.name))?;
        }
        Ok(at)
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Result<Usage> {
        let dir = Path::new("/proc").join(self.inner.pid.to_string());
        let stat = std::fs::read_to_string(dir.join("stat"))?;
        let status = std::fs::read_to_string(dir.join("status"))?;
        parse_usage(&stat, &status).with_context(|| format!("usage of {}", self.inner.name))
    }

    /// Whether the process has not ended yet.
    pub fn is_running(&self) -> bool {
        matches!(self.lock().try_wait(), Ok(None))
    }

    /// Waits for the end of the process.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} (pid {}) to end", self.inner.name, self.inner.pid);
        wait_until(&what, limit, || self.lock().try_wait().ok().flatten())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.inner.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads so far, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
}

/// Of proc_pid_stat(5) and proc_pid_status(5): `utime` and `stime` in ticks of USER_HZ, which is
/// 100 on Linux whatever the kernel's HZ; `VmRSS` in kB.
fn parse_usage(stat: &str, status: &str) -> Option<Usage> {
    // The name in parentheses may hold anything, so fields count from its end.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu: Duration::from_millis(ticks * 10), resident: kilobytes * 1024 })
}

/// Asks again until `probe` yields something; after `limit` an error that names `what`.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let started = Mono::now();
    loop {
        let asked = Mono::now();
        if let Some(found) = probe() {
            return Ok(found);
        }
        let now = Mono::now();
        anyhow::ensure!(now.since(started) < limit, "waited {limit:?} for {what}");
        // The pause between two looks at a condition, not a synchronisation. A look may start a program: as long a pause leaves
        // the processor to those who are waited for.
        let took = now.since(asked);
        std::thread::sleep(took.clamp(Duration::from_millis(1), Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_the_process_is_called() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194560 9 0 0 0 12 30 0 0 20 0 1 0 5 6 7";
        let usage = parse_usage(stat, "Name:\tx\nVmRSS:\t    2048 kB\n");
        let expected = Usage { cpu: Duration::from_millis(420), resident: 2 << 20 };
        assert_eq!(usage, Some(expected));
    }
}
