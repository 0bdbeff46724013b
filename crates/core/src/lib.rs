//! The decisions of redkeep, sans-IO.
//!
//! [`Core`] is owned by one driver, which follows three rules:
//! 1. take one input from its queue, *then* read the clocks, then call [`Core::handle`] (lease rule L8);
//! 2. drain [`Core::next_effect`] until it is empty; never call back into the core while draining;
//! 3. sleep until the next input or [`Core::deadline`], whichever is first; at the deadline feed [`Input::Wake`].
//!
//! Invariants held here are those of `ARCHITECTURE.md`: one writer, rising epochs, VIP first, committed
//! eligible set, acting under a lease only. Deliberately absent: clocks, sockets, files, threads, randomness
//! (a seed comes in), and any knowledge of netlink, nftables or the Redis protocol.

pub mod admin;
pub mod codec;
pub mod command;
mod core;
mod detect;
pub mod effect;
mod host;
pub mod ids;
pub mod input;
mod leader;
pub mod lease;
pub mod lineage;
pub mod message;
pub mod model;
mod mutations;
pub mod observe;
pub mod plan;
mod recent;
mod rng;
mod sight;
mod sink;
pub mod spec;
pub mod status;
#[cfg(test)]
mod testing;

pub use crate::core::{Boot, Core};
pub use admin::{AdminReply, AdminRequest, Refusal};
pub use effect::{Action, ActionId, ActionOutcome, Effect, Event, EventKind, LockEvent, LockOp};
pub use ids::{ArmId, Epoch, Generation, GroupId, Now, RequestId, RunId};
pub use input::{HostEvent, Input, LockAtStart};
pub use mutations::Mutations;
pub use redkeep_consensus::{Mono, NodeId, Span};
