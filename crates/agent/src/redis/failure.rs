//! Why Redis did not do what it was asked, as a closed set.
//!
//! Redis says almost everything by the first word of an error reply; this module is the only place that reads it.
//! Invariant: a failure is plain data (`Clone`, `Eq`), so that it can travel in reports and be compared in tests.

use std::io;
use std::time::Duration;

use redis::{RedisError, ServerError};

/// What a probe found instead of a healthy Redis.
pub type ProbeFailure = RedisFailure;

/// One reason why a command has no useful answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFailure {
    /// No answer in time: hung, stopped (SIGSTOP), or a script that still runs below `lua-time-limit`.
    #[error("no answer within {} ms", after.as_millis())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// The connection could not be made for another reason.
    #[error("cannot connect: {kind}")]
    Unreachable {
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// The socket could not be prepared (mark, source address, no-delay).
    #[error("cannot prepare the socket: {step}: {kind}")]
    Socket {
        /// Which option failed.
        step: &'static str,
        /// What the kernel said; `PermissionDenied` for the mark means that CAP_NET_ADMIN is missing.
        kind: io::ErrorKind,
    },
    /// The connection ended: Redis died, or it closed this client.
    #[error("connection closed")]
    Closed,
    /// `-LOADING`: the data set is being read from disk.
    #[error("Redis is loading its data set")]
    Loading {
        /// Redis's own estimate in seconds, where INFO gave one.
        eta_s: Option<u64>,
    },
    /// `-BUSY`: a script runs longer than `lua-time-limit`.
    #[error("Redis is busy running a script")]
    Busy,
    /// `-MISCONF`: Redis refuses writes after a disk error.
    #[error("Redis refuses writes after a disk error")]
    Misconf,
    /// `-NOAUTH`, `-WRONGPASS` and their older forms.
    #[error("Redis does not accept the user or password")]
    AuthRejected,
    /// `-NOPERM`: the ACL user may not run the command.
    #[error("the Redis user may not run {command}")]
    NoPermission {
        /// The command as it is called without renaming.
        command: String,
    },
    /// `-DENIED`: protected mode; the default user has no password and the client is not on 127.0.0.1.
    #[error("Redis is in protected mode: it has no password, so it refuses this source address")]
    ProtectedMode,
    /// `maxclients` is reached.
    #[error("Redis has reached maxclients")]
    MaxClients,
    /// The command does not exist there: an old version, or renamed by `rename-command`.
    #[error("Redis does not know the command {command}")]
    UnknownCommand {
        /// The command as it is called without renaming.
        command: String,
    },
    /// Any other error reply.
    #[error("Redis answered {code} {text}")]
    Rejected {
        /// First word of the reply.
        code: String,
        /// The rest.
        text: String,
    },
    /// The answer is no RESP, or not of the promised shape.
    #[error("unexpected answer: {what}")]
    Protocol {
        /// What was being read.
        what: &'static str,
    },
}

impl RedisFailure {
    /// Classifies an error reply to `command`.
    #[must_use]
    pub fn from_reply(code: &str, text: &str, command: &str) -> Self {
        let command = || command.to_owned();
        match code {
            "LOADING" => Self::Loading { eta_s: None },
            "BUSY" => Self::Busy,
            "MISCONF" => Self::Misconf,
            "NOAUTH" | "WRONGPASS" => Self::AuthRejected,
            "NOPERM" => Self::NoPermission { command: command() },
            "DENIED" => Self::ProtectedMode,
            "ERR" if text.starts_with("unknown command") => {
                Self::UnknownCommand { command: command() }
            }
            "ERR" if text.starts_with("max number of clients") => Self::MaxClients,
            // Redis before 6 has no WRONGPASS.
            "ERR" if text.starts_with("invalid password") => Self::AuthRejected,
            // Redis before 2.8 style, still sent by some proxies.
            "ERR" if text.starts_with("operation not permitted") => Self::AuthRejected,
            _ => Self::Rejected { code: code.to_owned(), text: text.to_owned() },
        }
    }

    pub(super) fn from_server_error(error: &ServerError, command: &str) -> Self {
        Self::from_reply(error.code(), error.details().unwrap_or(""), command)
    }

    pub(super) fn from_client_error(error: &RedisError) -> Self {
        if error.kind() == redis::ErrorKind::Parse {
            return Self::Protocol { what: "a RESP value" };
        }
        Self::Closed
    }

    pub(super) fn from_connect(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            kind => Self::Unreachable { kind },
        }
    }

    /// Whether the connection is of no more use after this failure.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Refused
            | Self::Unreachable { .. }
            | Self::Socket { .. }
            | Self::Closed
            | Self::AuthRejected
            | Self::ProtectedMode
            | Self::MaxClients
            | Self::Protocol { .. } => true,
            Self::Timeout { .. }
            | Self::Loading { .. }
            | Self::Busy
            | Self::Misconf
            | Self::NoPermission { .. }
            | Self::UnknownCommand { .. }
            | Self::Rejected { .. } => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_known_error_word_has_its_own_class() {
        let class = |code: &str, text: &str| RedisFailure::from_reply(code, text, "PING");
        assert_eq!(class("LOADING", "Redis is loading"), RedisFailure::Loading { eta_s: None });
        assert_eq!(class("BUSY", "Redis is busy running a script."), RedisFailure::Busy);
        assert_eq!(class("MISCONF", "Redis is configured to save"), RedisFailure::Misconf);
        assert_eq!(class("NOAUTH", "Authentication required."), RedisFailure::AuthRejected);
        assert_eq!(class("WRONGPASS", "invalid username-password"), RedisFailure::AuthRejected);
        assert_eq!(class("ERR", "invalid password"), RedisFailure::AuthRejected);
        assert_eq!(class("DENIED", "protected mode"), RedisFailure::ProtectedMode);
        assert_eq!(class("ERR", "max number of clients reached"), RedisFailure::MaxClients);
        assert_eq!(
            class("ERR", "unknown command 'REPLICAOF', with args"),
            RedisFailure::UnknownCommand { command: "PING".into() }
        );
        assert_eq!(
            class("NOPERM", "this user has no permissions"),
            RedisFailure::NoPermission { command: "PING".into() }
        );
        assert_eq!(
            class("READONLY", "You can't write"),
            RedisFailure::Rejected { code: "READONLY".into(), text: "You can't write".into() }
        );
    }
}
