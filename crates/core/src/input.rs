//! What happens to the core. A closed set: everything that moves it is here.

use redkeep_consensus::{Mono, NodeId};

use crate::{
    admin::AdminRequest,
    effect::{ActionId, ActionOutcome, LockEvent},
    ids::{Epoch, Generation, GroupId, RequestId, RunId},
    message::PeerMessage,
    observe::{ProbeFailure, RedisObservation},
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    Peer {
        from: NodeId,
        message: PeerMessage,
    },
    /// Proof that the peer's process is gone (its stream ended and its port refuses).
    PeerDied {
        peer: NodeId,
    },
    Persisted {
        number: u64,
    },
    Burned {
        group: GroupId,
        epoch: Epoch,
    },
    Lock(LockEvent),
    ActionDone {
        group: GroupId,
        id: ActionId,
        outcome: ActionOutcome,
    },
    Observed {
        group: GroupId,
        /// CLOCK_BOOTTIME before Redis was asked: the answer may have lain in a queue since.
        asked: Mono,
        result: Result<RedisObservation, ProbeFailure>,
    },
    /// The process of the local Redis is dying or dead; `run_id` is the life that ended, if known.
    RedisDied {
        group: GroupId,
        run_id: Option<RunId>,
    },
    /// The answer to `Effect::Look`; why not, for people.
    Looked {
        number: u64,
        result: Result<(), String>,
    },
    Host(HostEvent),
    Admin {
        id: RequestId,
        request: AdminRequest,
    },
    /// The deadline came.
    Wake,
}

/// Foreign changes on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostEvent {
    /// The VIP was taken from the link by somebody else (or the kernel).
    VipRemoved { group: GroupId },
    /// The VIP is on the link.
    VipPresent { group: GroupId },
    /// The lock's table was flushed or changed by somebody else and has been put back, closed.
    LockLost,
    /// It is not as it has to be, and could not be put back: ports may be open to all. Then `LockOp::Restore` tries again.
    LockBroken,
    /// The link came (back) up: announce again.
    LinkUp { interface: String },
}

/// What the kernel lock held when the supervisor started (L7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockAtStart {
    /// The generation whose gate and timer are both live, if one is.
    pub open: Option<Generation>,
    /// Ports that were guarded already.
    pub guarded: Vec<u16>,
    /// Ports with a live replica element.
    pub replica: Vec<u16>,
}
