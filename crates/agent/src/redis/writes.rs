//! Whether a master answers writes: one that answers PING may hold them back (`CLIENT PAUSE ... WRITE`, `FAILOVER`).
//!
//! Owned by the task that watches one Redis; it has a connection of its own, since what it sends may be held back for long. It
//! sends `DEL` of a key that nobody has: a write by Redis's rules, held back and refused like one, which changes nothing, is not
//! replicated and wakes no client. Invariants: at most one is unanswered, and a look never waits. Deliberately absent:
//! knowing why writes are held; the owner calls [`WriteCheck::forgive`] while it holds them itself.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{Connection, checked};
use super::endpoint::RedisEndpoint;
use super::failure::RedisFailure;

/// How often a master is asked. In between, what was held back shows by its missing answer.
const EVERY: Duration = Duration::from_secs(1);
/// A key of this name is nobody's.
const KEY: &str = "redkeep:this-key-is-never-there";

/// The check of one Redis.
#[derive(Debug)]
pub struct WriteCheck {
    endpoint: Arc<RedisEndpoint>,
    connection: Option<Arc<Connection>>,
    under_way: Option<UnderWay>,
    answered: Option<Instant>,
    /// The ACL does not let us ask.
    forbidden: bool,
}

#[derive(Debug)]
struct UnderWay {
    since: Instant,
    task: JoinHandle<Ended>,
}

/// What became of a question, and the connection for the next.
#[derive(Debug)]
struct Ended {
    connection: Option<Arc<Connection>>,
    outcome: Result<(), RedisFailure>,
}

impl Ended {
    /// Not to be reached is for the probe to say.
    const UNASKED: Self = Self { connection: None, outcome: Ok(()) };
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WriteCheck {
    /// A check that connects when it first asks.
    #[must_use]
    pub fn new(endpoint: RedisEndpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            connection: None,
            under_way: None,
            answered: None,
            forbidden: false,
        }
    }

    /// Look at what is under way, and ask when it is time. Never waits.
    ///
    /// # Errors
    /// `Timeout`: a write is held back for longer than `command_timeout`. `Misconf`: it was refused after a disk error. Whatever
    /// else Redis answers is an answer.
    pub async fn look(&mut self) -> Result<(), RedisFailure> {
        let now = Instant::now();
        if let Some(under_way) = &mut self.under_way {
            if !under_way.task.is_finished() {
                let after = self.endpoint.command_timeout;
                let late = now.duration_since(under_way.since) >= after;
                return if late { Err(RedisFailure::Timeout { after }) } else { Ok(()) };
            }
            let ended = (&mut under_way.task).await;
            self.under_way = None;
            return self.ended(now, ended.unwrap_or(Ended::UNASKED));
        }
        let due = self.answered.is_none_or(|at| now.duration_since(at) >= EVERY);
        if due && !self.forbidden {
            self.ask(now);
        }
        Ok(())
    }

    /// What is under way counts for nothing, nor does what is held back from now on until the next look.
    pub fn forgive(&mut self) {
        if self.under_way.take().is_some() {
            // Its answer would be taken for that of the next.
            self.connection = None;
        }
        self.answered = Some(Instant::now());
    }

    fn ask(&mut self, now: Instant) {
        let connection = self.connection.take().filter(|connection| !connection.is_closed());
        let endpoint = Arc::clone(&self.endpoint);
        let task = tokio::spawn(async move {
            let connection = match connection {
                Some(connection) => connection,
                None => match Connection::open(&endpoint).await {
                    Ok(connection) => Arc::new(connection),
                    Err(_) => return Ended::UNASKED,
                },
            };
            let mut del = connection.command("DEL");
            del.arg(KEY);
            let replies = connection.call_all(&[del]).await;
            let reply = replies.map(|replies| replies.into_iter().next().unwrap_or(Value::Nil));
            let outcome = reply.and_then(|reply| checked("DEL", reply)).map(|_| ());
            Ended { connection: Some(connection), outcome }
        });
        self.under_way = Some(UnderWay { since: now, task });
    }

    fn ended(&mut self, now: Instant, ended: Ended) -> Result<(), RedisFailure> {
        let Ended { connection, outcome } = ended;
        self.connection = connection;
        self.answered = Some(now);
        match outcome {
            Err(RedisFailure::Misconf) => Err(RedisFailure::Misconf),
            Err(RedisFailure::NoPermission { .. } | RedisFailure::UnknownCommand { .. }) => {
                self.forbidden = true;
                Ok(())
            }
            Err(failure) if failure.ends_connection() => {
                self.connection = None;
                Ok(())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
