//! What can happen in the world: a closed set.

use redkeep_core::{ActionId, Epoch, Input, Span, message::PeerMessage};

use crate::{
    clock::Real,
    fault::FaultKind,
    net::Endpoint,
    redis::{DataSet, WriteId},
    world::host::LockJob,
};

/// Index of a group in the layout.
pub(crate) type Group = usize;

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The supervisor process starts.
    Start {
        host: Endpoint,
    },
    /// Something that needs the supervisor's process to run.
    Process {
        host: Endpoint,
        life: u64,
        event: ProcessEvent,
    },
    /// A lock batch of a dead process reaches the kernel.
    LateBatch {
        host: Endpoint,
        job: Box<LockJob>,
    },
    Packet {
        from: Endpoint,
        to: Endpoint,
        message: Box<PeerMessage>,
        sent: Real,
    },
    /// Others notice that the process is gone.
    PeerDied {
        dead: Endpoint,
        notified: Endpoint,
        life: u64,
    },
    /// An adapter's news for the core.
    News {
        host: Endpoint,
        life: u64,
        input: Box<Input>,
    },
    VipExpires {
        host: Endpoint,
        group: Group,
    },
    Redis {
        host: Endpoint,
        group: Group,
        life: u64,
        event: RedisEvent,
    },
    RedisStart {
        host: Endpoint,
        group: Group,
        keep: Keep,
    },
    /// Each second: acknowledgements without need, pings, time-outs.
    ReplicationBeat {
        group: Group,
    },
    Link {
        group: Group,
        master: Endpoint,
        replica: Endpoint,
        conn: u64,
        event: LinkEvent,
    },
    /// A packet of a look, or of an answer to it, arrives.
    Look {
        look: Look,
        packet: LookPacket,
    },
    WriterTick {
        writer: usize,
    },
    Request {
        group: Group,
        to: Endpoint,
        request: Request,
    },
    Fault {
        index: usize,
    },
    /// A directed link is cut for so long.
    Cut {
        from: Endpoint,
        to: Endpoint,
        lasts: Span,
    },
    Undo {
        undo: Undo,
    },
    /// An operator's script gives its next order.
    Flood {
        until: Real,
    },
    /// An operator stops what is not needed any more: a member's Redis, or else the node's supervisor.
    Retire {
        host: Endpoint,
        group: Option<Group>,
    },
    /// The checkers look at all supervisors.
    Sample,
    Heal,
}

#[derive(Clone, Debug)]
pub(crate) enum ProcessEvent {
    /// Take one input from the queue.
    Step,
    Wake {
        number: u64,
    },
    DiskDone,
    LockDone,
    KernelDone,
    /// The executor for Redis of a group sends, polls or gives up.
    RedisJob {
        group: Group,
        job: u64,
        stage: Stage,
    },
    Announce {
        group: Group,
        number: u64,
        step: usize,
    },
    ProbeDue {
        group: Group,
        extra: bool,
    },
    ProbeTimeout {
        group: Group,
        redis_life: u64,
    },
    /// A look at the Redis of another host goes on.
    Look {
        look: Look,
        step: LookStep,
    },
    /// What was ordered beside the control connection comes to its end.
    Aside {
        group: Group,
        id: ActionId,
        work: AsideWork,
    },
}

/// A supervisor's look at the Redis of another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    pub(crate) from: Endpoint,
    /// Of the supervisor.
    pub(crate) life: u64,
    pub(crate) number: u64,
    pub(crate) to: Endpoint,
    pub(crate) group: Group,
}

/// What the supervisor does for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LookStep {
    Connect { timeout: Span },
    Ask,
    GivesUp { timeout: Span },
}

/// What is on its way there, and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LookPacket {
    Connect,
    Ping,
    Accepted,
    Pong,
    Reset {
        why: &'static str,
        /// By the lock, not by a missing process.
        by_lock: bool,
    },
}

impl LookPacket {
    pub(crate) const fn is_back(self) -> bool {
        matches!(self, Self::Accepted | Self::Pong | Self::Reset { .. })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum AsideWork {
    Compare {
        master: Endpoint,
    },
    /// The data set of this life of Redis as it was when its snapshot began.
    Keep {
        epoch: Epoch,
        life: u64,
        log: Vec<WriteId>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Send,
    Poll,
    Answered,
    TimedOut,
}

#[derive(Clone, Debug)]
pub(crate) enum RedisEvent {
    Loaded,
    /// Execute what waits in the buffers.
    Drain,
    PauseEnds,
    Connect,
    Pump,
    /// The kernel told that the connection to the master is over.
    LinkDown {
        conn: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum LinkEvent {
    Handshake,
    Full { data: Box<DataSet> },
    Stream { from: u64, writes: Vec<WriteId> },
    Ack { offset: u64 },
}

/// How much of its data a restarted Redis still has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// All but a short tail at most.
    Most,
    Half,
    Nothing,
    /// The older half, with the history and the offset that it is of.
    Rdb,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) write: WriteId,
    pub(crate) writer: usize,
    pub(crate) client: Endpoint,
    pub(crate) via_vip: bool,
    pub(crate) wait: Option<usize>,
}

/// The end of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Undo {
    Thaw {
        host: Endpoint,
        life: u64,
    },
    /// Late batches were asked for, but none came: the process dies without.
    KillAnyway {
        host: Endpoint,
        life: u64,
    },
    PowerOn {
        host: Endpoint,
    },
    /// A paused machine goes on.
    Resume {
        host: Endpoint,
    },
    /// The second port of this life of Redis is closed.
    CloseAround {
        host: Endpoint,
        group: Group,
        life: u64,
    },
    /// A filter before a port is taken away.
    Unfilter {
        host: Endpoint,
        group: Group,
        kind: FaultKind,
    },
    ThawRedis {
        host: Endpoint,
        group: Group,
        life: u64,
    },
    /// `replica-read-only` is set back.
    ReadOnly {
        host: Endpoint,
        group: Group,
        life: u64,
    },
    Join {
        from: Endpoint,
        to: Endpoint,
    },
    Weather {
        loss_ppm: u64,
        duplicate_ppm: u64,
        straggler_ppm: u64,
        straggler_max: u64,
    },
}
