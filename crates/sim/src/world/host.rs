//! One host: clocks, kernel, disk, Redis processes, and the supervisor's process with its executors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redkeep_core::{
    Action, ActionId, Core, Epoch, Input, LockOp, NodeId, Now, RunId, Span, command::Cause,
    observe::Bypass,
};

use crate::{
    clock::{HostClock, Real},
    disk::{Disk, DiskWrite},
    fault::FaultKind,
    lock::{KernelLock, KernelTime},
    net::Endpoint,
    redis::Redis,
    world::{
        event::{Group, ProcessEvent},
        filter::Filter,
    },
};

/// What the supervisor's model said of a group when an order was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) epoch: Epoch,
    pub(crate) master: Option<NodeId>,
    pub(crate) cause: Option<Cause>,
    pub(crate) serving: bool,
}

/// What the executor of the kernel lock is asked for.
#[derive(Clone, Debug)]
pub(crate) enum LockWork {
    Op(LockOp),
    /// The life of Redis that is watched, if it is the one meant; and which one the core asked for, if the core did.
    Admit {
        group: Group,
        life: Option<u64>,
        asked: Option<RunId>,
    },
}

/// A batch for the kernel lock.
#[derive(Clone, Debug)]
pub(crate) struct LockJob {
    pub(crate) work: LockWork,
    /// By group, at the same time.
    pub(crate) views: Vec<(Group, View)>,
}

/// An action for the kernel.
#[derive(Clone, Debug)]
pub(crate) struct KernelJob {
    pub(crate) group: Group,
    pub(crate) id: ActionId,
    pub(crate) action: Action,
    pub(crate) view: View,
}

/// An action for the control connection to Redis.
#[derive(Clone, Debug)]
pub(crate) struct RedisJob {
    pub(crate) number: u64,
    pub(crate) id: ActionId,
    pub(crate) action: Action,
    pub(crate) view: View,
    pub(crate) deadline: Real,
}

/// The executor of one group's Redis actions: in order, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) running: Option<RedisJob>,
    pub(crate) queue: VecDeque<RedisJob>,
    /// Role-changing commands that were sent and not answered.
    pub(crate) unanswered: BTreeSet<u64>,
    /// Life of Redis whose process is watched: the one that the last good probe saw.
    pub(crate) watched: Option<(u64, RunId)>,
    /// What the last look for ways around the lock found, at which life, and when.
    pub(crate) looked: Option<(u64, Real, Vec<Bypass>)>,
    /// Number of the running series of announcements; 0 = none.
    pub(crate) announcing: u64,
}

/// A stop that waits for its moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stall {
    pub(crate) lasts: Span,
    /// It does not come any more after this.
    pub(crate) until: Real,
}

/// The supervisor.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) core: Core,
    /// Number of this process in the world; never used again.
    pub(crate) life: u64,
    /// Faults that hold it stopped.
    pub(crate) frozen: u32,
    /// Stop between reading the clock and using it, for so long.
    pub(crate) stop_in_next_step: Option<Span>,
    /// Stop the same way at the next look at Redis as a replica; Redis is started anew meanwhile.
    pub(crate) stop_at_look: Option<Stall>,
    /// Stop as a candidate, whose requests for votes come late.
    pub(crate) stop_as_candidate: Option<Stall>,
    /// What leaves now is held up for so long.
    pub(crate) sends_held: Span,
    /// The clocks that the core was told last.
    pub(crate) told: Now,
    /// When the driver began to wait for its next input.
    pub(crate) waits_since: Now,
    /// The input and the clocks that a stop caught in between.
    pub(crate) held: Option<(Now, Input)>,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) stepping: bool,
    pub(crate) wake: u64,
    /// What came due while the process was stopped.
    pub(crate) deferred: Vec<ProcessEvent>,
    pub(crate) disk: VecDeque<DiskWrite>,
    /// So many of them are being written, by one sync.
    pub(crate) disk_batch: usize,
    pub(crate) lock: VecDeque<LockJob>,
    pub(crate) kernel: VecDeque<KernelJob>,
    pub(crate) control: Vec<Control>,
    /// Looks that have not ended, by number: whether the lock held an answer back.
    pub(crate) looks: BTreeMap<u64, bool>,
    /// The nodes that it keeps links to, as its spec says.
    pub(crate) links: Vec<NodeId>,
    /// Whose streams it has taken: all that its spec ever named in this life.
    pub(crate) heard_from: BTreeSet<NodeId>,
    /// By group: its Redis is probed.
    pub(crate) probes: Vec<bool>,
    /// The next gate to be opened is left to a dead process; then it stays away for so long.
    pub(crate) dies_opening: Option<Span>,
}

