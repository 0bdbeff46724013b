//! Why nothing moves, and why a candidate is passed over. Every refusal and every wait has one (invariant 8).

use redkeep_consensus::Span;

use crate::observe::Bypass;

/// Why the planner waits for a group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum HoldReason {
    #[error("paused by an operator")]
    Paused,
    #[error("the old master's lease may still run for {left}")]
    OldLease { left: Span },
    #[error("waiting for the old master's node to fence (at most {left})")]
    AwaitingFence { left: Span },
    #[error(
        "the switchover's target did not confirm the final offset, and the old master's Redis misses its probes"
    )]
    OldMasterDoubtful,
    #[error("no eligible replica is up")]
    NoCandidate,
    #[error("first start: not all members have reported yet")]
    AdoptionIncomplete,
    #[error(
        "first start: {masters} members are masters with data; name the one to keep with `redkeepctl failover GROUP --to NODE --allow-data-loss`"
    )]
    AdoptionAmbiguous { masters: usize },
    #[error("first start: no member is a master")]
    AdoptionNoMaster,
    #[error(
        "the adopted master never served under the lock; its port may be unguarded, so no other is named"
    )]
    AdoptedNotGuarded,
    #[error("cold start: waiting for members that have not reported (at most {left})")]
    ColdStart { left: Span },
    #[error("the only candidate is empty and another data set is not")]
    EmptyDataSet,
    #[error("the only candidate has an older data set than a member that is not eligible")]
    OlderDataSet,
    #[error(
        "cold start: nothing tells which of the data sets of {nodes} is newer; name the one to keep with `redkeepctl failover GROUP --to NODE --allow-data-loss`"
    )]
    UnrelatedDataSets { nodes: String },
    #[error(
        "the last master's Redis became a copy of another Redis, and no eligible replica has the group's data"
    )]
    OtherHistory,
    #[error(
        "an automatic failover happened less than the cooldown ago ({left} left; `redkeepctl acknowledge` ends it)"
    )]
    Cooldown { left: Span },
    #[error(
        "{failing} groups fail at once, and more than {limit} are not failed over before somebody has looked: then `redkeepctl acknowledge`"
    )]
    MassFailure { failing: usize, limit: u32 },
    #[error("a decision is in flight")]
    InFlight,
    #[error("a leadership transfer is under way")]
    LeadershipTransfer,
    #[error("the new master has {left} left to start serving")]
    TakeoverRunning { left: Span },
    #[error("Redis at {node} can be reached around the lock: {}", Bypass::tell(.open))]
    Bypass { node: String, open: Vec<Bypass> },
    #[error("{by} cannot reach Redis at {node}: its node is asked to fence (at most {left})")]
    FencingUnreached { node: String, by: String, left: Span },
    #[error("{by} cannot reach Redis at {node}, and no eligible replica that they reach")]
    Unreached { node: String, by: String },
}

impl HoldReason {
    /// Only an operator ends it, by naming a master.
    #[must_use]
    pub const fn needs_operator(&self) -> bool {
        match self {
            Self::NoCandidate
            | Self::AdoptionAmbiguous { .. }
            | Self::AdoptionNoMaster
            | Self::AdoptedNotGuarded
            | Self::EmptyDataSet
            | Self::OlderDataSet
            | Self::UnrelatedDataSets { .. }
            | Self::OtherHistory
            | Self::Bypass { .. } => true,
            Self::Paused
            | Self::OldLease { .. }
            | Self::AwaitingFence { .. }
            | Self::OldMasterDoubtful
            | Self::AdoptionIncomplete
            | Self::ColdStart { .. }
            | Self::Cooldown { .. }
            | Self::MassFailure { .. }
            | Self::InFlight
            | Self::LeadershipTransfer
            | Self::TakeoverRunning { .. }
            | Self::FencingUnreached { .. }
            // The way may open again, and the master serves whoever reaches it.
            | Self::Unreached { .. } => false,
        }
    }
}

/// The rule that excludes a candidate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Exclusion {
    #[error("it is not in the committed eligible set")]
    NotEligible,
    #[error("its Redis restarted since it became eligible")]
    Restarted,
    #[error("its supervisor does not report")]
    SupervisorSilent,
    #[error("its Redis is down")]
    RedisDown,
    #[error("its Redis has not been probed yet")]
    NotProbed,
    #[error("its priority is 0 (never)")]
    NeverPromote,
    #[error(
        "its data set has another history: not what the master last served, or not known to be"
    )]
    OtherHistory,
    #[error("its data set is empty")]
    Empty,
    #[error("it is the master now")]
    IsMaster,
    #[error("its link to the master is down")]
    LinkDown,
    #[error("its Redis can be reached around the lock: {}", Bypass::tell(.open))]
    Bypass { open: Vec<Bypass> },
    #[error("the kernel lock of its host cannot be worked")]
    Lock,
}
