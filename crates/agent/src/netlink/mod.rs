//! Netlink as the kernel locks need it: one blocking socket, one batch a transaction, typed refusals.
//!
//! Each socket belongs to the object that opened it and lives as long. The kernel works a request off
//! inside `send`, so the acknowledgement is in the socket when `send` returns; nothing here waits for
//! anybody but the kernel. Absent on purpose: asynchrony, and netlink types in public signatures.

pub(crate) mod nft;
pub(crate) mod route;
mod wire;

pub(crate) use self::wire::{Group, Reading, Wire, encode};

use std::io;

/// What went wrong between this process and the kernel's netlink side.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// `socket` or `bind` failed.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The request did not leave.
    #[error("cannot send a netlink request")]
    Send(#[source] io::Error),
    /// The answer could not be read. `ENOBUFS` here means that messages were lost.
    #[error("cannot read a netlink answer")]
    Receive(#[source] io::Error),
    /// The kernel refused the request, or one message of a batch (`index` counts from 0).
    #[error("the kernel refused message {index} of a netlink request")]
    Refused {
        /// Which message of the batch.
        index: usize,
        /// The errno the kernel gave.
        #[source]
        source: io::Error,
    },
    /// The kernel neither acknowledged nor refused.
    #[error("the kernel did not acknowledge a netlink request")]
    NoAcknowledgement,
    /// The answer does not follow the protocol (kernel: `include/uapi/linux/netlink.h`).
    #[error("a netlink answer is malformed")]
    Malformed,
    /// Somebody changed the listed objects during each of several dumps.
    #[error("a netlink dump was interrupted again and again")]
    DumpInterrupted,
}

impl NetlinkError {
    /// The errno of a refusal, if it was one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.refusal().and_then(|(_, source)| source.raw_os_error())
    }

    /// The place in its batch of the message that was refused.
    pub(crate) fn refused_index(&self) -> Option<usize> {
        self.refusal().map(|(index, _)| index)
    }

    fn refusal(&self) -> Option<(usize, &io::Error)> {
        match self {
            Self::Refused { index, source } => Some((*index, source)),
            Self::Open(_)
            | Self::Send(_)
            | Self::Receive(_)
            | Self::NoAcknowledgement
            | Self::Malformed
            | Self::DumpInterrupted => None,
        }
    }
}
