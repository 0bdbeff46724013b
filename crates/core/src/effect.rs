//! What the core wants done. Values only; adapters act. No effect is awaited: results come back as inputs.

use core::net::SocketAddr;

use redkeep_consensus::{NodeId, Span};

use crate::{
    admin::AdminReply,
    ids::{ArmId, Epoch, Generation, GroupId, RequestId, RunId},
    lineage::Compared,
    message::PeerMessage,
    observe::FenceCause,
    spec::{ClusterSpec, Vip},
};

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    Send {
        to: NodeId,
        message: PeerMessage,
    },
    /// Make durable, then feed `Input::Persisted`. Never dropped, in order.
    Persist(redkeep_consensus::Persist),
    /// Make durable that this node never arms `group` at `epoch` or below (L5), then feed `Input::Burned`. Same queue as `Persist`.
    Burn {
        group: GroupId,
        epoch: Epoch,
    },
    /// For the one task that owns the kernel lock, strictly in order; answered by `Input::Lock`.
    Lock(LockOp),
    /// For the executors of `group`; answered by `Input::ActionDone` with the same id. Kernel actions and Redis
    /// actions go to two queues: a hung Redis never delays the kernel.
    Act {
        group: GroupId,
        id: ActionId,
        action: Action,
    },
    /// Probe the Redis of `group` at once, without waiting for the interval.
    ProbeNow {
        group: GroupId,
    },
    /// Connect to the Redis there as a client would and say PING, within `timeout`; answered by `Input::Looked`.
    Look {
        number: u64,
        target: SocketAddr,
        timeout: Span,
    },
    Reply {
        id: RequestId,
        reply: AdminReply,
    },
    Event(Event),
    /// The replicated spec changed (or was read at start): links, groups and probes follow it.
    SpecChanged(Box<ClusterSpec>),
}

/// Number of an action; unique in this life of the supervisor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ActionId(pub u64);

/// One port (and VIP) under the kernel lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockItem {
    pub group: GroupId,
    pub port: u16,
    pub vip: Vip,
    pub interface: String,
    /// One-shot token in the kernel's `ask` set.
    pub nonce: u64,
}

/// One batch for the kernel lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockOp {
    /// Take all of generation x out of its gate, put `items` into its timer with `ttl`, replace `ask`.
    Arm {
        arm: ArmId,
        generation: Generation,
        ttl: Span,
        items: Vec<LockItem>,
    },
    /// Redeem the nonces and add the gates, and the ports to `guarded`, in one batch.
    Open {
        arm: ArmId,
        generation: Generation,
        items: Vec<LockItem>,
    },
    /// Out of both gates.
    Close {
        item: LockItem,
    },
    /// Guard the port, closed unless a gate or the replica element says otherwise.
    Guard {
        item: LockItem,
    },
    /// Let clients read from a true replica for at most `ttl`; guards the port in the same batch.
    PermitReplica {
        item: LockItem,
        ttl: Span,
    },
    ForbidReplica {
        item: LockItem,
    },
    /// Make all tables anew, closed for all that was guarded, after `HostEvent::LockBroken`.
    Restore,
    /// A life of Redis that was not known here was taken in. Lift the closing that its start left, if one waits, and
    /// take the port out of gates, replica element and nonces in the same batch: whatever was decided for an earlier
    /// life lies before this in the queue and dies by it. Refused where the process of that life is not watched.
    Admit {
        item: LockItem,
        run_id: RunId,
    },
}

/// Result of one `LockOp`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockEvent {
    Armed { arm: ArmId, ok: bool },
    Opened { arm: ArmId, groups: Vec<GroupId>, ok: bool },
    Closed { group: GroupId, ok: bool },
    Guarded { group: GroupId, ok: bool },
    ReplicaPermitted { group: GroupId, ok: bool },
    ReplicaForbidden { group: GroupId, ok: bool },
    Admitted { group: GroupId, run_id: RunId, ok: bool },
    Restored { ok: bool },
}

impl LockEvent {
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        match self {
            Self::Armed { ok, .. }
            | Self::Opened { ok, .. }
            | Self::Closed { ok, .. }
            | Self::Guarded { ok, .. }
            | Self::ReplicaPermitted { ok, .. }
            | Self::ReplicaForbidden { ok, .. }
            | Self::Admitted { ok, .. }
            | Self::Restored { ok } => *ok,
        }
    }
}

