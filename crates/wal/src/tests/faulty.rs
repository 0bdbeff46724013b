//! A disk in memory that records what was written and synced, can run full, can fail at any call, and can be cut off
//! at any write: of what was not synced, a random part of its 512-byte sectors is lost.

use crate::open::{self, OpenError};
use crate::{Identity, State, Wal};
use redb::StorageBackend;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
    Sync,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// Counts from the first call of its kind on this disk.
    pub(super) at: usize,
    /// Reads instead of writes, syncs and changes of length.
    pub(super) reads: bool,
    pub(super) kind: io::ErrorKind,
    /// Every call from there on, of both kinds.
    pub(super) forever: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// What a reader sees.
    content: Vec<u8>,
    start: Vec<u8>,
    operations: Vec<Operation>,
    /// Writes beyond this many bytes in all fail as on a full disk.
    room: Option<usize>,
    full: bool,
    fault: Option<Fault>,
    /// Changing calls and reads so far, failed ones included.
    calls: usize,
    reads: usize,
    faults: usize,
}

impl Inner {
    fn fail(&mut self, reads: bool) -> io::Result<()> {
        let count = if reads { &mut self.reads } else { &mut self.calls };
        let this = *count;
        *count += 1;
        let Some(fault) = self.fault else { return Ok(()) };
        let hit = fault.reads == reads && this == fault.at;
        if hit || (fault.forever && self.faults > 0) {
            self.faults += 1;
            return Err(fault.kind.into());
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    pub(super) fn holding(content: Vec<u8>) -> Disk {
        let start = content.clone();
        Disk(Arc::new(Mutex::new(Inner { content, start, ..Inner::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("not poisoned")
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.inner().content.clone()
    }

    pub(super) fn operations(&self) -> usize {
        self.inner().operations.len()
    }

    pub(super) fn syncs(&self) -> usize {
        self.inner().operations.iter().filter(|op| matches!(op, Operation::Sync)).count()
    }

    pub(super) fn set_room(&self, room: Option<usize>) {
        let mut inner = self.inner();
        inner.room = room;
        inner.full = false;
    }

    pub(super) fn ran_full(&self) -> bool {
        self.inner().full
    }

    /// From now on `fault` happens; `None` mends the disk.
    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.inner().fault = fault;
    }

    pub(super) fn faults(&self) -> usize {
        self.inner().faults
    }

    /// What is left after power is lost just before operation `cut`.
    pub(super) fn after_power_loss(&self, cut: usize, rng: &mut Rng) -> Vec<u8> {
        let inner = self.inner();
        let before = &inner.operations[..cut];
        let synced = before.iter().rposition(|op| matches!(op, Operation::Sync)).unwrap_or(0);
        let mut image = inner.start.clone();
        for operation in &before[..synced] {
            perform(&mut image, operation);
        }
        for operation in &before[synced..] {
            lose_some(&mut image, operation, rng);
        }
        image
    }

    fn record(&self, operation: Operation) -> io::Result<()> {
        let mut inner = self.inner();
        if let Err(error) = inner.fail(false) {
            // Of a write that fails, the first sectors may have got through. A sync that fails has synced nothing for
            // certain; it is not recorded, so a power loss afterwards may take anything since the last good one.
            if let Operation::Write { offset, bytes } = operation {
                let kept = bytes.len() / 2 / SECTOR * SECTOR;
                let part = Operation::Write { offset, bytes: bytes[..kept].to_vec() };
                perform(&mut inner.content, &part);
                inner.operations.push(part);
            }
            return Err(error);
        }
        let end = match &operation {
            Operation::Write { offset, bytes } => offset + bytes.len(),
            Operation::Length(length) => *length,
            Operation::Sync => 0,
        };
        if inner.room.is_some_and(|room| end > room) {
            inner.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        perform(&mut inner.content, &operation);
        inner.operations.push(operation);
        Ok(())
    }
}

fn perform(image: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write { offset, bytes } => {
            if image.len() < offset + bytes.len() {
                image.resize(offset + bytes.len(), 0);
            }
            image[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Operation::Length(length) => image.resize(*length, 0),
        Operation::Sync => {}
    }
}

/// Each sector of a write, and each change of length, is kept or lost by itself.
fn lose_some(image: &mut Vec<u8>, operation: &Operation, rng: &mut Rng) {
    match operation {
        Operation::Write { offset, bytes } => {
            let mut from = 0;
            while from < bytes.len() {
                let to = bytes.len().min((offset + from) / SECTOR * SECTOR + SECTOR - offset);
                if rng.below(2) == 0 {
                    let bytes = bytes[from..to].to_vec();
                    perform(image, &Operation::Write { offset: offset + from, bytes });
                }
                from = to;
            }
        }
        Operation::Length(_) if rng.below(2) == 0 => perform(image, operation),
        Operation::Length(_) | Operation::Sync => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.inner();
        inner.fail(true)?;
        let from = usize::try_from(offset).expect("fits");
        let found = inner.content.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.record(Operation::Length(usize::try_from(length).expect("fits")))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.record(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("fits");
        self.record(Operation::Write { offset, bytes: data.to_vec() })
    }
}

pub(super) const DIR_ID: u128 = 0xd1;

pub(super) fn identity() -> Identity {
    Identity { cluster: "prod".into(), node: "a".into() }
}

/// A new data directory's file, closed.
pub(super) fn new_file() -> Vec<u8> {
    let disk = Disk::default();
    let path = Path::new("raft.redb");
    let database = open::open_database(path, disk.clone()).expect("new");
    open::initialise(&database, &identity(), DIR_ID).expect("written");
    database.close().expect("closed");
    disk.content()
}

pub(super) fn open_on(disk: &Disk) -> Result<(Wal, State), OpenError> {
    let path = PathBuf::from("raft.redb");
    let database = open::open_database(&path, disk.clone())?;
    let opened = open::recover(&path, &identity(), database)?;
    let directory = std::fs::File::open("/").expect("root");
    Ok(Wal::assemble(opened, path, directory))
}
