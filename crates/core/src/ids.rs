//! Identities. Every id, epoch and counter has a type of its own, so that none is taken for another.

use std::{fmt, sync::Arc};

use redkeep_consensus::{Mono, NodeId};

/// Name of a replication group; unique in the cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(Arc<str>);

impl GroupId {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `run_id` of one life of a Redis process (`INFO server`): a restarted Redis has another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RunId(Arc<str>);

impl RunId {
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a committed assignment of a group's master; each is one higher than the last. 0 = none yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const NONE: Self = Self(0);
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One arming of the kernel's timer (lease rule L1): the supervisor's durable incarnation and a counter.
/// Never reused; it is in the request and in the grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ArmId {
    pub incarnation: u64,
    pub counter: u64,
}

/// Which of the two timer/gate pairs in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Generation {
    A,
    B,
}

impl Generation {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Id of an operator's request, given by the daemon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// The clocks at one instant, read after the input was taken from its queue (lease rule L8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// CLOCK_BOOTTIME: judges what this host holds; goes on through suspend.
    pub boot: Mono,
    /// CLOCK_MONOTONIC_RAW: judges how long others are waited for; not slewed, and its lag in suspend only waits longer.
    pub raw: Mono,
    /// Wall clock, milliseconds since 1970; for display only.
    pub unix_ms: u64,
}

/// Node id from its name: FNV-1a, so that the order of the configuration file carries no meaning.
#[must_use]
pub fn node_id(name: &str) -> NodeId {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    NodeId(hash.max(1))
}
