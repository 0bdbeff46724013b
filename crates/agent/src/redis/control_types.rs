//! What [`super::Control`] is given and what it answers.

use super::failure::RedisFailure;
use super::secret::Secret;

/// What became of a command by the caller's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// Answered and checked.
    Done(T),
    /// Sent and not answered, or held back behind such a one. It may still run. Ask again later.
    Pending,
}

impl<T> Outcome<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(f(value)),
            Self::Pending => Outcome::Pending,
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no connection to send it on.
    #[error("no control connection to Redis")]
    Connect {
        /// Why.
        #[source]
        source: RedisFailure,
    },
    /// Redis refused it, or the connection broke; then see `Control::settled`.
    #[error("Redis did not carry out {command}")]
    Redis {
        /// The command before renaming.
        command: &'static str,
        /// Why.
        #[source]
        source: RedisFailure,
    },
    /// Redis answered OK, but `ROLE` says otherwise.
    #[error("Redis accepted the role change, but its role is {role}")]
    RoleUnchanged {
        /// What `ROLE` said.
        role: String,
    },
}

/// A master to follow. Numeric host: Redis would resolve a name by itself, blocking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterAddress {
    /// IPv4 or IPv6 address.
    pub host: std::net::IpAddr,
    /// Port.
    pub port: u16,
}

/// Credentials that a replica shows its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterAuth {
    /// `masteruser` (Redis 6 and later).
    pub username: Option<String>,
    /// `masterauth`.
    pub password: Secret,
}

/// What was done about the credentials for the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterAuthChange {
    /// None were given, or they are in place already.
    Unchanged,
    /// They were set at run time.
    Set,
    /// `CONFIG` is not permitted, so the file must hold them.
    NotPermitted(RedisFailure),
}

/// A confirmed promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// `master_repl_offset` right after it, from `ROLE`.
    pub offset: u64,
}

/// What a pause holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseScope {
    /// Writes only (Redis 6.2 and later).
    Writes,
    /// Every command of every client, probes and this connection included. It cannot be ended early.
    Everything,
}

/// A pause that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused {
    /// What is held back.
    pub scope: PauseScope,
    /// `master_repl_offset` read after the pause began: a replica that has it has every write.
    pub offset: u64,
}

/// What became of a request to end a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpaused {
    /// It ended.
    Now,
    /// Redis before 6.2 cannot: it ends by its own time.
    AtPauseEnd,
}

/// What became of a request to make a connection to the master anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relink {
    /// The old one is gone, and Redis connects.
    Anew,
    /// Something came over it within the time that [`super::Control::relink`] was given, or what was copied is being read: it stays.
    Lives,
    /// This Redis is no replica of that master.
    OtherRole,
}
