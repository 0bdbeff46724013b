//! Has Redis write its data set into its file (`BGSAVE`) and says where that file is.
//!
//! On a connection of its own: the fork and the file take as long as the data set is large, and nothing else waits for them. No
//! time-out lives here: the caller bounds it, and a `BGSAVE` that was begun goes on in Redis whatever becomes of the caller. Files are
//! looked at on blocking threads: a disk may hang.
//!
//! Invariant: a file is named only once it was replaced after the call began, and Redis says that it was written well. Deliberately
//! absent: reading it, and deciding what for.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, text};
use super::endpoint::RedisEndpoint;
use super::failure::RedisFailure;
use super::observation::Persistence;
use super::probe::config_value;

/// Between two looks at whether the file is written.
const POLL: Duration = Duration::from_millis(25);

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no connection.
    #[error("no connection to Redis for the snapshot")]
    Connect(#[source] RedisFailure),
    /// Redis refused a command, or the connection broke.
    #[error("Redis did not carry out {command}")]
    Redis {
        /// The command before renaming.
        command: &'static str,
        /// Why.
        #[source]
        source: RedisFailure,
    },
    /// Redis began, and could not write its file: its own log says why.
    #[error("BGSAVE failed: the log of Redis says why")]
    Failed,
    /// The path that Redis names is not there for us, or is another file: Redis has a file system of its own (container).
    #[error("the file of Redis, {path}, is not visible to the supervisor", path = path.display())]
    NotVisible {
        /// As Redis names it.
        path: PathBuf,
    },
    /// The file could not be looked at.
    #[error("cannot look at {path}", path = path.display())]
    File {
        /// As Redis names it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Which file is there: Redis renames a new one over it.
type Identity = Option<(u64, u64)>;

/// See the module's text.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
}

impl Snapshot {
    /// Connects.
    ///
    /// # Errors
    /// [`SnapshotError::Connect`].
    pub async fn open(endpoint: RedisEndpoint) -> Result<Self, SnapshotError> {
        let connection = Connection::open(&Arc::new(endpoint)).await;
        Ok(Self { connection: connection.map_err(SnapshotError::Connect)? })
    }

    /// Has the whole data set written as it is now, or later; the path of the file.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn take(&self) -> Result<PathBuf, SnapshotError> {
        let directory = PathBuf::from(self.setting("dir").await?);
        let path = directory.join(self.setting("dbfilename").await?);
        // Redis names no directory where its own was removed.
        if !directory.is_absolute() || !is_directory(&directory).await? {
            return Err(SnapshotError::NotVisible { path });
        }
        loop {
            // One that began before may lack the last writes.
            self.until_idle().await?;
            let old = identity(&path).await?;
            if let Some(started) = self.begin().await? {
                self.until_written(&path, old, started).await?;
                return Ok(path);
            }
        }
    }

    async fn setting(&self, name: &'static str) -> Result<String, SnapshotError> {
        let mut command = self.connection.command("CONFIG");
        command.arg("GET").arg(name);
        let value = config_value(self.call("CONFIG", &command).await?);
        let what = RedisFailure::Protocol { what: "CONFIG GET dir and dbfilename" };
        value.ok_or(SnapshotError::Redis { command: "CONFIG", source: what })
    }

    async fn until_idle(&self) -> Result<(), SnapshotError> {
        while self.persistence().await?.bgsave_in_progress {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// True: it was started. False: it will be, when the append-only file is rewritten. None: another one runs.
    async fn begin(&self) -> Result<Option<bool>, SnapshotError> {
        let mut command = self.connection.command("BGSAVE");
        command.arg("SCHEDULE");
        match self.call("BGSAVE", &command).await {
            Ok(reply) => {
                let said = text("BGSAVE", reply).map_err(failed("BGSAVE"))?;
                Ok(Some(said.contains("started")))
            }
            Err(SnapshotError::Redis { source: RedisFailure::Rejected { text, .. }, .. })
                if text.contains("already in progress") =>
            {
                tokio::time::sleep(POLL).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Until another file is there. `started`: it began at once, so when none runs any more it has ended.
    async fn until_written(
        &self,
        path: &Path,
        old: Identity,
        started: bool,
    ) -> Result<(), SnapshotError> {
        loop {
            let now = self.persistence().await?;
            if !now.bgsave_in_progress {
                let new = identity(path).await?;
                match (new.is_some() && new != old, now.last_bgsave_ok) {
                    (true, true) => return Ok(()),
                    (_, false) if started => return Err(SnapshotError::Failed),
                    (false, true) if started => {
                        return Err(SnapshotError::NotVisible { path: path.to_owned() });
                    }
                    (_, _) => {}
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn persistence(&self) -> Result<Persistence, SnapshotError> {
        let mut command = self.connection.command("INFO");
        command.arg("persistence");
        let info = text("INFO", self.call("INFO", &command).await?).map_err(failed("INFO"))?;
        Persistence::parse(&info)
            .map_err(|_| failed("INFO")(RedisFailure::Protocol { what: "INFO" }))
    }

    async fn call(
        &self,
        name: &'static str,
        command: &redis::Cmd,
    ) -> Result<redis::Value, SnapshotError> {
        self.connection.call(name, command).await.map_err(failed(name))
    }
}

fn failed(command: &'static str) -> impl Fn(RedisFailure) -> SnapshotError {
    move |source| SnapshotError::Redis { command, source }
}

async fn is_directory(path: &Path) -> Result<bool, SnapshotError> {
    Ok(look(path).await?.is_some_and(|found| found.is_dir()))
}

async fn identity(path: &Path) -> Result<Identity, SnapshotError> {
    Ok(look(path).await?.map(|found| (found.dev(), found.ino())))
}

async fn look(path: &Path) -> Result<Option<std::fs::Metadata>, SnapshotError> {
    let file = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || std::fs::metadata(file)).await;
    match looked.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SnapshotError::File { path: path.to_owned(), source }),
    }
}
