//! [`Wal`]: the open data directory.

use crate::disk::{self, Disk};
use crate::open::{self, Identity, OpenError, Opened, State};
use crate::tables::{DatabaseFailure, Writer, key};
use redb::Database;
use redkeep_consensus::{HardState, Persist};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A write was not acknowledged. The process must not act as if it were durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistError {
    #[error("cannot write to {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error(
        "an earlier write to {} failed; restart the process to recover from the file", path.display()
    )]
    Poisoned { path: PathBuf },
}

/// The data directory of one node, locked while this lives.
#[derive(Debug)]
pub struct Wal {
    database: Database,
    path: PathBuf,
    /// Holds the lock.
    directory: File,
    burned: BTreeMap<String, u64>,
    /// Term and vote as stored, and the newest commit index, stored or not.
    hard_state: HardState,
    /// `hard_state.commit` is newer than the file. It goes along with the next transaction.
    commit_waits: bool,
    poisoned: bool,
}

impl Wal {
    /// Opens the data directory, and makes it (mode 0700) if there is none.
    ///
    /// # Errors
    /// [`OpenError`]. After [`OpenError::Damaged`] the node must not come back under its id.
    pub fn open(dir: &Path, identity: &Identity) -> Result<(Wal, State), OpenError> {
        let directory = open::lock_directory(dir)?;
        let path = open::ensure_file(&directory, dir, identity)?;
        let failed = |source| OpenError::File { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            // redb would take it for a new database; ours never has length zero under this name.
            return Err(open::damaged(&path, open::Damage::Foreign));
        }
        let backend = redb::backends::FileBackend::new(file)
            .map_err(|error| open::open_failure(&path, error))?;
        let database = open::open_database(&path, backend)?;
        let opened = open::recover(&path, identity, database)?;
        Ok(Wal::assemble(opened, path, directory))
    }

    pub(crate) fn assemble(opened: Opened, path: PathBuf, directory: File) -> (Wal, State) {
        let Opened { database, state } = opened;
        let wal = Wal {
            database,
            path,
            directory,
            burned: state.burned.clone(),
            hard_state: state.recovered.hard_state,
            commit_waits: false,
            poisoned: false,
        };
        (wal, state)
    }

    /// Writes in one transaction; `Ok` means durable. A write that only moves the commit index
    /// waits for the next transaction, as losing it is harmless.
    ///
    /// # Errors
    /// [`PersistError`]: not acknowledged, and nothing will be any more.
    pub fn persist(&mut self, write: &Persist) -> Result<(), PersistError> {
        self.check_poison()?;
        if self.only_moves_commit(write) {
            let state = write.hard_state.unwrap_or(self.hard_state);
            self.commit_waits = state != self.hard_state || self.commit_waits;
            self.hard_state = state;
            return Ok(());
        }
        let state = write.hard_state.unwrap_or(self.hard_state);
        let also = self.commit_waits.then_some(state);
        self.transact(|writer| {
            if let Some(state) = also {
                writer.put_hard_state(state)?;
            }
            writer.persist(write)
        })?;
        self.hard_state = state;
        self.commit_waits = false;
        Ok(())
    }

    /// Burns `epoch` of `group`: after `Ok` no process with this directory will find a lower one.
    ///
    /// # Errors
    /// [`PersistError`]: the fence must not be reported.
    pub fn burn(&mut self, group: &str, epoch: u64) -> Result<(), PersistError> {
        self.check_poison()?;
        if self.burned.get(group).is_some_and(|burned| *burned >= epoch) {
            return Ok(());
        }
        self.transact(|writer| writer.put_burned(group, epoch))?;
        self.burned.insert(group.to_owned(), epoch);
        Ok(())
    }

    /// The highest burned epoch of `group`.
    #[must_use]
    pub fn burned(&self, group: &str) -> Option<u64> {
        self.burned.get(group).copied()
    }

    /// Notes that the cluster has accepted this directory as the one of its node.
    ///
    /// # Errors
    /// [`PersistError`]: not noted.
    pub fn mark_bootstrapped(&mut self) -> Result<(), PersistError> {
        self.check_poison()?;
        self.transact(|writer| writer.put_number(key::BOOTSTRAPPED, 1))
    }

    /// True after a failed write.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Length of the file and room left beside it.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn disk(&self) -> io::Result<Disk> {
        disk::measure(&self.directory, &self.path)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a waiting commit index and closes the file, so that the next open has nothing to
    /// repair. Dropping does the latter only.
    ///
    /// # Errors
    /// [`PersistError`]: nothing acknowledged is lost by it.
    pub fn close(mut self) -> Result<(), PersistError> {
        self.check_poison()?;
        if self.commit_waits {
            let state = self.hard_state;
            self.transact(|writer| writer.put_hard_state(state))?;
        }
        let Wal { database, path, .. } = self;
        database
            .close()
            .map_err(|error| PersistError::Write { path, source: Box::new(error.into()) })
    }

    fn only_moves_commit(&self, write: &Persist) -> bool {
        let same_vote = write.hard_state.is_none_or(|state| {
            (state.term, state.vote) == (self.hard_state.term, self.hard_state.vote)
        });
        !write.must_sync
            && same_vote
            && write.snapshot.is_none()
            && write.entries.is_empty()
            && !write.replace_log
            && write.truncate_before.is_none()
    }

    fn check_poison(&self) -> Result<(), PersistError> {
        if self.poisoned {
            return Err(PersistError::Poisoned { path: self.path.clone() });
        }
        Ok(())
    }

    /// One durable transaction. Poisoned from before the first byte until after the last, so that
    /// a panic on the way poisons too.
    fn transact(
        &mut self,
        fill: impl FnOnce(&Writer<'_>) -> Result<(), DatabaseFailure>,
    ) -> Result<(), PersistError> {
        self.poisoned = true;
        write(&self.database, fill).map_err(|DatabaseFailure(source)| PersistError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.poisoned = false;
        Ok(())
    }
}

fn write(
    database: &Database,
    fill: impl FnOnce(&Writer<'_>) -> Result<(), DatabaseFailure>,
) -> Result<(), DatabaseFailure> {
    let transaction = database.begin_write()?;
    fill(&Writer(&transaction))?;
    transaction.commit()?;
    Ok(())
}
