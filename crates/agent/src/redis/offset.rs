//! The tight wait for equal offsets in a planned switchover.
//!
//! Writes are paused at the master; its offset then is the goal. Polled back to back, without timers: a timer's
//! granularity of 1 ms would be most of the wait. Bounded by a deadline.
//!
//! Asking the replica is exact, and the way in a pause. Asking the master sees only what was acknowledged, and replicas
//! acknowledge once a second; `WAIT` makes Redis ask them (`REPLCONF GETACK`), but not while clients are paused (`beforeSleep`
//! in `server.c`). The request itself adds 37 bytes to the stream: so a goal is reached by `>=`, never by equality.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, checked, text};
use super::endpoint::RedisEndpoint;
use super::failure::RedisFailure;
use super::observation::{ReplicationView, Role};

/// Bound of one `WAIT`, in milliseconds, so that a replica that just left is noticed.
const WAIT_MS: u64 = 20;

/// Where a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReached {
    /// The goal was reached.
    Yes {
        /// The offset seen then.
        offset: u64,
    },
    /// The deadline came first.
    No {
        /// The last offset seen; `None` if the replica was never seen.
        offset: Option<u64>,
    },
}

/// A connection of its own for polling offsets.
#[derive(Debug)]
pub struct OffsetPoll {
    connection: Connection,
}

impl OffsetPoll {
    /// Connects. To be done before writes are paused.
    ///
    /// # Errors
    /// [`RedisFailure`].
    pub async fn open(endpoint: RedisEndpoint) -> Result<Self, RedisFailure> {
        Ok(Self { connection: Connection::open(&Arc::new(endpoint)).await? })
    }

    /// `INFO replication` once, unbounded in time.
    ///
    /// # Errors
    /// [`RedisFailure`].
    pub async fn replication(&self) -> Result<ReplicationView, RedisFailure> {
        let mut command = self.connection.command("INFO");
        command.arg("replication");
        let info = text("INFO", self.connection.call("INFO", &command).await?)?;
        ReplicationView::parse(&info).map_err(|_| RedisFailure::Protocol { what: "INFO" })
    }

    /// At a replica: waits until its own offset has reached `goal`.
    ///
    /// # Errors
    /// [`RedisFailure`]; a Redis that is (or became) a master is a protocol failure.
    pub async fn until_applied(
        &self,
        goal: u64,
        within: Duration,
    ) -> Result<OffsetReached, RedisFailure> {
        let mut seen = None;
        let poll = async {
            loop {
                let view = self.replication().await?;
                if view.role == Role::Master {
                    return Err(RedisFailure::Protocol { what: "INFO of a replica" });
                }
                seen = Some(view.offset);
                if view.offset >= goal {
                    return Ok(OffsetReached::Yes { offset: view.offset });
                }
            }
        };
        match tokio::time::timeout_at(Instant::now() + within, poll).await {
            Ok(result) => result,
            Err(_) => Ok(OffsetReached::No { offset: seen }),
        }
    }

    /// At a master: waits until the replica at `ip:port` has acknowledged `goal`. In a pause this takes up to 1 s.
    ///
    /// # Errors
    /// [`RedisFailure`].
    pub async fn until_acknowledged(
        &self,
        (ip, port): (&str, u16),
        goal: u64,
        within: Duration,
    ) -> Result<OffsetReached, RedisFailure> {
        let mut seen = None;
        let poll = async {
            loop {
                let view = self.replication().await?;
                let line = view.replicas.iter().find(|line| line.ip == ip && line.port == port);
                if let Some(line) = line.filter(|line| line.online) {
                    seen = Some(line.offset);
                    if line.offset >= goal {
                        return Ok(OffsetReached::Yes { offset: line.offset });
                    }
                }
                self.ask_for_acknowledgements(view.replicas.len().max(1)).await?;
            }
        };
        match tokio::time::timeout_at(Instant::now() + within, poll).await {
            Ok(result) => result,
            Err(_) => Ok(OffsetReached::No { offset: seen }),
        }
    }

    async fn ask_for_acknowledgements(&self, replicas: usize) -> Result<(), RedisFailure> {
        let mut wait = self.connection.command("WAIT");
        wait.arg(replicas).arg(WAIT_MS);
        // WAIT waits for the offset at this connection's last command, so it needs one before it.
        let commands = [self.connection.command("PING"), wait];
        for reply in self.connection.call_all(&commands).await? {
            checked("WAIT", reply)?;
        }
        Ok(())
    }
}
