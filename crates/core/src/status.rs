//! What operators see: a snapshot of one node's knowledge, with the leader's part where this node leads.

use redkeep_consensus::{NodeId, Role, Span};

use crate::{
    command::Cause,
    ids::{Epoch, GroupId},
    model::Record,
    observe::{EligibleMember, Fenced, RedisView, Sight, TakeoverFailure},
    plan::{Exclusion, HoldReason, Loss},
    spec::{ClusterSpec, Durability},
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusView {
    pub node: NodeId,
    pub cluster: Option<ClusterSpec>,
    pub role: Role,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub applied: u64,
    pub committed: u64,
    /// Raft's voters and learners, as applied here.
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// Supervisors as the leader hears them; empty elsewhere.
    pub nodes: Vec<NodeStatus>,
    pub groups: Vec<GroupStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    pub node: NodeId,
    /// Time since the leader last heard it; none = never.
    pub heard_ago: Option<Span>,
    pub applied: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    pub group: GroupId,
    pub epoch: Epoch,
    pub master: Option<NodeId>,
    pub cause: Option<Cause>,
    /// Log index of the assignment.
    pub assigned_at: u64,
    /// `Serving` is committed for this epoch.
    pub serving: bool,
    pub eligible: Vec<EligibleMember>,
    pub joining: Vec<EligibleMember>,
    /// The n of `WAIT n` that survives any single failure.
    pub wait_replicas: usize,
    pub switchover_to: Option<NodeId>,
    /// What is left of a pause.
    pub paused_for: Option<Span>,
    /// All groups are paused together, whatever else pauses this one.
    pub paused_with_all: bool,
    /// At the holder: what is left of its lease. At the leader: longest time the holder's lease may still run.
    pub lease_left: Option<Span>,
    pub members: Vec<MemberStatus>,
    /// Leader only: what holds the group back.
    pub hold: Option<HoldReason>,
    pub durability: Durability,
    /// `min-replicas-to-write` as Redis was told by the master's node, where that is known.
    pub min_replicas: Option<u32>,
    /// By node: how the members are seen from there, where the master is not reached. At the leader of all that are heard,
    /// elsewhere the own.
    pub sights: Vec<(NodeId, Sight)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    pub node: NodeId,
    pub redis: RedisView,
    pub fenced: Option<Fenced>,
    pub serving: Option<Epoch>,
    /// Why it cannot begin to serve.
    pub takeover_failure: Option<TakeoverFailure>,
    /// Leader only: why it would not be promoted now; none = it could be.
    pub excluded: Option<Exclusion>,
    /// Leader only: what a promotion of it would lose, where that is known.
    pub loss: Option<Loss>,
    /// False where this node knows nothing of it at first hand.
    pub known: bool,
}

/// One line of the replicated history.
pub type HistoryRecord = Record;
