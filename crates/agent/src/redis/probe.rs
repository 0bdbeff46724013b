//! The health probe: one persistent connection, one round trip a look.
//!
//! Owned by the task that watches one Redis. It never shares its connection with commands that may be held back
//! (`CLIENT PAUSE`, role changes): those would delay the PING behind them.
//!
//! Invariants:
//! - At most one request is unanswered. A Redis that does not answer gets no second one on the same connection, so
//!   its buffer does not fill and its thaw is not followed by a burst.
//! - An answer that arrived between two looks is thrown away: an observation is never older than the call that returns it,
//!   plus the time its request was under way.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{Connection, checked, text};
use super::endpoint::RedisEndpoint;
use super::failure::{ProbeFailure, RedisFailure};
use super::observation::{Observation, WriteSettings};

/// An unanswered request is given up, with its connection, after this. On a healthy loopback it changes nothing; over a
/// network that was cut it keeps TCP's retransmission back-off out of the way.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// The health probe of one Redis.
#[derive(Debug)]
pub struct Probe {
    endpoint: Arc<RedisEndpoint>,
    link: Option<Link>,
    outstanding: Option<Outstanding>,
    last: Option<Observation>,
}

#[derive(Debug)]
struct Link {
    connection: Arc<Connection>,
    /// `INFO server`: a process has one, and a connection one process.
    server: String,
    write_settings: Option<WriteSettings>,
}

/// A request without an answer yet. The task lives on when a look is cancelled or late.
#[derive(Debug)]
struct Outstanding {
    since: Instant,
    reply: JoinHandle<Result<Vec<Value>, RedisFailure>>,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.reply.abort();
    }
}

impl Probe {
    /// A probe that connects at its first look.
    #[must_use]
    pub fn new(endpoint: RedisEndpoint) -> Self {
        Self { endpoint: Arc::new(endpoint), link: None, outstanding: None, last: None }
    }

    /// Looks once: PING and three sections of INFO in one round trip, bounded by `command_timeout` (plus
    /// `connect_timeout` when a connection has to be made).
    ///
    /// # Errors
    /// [`ProbeFailure`]. `Loading` and `Misconf` come with a readable INFO: see [`Probe::last_observation`].
    pub async fn observe(&mut self) -> Result<Observation, ProbeFailure> {
        let called = Instant::now();
        self.drop_stale(called);
        if self.link.is_none() {
            self.link = Some(self.connect().await?);
        }
        let deadline = Instant::now() + self.endpoint.command_timeout;
        let replies = self.replies(deadline).await;
        let result = replies.and_then(|replies| self.judge(replies));
        if let Err(failure) = &result
            && failure.ends_connection()
        {
            self.link = None;
        }
        result
    }

    /// What INFO said last, also when PING was refused (`-LOADING`, `-MISCONF`). Survives the connection.
    #[must_use]
    pub fn last_observation(&self) -> Option<&Observation> {
        self.last.as_ref()
    }

    /// The connection's end, to be awaited beside a timer; `None` while not connected.
    pub fn closed(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.link.as_ref().map(|link| link.connection.closed())
    }

    /// Reads the settings of [`WriteSettings`] again at the next look.
    pub fn refresh_settings(&mut self) {
        self.outstanding = None;
        self.link = None;
    }

    fn drop_stale(&mut self, now: Instant) {
        if self.link.as_ref().is_some_and(|link| link.connection.is_closed()) {
            self.link = None;
        }
        if let Some(outstanding) = &self.outstanding {
            if now.duration_since(outstanding.since) >= RECONNECT_AFTER {
                self.link = None;
            }
            if self.link.is_none() || outstanding.reply.is_finished() {
                self.outstanding = None;
            }
        }
    }

    async fn connect(&self) -> Result<Link, RedisFailure> {
        let connection = Connection::open(&self.endpoint).await?;
        let after = self.endpoint.command_timeout;
        let read = async {
            let server = connection.call_all(&[info(&connection, "server")]).await?;
            let settings = read_write_settings(&connection).await?;
            Ok((sections(server.into_iter())?, settings))
        };
        let (server, write_settings) = tokio::time::timeout(after, read)
            .await
            .unwrap_or(Err(RedisFailure::Timeout { after }))?;
        Ok(Link { connection: Arc::new(connection), server, write_settings })
    }

