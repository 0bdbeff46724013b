//! The one writer of the durable log.
//!
//! Writes come in order and are answered in order, each when it is durable; all that waits when the disk is free shares one
//! sync, so a stalled disk is paid for once; it is told of. After a failed write memory is ahead of the
//! disk, so nothing more may be acknowledged: the process says why and aborts, and the kernel's lease fences the host.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use redkeep_consensus::Persist;
use redkeep_core::{Epoch, GroupId, Input, Span};
use redkeep_wal::{PersistError, Wal, Write};

use super::lock::chain;
use crate::inbox::Inbox;

/// From here on a write is told of: half of what the shortest elections take.
const STALL: Duration = Duration::from_millis(50);

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) enum DiskWork {
    Persist(Persist),
    /// Lease rule L5: durable before the fence is reported.
    Burn {
        group: GroupId,
        epoch: Epoch,
    },
    Close,
}

/// The queue to the disk thread.
#[derive(Debug)]
pub(crate) struct DiskQueue {
    work: Sender<DiskWork>,
    thread: JoinHandle<()>,
}

impl DiskQueue {
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn run(wal: Wal, inbox: Inbox) -> io::Result<Self> {
        let (work, received) = channel();
        let thread = std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || write_all(wal, &received, &inbox))?;
        Ok(Self { work, thread })
    }

    pub(crate) fn put(&self, work: DiskWork) {
        // The thread ends only by `close` or with the process.
        let _ = self.work.send(work);
    }

    /// Finish what waits and close the log.
    pub(crate) fn close(self) {
        self.put(DiskWork::Close);
        if self.thread.join().is_err() {
            tracing::error!("the disk thread ended by a panic");
        }
    }
}

fn write_all(mut wal: Wal, work: &Receiver<DiskWork>, inbox: &Inbox) {
    let mut open = true;
    while open && let Ok(first) = work.recv() {
        let mut batch: Vec<DiskWork> = std::iter::once(first).chain(work.try_iter()).collect();
        if let Some(close) = batch.iter().position(|w| matches!(w, DiskWork::Close)) {
            batch.truncate(close);
            open = false;
        }
        let writes: Vec<Write<'_>> = batch.iter().filter_map(as_write).collect();
        let begun = Instant::now();
        must(wal.commit(&writes));
        let took = begun.elapsed();
        if took >= STALL {
            inbox.stalled(Span(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)));
        }
        for done in batch {
            match done {
                DiskWork::Persist(Persist { number, .. }) => {
                    inbox.answer(Input::Persisted { number });
                }
                DiskWork::Burn { group, epoch } => inbox.answer(Input::Burned { group, epoch }),
                DiskWork::Close => {}
            }
        }
    }
    if let Err(error) = wal.close() {
        tracing::error!(error = %chain(&error), "the log was not closed in order; it is checked at the next start");
    }
}

fn as_write(work: &DiskWork) -> Option<Write<'_>> {
    match work {
        DiskWork::Persist(persist) => Some(Write::Persist(persist)),
        DiskWork::Burn { group, epoch } => {
            Some(Write::Burn { group: group.as_str(), epoch: epoch.0 })
        }
        DiskWork::Close => None,
    }
}

fn must(written: Result<(), PersistError>) {
    if let Err(error) = written {
        // Not through the log queue: the process ends before that is written.
        eprintln!(
            "redkeepd: the log cannot be written: {}; the process ends, its kernel fences this host",
            chain(&error)
        );
        std::process::abort();
    }
}
