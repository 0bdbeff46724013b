//! Death of one process, seen at once.
//!
//! When a process with a big heap is killed, the kernel frees the memory first (about 70 ms per GB) and only then closes
//! sockets and signals the process's pidfd; until then it even accepts connections. Its small threads end at once. So
//! each thread has a pidfd of its own (`PIDFD_THREAD`, Linux 6.9), and the first event is confirmed: a thread may
//! end by itself. Older kernels: `/proc/PID/stat` each 10 ms.
//!
//! Reading `/proc/PID/stat` at the wrong moment is a trap: it holds the dying process's memory for an instant, and when
//! that was the last reference, *our* thread frees the heap (3-14 ms at 300 MB) before it can speak. So the confirmation asks
//! pidfd_getfd(2) for a descriptor that cannot exist: `ESRCH` means that the main thread is exiting, `EBADF` that
//! it is not (Linux 6.9). `/proc` is asked only when that says nothing for [`PROC_AFTER`].
//!
//! One thread of ours per watched process, in poll(2); an eventfd ends it. Invariants: the event comes at most once; a
//! reused pid is never taken for the process; a worker thread that ends alone is no death.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::stat::{LifeState, ProcessId, life_state};

/// `PIDFD_THREAD` of `include/uapi/linux/pidfd.h` is `O_EXCL`.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);
/// Period of the look at `/proc/PID/stat` on kernels without thread pidfds.
const STAT_PERIOD: Duration = Duration::from_millis(10);
/// Period of the look for new threads, and for a core dump, which ends no thread at first. A Redis that dumps its core answers
/// no probe either.
const RESCAN_PERIOD: Duration = Duration::from_secs(1);
/// How long after a thread's end the process is asked for signs of death.
const CONFIRM_FOR: Duration = Duration::from_millis(20);
/// Pause between two such questions.
const CONFIRM_PERIOD: Duration = Duration::from_micros(50);
/// From when on `/proc` is asked too: for a main thread that is killed but sleeps uninterruptibly.
const PROC_AFTER: Duration = Duration::from_millis(5);

/// What a watch reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEvent {
    /// The process will not run its program again. Its sockets may still be open.
    Dying {
        /// Which process.
        process: ProcessId,
        /// What showed it.
        evidence: Evidence,
    },
}

/// How a death was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A thread ended, and the main thread is exiting.
    Thread,
    /// The process's pidfd: memory is freed and sockets are closed already.
    Process,
    /// A periodic look at `/proc`.
    Stat,
}

