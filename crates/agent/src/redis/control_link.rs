//! The wire of [`super::Control`]: one connection, one command at a time, and the account of what was sent.
//!
//! A command that was sent and not answered may lie in the socket of a frozen Redis and run much later: a late
//! `REPLICAOF NO ONE` would make a second master. Invariants:
//! - A command is entered here before its first byte can leave, and crossed out only by its answer, by the confirmed
//!   death of its connection inside Redis, or by the death of the Redis process.
//! - While one is unanswered, no other is sent.
//! - A new connection first kills every other control connection that Redis knows (`CLIENT LIST`, `CLIENT KILL ID`), those
//!   of an earlier supervisor process included, and confirms by a second `CLIENT LIST` that they are gone. Redis reads
//!   clients in the order in which they became readable, so by then an older connection has either run its
//!   command or been freed with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{Connection, checked, text};
use super::control_types::{ControlError, Outcome};
use super::endpoint::RedisEndpoint;
use super::failure::RedisFailure;
use super::observation::ServerIdentity;

/// `CLIENT SETNAME` prefix by which control connections know each other.
const CLIENT_NAME_PREFIX: &str = "redkeep-control-";

/// Makes the names of one process's connections unique.
static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(0);

type Replies = Result<Vec<Value>, RedisFailure>;

/// Commands that travel together; replies come in the same order.
#[derive(Debug)]
pub(super) struct Batch {
    /// Command before renaming, for the text of failures.
    pub(super) name: &'static str,
    /// Whether it changes the role of Redis, or anything else that must not happen late.
    pub(super) mutates: bool,
    pub(super) commands: Vec<Cmd>,
}

#[derive(Debug)]
struct InFlight {
    mutates: bool,
    sent: Instant,
    /// Set by the task once every reply is there; a broken connection never sets it.
    answered: Arc<AtomicBool>,
    reply: JoinHandle<Replies>,
}

impl InFlight {
    fn may_still_run(&self) -> bool {
        self.mutates && !self.answered.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    server: ServerIdentity,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct ControlLink {
    endpoint: Arc<RedisEndpoint>,
    link: Option<Link>,
    in_flight: Option<InFlight>,
    /// An older connection may still carry a command. True at first: an earlier process may have left one.
    inherited: bool,
    last_process_id: Option<u32>,
}

impl ControlLink {
    pub(super) fn new(endpoint: RedisEndpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            link: None,
            in_flight: None,
            inherited: true,
            last_process_id: None,
        }
    }

    pub(super) fn settled(&self) -> bool {
        !self.inherited && !self.in_flight.as_ref().is_some_and(InFlight::may_still_run)
    }

    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.in_flight
            .as_ref()
            .filter(|in_flight| in_flight.may_still_run())
            .map(|in_flight| in_flight.sent)
    }

    pub(super) fn forget_process(&mut self, process_id: u32) -> bool {
        if self.last_process_id.is_some_and(|known| known != process_id) {
            return false;
        }
        self.link = None;
        self.in_flight = None;
        self.inherited = false;
        true
    }

    /// Connects where needed and waits for what is in flight. `Done` hands out the server's identity.
    pub(super) async fn ready(
        &mut self,
        deadline: Instant,
    ) -> Result<Outcome<ServerIdentity>, ControlError> {
        if self.link.as_ref().is_some_and(|link| link.connection.is_closed()) {
            self.lose_link();
        }
        if let Some(in_flight) = &mut self.in_flight {
            match tokio::time::timeout_at(deadline, &mut in_flight.reply).await {
                Err(_) => return Ok(Outcome::Pending),
                Ok(joined) => {
                    if joined.unwrap_or(Err(RedisFailure::Closed)).is_err() {
                        self.lose_link();
                    }
                    self.in_flight = None;
                }
            }
        }
        if let Some(link) = &self.link {
            return Ok(Outcome::Done(link.server.clone()));
        }
        let link = self.connect(deadline).await?;
        let server = link.server.clone();
        self.last_process_id = Some(server.process_id);
        self.inherited = false;
        self.link = Some(link);
        Ok(Outcome::Done(server))
    }

    /// Sends one batch and waits for its replies; error replies come back as values.
    pub(super) async fn send(
        &mut self,
        batch: Batch,
        deadline: Instant,
    ) -> Result<Outcome<Vec<Value>>, ControlError> {
        match self.ready(deadline).await? {
            Outcome::Done(_) => {}
            Outcome::Pending => return Ok(Outcome::Pending),
        }
        let Some(link) = &self.link else {
            return Err(ControlError::Redis { command: batch.name, source: RedisFailure::Closed });
        };
        let mut sender = link.connection.sender();
        let mut pipeline = Pipeline::with_capacity(batch.commands.len());
        let count = batch.commands.len();
        for command in batch.commands {
            pipeline.add_command(command);
        }
        let answered = Arc::new(AtomicBool::new(false));
        let set_answered = Arc::clone(&answered);
        // Entered before it is sent, and kept when the caller's future is dropped.
        let in_flight = self.in_flight.insert(InFlight {
            mutates: batch.mutates,
            sent: Instant::now(),
            answered,
            reply: tokio::spawn(async move {
                let replies = sender
                    .send_packed_commands(&pipeline, 0, count)
                    .await
                    .map_err(|error| RedisFailure::from_client_error(&error))?;
                set_answered.store(true, Ordering::Release);
                Ok(replies)
            }),
        });
        let Ok(joined) = tokio::time::timeout_at(deadline, &mut in_flight.reply).await else {
            return Ok(Outcome::Pending);
        };
        match joined.unwrap_or(Err(RedisFailure::Closed)) {
            Ok(replies) if replies.len() == count => {
                self.in_flight = None;
                Ok(Outcome::Done(replies))
            }
            other => {
                self.lose_link();
                let source = other.err().unwrap_or(RedisFailure::Protocol { what: "replies" });
                Err(ControlError::Redis { command: batch.name, source })
            }
        }
    }

