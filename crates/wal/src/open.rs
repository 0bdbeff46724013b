//! Opening a data directory: whose it is, whether it is whole, and what it knew.

use crate::tables::{DatabaseFailure, Reader, TableError, Writer, key};
use redb::{Database, DatabaseError, ReadableDatabase};
use redkeep_consensus::{Recovered, RecoveredError};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Version of the set of tables.
const FORMAT: u64 = 1;
/// redb's default is 1 GiB; the data here is some hundred kilobytes.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
const FILE_NAME: &str = "raft.redb";
/// A file under this name was never finished, so nothing in it was acknowledged.
const NEW_FILE_NAME: &str = "raft.redb.new";

/// Whose data directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {:?} of cluster {:?}", self.node, self.cluster)
    }
}

/// What the data directory knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub recovered: Recovered,
    /// The highest burned epoch of each group.
    pub burned: BTreeMap<String, u64>,
    /// Number of this opening; one higher than the last one, durably.
    pub incarnation: u64,
    /// The node has neither taken part in Raft nor been told to, with this directory. If the
    /// cluster knows the node, its directory was lost and it must not vote under its old id.
    pub fresh: bool,
    /// [`crate::Wal::mark_bootstrapped`] was called once.
    pub bootstrapped: bool,
    /// Random, made with the directory, kept for ever. A node that shows up with another one has
    /// lost its data.
    pub dir_id: u128,
}

/// Why a data directory is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("cannot make data directory {}", path.display())]
    CreateDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The disk does not answer, which says nothing about what is on it.
    #[error(
        "cannot use {}; see that the disk answers and that this user may read and write there, then start again",
        path.display()
    )]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("data directory {} is in use by another process; stop that one first", path.display())]
    InUse { path: PathBuf },
    #[error(
        "data directory {} belongs to {found}, not to {expected}; set `data_dir` to this node's \
         own directory, or correct the node and cluster name", path.display()
    )]
    Identity { path: PathBuf, found: Identity, expected: Identity },
    #[error(
        "{} has format {found}, this program reads format {FORMAT}; use the program version that \
         wrote it or a later one", path.display()
    )]
    Format { path: PathBuf, found: u64 },
    /// The data is not what was written. What this node promised may be forgotten.
    #[error(
        "{} is damaged; the node must not vote with it: move the directory away, remove the node \
         from the cluster, and add it again under a new node id", path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Damage,
    },
    #[error(
        "cannot write to {}; what was acknowledged before is kept: free or mend the disk, then start again",
        path.display()
    )]
    Write {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
}

/// How damage showed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    #[error("the database is corrupt")]
    Database(#[source] Box<redb::Error>),
    #[error("the database gave up on its content")]
    Panic,
    #[error("the file is empty, cut short, or no database")]
    Foreign,
    #[error("a record is bad: table {table}, key {key}")]
    Record {
        table: &'static str,
        key: String,
        #[source]
        source: crate::RecordError,
    },
    #[error("the parts do not fit together")]
    Recovered(#[source] RecoveredError),
}

/// An opened directory.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) state: State,
}

/// The directory, locked for the life of the process.
pub(crate) fn lock_directory(path: &Path) -> Result<File, OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| OpenError::CreateDirectory { path: path.to_owned(), source })?;
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let directory = File::open(path).map_err(failed)?;
    let mode = directory.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o022 != 0 {
        // Who can write here can make the node forget its vote.
        tracing::warn!(path = %path.display(), mode = format_args!("{mode:o}"),
            "data directory is writable by others; chmod 700");
    }
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The file of a directory, made first if there is none. `directory` is `path`, locked.
pub(crate) fn ensure_file(
    directory: &File,
    path: &Path,
    identity: &Identity,
) -> Result<PathBuf, OpenError> {
    let file = path.join(FILE_NAME);
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| OpenError::File { path, source }
    };
    if file.try_exists().map_err(failed(&file))? {
        return Ok(file);
    }
    let unfinished = path.join(NEW_FILE_NAME);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&unfinished)(error));
        }
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(failed(&unfinished))?;
    let backend = OpenOptions::new().read(true).write(true).open(&unfinished);
    let backend = backend.map_err(failed(&unfinished))?;
    let backend = redb::backends::FileBackend::new(backend)
        .map_err(|error| open_failure(&unfinished, error))?;
    let database = open_database(&unfinished, backend)?;
    let dir_id = random_id().map_err(failed(Path::new("/dev/urandom")))?;
    let written = initialise(&database, identity, dir_id);
    written.map_err(|error| write_failure(&unfinished, error))?;
    database.close().map_err(|error| open_failure(&unfinished, error))?;
    std::fs::rename(&unfinished, &file).map_err(failed(&file))?;
    directory.sync_all().map_err(failed(path))?;
    // The entry of the directory itself, in case it was made just now.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed(parent))?;
    Ok(file)
}

