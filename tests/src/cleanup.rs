//! Nothing of a lab outlives it: not after a panic, not after Ctrl-C, not after `kill -9`.
//!
//! Each lab holds an exclusive lock on its file in [`LOCK_DIR`] for as long as its process
//! lives. A lock file that can be locked, and a namespace that has no lock file, belong to a dead
//! run and are swept.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::{namespace_path, run_ip};
use crate::process::wait_until;

const LOCK_DIR: &str = "/run/redkeep-lab";
const PREFIX: &str = "rklab-";

static LIVE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
static COUNTER: AtomicU32 = AtomicU32::new(0);
static HOOKS: Once = Once::new();
static BEFORE_EXIT: Mutex<Vec<Box<dyn Fn() + Send>>> = Mutex::new(Vec::new());

/// Proof that a lab is alive; its drop removes everything with the lab's prefix.
#[derive(Debug)]
pub(crate) struct Claim {
    prefix: String,
    dir: PathBuf,
    /// Held for its lock, which ends with the process.
    _lock: File,
}

impl Claim {
    /// A prefix and a directory nobody else has; leftovers of dead runs are swept first.
    pub(crate) fn take() -> Result<Self> {
        HOOKS.call_once(install_hooks);
        sweep().context("sweep leftovers of dead runs")?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&dir)?;
        let lock = write_lock_file(&prefix, &dir)?;
        live().insert(prefix.clone(), dir.clone());
        Ok(Claim { prefix, dir, _lock: lock })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("LAB_KEEP_LOGS").is_some() {
            keep_logs(&self.prefix, &self.dir);
        }
        for problem in remove(&self.prefix, &self.dir) {
            eprintln!("lab {}: {problem:#}", self.prefix);
        }
        live().remove(&self.prefix);
    }
}

/// Runs `hook` when SIGINT, SIGTERM or SIGHUP ends this process, before labs are removed.
pub fn before_exit_by_signal(hook: impl Fn() + Send + 'static) {
    HOOKS.call_once(install_hooks);
    BEFORE_EXIT.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
}

/// Removes what dead runs left: processes, namespaces, directories. Returns their prefixes.
pub fn sweep() -> Result<Vec<String>> {
    std::fs::create_dir_all(LOCK_DIR)?;
    let mut swept = Vec::new();
    for entry in std::fs::read_dir(LOCK_DIR)? {
        let path = entry?.path();
        let name = file_name(&path);
        if !name.starts_with(PREFIX) || live().contains_key(&name) {
            continue;
        }
        let Ok(lock) = File::open(&path) else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let dir = std::fs::read_to_string(&path).unwrap_or_default();
        if dir.is_empty() {
            // Its maker is between creating and renaming the file; it is not a lab yet.
            continue;
        }
        for problem in remove(&name, Path::new(dir.trim())) {
            eprintln!("sweep {name}: {problem:#}");
        }
        swept.push(name);
    }
    Ok(swept)
}

/// Names of namespaces whose lab this process does not own, for tests of the cleaning.
pub fn namespaces_with(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|entry| file_name(&entry.path()));
    let belongs = |name: &String| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    names.filter(belongs).collect()
}

/// Ends and removes everything of one lab; goes on after a failure and returns all of them.
fn remove(prefix: &str, dir: &Path) -> Vec<anyhow::Error> {
    let mut problems = Vec::new();
    let namespaces = namespaces_with(prefix);
    if let Err(error) = kill_inhabitants(&namespaces) {
        problems.push(error);
    }
    for name in &namespaces {
        problems.extend(run_ip(&["netns", "del", name]).err());
    }
    problems.extend(crate::disk::unmount_below(dir));
    if dir.exists() && file_name(dir).starts_with(PREFIX) {
        problems.extend(std::fs::remove_dir_all(dir).context("remove directory").err());
    }
    let lock = Path::new(LOCK_DIR).join(prefix);
    if lock.exists() {
        problems.extend(std::fs::remove_file(lock).context("remove lock file").err());
    }
    problems
}

/// SIGKILL to all other processes in the namespaces, until none is left.
fn kill_inhabitants(namespaces: &[String]) -> Result<()> {
    let inodes: Vec<u64> = namespaces
        .iter()
        .filter_map(|name| std::fs::metadata(namespace_path(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    wait_until("the lab's processes to end", Duration::from_secs(20), || {
        let pids = inhabitants(&inodes);
        for pid in &pids {
            // It may have ended by itself since it was listed.
            let _ = kill_process(*pid, Signal::KILL);
        }
        pids.is_empty().then_some(())
    })
}

/// Processes, zombies excluded, whose network namespace is one of `inodes`.
fn inhabitants(inodes: &[u64]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id().to_string();
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy() != own)
        .filter(|entry| {
            let namespace = entry.path().join("ns/net");
            std::fs::metadata(namespace).is_ok_and(|metadata| inodes.contains(&metadata.ino()))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .collect()
}

fn write_lock_file(prefix: &str, dir: &Path) -> Result<File> {
    std::fs::create_dir_all(LOCK_DIR).context("create the lab's lock directory (needs root)")?;
    let path = Path::new(LOCK_DIR).join(prefix);
    // Locked before it is visible under its name, else a sweep could take it for a leftover.
    let unborn = Path::new(LOCK_DIR).join(format!(".{prefix}"));
    std::fs::write(&unborn, dir.as_os_str().as_encoded_bytes())?;
    let lock = File::open(&unborn)?;
    lock.lock()?;
    std::fs::rename(&unborn, path)?;
    Ok(lock)
}

/// Copies what a failed test's processes said to where it outlives the lab.
fn keep_logs(prefix: &str, dir: &Path) {
    let Some(target) = crate::binaries::target_dir() else { return };
    let kept = target.join("lab-failures").join(prefix);
    let copied = std::fs::create_dir_all(&kept).and_then(|()| copy_logs(dir, &kept));
    match copied {
        Ok(()) => eprintln!("lab {prefix}: logs kept in {}", kept.display()),
        Err(error) => eprintln!("lab {prefix}: logs not kept: {error}"),
    }
}

/// Logs, configurations and captures below a directory, to the same places below another.
pub(crate) fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let target = to.join(entry.file_name());
        let extension = entry.path().extension().unwrap_or_default().to_owned();
        if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_logs(&entry.path(), &target)?;
        } else if ["log", "toml", "conf", "pcap"].iter().any(|wanted| extension == *wanted) {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn remove_all_live() {
    let labs: Vec<(String, PathBuf)> =
        live().iter().map(|(name, dir)| (name.clone(), dir.clone())).collect();
    for (prefix, dir) in labs {
        for problem in remove(&prefix, &dir) {
            eprintln!("lab {prefix}: {problem:#}");
        }
    }
}

fn install_hooks() {
    if cfg!(panic = "abort") {
        // Without unwinding no destructor runs, so the hook has to clean.
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            previous(panic);
            remove_all_live();
        }));
    }
    let spawned = std::thread::Builder::new().name("lab-signals".into()).spawn(await_signals);
    if let Err(error) = spawned {
        eprintln!("lab: Ctrl-C will not clean up: {error}");
    }
}

fn await_signals() {
    let number = match wait_for_signal() {
        Ok(number) => number,
        Err(error) => {
            eprintln!("lab: Ctrl-C will not clean up: {error}");
            return;
        }
    };
    for hook in BEFORE_EXIT.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        hook();
    }
    remove_all_live();
    std::process::exit(128 + number);
}

fn wait_for_signal() -> std::io::Result<i32> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        Ok(kind.as_raw_value())
    })
}

fn live() -> std::sync::MutexGuard<'static, BTreeMap<String, PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
