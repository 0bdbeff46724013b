//! What supervisors say to each other. Only `Raft` carries decisions; the rest is perishable.

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    ids::{ArmId, Epoch, GroupId},
    observe::{EligibleMember, Report},
};

/// A message between supervisors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// Opaque to all but the consensus crate.
    Raft {
        bytes: Vec<u8>,
        class: RaftClass,
    },
    /// Holder to leader: renew my leases. Sent only after the kernel acknowledged the arming.
    Renew {
        renew: Renew,
        /// The sender's Raft term at this moment: when it armed it had voted for no later leader (L2).
        term: u64,
    },
    /// Leader to holder: the gates may open for this arming.
    Grant(Grant),
    Report(Report),
    /// Leader to holder: fence this epoch, another is better placed. Never needed for safety.
    FenceRequest {
        group: GroupId,
        epoch: Epoch,
        /// A majority of nodes cannot reach the Redis there.
        unreached: bool,
    },
    /// Leader to a replica's node: the master does not hear your Redis, and the path is open. Obeyed at the present epoch.
    RelinkRequest {
        group: GroupId,
        epoch: Epoch,
    },
    Reach(Reach),
}

/// "Do you hear that node?": asked by a leader before it takes silence towards itself for a lost host, and before it hands
/// its leadership on. Decides only who leads; no node on the way remembers anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    pub step: ReachStep,
    pub target: NodeId,
    pub asker: NodeId,
    /// By the asker's clock.
    pub asked_at: Mono,
}

/// The way of the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReachStep {
    /// From the asker to another node.
    Ask,
    /// From that one to the target.
    Ping,
    /// Back from the target.
    Pong,
    /// Back to the asker: the target answered.
    Heard,
}

/// How the transport may treat a Raft message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RaftClass {
    /// Only the latest counts.
    Heartbeat,
    /// Bounded queue; dropped when full, Raft sends again.
    Other,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renew {
    pub arm: ArmId,
    /// The last grant that arrived (L6).
    pub last_grant: Option<ArmId>,
    /// What was armed (L1, L4).
    pub ttl: Span,
    pub groups: Vec<RenewGroup>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RenewGroup {
    pub group: GroupId,
    pub epoch: Epoch,
    /// Members of the eligible set beyond `max_lag`: granted only after a set without them is committed.
    pub lagging: Vec<EligibleMember>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub arm: ArmId,
    pub term: u64,
    pub groups: Vec<(GroupId, Epoch)>,
    pub from: NodeId,
}
