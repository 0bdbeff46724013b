//! Raft as a pure function: bytes and time go in, effects come out.
//!
//! This crate wraps raft-rs 0.7 so that the rest of the product never sees it. It has no clock,
//! no sockets, no files and no threads of its own. One driver owns a [`Consensus`] and follows
//! these rules:
//!
//! 1. Call one input ([`Consensus::step`], [`Consensus::propose`], [`Consensus::advance`], ...)
//!    with `now` read *after* the input was taken from its queue.
//! 2. Drain [`Consensus::next_effect`] until it is empty, and carry the effects out in order.
//! 3. Write each [`Persist`] as one transaction, in order. When it is durable, call
//!    [`Consensus::persisted`] with its number. Messages that must not leave before that are held
//!    back here, so the driver may do the write later and go on with other inputs meanwhile.
//! 4. Sleep until [`Consensus::deadline`] at the latest, then call [`Consensus::advance`].
//! 5. After an [`Effect::Send`] of class [`SendClass::Snapshot`] say what became of it with
//!    [`Consensus::report_snapshot`]. A report that never comes is counted as a failure in time.
//!
//! Invariants:
//! - An entry is acknowledged, and a vote is given, only after it is durable on this node.
//! - `Apply`, `Membership` and `Restore` come in index order, each index once per process life.
//! - Each accepted read ends in exactly one `ReadReady` or `ReadLost`. `ReadReady` comes after the
//!   effects of all entries up to its index, and only while this node still leads in the same term.
//! - The same seed and the same calls give the same effects, byte for byte.
//! - A message that would break an invariant of raft-rs is refused with an error, not a panic.
//!
//! Deliberately absent: leases (being leader permits nothing: see [`Role`]), forwarding of
//! proposals and reads to the leader, joint membership changes, and lease-based reads.

mod config;
mod convert;
mod durable;
mod effect;
mod log;
mod message;
mod node;
mod outbox;
mod proposal;
mod reads;
mod rng;
mod ticker;
pub mod time;
mod trace;

pub use config::{Config, ConfigError};
pub use durable::{Entry, EntryKind, HardState, Persist, Recovered, RecoveredError, Snapshot};
pub use effect::{Effect, Role, SendClass};
pub use message::StepError;
pub use node::{Asker, Consensus};
pub use proposal::{MembershipChange, ProposeError, Proposed};
pub use reads::{ReadError, ReadId};
pub use time::{Mono, Span};

/// Identity of a node for Raft. Never zero, and never used again once its data is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
