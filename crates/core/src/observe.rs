//! What was seen: of the local Redis by its agent, and of a node by the leader. Perishable, never in the log.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU64;

use redkeep_consensus::{NodeId, Span};

use crate::{
    ids::{Epoch, GroupId, RunId},
    lineage::Lineage,
};

/// One successful probe of a Redis (`INFO`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisObservation {
    pub run_id: RunId,
    pub role: RedisRole,
    /// `master_replid`.
    pub replication_id: String,
    /// `master_replid2` and `second_repl_offset`, if it was a replica before.
    pub previous: Option<PreviousHistory>,
    /// `master_repl_offset` of a master, `slave_repl_offset` of a replica; bytes.
    pub offset: u64,
    /// Keys in all databases.
    pub keys: u64,
    /// First offset that a replica can still go on from, without a full copy; bytes.
    pub backlog_from: Option<NonZeroU64>,
    /// Replicas attached to this master.
    pub replicas: Vec<AttachedReplica>,
    pub version: String,
    /// Every write is kept in an append-only file (`aof_enabled`).
    pub append_only: bool,
    /// Every role-changing command sent so far was answered (lease-review R6).
    pub settled: bool,
    /// Ways in that the kernel lock does not guard: none, where all is well.
    pub bypass: Vec<Bypass>,
}

impl RedisObservation {
    fn without_progress(&self) -> Self {
        let replicas = self.replicas.iter();
        let replicas = replicas.map(|r| AttachedReplica { offset: 0, lag: Span(0), ..r.clone() });
        let backlog_from = self.backlog_from.map(|_| NonZeroU64::MIN);
        Self { offset: 0, keys: 0, backlog_from, replicas: replicas.collect(), ..self.clone() }
    }
}

/// A way into a Redis around the kernel lock, which is by port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bypass {
    /// It listens on another port than the group's: `tls-port`, or a port set at run time.
    Tcp(SocketAddr),
    /// Others than the supervisor and Redis itself may open this socket.
    Unix {
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
    },
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "it listens on {at} besides the group's port"),
            Self::Unix { path, mode, uid } => {
                write!(f, "others may open its unix socket {path} (mode {mode:o}, owner {uid})")
            }
        }
    }
}

impl Bypass {
    /// What closes it now and after the next restart.
    #[must_use]
    fn mend(&self) -> String {
        match self {
            Self::Tcp(_) => {
                "CONFIG SET tls-port 0 (or port back to the group's), the same in redis.conf".into()
            }
            // Nobody but the owner may write: it has the wrong owner.
            Self::Unix { path, mode, .. } if mode & 0o022 == 0 => {
                format!("chown it to the user of Redis: {path}")
            }
            Self::Unix { path, .. } => {
                format!("chmod 700 {path}, and unixsocketperm 700 in redis.conf")
            }
        }
    }

    /// All that is open, in one line.
    #[must_use]
    pub fn tell(open: &[Self]) -> String {
        let each: Vec<String> = open.iter().map(ToString::to_string).collect();
        each.join("; ")
    }

    /// What closes all of it, in one line.
    #[must_use]
    pub fn mends(open: &[Self]) -> String {
        let each: Vec<String> = open.iter().map(Self::mend).collect();
        each.join("; ")
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreviousHistory {
    pub replication_id: String,
    /// First offset that is no longer of that history; bytes.
    pub until_offset: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisRole {
    Master,
    Replica {
        /// As configured in Redis; a name or an address.
        master_host: String,
        master_port: u16,
        link_up: bool,
        /// `slave_read_only`.
        read_only: bool,
    },
}

/// A `slaveN:` line of `INFO replication`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachedReplica {
    pub addr: IpAddr,
    pub port: u16,
    pub online: bool,
    /// Acknowledged offset; bytes.
    pub offset: u64,
    /// Time since its last acknowledgement (whole seconds in Redis).
    pub lag: Span,
}

/// Why a probe failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProbeFailure {
    /// No answer in time: hung, frozen or starved.
    Timeout,
    /// Nobody listens: the process is gone.
    Refused,
    /// The connection ended.
    Closed,
    Loading,
    Busy,
    /// Writes are refused by Redis itself (disk error).
    Misconfigured,
    /// Password or ACL.
    Denied,
    Protocol,
    /// It answers, and holds writes back.
    WritesHeld,
}

/// What a node says of its Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisView {
    /// Not probed since the supervisor started.
    Unknown,
    Up(RedisObservation),
    /// Probes fail, but not yet often or long enough; the last good observation stands.
    Doubtful(RedisObservation, ProbeFailure),
    Down(DownReason),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DownReason {
    /// The process died.
    Dead,
    /// `fall` probes in a row went unanswered.
    Hung,
    LoadingTooLong,
    DiskError,
    Denied,
    Protocol,
    /// It answers, and held writes back at `fall` looks in a row.
    WritesHeld,
}

/// One group in a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReport {
    pub group: GroupId,
    pub redis: RedisView,
    /// The fence that stands, if any (L5).
    pub fenced: Option<Fenced>,
    /// The epoch at which this host serves at the VIP now: gate open, VIP up and announced, Redis answers there.
    pub serving: Option<Epoch>,
    /// Why a takeover at the assigned epoch cannot go on, for display and for the planner.
    pub takeover_failure: Option<TakeoverFailure>,
    /// `min-replicas-to-write` as Redis was told, if it is master here; none also while the answer is not known.
    pub min_replicas: Option<u32>,
    /// Where the data stood when this node last saw its Redis serve.
    pub led: Option<Led>,
}

