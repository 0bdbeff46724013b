//! Why a command did not do what was asked, and the exit code that says so.

use std::{io, path::PathBuf};

use redkeep_proto::{
    admin::v1::{Refusal, RefusalReason},
    details::decode_refusal,
};
use tonic::{Code, Status};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("refused: {text}")]
    Refused { text: String, help: String },
    #[error("not done, as asked")]
    Declined,
    #[error("{0}")]
    Usage(String),
    #[error("{path} cannot be read: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no supervisor could answer")]
    Unreachable { tried: Vec<String> },
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    #[error("{0}")]
    Unfinished(String),
    #[error("the answer cannot be written")]
    Output(#[from] io::Error),
    #[error("the answer cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the event loop cannot be started")]
    Runtime(#[source] io::Error),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Declined => 1,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Unreachable { .. } => 3,
            Self::Unknown(_)
            | Self::Unfinished(_)
            | Self::Output(_)
            | Self::Json(_)
            | Self::Runtime(_) => 4,
        }
    }

    /// Commands that help, and details, one a line.
    pub(crate) fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused { text: _, help } if !help.is_empty() => vec![format!("try: {help}")],
            Self::Unreachable { tried } => tried.clone(),
            Self::Unknown(_) | Self::Unfinished(_) => vec!["see: redkeepctl status".to_owned()],
            Self::Refused { .. }
            | Self::Declined
            | Self::Usage(_)
            | Self::File { .. }
            | Self::Output(_)
            | Self::Json(_)
            | Self::Runtime(_) => Vec::new(),
        }
    }

    /// The reader went away: `redkeepctl history | head -1` is no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Json(error) => error.io_error_kind() == Some(io::ErrorKind::BrokenPipe),
            _ => false,
        }
    }
}

/// What a failed call means.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// The cluster said no.
    Refused(Failure),
    /// Nobody could decide and nothing was done: another endpoint may be asked.
    NotDone(String),
    /// It may have been done.
    Lost(String),
}

/// Read a status; only what carries the service's own details is taken for a refusal.
pub(crate) fn meaning(status: &Status) -> Meaning {
    let text = status.message().to_owned();
    match decode_refusal(status.details()) {
        Ok(Some(refusal)) => refused(refusal),
        Ok(None) | Err(_) if status.code() == Code::Aborted => {
            Meaning::Lost(text.trim_start_matches("the outcome is not known: ").to_owned())
        }
        Ok(None) | Err(_) => Meaning::Lost(format!("{text} ({:?})", status.code())),
    }
}

fn refused(refusal: Refusal) -> Meaning {
    let reason = refusal.reason();
    let Refusal { text, help, .. } = refusal;
    match reason {
        RefusalReason::NotLeader | RefusalReason::NotReady => Meaning::NotDone(text),
        RefusalReason::Unspecified
        | RefusalReason::NoSuchGroup
        | RefusalReason::NoSuchNode
        | RefusalReason::NotAMember
        | RefusalReason::AlreadyMaster
        | RefusalReason::Excluded
        | RefusalReason::NoCandidate
        | RefusalReason::LossUnnamed
        | RefusalReason::Held
        | RefusalReason::Busy
        | RefusalReason::Aborted
        | RefusalReason::PauseLength
        | RefusalReason::Node
        | RefusalReason::Address => Meaning::Refused(Failure::Refused { text, help }),
    }
}
