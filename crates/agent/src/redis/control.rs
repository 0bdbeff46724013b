//! Commands that change a Redis: role, pause, settings.
//!
//! Owned by the one task that acts on this Redis; there is exactly one `Control` for a Redis on its host, and it lives as
//! long as the process. Invariants (`control_link` keeps the account):
//! - A command that was sent is waited for without end. Callers get [`Outcome::Pending`] at their deadline; the command
//!   stays entered as unanswered, and [`Control::settled`] is false.
//! - The replica's port may be opened only while `settled()` is true and a look taken after that shows a read-only
//!   replica: else a promotion left in a frozen Redis's buffer could run behind an open port.
//! - Dropping a returned future does not lose the account.
//!
//! Deliberately absent: deciding when, `CONFIG REWRITE` (it would write a raised `min-replicas-to-write` to the file).

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::connection::{checked, text};
use super::control_link::{Batch, ControlLink};
use super::control_types::{
    ControlError, MasterAddress, MasterAuth, MasterAuthChange, Outcome, PauseScope, Paused,
    Promotion, Relink, Unpaused,
};
use super::endpoint::RedisEndpoint;
use super::failure::RedisFailure;
use super::observation::{ReplicationView, Role, ServerIdentity, Version};

/// First version with `CLIENT PAUSE ms WRITE` and `CLIENT UNPAUSE`.
const PAUSE_WRITE_SINCE: Version = Version { major: 6, minor: 2, patch: 0 };
/// See the module's text.
#[derive(Debug)]
pub struct Control {
    pub(super) link: ControlLink,
    /// `REPLICAOF` is unknown there: `SLAVEOF` is used from then on.
    replicaof_unknown: bool,
}

impl Control {
    /// A control that connects at its first use. Not settled until then: an earlier process may have left a command.
    #[must_use]
    pub fn new(endpoint: RedisEndpoint) -> Self {
        Self { link: ControlLink::new(endpoint), replicaof_unknown: false }
    }

