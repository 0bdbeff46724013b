//! One authenticated connection to one Redis.
//!
//! The `redis` crate frames and matches replies over our own socket (`MultiplexedConnection::new_with_config` takes any
//! stream). Two things are done here instead of by the crate:
//! - The first command and its reply go over the bare stream. Redis in protected mode, or at `maxclients`, sends one
//!   error line *unasked* and closes; the crate drops replies that no request waits for, so the reason would be lost.
//! - No time-out lives in the crate. A caller that gives up waiting must still be able to learn later whether the command
//!   was answered (see `control`).
//!
//! Replies are used raw (`redis::Value`): the crate's `Role` turns a replica's offset -1 into 2^64-1.
//!
//! Deliberately absent: reconnecting. Probe and control have different rules for it.

use std::future::Future;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::endpoint::{RedisEndpoint, RedisStream};
use super::failure::RedisFailure;

/// Longest first reply line that is read, in bytes. Protected mode's error has about 900.
const GREETING_BYTES_MAX: usize = 4096;

/// An authenticated connection. Dropping it closes the socket at once.
#[derive(Debug)]
pub struct Connection {
    multiplexed: MultiplexedConnection,
    endpoint: Arc<RedisEndpoint>,
    driver: JoinHandle<()>,
    closed: watch::Receiver<bool>,
    peer_process_id: Option<u32>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects and authenticates within `connect_timeout`.
    ///
    /// A Redis that is loading, busy or refusing writes is still a connection.
    ///
    /// # Errors
    /// [`RedisFailure`]; `Timeout` if Redis accepts (the kernel does it for a frozen one) but does not answer.
    pub async fn open(endpoint: &Arc<RedisEndpoint>) -> Result<Self, RedisFailure> {
        let after = endpoint.connect_timeout;
        tokio::time::timeout(after, Self::open_unbounded(endpoint))
            .await
            .unwrap_or(Err(RedisFailure::Timeout { after }))
    }

    async fn open_unbounded(endpoint: &Arc<RedisEndpoint>) -> Result<Self, RedisFailure> {
        match endpoint.connect().await? {
            RedisStream::Tcp(stream) => Self::over(endpoint, stream, None).await,
            RedisStream::Unix(stream) => {
                // SO_PEERCRED of a listening socket: who called listen(2).
                let process_id = stream
                    .peer_cred()
                    .ok()
                    .and_then(|credentials| credentials.pid())
                    .and_then(|pid| u32::try_from(pid).ok());
                Self::over(endpoint, stream, process_id).await
            }
        }
    }

    async fn over<S>(
        endpoint: &Arc<RedisEndpoint>,
        mut stream: S,
        peer_process_id: Option<u32>,
    ) -> Result<Self, RedisFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        greet(endpoint, &mut stream).await?;
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (multiplexed, driver) =
            MultiplexedConnection::new_with_config(&settings, stream, config)
                .await
                .map_err(|error| RedisFailure::from_client_error(&error))?;
        let (closed_sender, closed) = watch::channel(false);
        let driver = tokio::spawn(async move {
            driver.await;
            let _ = closed_sender.send(true);
        });
        Ok(Self { multiplexed, endpoint: Arc::clone(endpoint), driver, closed, peer_process_id })
    }

    /// Process that listens at the unix socket (`SO_PEERCRED`); `None` over TCP.
    #[must_use]
    pub fn peer_process_id(&self) -> Option<u32> {
        self.peer_process_id
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow() || self.driver.is_finished()
    }

    /// Resolves when the connection has ended. For a Redis with a big heap this is late: `process::ProcessWatch` sees its
    /// death before.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.clone();
        async move {
            // An error means that the driver is gone: closed as well.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    /// Starts a command by its name before renaming.
    #[must_use]
    pub fn command(&self, name: &str) -> Cmd {
        redis::cmd(self.endpoint.command_name(name))
    }

    /// Sends one command and waits for its reply, however long that takes. `name` is for the failure's text.
    ///
    /// # Errors
    /// [`RedisFailure`], an error reply included.
    pub async fn call(&self, name: &str, command: &Cmd) -> Result<Value, RedisFailure> {
        let mut multiplexed = self.multiplexed.clone();
        let reply = multiplexed
            .send_packed_command(command)
            .await
            .map_err(|error| RedisFailure::from_client_error(&error))?;
        checked(name, reply)
    }

    /// Sends `commands` in one write; the result holds one reply for each, error replies included as values.
    ///
    /// # Errors
    /// [`RedisFailure`] when the connection ends or the replies cannot be read.
    pub async fn call_all(&self, commands: &[Cmd]) -> Result<Vec<Value>, RedisFailure> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let mut multiplexed = self.multiplexed.clone();
        let replies = multiplexed
            .send_packed_commands(&pipeline, 0, commands.len())
            .await
            .map_err(|error| RedisFailure::from_client_error(&error))?;
        if replies.len() != commands.len() {
            return Err(RedisFailure::Protocol { what: "one reply for each command" });
        }
        Ok(replies)
    }

    /// A second handle on the same socket, for a task that must outlive its caller's patience.
    pub(super) fn sender(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }
}

