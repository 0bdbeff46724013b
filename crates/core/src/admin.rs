//! Operators' requests, and what becomes of them.

use redkeep_consensus::{NodeId, Span};

use crate::{
    ids::{Epoch, GroupId},
    model::{NodeRejection, Rejection},
    plan::{Exclusion, HoldReason},
    spec::{Member, NodeSpec},
};

/// A request that changes something. Only the leader takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminRequest {
    /// Planned: nothing is lost, or nothing happens.
    Switchover {
        group: GroupId,
        to: Option<NodeId>,
        dry_run: bool,
    },
    /// Unplanned, by an operator. Waits for the old lease like every other; no flag skips that.
    Failover {
        group: GroupId,
        to: Option<NodeId>,
        /// Only for a node that is named.
        allow_data_loss: bool,
        dry_run: bool,
    },
    /// No automatic failover of `group` (or of all) for `duration`.
    Pause {
        group: Option<GroupId>,
        duration: Span,
    },
    Resume {
        group: Option<GroupId>,
    },
    /// The failures of `group` (or of all) that there are were seen: cooldown and mass failure hold nothing back for them.
    Acknowledge {
        group: Option<GroupId>,
        dry_run: bool,
    },
    TransferLeadership {
        to: NodeId,
    },
    /// A node joins the cluster.
    AddNode {
        node: NodeSpec,
        dry_run: bool,
    },
    /// A node leaves for good.
    RemoveNode {
        node: NodeId,
        dry_run: bool,
    },
    /// A node gets a Redis of the group.
    AddMember {
        group: GroupId,
        member: Member,
        dry_run: bool,
    },
    RemoveMember {
        group: GroupId,
        node: NodeId,
        dry_run: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminReply {
    /// It is in the log for good, and what it asks for is so; a dry run is answered by it too.
    Done {
        index: u64,
        epoch: Epoch,
        text: String,
    },
    Refused(Refusal),
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Leadership ended or time ran out before the outcome was known.
    Unknown {
        text: String,
    },
}

/// Why a request is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no group named {0}")]
    NoSuchGroup(GroupId),
    #[error(
        "node {0} is not a member of the group: `redkeepctl status` says who is, `redkeepctl member add` makes it one"
    )]
    NotAMember(String),
    #[error(
        "{0} has no vote, and only a node that votes can lead: `redkeepctl status` says which do"
    )]
    NoVote(String),
    #[error("{0} is the master already")]
    AlreadyMaster(String),
    #[error("{node} cannot be promoted: {why}")]
    Excluded { node: String, why: Exclusion },
    #[error(
        "data may be lost for a member that is named only, never for the best by rank: look with `redkeepctl explain GROUP` who has most, then name it with --to NODE"
    )]
    LossUnnamed,
    #[error(
        "no member can be promoted: `redkeepctl explain` names the rule that excludes each, and what helps"
    )]
    NoCandidate,
    #[error("{0}")]
    Held(HoldReason),
    #[error("another change is in flight: {0}")]
    Busy(Busy),
    #[error("aborted: {0}")]
    Aborted(String),
    /// It was fine when it was asked for, and void when it was committed.
    #[error("another change was committed before it: {0}; nothing was done")]
    Overtaken(Rejection),
    #[error("a pause needs a duration between 1s and 7 days, not {0}")]
    PauseLength(Span),
    #[error("{node} cannot {what}: {why}")]
    Node { node: String, what: &'static str, why: NodeRefusal },
}

/// What is in flight, and what ends it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Busy {
    #[error(
        "a decision about the group is being committed; that takes milliseconds, then ask again"
    )]
    Decision,
    #[error(
        "an order of {since_ms} ms ago to make {to} master; it is done or given up within {left_ms} ms"
    )]
    Order { to: String, since_ms: u64, left_ms: u64 },
    #[error("a switchover to {to}; it is done or taken back within {within}")]
    Switchover { to: String, within: Span },
    #[error("another node is being taken out; that takes milliseconds, then ask again")]
    Removal,
    #[error("leadership is being handed on; that takes milliseconds, then ask again")]
    LeadershipTransfer,
    #[error(
        "too much waits to be committed; a majority of disks is slow or gone, see `redkeepctl status`"
    )]
    Backlog,
}

/// Why a node may not join or leave.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeRefusal {
    #[error(transparent)]
    Rejected(#[from] NodeRejection),
    #[error(
        "{left} nodes with a vote would be left, and fewer than three survive no failure: add another first, and wait until it votes"
    )]
    TooFew { left: usize },
    #[error(
        "of the {of} nodes that vote now, {heard} would be left that are heard, which is no majority"
    )]
    NoMajority { heard: usize, of: usize },
}
