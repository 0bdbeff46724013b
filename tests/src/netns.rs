//! A network namespace and the thread that lives in it.
//!
//! Processes are started by that thread, so they inherit the namespace and are direct children
//! of this process, with no wrapper to signal through. Absent on purpose: a mount namespace;
//! `/sys` shows the machine's devices, `/proc/net` and `/proc/sys/net` follow the namespace.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

type Job = Box<dyn FnOnce() + Send>;

/// A named network namespace; [`Namespace::delete`] removes the name.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace with its loopback up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        run_ip(&["netns", "add", name])?;
        let namespace = Namespace { name: name.to_owned() };
        run_ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A namespace that somebody else made.
    pub(crate) fn borrowed(name: &str) -> Self {
        Namespace { name: name.to_owned() }
    }

    /// Runs lines of `ip -batch` inside the namespace; stops at the first that fails.
    pub(crate) fn ip_batch(&self, lines: &str) -> Result<()> {
        ip_batch(&["-n", &self.name], lines)
    }

    /// Removes the name; the kernel frees the rest when the last user is gone.
    pub(crate) fn delete(&self) -> Result<()> {
        run_ip(&["netns", "del", &self.name])
    }

    /// Moves the calling thread into the namespace, for as long as the thread lives.
    pub(crate) fn enter(&self) -> Result<()> {
        let path = namespace_path(&self.name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter namespace {}", self.name))
    }
}

/// Where `ip netns` keeps the name.
pub(crate) fn namespace_path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// A thread inside a namespace that runs closures sent to it, in order.
///
/// It must outlive the processes it starts: their parent-death signal follows the thread.
#[derive(Debug)]
pub(crate) struct NamespaceThread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl NamespaceThread {
    pub(crate) fn start(namespace: &Namespace) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (entered, result) = mpsc::channel();
        let target = Namespace::borrowed(&namespace.name);
        let thread = std::thread::Builder::new().name(target.name.clone()).spawn(move || {
            let outcome = target.enter();
            let usable = outcome.is_ok();
            if entered.send(outcome).is_err() || !usable {
                return;
            }
            for job in inbox {
                job();
            }
        })?;
        result.recv().context("namespace thread ended early")??;
        Ok(NamespaceThread { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `job` in the namespace and returns what it returned.
    pub(crate) fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, answer) = mpsc::channel();
        let jobs = self.jobs.as_ref().context("namespace thread is stopped")?;
        let boxed: Job = Box::new(move || {
            // The caller waits below; a failed send means that it is gone with its process.
            let _ = reply.send(job());
        });
        jobs.send(boxed).ok().context("namespace thread is gone")?;
        answer.recv().context("job in the namespace panicked")
    }
}

impl Drop for NamespaceThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a job was already reported to its caller.
            let _ = thread.join();
        }
    }
}

/// Processes in a named namespace.
pub(crate) fn pids_in(name: &str) -> Result<Vec<u32>> {
    let output = Command::new("ip").args(["netns", "pids", name]).output().context("run ip")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    listed.split_whitespace().map(|pid| pid.parse().context("ip netns pids")).collect()
}

/// Runs `ip` with arguments; an error carries what `ip` said.
pub(crate) fn run_ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (iproute2)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

fn ip_batch(options: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip (iproute2)")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