/// The data set of a master while it serves: what it is later must go on from there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Led {
    pub epoch: Epoch,
    pub data: Lineage,
}

/// A fence that was carried out: gates out in the kernel; epoch burned on disk, unless its life of Redis is over (ADR 0028).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    pub epoch: Epoch,
    /// Last replication offset read; bytes. Of a dead Redis: the last one seen.
    pub offset: u64,
    /// In a switchover: the target had confirmed exactly this offset.
    pub confirmed_by_target: bool,
    pub cause: FenceCause,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FenceCause {
    RedisDead,
    RunIdChanged,
    WrongRole,
    LeaderAsked,
    /// The leader asked for it, since a majority of nodes cannot reach its Redis.
    Unreached,
    Switchover,
    TakeoverFailed,
    Stopping,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TakeoverFailure {
    Promote,
    Vip,
    NotAnsweringAtVip,
    Lock,
}

/// What a node tells the leader: on every change, and at least each renewal interval. Level-triggered: each
/// report stands alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub incarnation: u64,
    pub seq: u64,
    /// Log index this node has applied.
    pub applied: u64,
    pub groups: Vec<GroupReport>,
    /// How the members of groups are seen from here whose master is not reached from here.
    pub sights: Vec<Sight>,
}

/// What a node sees of a Redis on another host, over the network as a client there would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    pub group: GroupId,
    /// The assignment that it was seen in.
    pub epoch: Epoch,
    /// The host of that Redis.
    pub node: NodeId,
    pub seen: Seen,
}

/// How it is seen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Seen {
    Reached,
    /// It was reached before and is not any more; why, for people.
    Lost(String),
    /// It was never reached since the supervisor started there: that says more of the way than of the Redis.
    Never(String),
}

impl Report {
    #[must_use]
    pub fn group(&self, id: &GroupId) -> Option<&GroupReport> {
        self.groups.iter().find(|g| g.group == *id)
    }

    /// `later` differs at most in how far replication has come.
    pub(crate) fn is_but_progress(&self, later: &[GroupReport], sights: &[Sight]) -> bool {
        let still = |g: &GroupReport| {
            let led =
                g.led.clone().map(|led| Led { data: Lineage { offset: 0, ..led.data }, ..led });
            GroupReport { redis: g.redis.without_progress(), led, ..g.clone() }
        };
        self.sights == sights && self.groups.iter().map(still).eq(later.iter().map(still))
    }
}

impl RedisView {
    fn without_progress(&self) -> Self {
        match self {
            Self::Up(seen) => Self::Up(seen.without_progress()),
            Self::Doubtful(seen, failure) => Self::Doubtful(seen.without_progress(), *failure),
            Self::Unknown | Self::Down(_) => self.clone(),
        }
    }

    /// The newest observation that still says something about the data.
    #[must_use]
    pub fn observation(&self) -> Option<&RedisObservation> {
        match self {
            Self::Up(o) | Self::Doubtful(o, _) => Some(o),
            Self::Unknown | Self::Down(_) => None,
        }
    }
}

impl RedisObservation {
    #[must_use]
    pub fn is_master(&self) -> bool {
        matches!(self.role, RedisRole::Master)
    }
    /// A client that gets in can write.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !matches!(self.role, RedisRole::Replica { read_only: true, .. })
    }
    #[must_use]
    pub fn link_up(&self) -> bool {
        matches!(self.role, RedisRole::Replica { link_up: true, .. })
    }
    /// Where its data set stands.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        Lineage {
            replication_id: self.replication_id.clone(),
            previous: self.previous.clone(),
            offset: self.offset,
        }
    }
}

/// A member of the eligible set: this life of this Redis.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EligibleMember {
    pub node: NodeId,
    pub run_id: RunId,
}