/// One idempotent act on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    // Redis, on the control connection, in order.
    /// `CLIENT UNPAUSE`, `min-replicas-to-write`, `REPLICAOF NO ONE`; done when `ROLE` says master.
    Promote(MinReplicas),
    /// The same of a life that is a master already, and if not, is not made one: `CLIENT UNPAUSE`, `min-replicas-to-write`, `ROLE`.
    GoOn(MinReplicas),
    /// At a master, while it serves.
    SetMinReplicas(MinReplicas),
    /// `masterauth`, `REPLICAOF`; done when `ROLE` says replica of it.
    Follow {
        master: SocketAddr,
    },
    /// `REPLICAOF` elsewhere and back at once, if nothing comes over the connection to `master`, or it is not made: Redis makes another.
    Relink {
        master: SocketAddr,
    },
    /// `CLIENT PAUSE ms WRITE` for no longer than `limit`, then wait until the Redis at `target` has the own offset.
    PauseAndCatchUp {
        target: SocketAddr,
        limit: Span,
    },
    Unpause,
    /// `INFO replication`: the own offset, after the gates are out.
    ReadOffset,
    /// Raise `min-replicas-to-write` beyond reach; `Promote` sets it back. Best effort.
    ShutWrites,
    // Redis, beside that connection: nothing waits for them.
    /// `INFO` of the local Redis and of the one at `master`: what would following it overwrite? A failure with `retry` = the
    /// master, or the local one, did not answer.
    Compare {
        master: SocketAddr,
    },
    /// `BGSAVE`, and its file into the quarantine directory, named by group, `epoch` and `gap`. Bounded in time; ended
    /// by a change of role.
    KeepAside {
        epoch: Epoch,
        /// Bytes beyond the master's history; none = unknown.
        gap: Option<u64>,
    },
    // Kernel, in order.
    /// Add or refresh with a finite lifetime, in whole seconds.
    EnsureVip {
        vip: Vip,
        interface: String,
        valid_seconds: u32,
    },
    RemoveVip {
        vip: Vip,
        interface: String,
    },
    /// Gratuitous ARP in both forms or unsolicited NA, at once and repeated by the adapter (0, 50, 200 ms, 1, 2, 5 s, then each 60 s)
    /// until `RemoveVip`.
    Announce {
        vip: Vip,
        interface: String,
    },
    /// ARP probe (RFC 5227) or DAD: does somebody else answer for the VIP? Answered later; nothing waits for it.
    ProbeRival {
        vip: Vip,
        interface: String,
    },
    /// `SOCK_DESTROY` of every connection of the port but the supervisor's own.
    DestroySockets {
        port: u16,
    },
    /// Redis answers `PING` at the VIP.
    VerifyVip {
        vip: Vip,
        port: u16,
    },
}

impl Action {
    /// True for what is done with Redis; false for the kernel's.
    #[must_use]
    pub const fn is_redis(&self) -> bool {
        match self {
            Self::Promote(_)
            | Self::GoOn(_)
            | Self::SetMinReplicas(_)
            | Self::Follow { .. }
            | Self::Relink { .. }
            | Self::PauseAndCatchUp { .. }
            | Self::Unpause
            | Self::ReadOffset
            | Self::ShutWrites
            | Self::Compare { .. }
            | Self::KeepAside { .. }
            | Self::VerifyVip { .. } => true,
            Self::EnsureVip { .. }
            | Self::RemoveVip { .. }
            | Self::Announce { .. }
            | Self::ProbeRival { .. }
            | Self::DestroySockets { .. } => false,
        }
    }
}

/// How many replicas a master must have to take a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MinReplicas {
    /// `min-replicas-to-write`.
    pub to_write: u32,
    /// `min-replicas-max-lag`, whole seconds; none = as it is.
    pub max_lag_s: Option<u32>,
}

/// What became of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ActionOutcome {
    Done,
    /// `PauseAndCatchUp`: the target has everything up to here. `ReadOffset`: the own offset.
    Offset(u64),
    /// `GoOn`: it is a replica.
    NotMaster,
    /// `ProbeRival`: somebody answered.
    Rival(String),
    /// `Compare`.
    Compared(Box<Compared>),
    /// `KeepAside`.
    Kept(Kept),
    Failed(ActionFailure),
}

/// A data set that was kept aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// Why an action failed; the text is for operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActionFailure {
    pub retry: bool,
    pub text: String,
}

/// Something an operator or the timeline wants to know. Stamped by the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub group: Option<GroupId>,
    pub epoch: Epoch,
    /// Log index of the decision it belongs to; 0 where none.
    pub index: u64,
    pub kind: EventKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    RedisUp {
        run_id: String,
        role: &'static str,
    },
    RedisDown {
        reason: String,
    },
    /// Fence begun; the gates are on their way out.
    Fencing {
        cause: FenceCause,
    },
    /// Gates out in the kernel; epoch burned on disk, unless its life of Redis is over.
    Fenced {
        cause: FenceCause,
        offset: u64,
    },
    LeaseGranted,
    LeaseLost,
    Assigned {
        master: NodeId,
        cause: String,
    },
    Promoted,
    VipUp,
    VipGone,
    VipRestored,
    VipStray,
    VipRival {
        who: String,
    },
    Serving {
        master: NodeId,
    },
    Following {
        master: SocketAddr,
    },
    Eligible {
        members: String,
    },
    SwitchoverStarted {
        to: NodeId,
    },
    SwitchoverAborted {
        reason: String,
    },
    Paused {
        seconds: u64,
    },
    Resumed,
    Acknowledged,
    LockLost,
    LockRestored,
    /// It could not be put back: writes are shut by other means, and it is tried again.
    LockBroken,
    /// A Redis that is not the group's master was made to take writes, and its port was open to clients until now.
    WritableByHand {
        role: &'static str,
    },
    LeaderChanged {
        leader: Option<NodeId>,
        term: u64,
    },
    ActionFailed {
        action: &'static str,
        text: String,
    },
    /// The local Redis can be reached around the lock; told once for each change.
    Bypass {
        text: String,
    },
    BypassClosed,
    /// The Redis of another node cannot be reached from here.
    Unreached {
        node: NodeId,
        why: String,
    },
    Reached {
        node: NodeId,
    },
    /// A data set was kept aside before it is overwritten.
    Quarantined {
        /// Bytes that the new master lacks; none = unknown.
        gap: Option<u64>,
        /// Of the file; bytes.
        size: u64,
        path: String,
    },
    /// It was not, and is overwritten.
    QuarantineFailed {
        gap: Option<u64>,
        reason: String,
    },
    /// A write of the log took so long; votes, fences and decisions waited. Told by the daemon.
    DiskStalled {
        took: Span,
    },
}