/// Turns an error reply into a failure.
pub(super) fn checked(name: &str, reply: Value) -> Result<Value, RedisFailure> {
    match reply {
        Value::ServerError(error) => Err(RedisFailure::from_server_error(&error, name)),
        other => Ok(other),
    }
}

/// A reply that must be text.
pub(super) fn text(what: &'static str, reply: Value) -> Result<String, RedisFailure> {
    match reply {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|_| RedisFailure::Protocol { what })
        }
        Value::SimpleString(text) => Ok(text),
        Value::VerbatimString { text, .. } => Ok(text),
        Value::Okay => Ok("OK".to_owned()),
        _ => Err(RedisFailure::Protocol { what }),
    }
}

/// Authenticates, or says PING, over the bare stream and judges the first reply.
async fn greet<S>(endpoint: &RedisEndpoint, stream: &mut S) -> Result<(), RedisFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(password) = &endpoint.password else {
        let line = exchange(stream, &redis::cmd(endpoint.command_name("PING"))).await?;
        return judge_greeting(&line, "PING");
    };
    let auth = endpoint.command_name("AUTH");
    let mut command = redis::cmd(auth);
    if let Some(username) = &endpoint.username {
        command.arg(username);
    }
    command.arg(password.expose());
    let mut line = exchange(stream, &command).await?;
    if endpoint.username.is_some() && line.contains("wrong number of arguments") {
        // Redis before 6 has no users.
        line = exchange(stream, redis::cmd(auth).arg(password.expose())).await?;
    }
    judge_greeting(&line, "AUTH")
}

pub(super) fn judge_greeting(line: &str, command: &str) -> Result<(), RedisFailure> {
    let Some(error) = line.strip_prefix('-') else {
        return match line.starts_with('+') {
            true => Ok(()),
            false => Err(RedisFailure::Protocol { what: "the first reply" }),
        };
    };
    let (code, text) = error.split_once(' ').unwrap_or((error, ""));
    let failure = RedisFailure::from_reply(code, text, command);
    if failure.ends_connection() {
        return Err(failure);
    }
    match failure {
        // Redis has no password although we have one: it lets everybody in, us too.
        RedisFailure::Rejected { text, .. }
            if text.contains("no password is set")
                || text.contains("without any password configured") =>
        {
            Ok(())
        }
        RedisFailure::Rejected { .. } if command == "AUTH" => Err(RedisFailure::AuthRejected),
        RedisFailure::UnknownCommand { .. } => Err(failure),
        // Loading, busy, refusing writes: the probe looks closer.
        _ => Ok(()),
    }
}

/// What a Redis says to a `PING` of somebody that it does not know.
pub(super) async fn first_answer<S>(stream: &mut S) -> Result<String, RedisFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    exchange(stream, &redis::cmd("PING")).await
}

async fn exchange<S>(stream: &mut S, command: &Cmd) -> Result<String, RedisFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A write error is not the verdict: the reason may lie in the receive buffer already.
    let written = stream.write_all(&command.get_packed_command()).await;
    let mut line = Vec::new();
    loop {
        let byte = match stream.read_u8().await {
            Ok(byte) => byte,
            Err(_) if written.is_err() => return Err(RedisFailure::Closed),
            Err(_) => return Err(RedisFailure::Closed),
        };
        if byte == b'\n' {
            break;
        }
        if line.len() == GREETING_BYTES_MAX {
            return Err(RedisFailure::Protocol { what: "the first reply" });
        }
        line.push(byte);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| RedisFailure::Protocol { what: "the first reply" })
}