/// Why a process cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no such process.
    #[error("no process {pid}")]
    NoProcess {
        /// The pid.
        pid: u32,
    },
    /// `/proc` cannot be read.
    #[error("cannot read /proc/{pid}")]
    Proc {
        /// The pid.
        pid: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// eventfd(2) failed.
    #[error("cannot make an eventfd")]
    Eventfd {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread")]
    Spawn {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// See the module's text. Dropping it ends the watch.
#[derive(Debug)]
pub struct ProcessWatch {
    process: ProcessId,
    by_threads: bool,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessWatch {
    /// Watches the process that has `pid` now. `on_event` runs on the watch's own thread, once; it must not block.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn new(
        pid: u32,
        on_event: impl FnOnce(ProcessEvent) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let process = ProcessId::of(pid).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => WatchError::NoProcess { pid },
            _ => WatchError::Proc { pid, source },
        })?;
        Self::start(Watched::open(process), on_event)
    }

    /// As [`ProcessWatch::new`] on a kernel without any pidfd: by `/proc/PID/stat` each 10 ms.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn by_stat(
        pid: u32,
        on_event: impl FnOnce(ProcessEvent) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let process = ProcessId::of(pid).map_err(|source| WatchError::Proc { pid, source })?;
        Self::start(Watched { process, whole: None, threads: None }, on_event)
    }

    fn start(
        watched: Watched,
        on_event: impl FnOnce(ProcessEvent) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| WatchError::Eventfd { source: error.into() })?;
        let stop = Arc::new(stop);
        let stopped = Arc::clone(&stop);
        let process = watched.process;
        let by_threads = watched.threads.is_some();
        let thread = std::thread::Builder::new()
            .name(format!("pidfd-{}", process.pid))
            .spawn(move || {
                if let Some(evidence) = watched.wait(&stopped) {
                    on_event(ProcessEvent::Dying { process, evidence });
                }
            })
            .map_err(|source| WatchError::Spawn { source })?;
        Ok(Self { process, by_threads, stop, thread: Some(thread) })
    }

    /// The watched process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether the kernel has thread pidfds; else death is seen within 10 ms by polling.
    #[must_use]
    pub fn is_by_threads(&self) -> bool {
        self.by_threads
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        // The counter cannot overflow by one write, so this cannot fail.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // The callback may drop its own watch.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

struct Watched {
    process: ProcessId,
    whole: Option<OwnedFd>,
    /// `None` on kernels without `PIDFD_THREAD`.
    threads: Option<Vec<Thread>>,
}

struct Thread {
    id: u32,
    pidfd: OwnedFd,
}

/// What one poll(2) brought.
#[derive(PartialEq, Eq)]
enum Wake {
    Stop,
    Process,
    Thread,
    Time,
}

impl Watched {
    fn open(process: ProcessId) -> Self {
        let whole = open_pidfd(process.pid, PidfdFlags::empty());
        let mut watched = Self { process, whole, threads: None };
        if open_pidfd(process.pid, PIDFD_THREAD).is_some() {
            watched.threads = Some(Vec::new());
            watched.rescan();
        }
        watched
    }

    /// Blocks until the process dies (`Some`) or the watch is stopped.
    fn wait(mut self, stop: &OwnedFd) -> Option<Evidence> {
        // Death, or reuse of the pid, may have come before the pidfds were open.
        if self.is_dying() {
            return Some(Evidence::Stat);
        }
        let period = if self.threads.is_some() { RESCAN_PERIOD } else { STAT_PERIOD };
        loop {
            match self.poll(stop, period) {
                Wake::Stop => return None,
                Wake::Process => return Some(Evidence::Process),
                Wake::Thread => {
                    if let Some(end) = self.confirm(stop) {
                        return end;
                    }
                    self.rescan();
                }
                Wake::Time => {
                    if self.is_dying() {
                        return Some(Evidence::Stat);
                    }
                    self.rescan();
                }
            }
        }
    }

    /// After a thread's end: `Some(Some(_))` death, `Some(None)` stopped, `None` a thread that ended by itself.
    fn confirm(&mut self, stop: &OwnedFd) -> Option<Option<Evidence>> {
        // Not to be woken by the ended thread again.
        let threads = self.threads.take();
        let began = Instant::now();
        let mut verdict = None;
        while verdict.is_none() && began.elapsed() < CONFIRM_FOR {
            let exiting = self.whole.as_ref().and_then(is_exiting);
            let ask_proc = exiting.is_none() || began.elapsed() >= PROC_AFTER;
            verdict = match exiting == Some(true) || (ask_proc && self.is_dying()) {
                true => Some(Some(Evidence::Thread)),
                false => match self.poll(stop, CONFIRM_PERIOD) {
                    Wake::Stop => Some(None),
                    Wake::Process => Some(Some(Evidence::Process)),
                    Wake::Thread | Wake::Time => None,
                },
            };
        }
        self.threads = threads;
        verdict
    }

    fn is_dying(&self) -> bool {
        matches!(life_state(self.process), Ok(LifeState::Dying | LifeState::Gone))
    }

    fn poll(&self, stop: &OwnedFd, period: Duration) -> Wake {
        let threads = self.threads.as_deref().unwrap_or(&[]);
        let mut fds = Vec::with_capacity(threads.len() + 2);
        fds.push(PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN));
        fds.extend(self.whole.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        let first_thread = fds.len();
        fds.extend(
            threads
                .iter()
                .map(|thread| PollFd::from_borrowed_fd(thread.pidfd.as_fd(), PollFlags::IN)),
        );
        let timeout = Timespec {
            tv_sec: i64::try_from(period.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(period.subsec_nanos()),
        };
        // EINTR and ENOMEM read as time passed: the caller looks at /proc then.
        if poll(&mut fds, Some(&timeout)).is_err() {
            return Wake::Time;
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if ready(&fds[0]) {
            return Wake::Stop;
        }
        if fds[1..first_thread].iter().any(ready) {
            return Wake::Process;
        }
        if fds[first_thread..].iter().any(ready) { Wake::Thread } else { Wake::Time }
    }

    /// Opens pidfds for new threads and closes those of ended ones.
    fn rescan(&mut self) {
        let Some(known) = self.threads.take() else {
            return;
        };
        let ids = thread_ids(self.process.pid);
        let mut threads: Vec<Thread> =
            known.into_iter().filter(|thread| ids.contains(&thread.id)).collect();
        for id in ids {
            if threads.iter().all(|thread| thread.id != id)
                && let Some(pidfd) = open_pidfd(id, PIDFD_THREAD)
            {
                threads.push(Thread { id, pidfd });
            }
        }
        self.threads = Some(threads);
    }
}

/// Whether the main thread has `PF_EXITING`; `None` if the kernel cannot say.
///
/// See `__pidfd_fget` in `kernel/pid.c`.
fn is_exiting(pidfd: &OwnedFd) -> Option<bool> {
    match pidfd_getfd(pidfd, i32::MAX, PidfdGetfdFlags::empty()) {
        Err(Errno::SRCH) => Some(true),
        Err(Errno::BADF) => Some(false),
        // No right to look, or no such call.
        Ok(_) | Err(_) => None,
    }
}

fn thread_ids(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// `None` if the kernel does not know the flags, or the thread has ended.
fn open_pidfd(id: u32, flags: PidfdFlags) -> Option<OwnedFd> {
    let id = Pid::from_raw(i32::try_from(id).ok()?)?;
    pidfd_open(id, flags).ok()
}
