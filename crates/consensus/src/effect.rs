//! What leaves the consensus: closed, plain data. The driver carries effects out in order.

use crate::NodeId;
use crate::durable::Persist;
use crate::reads::ReadId;

/// Role in Raft. It permits nothing by itself: for up to two election timeouts two nodes may both
/// hold themselves for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// What a transport may do with a message when it is under pressure. Any may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SendClass {
    /// Heartbeat or its answer: the newest one stands for older ones to the same node.
    Heartbeat,
    /// Entries, or an acknowledgement of entries.
    Append,
    /// A whole state machine. Its fate is to be told by `report_snapshot`.
    Snapshot,
    /// Votes, pre-votes, leadership transfer.
    Other,
}

/// One thing for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send `bytes` to `to`. Order among the messages to one node should be kept.
    Send { to: NodeId, bytes: Vec<u8>, class: SendClass },
    /// Write durably in one transaction, then call `persisted`.
    Persist(Persist),
    /// A committed entry. Empty `data` is the first entry of a new leader: it changes nothing, but
    /// says that this index was taken by `term`.
    Apply { index: u64, term: u64, data: Vec<u8> },
    /// The membership that holds from `index` on. Also emitted when a change was void.
    Membership { index: u64, term: u64, voters: Vec<NodeId>, learners: Vec<NodeId> },
    /// Replace the state machine. Empty `data` is the initial state machine.
    Restore { index: u64, term: u64, data: Vec<u8> },
    /// The read began after it was asked for, was confirmed by a quorum in this term, and all
    /// entries up to `index` were handed out before this effect.
    ReadReady { id: ReadId, index: u64 },
    /// The read will never be ready: term or role changed, or its deadline passed.
    ReadLost { id: ReadId },
    /// Role, term or known leader changed.
    RoleChanged { role: Role, term: u64, leader: Option<NodeId> },
}