    /// A command by its name before renaming.
    pub(super) fn command(&self, name: &str) -> Cmd {
        redis::cmd(self.endpoint.command_name(name))
    }

    fn lose_link(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            self.inherited |= in_flight.may_still_run();
        }
        self.link = None;
    }

    async fn connect(&self, deadline: Instant) -> Result<Link, ControlError> {
        let after = deadline.saturating_duration_since(Instant::now());
        let connect = async {
            let connection = Connection::open(&self.endpoint)
                .await
                .map_err(|source| ControlError::Connect { source })?;
            let server = introduce(&connection).await?;
            Ok(Link { connection, server })
        };
        tokio::time::timeout_at(deadline, connect)
            .await
            .unwrap_or(Err(ControlError::Connect { source: RedisFailure::Timeout { after } }))
    }
}

/// Names the connection, frees every other control connection inside Redis, and reads who answers.
async fn introduce(connection: &Connection) -> Result<ServerIdentity, ControlError> {
    let name = format!(
        "{CLIENT_NAME_PREFIX}{}-{}",
        std::process::id(),
        NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed)
    );
    let mut set_name = connection.command("CLIENT");
    set_name.arg("SETNAME").arg(&name);
    let mut info = connection.command("INFO");
    info.arg("server");
    let [named, info] = call(connection, "CLIENT", [set_name, info]).await?;
    checked("CLIENT", named).map_err(redis("CLIENT"))?;
    let info = checked("INFO", info).and_then(|info| text("INFO", info)).map_err(redis("INFO"))?;
    let server = ServerIdentity::parse(&info)
        .map_err(|_| redis("INFO")(RedisFailure::Protocol { what: "INFO server" }))?;
    // Bounded by the caller's deadline: each turn is a round trip.
    loop {
        let others = other_control_clients(connection, &name).await?;
        if others.is_empty() {
            return Ok(server);
        }
        for id in others {
            let mut kill = connection.command("CLIENT");
            kill.arg("KILL").arg("ID").arg(id);
            // 0 killed means that it ended meanwhile; the next list confirms either.
            let [killed] = call(connection, "CLIENT", [kill]).await?;
            checked("CLIENT", killed).map_err(redis("CLIENT"))?;
        }
    }
}

async fn other_control_clients(
    connection: &Connection,
    own_name: &str,
) -> Result<Vec<u64>, ControlError> {
    let mut list = connection.command("CLIENT");
    list.arg("LIST");
    let [list] = call(connection, "CLIENT", [list]).await?;
    let list = checked("CLIENT", list)
        .and_then(|list| text("CLIENT LIST", list))
        .map_err(redis("CLIENT"))?;
    parse_control_clients(&list, own_name).map_err(redis("CLIENT"))
}

/// Ids of the control connections in a `CLIENT LIST`, but for our own, which must be there.
pub(super) fn parse_control_clients(list: &str, own_name: &str) -> Result<Vec<u64>, RedisFailure> {
    let mut found_self = false;
    let mut others = Vec::new();
    for line in list.lines() {
        let field = |key: &str| line.split(' ').find_map(|field| field.strip_prefix(key));
        let Some(name) = field("name=").filter(|name| name.starts_with(CLIENT_NAME_PREFIX)) else {
            continue;
        };
        if name == own_name {
            found_self = true;
            continue;
        }
        let id = field("id=").and_then(|id| id.parse().ok());
        others.push(id.ok_or(RedisFailure::Protocol { what: "CLIENT LIST" })?);
    }
    // A list without ourselves is not the whole list: it proves nothing about others.
    match found_self {
        true => Ok(others),
        false => Err(RedisFailure::Protocol { what: "CLIENT LIST" }),
    }
}

async fn call<const N: usize>(
    connection: &Connection,
    name: &'static str,
    commands: [Cmd; N],
) -> Result<[Value; N], ControlError> {
    let replies = connection.call_all(&commands).await.map_err(redis(name))?;
    replies
        .try_into()
        .map_err(|_| redis(name)(RedisFailure::Protocol { what: "one reply for each command" }))
}

fn redis(command: &'static str) -> impl Fn(RedisFailure) -> ControlError {
    move |source| ControlError::Redis { command, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIST: &str = "id=3 addr=127.0.0.1:1 fd=8 name= age=2 flags=S cmd=replconf\n\
        id=7 addr=127.0.0.1:2 fd=9 name=redkeep-control-10-0 age=9 flags=N cmd=slaveof\n\
        id=9 addr=127.0.0.1:3 fd=10 name=redkeep-control-11-0 age=0 flags=N cmd=client\n\
        id=11 addr=127.0.0.1:4 fd=11 name=app age=0 flags=N cmd=get\n";

    #[test]
    fn only_other_control_connections_are_killed() {
        assert_eq!(parse_control_clients(LIST, "redkeep-control-11-0"), Ok(vec![7]));
    }

    #[test]
    fn list_without_ourselves_proves_nothing() {
        assert_eq!(
            parse_control_clients(LIST, "redkeep-control-12-0"),
            Err(RedisFailure::Protocol { what: "CLIENT LIST" })
        );
    }
}
