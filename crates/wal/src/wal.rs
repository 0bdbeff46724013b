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
    #[error(
        "cannot write to {}; what was acknowledged before is kept, nothing is from now on: free or mend the disk, \
         then start again", path.display()
    )]
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

/// One thing to be made durable.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    Persist(&'a Persist),
    /// Afterwards no process with this directory will find a lower epoch for `group`.
    Burn {
        group: &'a str,
        epoch: u64,
    },
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
        open::drop_cache(&file).map_err(failed)?;
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

    /// [`Wal::commit`] of one write of consensus.
    ///
    /// # Errors
    /// [`PersistError`]: not acknowledged, and nothing will be any more.
    pub fn persist(&mut self, write: &Persist) -> Result<(), PersistError> {
        self.commit(&[Write::Persist(write)])
    }

    /// [`Wal::commit`] of one burned epoch.
    ///
    /// # Errors
    /// [`PersistError`]: the fence must not be reported.
    pub fn burn(&mut self, group: &str, epoch: u64) -> Result<(), PersistError> {
        self.commit(&[Write::Burn { group, epoch }])
    }

    /// Writes all, in order, in one transaction; `Ok` means durable. What only moves the commit index waits for the next
    /// transaction, as losing it is harmless.
    ///
    /// # Errors
    /// [`PersistError`]: none of them is acknowledged, and nothing will be any more.
    pub fn commit(&mut self, writes: &[Write<'_>]) -> Result<(), PersistError> {
        self.check_poison()?;
        let (mut state, mut waits) = (self.hard_state, self.commit_waits);
        let (mut due, mut burns) = (Vec::new(), BTreeMap::new());
        for write in writes {
            match write {
                Write::Persist(persist) => {
                    let next = persist.hard_state.unwrap_or(state);
                    if only_moves_commit(state, persist) {
                        waits |= next != state;
                    } else {
                        due.push(*persist);
                    }
                    state = next;
                }
                Write::Burn { group, epoch } => {
                    let known = burns.get(group).copied().or_else(|| self.burned(group));
                    if known.is_none_or(|burned| burned < *epoch) {
                        burns.insert(*group, *epoch);
                    }
                }
            }
        }
        let takes_along = waits && !due.is_empty();
        if !due.is_empty() || !burns.is_empty() {
            self.transact(|writer| {
                due.iter().try_for_each(|write| writer.persist(write))?;
                burns.iter().try_for_each(|(group, epoch)| writer.put_burned(group, *epoch))?;
                if takes_along { writer.put_hard_state(state) } else { Ok(()) }
            })?;
            waits &= !takes_along;
        }
        (self.hard_state, self.commit_waits) = (state, waits);
        self.burned.extend(burns.into_iter().map(|(group, epoch)| (group.to_owned(), epoch)));
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

fn only_moves_commit(before: HardState, write: &Persist) -> bool {
    let same_vote =
        write.hard_state.is_none_or(|state| (state.term, state.vote) == (before.term, before.vote));
    !write.must_sync
        && same_vote
        && write.snapshot.is_none()
        && write.entries.is_empty()
        && !write.replace_log
        && write.truncate_before.is_none()
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