/// After a sync that failed, Linux keeps the pages in its cache and calls them clean, though the disk does not have them
/// (fsync(2)). An earlier life ended for that; this one must not take such a page for durable, and act on a vote that the
/// next power loss takes back. So what is read is what the disk has.
pub(crate) fn drop_cache(file: &File) -> io::Result<()> {
    file.sync_all()?;
    match rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        // A file system without a cache of its own has nothing to drop.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens the database and checks every page of it.
pub(crate) fn open_database(
    path: &Path,
    backend: impl redb::StorageBackend,
) -> Result<Database, OpenError> {
    // redb may still panic on a file it did not write. Where a panic unwinds, that is damage too.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
    }))
    .map_err(|_| damaged(path, Damage::Panic))?
    .map_err(|error| open_failure(path, error))
}

pub(crate) fn initialise(
    database: &Database,
    identity: &Identity,
    dir_id: u128,
) -> Result<(), DatabaseFailure> {
    let transaction = database.begin_write()?;
    let writer = Writer(&transaction);
    writer.create()?;
    writer.put_number(key::FORMAT, FORMAT)?;
    writer.put_meta(key::CLUSTER, identity.cluster.as_bytes())?;
    writer.put_meta(key::NODE, identity.node.as_bytes())?;
    writer.put_meta(key::DIR_ID, &dir_id.to_le_bytes())?;
    writer.put_number(key::INCARNATION, 0)?;
    writer.put_number(key::BOOTSTRAPPED, 0)?;
    transaction.commit()?;
    Ok(())
}

/// Reads everything, checks it, and raises the incarnation.
pub(crate) fn recover(
    path: &Path,
    identity: &Identity,
    database: Database,
) -> Result<Opened, OpenError> {
    let failed = |error| table_failure(path, error);
    let transaction =
        database.begin_read().map_err(|error| table_failure(path, TableError::from(error)))?;
    let reader = Reader(&transaction);
    let format = reader.number(key::FORMAT).map_err(failed)?;
    if format != FORMAT {
        return Err(OpenError::Format { path: path.to_owned(), found: format });
    }
    let found = Identity {
        cluster: reader.text(key::CLUSTER).map_err(failed)?,
        node: reader.text(key::NODE).map_err(failed)?,
    };
    if found != *identity {
        let expected = identity.clone();
        return Err(OpenError::Identity { path: path.to_owned(), found, expected });
    }
    let recovered = reader.recovered().map_err(failed)?;
    recovered.validate().map_err(|error| damaged(path, Damage::Recovered(error)))?;
    let bootstrapped = reader.number(key::BOOTSTRAPPED).map_err(failed)? != 0;
    let state = State {
        burned: reader.burned().map_err(failed)?,
        incarnation: reader.number(key::INCARNATION).map_err(failed)? + 1,
        fresh: !bootstrapped && recovered.is_fresh(),
        bootstrapped,
        dir_id: reader.dir_id().map_err(failed)?,
        recovered,
    };
    drop(transaction);
    tracing::debug!(
        path = %path.display(),
        incarnation = state.incarnation,
        term = state.recovered.hard_state.term,
        last_index = state.recovered.last_index(),
        "data directory opened"
    );
    raise_incarnation(&database, state.incarnation).map_err(|error| write_failure(path, error))?;
    Ok(Opened { database, state })
}

fn raise_incarnation(database: &Database, incarnation: u64) -> Result<(), DatabaseFailure> {
    let transaction = database.begin_write()?;
    Writer(&transaction).put_number(key::INCARNATION, incarnation)?;
    transaction.commit()?;
    Ok(())
}

pub(crate) fn open_failure(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse { path: path.to_owned() }
        }
        other => read_failure(path, other.into()),
    }
}

fn table_failure(path: &Path, error: TableError) -> OpenError {
    match error {
        TableError::Record { table, key, source } => {
            damaged(path, Damage::Record { table, key, source })
        }
        TableError::Database(source) => read_failure(path, *source),
    }
}

/// The disk that does not answer is not the disk that answers wrongly.
fn read_failure(path: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            ) =>
        {
            damaged(path, Damage::Foreign)
        }
        redb::Error::Io(source) => OpenError::File { path: path.to_owned(), source },
        other => damaged(path, Damage::Database(Box::new(other))),
    }
}

fn write_failure(path: &Path, DatabaseFailure(source): DatabaseFailure) -> OpenError {
    OpenError::Write { path: path.to_owned(), source }
}

pub(crate) fn damaged(path: &Path, source: Damage) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), source }
}

fn random_id() -> io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