    /// Whether every command that changes something was answered, or can never run any more.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.link.settled()
    }

    /// Since when a command is unanswered; for reports.
    #[must_use]
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.link.unanswered_since()
    }

    /// The Redis process died, so nothing in its sockets can run. Returns whether it was the process that this control
    /// spoke to; else nothing is forgotten. To be called once `process::ProcessEvent::Dying` was seen.
    pub fn forget_process(&mut self, process_id: u32) -> bool {
        self.link.forget_process(process_id)
    }

    /// Keeps the connection warm (Redis's `timeout` closes idle ones) and settles what can be settled.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn ready(
        &mut self,
        within: Duration,
    ) -> Result<Outcome<ServerIdentity>, ControlError> {
        let deadline = Instant::now() + within;
        let Outcome::Done(server) = self.link.ready(deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let ping = self.link.command("PING");
        match self.one("PING", false, ping, deadline).await {
            Ok(Outcome::Done(_)) => Ok(Outcome::Done(server)),
            Ok(Outcome::Pending) => Ok(Outcome::Pending),
            Err(ControlError::Redis { source, .. }) if !source.ends_connection() => {
                Ok(Outcome::Done(server))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes this Redis a master: `REPLICAOF NO ONE`, then `ROLE`. Harmless on a master.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn promote(&mut self, within: Duration) -> Result<Outcome<Promotion>, ControlError> {
        let deadline = Instant::now() + within;
        let Outcome::Done(()) = self.change_role(["NO", "ONE"], deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let Outcome::Done(role) = self.role(deadline).await? else {
            return Ok(Outcome::Pending);
        };
        match (role.name.as_str(), role.number) {
            ("master", Some(offset)) => Ok(Outcome::Done(Promotion { offset })),
            _ => Err(ControlError::RoleUnchanged { role: role.name }),
        }
    }

    /// What `ROLE` says; nothing is changed.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn is_master(&mut self, within: Duration) -> Result<Outcome<bool>, ControlError> {
        Ok(match self.role(Instant::now() + within).await? {
            Outcome::Done(role) => Outcome::Done(role.name == "master"),
            Outcome::Pending => Outcome::Pending,
        })
    }

    /// Makes this Redis a replica of `master`, credentials first, then confirms by `ROLE`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn replica_of(
        &mut self,
        master: &MasterAddress,
        auth: Option<&MasterAuth>,
        within: Duration,
    ) -> Result<Outcome<MasterAuthChange>, ControlError> {
        let deadline = Instant::now() + within;
        let Outcome::Done(change) = self.ensure_master_auth(auth, deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let (host, port) = (master.host.to_string(), master.port.to_string());
        let Outcome::Done(()) = self.change_role([&host, &port], deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let Outcome::Done(role) = self.role(deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let follows = role.master_host.as_deref() == Some(host.as_str())
            && role.number == Some(u64::from(master.port));
        if role.name == "slave" && follows {
            return Ok(Outcome::Done(change));
        }
        Err(ControlError::RoleUnchanged { role: role.name })
    }

    /// Holds back writes for at most `pause`, and reads the offset behind which nothing was acknowledged.
    ///
    /// Before Redis 6.2 every client is held back, ours too, for the whole time: the offset is then read in one
    /// transaction with the pause, and until it ends every other call here is `Pending` and probes get no answer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn pause_writes(
        &mut self,
        pause: Duration,
        within: Duration,
    ) -> Result<Outcome<Paused>, ControlError> {
        let deadline = Instant::now() + within;
        let Outcome::Done(server) = self.link.ready(deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let scope = match server.version >= PAUSE_WRITE_SINCE {
            true => PauseScope::Writes,
            false => PauseScope::Everything,
        };
        self.pause_scope(scope, pause, deadline).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn unpause(&mut self, within: Duration) -> Result<Outcome<Unpaused>, ControlError> {
        let deadline = Instant::now() + within;
        let Outcome::Done(server) = self.link.ready(deadline).await? else {
            return Ok(Outcome::Pending);
        };
        if server.version < PAUSE_WRITE_SINCE {
            return Ok(Outcome::Done(Unpaused::AtPauseEnd));
        }
        let mut command = self.link.command("CLIENT");
        command.arg("UNPAUSE");
        Ok(self.one("CLIENT", true, command, deadline).await?.map(|_| Unpaused::Now))
    }

    /// Closes every normal client, the supervisor's own probes included but for this connection. Returns how many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn kill_normal_clients(
        &mut self,
        within: Duration,
    ) -> Result<Outcome<u64>, ControlError> {
        let mut command = self.link.command("CLIENT");
        command.arg("KILL").arg("TYPE").arg("normal");
        match self.one("CLIENT", true, command, Instant::now() + within).await? {
            Outcome::Pending => Ok(Outcome::Pending),
            Outcome::Done(Value::Int(killed)) => {
                Ok(Outcome::Done(u64::try_from(killed).unwrap_or(0)))
            }
            Outcome::Done(_) => Err(unexpected("CLIENT", "CLIENT KILL")),
        }
    }

    /// Makes this replica's connection to `master` anew, unless something came over it within `quiet`. After a long cut one waits
    /// for TCP's back-off, and one that the master has closed meanwhile for `repl-timeout`, if a copy was under way. An attempt
    /// to connect is always made anew. What was copied so far is lost; a link that was up goes on where it was.
    ///
    /// At the master's side it would not help: what it closes is told behind the bytes that wait.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn relink(
        &mut self,
        master: &MasterAddress,
        quiet: Duration,
        within: Duration,
    ) -> Result<Outcome<Relink>, ControlError> {
        let deadline = Instant::now() + within;
        let mut info = self.link.command("INFO");
        info.arg("replication");
        let Outcome::Done(reply) = self.one("INFO", false, info, deadline).await? else {
            return Ok(Outcome::Pending);
        };
        let info = text("INFO", reply).map_err(redis("INFO"))?;
        let view = ReplicationView::parse(&info).map_err(|_| unexpected("INFO", "INFO"))?;
        let (host, port) = (master.host.to_string(), master.port.to_string());
        let link = match view.role {
            Role::Replica(link) if link.master_host == host && link.master_port == master.port => {
                link
            }
            Role::Replica(_) | Role::Master => return Ok(Outcome::Done(Relink::OtherRole)),
        };
        let last_io = if link.syncing { link.sync_last_io_s } else { link.last_io_s };
        let is_quiet = last_io.is_some_and(|s| s >= quiet.as_secs());
        if (link.link_up || link.syncing) && !is_quiet {
            return Ok(Outcome::Done(Relink::Lives));
        }
        // Told its own master again Redis does nothing. Nobody can listen at port 0, and it is left before anything is sent there.
        match self.change_roles(&[[&host, "0"], [&host, &port]], deadline).await {
            // What was copied is being read: it takes no orders, and is not to be disturbed.
            Err(ControlError::Redis { source: RedisFailure::Loading { .. }, .. }) => {
                Ok(Outcome::Done(Relink::Lives))
            }
            changed => Ok(changed?.map(|()| Relink::Anew)),
        }
    }

    /// Starts a snapshot in the background. Its end shows in `Observation::persistence`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn bgsave(&mut self, within: Duration) -> Result<Outcome<()>, ControlError> {
        let command = self.link.command("BGSAVE");
        Ok(self.one("BGSAVE", true, command, Instant::now() + within).await?.map(|_| ()))
    }

    async fn pause_scope(
        &mut self,
        scope: PauseScope,
        pause: Duration,
        deadline: Instant,
    ) -> Result<Outcome<Paused>, ControlError> {
        let mut client = self.link.command("CLIENT");
        client.arg("PAUSE").arg(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        let mut info = self.link.command("INFO");
        info.arg("replication");
        let commands = match scope {
            PauseScope::Writes => {
                client.arg("WRITE");
                vec![client, info]
            }
            // The pause would hold back the INFO behind it; inside a transaction it cannot.
            PauseScope::Everything => {
                vec![self.link.command("MULTI"), client, info, self.link.command("EXEC")]
            }
        };
        let batch = Batch { name: "CLIENT", mutates: true, commands };
        let Outcome::Done(mut replies) = self.link.send(batch, deadline).await? else {
            return Ok(Outcome::Pending);
        };
        if scope == PauseScope::Everything {
            let executed = replies.pop().map(|reply| checked("CLIENT", reply));
            for queued in replies {
                checked("CLIENT", queued).map_err(redis("CLIENT"))?;
            }
            replies = match executed.transpose().map_err(redis("CLIENT"))? {
                Some(Value::Array(replies)) => replies,
                _ => return Err(unexpected("CLIENT", "EXEC")),
            };
        }
        let Ok([paused, info]) = <[Value; 2]>::try_from(replies) else {
            return Err(unexpected("CLIENT", "CLIENT PAUSE and INFO"));
        };
        checked("CLIENT", paused).map_err(redis("CLIENT"))?;
        let info =
            checked("INFO", info).and_then(|info| text("INFO", info)).map_err(redis("INFO"))?;
        let view = ReplicationView::parse(&info).map_err(|_| unexpected("INFO", "INFO"))?;
        Ok(Outcome::Done(Paused { scope, offset: view.offset }))
    }

    /// `REPLICAOF`, or `SLAVEOF` where the former is unknown.
    async fn change_role(
        &mut self,
        arguments: [&str; 2],
        deadline: Instant,
    ) -> Result<Outcome<()>, ControlError> {
        self.change_roles(&[arguments], deadline).await
    }

    /// One after the other, with nothing between them.
    async fn change_roles(
        &mut self,
        orders: &[[&str; 2]],
        deadline: Instant,
    ) -> Result<Outcome<()>, ControlError> {
        if !self.replicaof_unknown {
            let result = self.change_roles_by("REPLICAOF", orders, deadline).await;
            match result {
                Err(ControlError::Redis {
                    source: RedisFailure::UnknownCommand { .. }, ..
                }) => {
                    self.replicaof_unknown = true;
                }
                other => return other,
            }
        }
        self.change_roles_by("SLAVEOF", orders, deadline).await
    }

    async fn change_roles_by(
        &mut self,
        name: &'static str,
        orders: &[[&str; 2]],
        deadline: Instant,
    ) -> Result<Outcome<()>, ControlError> {
        let order = |arguments: &[&str; 2]| {
            let mut command = self.link.command(name);
            command.arg(arguments);
            command
        };
        let commands = orders.iter().map(order).collect();
        let batch = Batch { name, mutates: true, commands };
        let Outcome::Done(replies) = self.link.send(batch, deadline).await? else {
            return Ok(Outcome::Pending);
        };
        for reply in replies {
            checked(name, reply).map_err(redis(name))?;
        }
        Ok(Outcome::Done(()))
    }

    async fn role(&mut self, deadline: Instant) -> Result<Outcome<RoleReply>, ControlError> {
        let command = self.link.command("ROLE");
        match self.one("ROLE", false, command, deadline).await? {
            Outcome::Pending => Ok(Outcome::Pending),
            Outcome::Done(reply) => {
                let role = RoleReply::read(reply).ok_or_else(|| unexpected("ROLE", "ROLE"))?;
                Ok(Outcome::Done(role))
            }
        }
    }

    pub(super) async fn one(
        &mut self,
        name: &'static str,
        mutates: bool,
        command: Cmd,
        deadline: Instant,
    ) -> Result<Outcome<Value>, ControlError> {
        let batch = Batch { name, mutates, commands: vec![command] };
        match self.link.send(batch, deadline).await? {
            Outcome::Pending => Ok(Outcome::Pending),
            Outcome::Done(replies) => {
                let reply =
                    replies.into_iter().next().ok_or_else(|| unexpected(name, "a reply"))?;
                checked(name, reply).map(Outcome::Done).map_err(redis(name))
            }
        }
    }
}

/// The reply to `ROLE`: ["master", offset, ..] or ["slave", host, port, state, offset].
pub(super) struct RoleReply {
    name: String,
    /// A master's offset, a replica's master's port.
    number: Option<u64>,
    master_host: Option<String>,
}

impl RoleReply {
    pub(super) fn read(reply: Value) -> Option<Self> {
        let Value::Array(fields) = reply else {
            return None;
        };
        let mut fields = fields.into_iter();
        let name = text("ROLE", fields.next()?).ok()?;
        let (number, master_host) = match fields.next()? {
            Value::Int(offset) => (offset, None),
            host => match fields.next()? {
                Value::Int(port) => (port, Some(text("ROLE", host).ok()?)),
                _ => return None,
            },
        };
        Some(Self { name, number: u64::try_from(number).ok(), master_host })
    }
}

fn redis(command: &'static str) -> impl Fn(RedisFailure) -> ControlError {
    move |source| ControlError::Redis { command, source }
}

fn unexpected(command: &'static str, what: &'static str) -> ControlError {
    ControlError::Redis { command, source: RedisFailure::Protocol { what } }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
