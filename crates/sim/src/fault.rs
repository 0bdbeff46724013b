//! The faults a plan may hold, and their one-line text form.
//!
//! Every fault has a target that is looked up when its time comes, a length, and a random number for its details, so
//! that a plan can be shortened without changing what is left of it.

use std::{fmt, str::FromStr};

use redkeep_core::Span;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Kind of a fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum FaultKind { $($(#[$doc])* $name),* }

        impl FaultKind {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

faults! {
    /// SIGSTOP, and SIGCONT after the length.
    FreezeSupervisor = "freeze-supervisor",
    /// Stopped between reading the clock and using what it read.
    FreezeMidStep = "freeze-mid-step",
    /// SIGKILL; started again after the length.
    KillSupervisor = "kill-supervisor",
    /// As before, but lock batches it had handed out still reach the kernel, late.
    KillSupervisorLateBatches = "kill-supervisor-late-batches",
    /// All processes gone, memory and unsynced writes lost; everything starts again after the length.
    PowerOff = "power-off",
    /// Redis dies and is started again with its data after the length.
    KillRedis = "kill-redis",
    /// The same, started again with no data.
    KillRedisEmpty = "kill-redis-empty",
    /// The same, started again with the older half of its data.
    KillRedisOld = "kill-redis-old",
    FreezeRedis = "freeze-redis",
    /// One directed link.
    CutOneWay = "cut-one-way",
    /// Both directions between two hosts.
    CutPair = "cut-pair",
    /// The host from all others and all client machines.
    Isolate = "isolate",
    /// The host hears nobody.
    Deaf = "deaf",
    /// Nobody hears the host.
    Mute = "mute",
    /// The target's host and the leader's on one side, all others on the other.
    Split = "split",
    /// Grants to the host are lost, all else arrives.
    LoseGrants = "lose-grants",
    /// From the host's first report of a fence on, its reports are held up until the end.
    HoldReports = "hold-reports",
    LossyNet = "lossy-net",
    DuplicatingNet = "duplicating-net",
    /// Messages are held up and overtake each other.
    StragglingNet = "straggling-net",
    DiskStall = "disk-stall",
    /// The next batches for the kernel lock take long.
    LockStall = "lock-stall",
    /// Somebody flushes the ruleset; it is put back, closed.
    LockFlush = "lock-flush",
    /// `ip addr del` by hand.
    VipDelete = "vip-delete",
    /// The host's clock is slewed at another rate.
    ClockSlew = "clock-slew",
    Switchover = "switchover",
    Failover = "failover",
    Pause = "pause",
    TransferLeadership = "transfer-leadership",
    /// The host is asked to lead, and stopped as a candidate until a late vote is there.
    StalledElection = "stalled-election",
    /// The supervisor is stopped between taking in a look at a replica and using it; its Redis starts anew meanwhile.
    StalledLook = "stalled-look",
    /// Redis dies and is started again from an older file, which names the history and the offset that it is of (Redis 7).
    RestartFromRdb = "restart-from-rdb",
    /// Redis listens on a second port, which no lock guards, until the end of the length or of its life.
    OpenAround = "open-around",
    /// The supervisor's disk refuses what is written: the process ends, and starts again when there is room.
    DiskFails = "disk-fails",
    /// An operator's script orders something every millisecond: the log grows beyond what is kept of it.
    LogFlood = "log-flood",
    /// The machine is paused whole: its clocks and its kernel's timers stand still too.
    PauseMachine = "pause-machine",
    /// An operator adds a node that was not there before, and starts its supervisor.
    AddNode = "add-node",
    /// An operator takes a node out; its supervisor is stopped some time later, or never.
    RemoveNode = "remove-node",
    /// A Redis is set up on a newcomer, which becomes a member of a group.
    AddMember = "add-member",
    /// A member is taken out of its group, after a switchover if it is the master.
    RemoveMember = "remove-member",
    /// What other hosts, clients and replicas among them, send to the Redis port is dropped.
    PortFiltered = "port-filtered",
    /// The same for the other nodes alone: clients on other machines pass.
    PortFilteredForNodes = "port-filtered-for-nodes",
    /// A person, or a Sentinel that was left running, gives a replica `REPLICAOF NO ONE`.
    PromoteByHand = "promote-by-hand",
    /// `CONFIG SET replica-read-only no` at a replica; set back after the length.
    WritableByHand = "writable-by-hand",
    /// A person makes the master a copy of another, empty Redis.
    StrayByHand = "stray-by-hand",
}

impl FaultKind {
    /// Those that a swarm draws by chance: all but the last sixteen, which need a moment or a profile of their own.
    #[must_use]
    pub fn drawn() -> &'static [Self] {
        Self::ALL.split_last_chunk::<16>().map_or(Self::ALL, |(drawn, _)| drawn)
    }
}

/// Whom a fault meets; roles are looked up when its time comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Node(usize),
    Master(usize),
    /// A member that is not the master.
    Replica(usize),
    Leader,
}

/// A fault and its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    pub at: Span,
    pub kind: FaultKind,
    pub target: Target,
    pub lasts: Span,
    /// For choices inside the fault.
    pub pick: u64,
}

/// Why a line of a plan could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    #[error("a fault needs: AT_NS KIND TARGET LENGTH_NS PICK")]
    Fields,
    #[error("not a number")]
    Number,
    #[error("no fault of that name")]
    Kind,
    #[error("a target is node:N, master:GROUP, replica:GROUP or leader")]
    Target,
}

impl FromStr for FaultKind {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL.iter().copied().find(|k| k.as_str() == text).ok_or(ParseError::Kind)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(n) => write!(f, "node:{n}"),
            Self::Master(g) => write!(f, "master:{g}"),
            Self::Replica(g) => write!(f, "replica:{g}"),
            Self::Leader => f.write_str("leader"),
        }
    }
}

impl FromStr for Target {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "leader" {
            return Ok(Self::Leader);
        }
        let (name, number) = text.split_once(':').ok_or(ParseError::Target)?;
        let number = number.parse().map_err(|_| ParseError::Number)?;
        match name {
            "node" => Ok(Self::Node(number)),
            "master" => Ok(Self::Master(number)),
            "replica" => Ok(Self::Replica(number)),
            _ => Err(ParseError::Target),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, target, lasts, pick } = self;
        write!(f, "{} {} {target} {} {pick}", at.0, kind.as_str(), lasts.0)
    }
}

impl FromStr for Planned {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [at, kind, target, lasts, pick] = fields[..] else {
            return Err(ParseError::Fields);
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| ParseError::Number);
        Ok(Self {
            at: Span(number(at)?),
            kind: kind.parse()?,
            target: target.parse()?,
            lasts: Span(number(lasts)?),
            pick: number(pick)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_back_as_it_was_written() {
        for (i, kind) in FaultKind::ALL.iter().enumerate() {
            let targets = [Target::Node(i), Target::Master(1), Target::Replica(0), Target::Leader];
            for target in targets {
                let fault = Planned { at: Span(17), kind: *kind, target, lasts: Span(4), pick: 99 };
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
    }

    #[test]
    fn a_broken_line_says_what_is_wrong() {
        assert_eq!("1 isolate".parse::<Planned>(), Err(ParseError::Fields));
        assert_eq!("x isolate leader 1 1".parse::<Planned>(), Err(ParseError::Number));
        assert_eq!("1 flood leader 1 1".parse::<Planned>(), Err(ParseError::Kind));
        assert_eq!("1 isolate all 1 1".parse::<Planned>(), Err(ParseError::Target));
    }
}
