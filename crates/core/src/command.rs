//! What is written into the Raft log: few, small, versioned decisions. Nothing per second.

use redkeep_consensus::{NodeId, Span};

use crate::{
    ids::{Epoch, GroupId, RunId},
    observe::EligibleMember,
    spec::{ClusterSpec, Member, NodeSpec},
};

/// A log entry's payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// Wall clock of the proposer; for display only.
    pub at_unix_ms: u64,
    pub body: Body,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The first leader writes the configured spec; ignored when one is there.
    Bootstrap(ClusterSpec),
    Assign(Assign),
    /// The master of this epoch serves at the VIP: replicas may be repointed.
    Serving {
        group: GroupId,
        epoch: Epoch,
    },
    /// The eligible set of this epoch, and who is joining it (counted in WAIT's n already).
    Eligible {
        group: GroupId,
        epoch: Epoch,
        members: Vec<EligibleMember>,
        joining: Vec<EligibleMember>,
        /// The master has keys, or had some a short time ago. A cold start in which nobody has any is not one with a data set.
        has_data: bool,
    },
    Switchover {
        group: GroupId,
        epoch: Epoch,
        to: NodeId,
    },
    /// Void once the epoch it names is over.
    SwitchoverAbort {
        group: GroupId,
        epoch: Epoch,
        reason: String,
    },
    /// All groups where `group` is none.
    Pause {
        group: Option<GroupId>,
        duration: Span,
    },
    Resume {
        group: Option<GroupId>,
    },
    /// A node belongs to the cluster from here on. Raft's membership follows: a learner first, a voter once it has caught up.
    AddNode(NodeSpec),
    /// A node leaves for good; its id does not come back.
    RemoveNode {
        node: NodeId,
    },
    /// A node of the cluster gets a Redis of the group.
    AddMember {
        group: GroupId,
        member: Member,
    },
    RemoveMember {
        group: GroupId,
        node: NodeId,
    },
    /// An operator has seen the failures that there are: of one group, or of all. Cooldown and the limit of failures at once
    /// hold nothing back for them any more.
    Acknowledge {
        group: Option<GroupId>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assign {
    pub group: GroupId,
    /// Exactly one above the epoch it replaces, else it is rejected at apply.
    pub epoch: Epoch,
    pub master: NodeId,
    /// The life of Redis that is meant; another life is never opened under this epoch.
    pub run_id: RunId,
    pub cause: Cause,
    /// For people: what was seen.
    pub evidence: String,
    /// Bytes the old master had beyond the new one, as far as known; none = not known.
    pub estimated_loss_bytes: Option<u64>,
    /// The life of the old master becomes a member of the eligible set: it fenced, and the new one has all that it had.
    pub old_master_eligible: bool,
    /// The life that is named was seen as a master. If it was that at the epoch before too, it is not promoted but found to be one.
    pub goes_on: bool,
}

/// Why a master was assigned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// The pair was running so when the supervisors first started.
    Adopted,
    /// The old master's Redis died or was hung, and its node fenced.
    MasterDown,
    /// The old master's node was not heard for its whole lease.
    NodeSilent,
    /// A majority of nodes could not reach the old master's Redis, and its node fenced.
    MasterUnreached,
    Switchover,
    /// A switchover that could not end; the old master goes on.
    SwitchoverBack,
    Operator,
    ColdStart,
}

impl Cause {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::MasterDown => "master down",
            Self::NodeSilent => "node silent",
            Self::MasterUnreached => "master unreached",
            Self::Switchover => "switchover",
            Self::SwitchoverBack => "switchover back",
            Self::Operator => "operator",
            Self::ColdStart => "cold start",
        }
    }
    /// Done by redkeep itself, so that cooldown and pause count.
    #[must_use]
    pub const fn is_automatic(self) -> bool {
        match self {
            Self::MasterDown | Self::NodeSilent | Self::MasterUnreached => true,
            Self::Adopted
            | Self::Switchover
            | Self::SwitchoverBack
            | Self::Operator
            | Self::ColdStart => false,
        }
    }
}