impl Process {
    pub(crate) fn new(core: Core, life: u64, groups: usize, now: Now) -> Self {
        Self {
            stop_at_look: None,
            stop_as_candidate: None,
            sends_held: Span(0),
            told: now,
            waits_since: now,
            core,
            life,
            frozen: 0,
            stop_in_next_step: None,
            held: None,
            inbox: VecDeque::new(),
            stepping: false,
            wake: 0,
            deferred: Vec::new(),
            disk: VecDeque::new(),
            disk_batch: 0,
            lock: VecDeque::new(),
            kernel: VecDeque::new(),
            control: (0..groups).map(|_| Control::default()).collect(),
            looks: BTreeMap::new(),
            links: Vec::new(),
            heard_from: BTreeSet::new(),
            probes: vec![false; groups],
            dies_opening: None,
        }
    }
}

/// An order of an operator that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) host: Endpoint,
    pub(crate) life: u64,
    pub(crate) at: Real,
    /// The fault that it is.
    pub(crate) kind: Option<FaultKind>,
    /// It changes the membership.
    pub(crate) changes: bool,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeId,
    pub(crate) clock: HostClock,
    pub(crate) lock: KernelLock,
    /// By group: when the kernel deletes the VIP, if it is there.
    pub(crate) vips: Vec<Option<KernelTime>>,
    /// By group; none where the host is no member.
    pub(crate) redis: Vec<Option<Redis>>,
    /// By group: the committed spec names it, as far as operators know.
    pub(crate) member: Vec<bool>,
    /// A supervisor is to run here: not before its node is added, nor after an operator stopped it for good.
    pub(crate) in_service: bool,
    /// By group: it was found as one of two masters, and has not been touched since.
    pub(crate) rival: Vec<bool>,
    /// By group: filters before its port.
    pub(crate) filters: Vec<Filter>,
    /// By group: client sockets up to this number are destroyed.
    pub(crate) destroyed: Vec<u64>,
    pub(crate) disk: Disk,
    pub(crate) powered: bool,
    /// Pauses of the whole machine that hold.
    pub(crate) standing: u32,
    pub(crate) process: Option<Process>,
    /// Writes are refused until then.
    pub(crate) disk_fails_until: Real,
    pub(crate) disk_stalled_until: Real,
    pub(crate) lock_stalled_until: Real,
    /// Flushes of the table of which the supervisor has not taken in the news.
    pub(crate) flushes_untold: u32,
    /// By group: the life of Redis for which the gate was opened last.
    pub(crate) opened_life: Vec<u64>,
    /// Grants to this host are lost until then.
    pub(crate) no_grants_until: Real,
    /// From its first report of a fence on, reports of this host arrive then at the earliest.
    pub(crate) reports_held_until: Real,
    pub(crate) holds_reports: bool,
}

impl Host {
    pub(crate) fn kernel_time(&self, now: Real) -> KernelTime {
        KernelTime(self.clock.boot.read(now))
    }
    pub(crate) fn passes(&self, port: u16, now: Real) -> bool {
        self.powered && self.lock.passes(port, self.kernel_time(now))
    }
    pub(crate) fn leased(&self, port: u16, now: Real) -> bool {
        self.powered && self.lock.leased(port, self.kernel_time(now))
    }
    pub(crate) fn answer_leaves(&self, port: u16, now: Real) -> bool {
        self.powered && self.lock.answer_leaves(port, self.kernel_time(now))
    }
    pub(crate) fn has_vip(&self, group: Group, now: Real) -> bool {
        let at = self.kernel_time(now);
        self.powered && self.vips[group].is_some_and(|ends| at < ends)
    }
    /// One of two masters that were found, before any supervisor has guarded its port.
    pub(crate) fn is_rival(&self, group: Group, port: u16) -> bool {
        self.rival[group] && !self.lock.is_guarded(port)
    }
    /// Clients on this group's port reach a Redis that takes writes.
    pub(crate) fn takes_writes(&self, group: Group, port: u16, now: Real) -> bool {
        self.redis[group].as_ref().is_some_and(Redis::takes_writes) && self.passes(port, now)
    }
    pub(crate) fn runs(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.frozen == 0)
    }
}