    async fn replies(&mut self, deadline: Instant) -> Result<Vec<Value>, RedisFailure> {
        if self.outstanding.is_none() {
            let Some(link) = &self.link else {
                return Err(RedisFailure::Closed);
            };
            let connection = Arc::clone(&link.connection);
            let reply = tokio::spawn(async move {
                let commands = look(&connection);
                connection.call_all(&commands).await
            });
            self.outstanding = Some(Outstanding { since: Instant::now(), reply });
        }
        let Some(outstanding) = &mut self.outstanding else {
            return Err(RedisFailure::Closed);
        };
        let joined = tokio::time::timeout_at(deadline, &mut outstanding.reply).await;
        let Ok(joined) = joined else {
            return Err(RedisFailure::Timeout { after: self.endpoint.command_timeout });
        };
        self.outstanding = None;
        joined.unwrap_or(Err(RedisFailure::Closed))
    }

    fn judge(&mut self, replies: Vec<Value>) -> Result<Observation, RedisFailure> {
        let mut replies = replies.into_iter();
        let pong = replies.next().ok_or(RedisFailure::Protocol { what: "the reply to PING" })?;
        let pong = checked("PING", pong);
        let observation = self.read_info(replies);
        if let Ok(observation) = &observation {
            self.last = Some(observation.clone());
        }
        match pong {
            Ok(_) => observation,
            Err(RedisFailure::Loading { .. }) => Err(RedisFailure::Loading {
                eta_s: observation.ok().and_then(|observation| observation.loading_eta_s),
            }),
            Err(failure) => Err(failure),
        }
    }

    fn read_info(&self, replies: impl Iterator<Item = Value>) -> Result<Observation, RedisFailure> {
        let link = self.link.as_ref().ok_or(RedisFailure::Closed)?;
        let info = format!("{}{}", link.server, sections(replies)?);
        let mut observation =
            Observation::parse(&info).map_err(|_| RedisFailure::Protocol { what: "INFO" })?;
        observation.write_settings = link.write_settings;
        Ok(observation)
    }
}

fn sections(replies: impl Iterator<Item = Value>) -> Result<String, RedisFailure> {
    let mut info = String::new();
    for section in replies {
        info.push_str(&text("INFO", checked("INFO", section)?)?);
        info.push_str("\r\n");
    }
    Ok(info)
}

fn info(connection: &Connection, section: &str) -> redis::Cmd {
    let mut command = connection.command("INFO");
    command.arg(section);
    command
}

/// One section a command: before Redis 7, INFO takes only one.
fn look(connection: &Connection) -> Vec<redis::Cmd> {
    let mut commands = vec![connection.command("PING")];
    commands.extend(["replication", "persistence", "keyspace"].map(|s| info(connection, s)));
    commands
}

/// `Ok(None)` where CONFIG is not permitted or does not exist under the known name.
async fn read_write_settings(
    connection: &Connection,
) -> Result<Option<WriteSettings>, RedisFailure> {
    let names =
        ["stop-writes-on-bgsave-error", "save", "min-replicas-to-write", "min-slaves-to-write"];
    let commands: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = connection.command("CONFIG");
            command.arg("GET").arg(*name);
            command
        })
        .collect();
    let replies = connection.call_all(&commands).await?;
    let mut values = Vec::with_capacity(names.len());
    for reply in replies {
        match checked("CONFIG", reply) {
            Ok(reply) => values.push(config_value(reply)),
            Err(RedisFailure::NoPermission { .. } | RedisFailure::UnknownCommand { .. }) => {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        }
    }
    let [Some(stop), Some(save), replicas, slaves] = values.as_slice() else {
        return Ok(None);
    };
    let minimum = replicas.as_ref().or(slaves.as_ref()).and_then(|value| value.parse().ok());
    Ok(minimum.map(|min_replicas_to_write| WriteSettings {
        stop_writes_on_bgsave_error: stop == "yes",
        has_save_points: !save.is_empty(),
        min_replicas_to_write,
    }))
}

/// The value in a reply to `CONFIG GET name`.
pub(super) fn config_value(reply: Value) -> Option<String> {
    match reply {
        Value::Array(pair) => {
            let [_, value] = <[Value; 2]>::try_from(pair).ok()?;
            text("CONFIG GET", value).ok()
        }
        _ => None,
    }
}
