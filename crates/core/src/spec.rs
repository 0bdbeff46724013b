//! What the cluster is told to be: nodes, groups, timings. Replicated; seeded once from the configuration file.

use core::net::{IpAddr, SocketAddr};

use redkeep_consensus::{NodeId, Span};

use crate::ids::GroupId;

/// Everything that must agree on all nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterSpec {
    pub name: String,
    pub timing: Timing,
    /// While more groups than this fail at once, nobody fails over by itself; 0 = no such brake.
    pub mass_failure_limit: u32,
    pub nodes: Vec<NodeSpec>,
    pub groups: Vec<GroupSpec>,
}

/// Cluster-wide times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Longest lease that is granted; a holder arms [`Timing::armed_ttl`] of it.
    pub lease_ttl: Span,
    /// Largest difference of two hosts' clock rates, in parts per million (default 100 000 = 10 %).
    pub max_clock_drift_ppm: u64,
    /// Added to every wait for another's lease: jiffies, not a clock, end the kernel's timers. At least 25 ms.
    pub margin: Span,
    /// How long a switchover may take before it is aborted.
    pub switchover_timeout: Span,
    /// How long a new master may take from its assignment to `Serving` before another is tried.
    pub takeover_timeout: Span,
    /// How long a start without any master waits for members that do not report.
    pub cold_start_wait: Span,
    /// Least time between two automatic failovers of a group; zero switches the brake off.
    pub failover_cooldown: Span,
}

impl Timing {
    /// How long a holder's renewals are apart. A third: one may be lost, or a leader, and the next still comes in time.
    #[must_use]
    pub fn renew_interval(&self) -> Span {
        Span(self.lease_ttl.0 / 3)
    }

    /// The lease that a holder arms and asks for: 95 % of `lease_ttl`. A host can die right after a grant, and then the
    /// others wait all of it; what is left out here is time for the move (ADR 0025).
    #[must_use]
    pub fn armed_ttl(&self) -> Span {
        Span(self.lease_ttl.0 - self.lease_ttl.0 / 20)
    }

    /// A node not heard for longer is silent.
    #[must_use]
    pub fn silent_after(&self) -> Span {
        Span(self.lease_ttl.0.max(300_000_000))
    }

    /// How long others must wait for a lease of `ttl` that was granted now: `ttl * (1 + drift) + margin` (L3).
    #[must_use]
    pub fn wait_for(&self, ttl: Span) -> Span {
        let drift = u128::from(ttl.0) * u128::from(self.max_clock_drift_ppm) / 1_000_000;
        Span(
            ttl.0
                .saturating_add(u64::try_from(drift).unwrap_or(u64::MAX))
                .saturating_add(self.margin.0),
        )
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    pub id: NodeId,
    pub name: String,
    /// Where its supervisor answers peers; Redis of a member answers at the same host.
    pub peer: SocketAddr,
    /// Where its supervisor answers operators.
    pub admin: SocketAddr,
    /// It joined a running cluster, so it has no membership of its own to start from.
    pub added: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSpec {
    pub id: GroupId,
    /// TCP port of Redis, the same on all members.
    pub port: u16,
    pub vip: Vip,
    /// Link that carries the VIP.
    pub interface: String,
    pub members: Vec<Member>,
    pub probe: ProbeTiming,
    /// A replica without an acknowledgement for longer leaves the eligible set.
    pub max_lag: Span,
    /// A replica that lacks more bytes of what the master had two seconds ago leaves the eligible set; 0 = no such rule.
    pub max_lag_bytes: u64,
    /// `min-replicas-to-write` while serving; 0 unless asked for.
    pub min_replicas_to_write: u32,
    pub durability: Durability,
}

/// What a master does whose replicas are not attached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Durability {
    /// It takes writes.
    Async,
    /// It refuses them until the members of the eligible set that are missing have left it by commit.
    Strict,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Vip {
    pub addr: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    pub node: NodeId,
    /// Higher is preferred among equals; 0 = never promoted without being named.
    pub priority: u32,
}

/// How the local Redis is probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeTiming {
    pub interval: Span,
    pub timeout: Span,
    /// Failed probes in a row that make a hung Redis down. A dead process is seen without any.
    pub fall: u32,
    /// How long `-LOADING` is waited for.
    pub loading_timeout: Span,
}

impl ProbeTiming {
    /// Longest time from the hang to "down".
    #[must_use]
    pub fn hung_after(&self) -> Span {
        Span(self.interval.0 + self.timeout.0 * u64::from(self.fall))
    }
}

impl ClusterSpec {
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeSpec> {
        self.nodes.iter().find(|n| n.id == id)
    }
    #[must_use]
    pub fn group(&self, id: &GroupId) -> Option<&GroupSpec> {
        self.groups.iter().find(|g| g.id == *id)
    }
    /// Name for display; the number where the node is unknown.
    #[must_use]
    pub fn node_name(&self, id: NodeId) -> String {
        self.node(id).map_or_else(|| format!("node-{:x}", id.0), |n| n.name.clone())
    }
    /// Where the Redis of `node` in `group` answers.
    #[must_use]
    pub fn redis_addr(&self, node: NodeId, group: &GroupSpec) -> Option<SocketAddr> {
        self.node(node).map(|n| SocketAddr::new(n.peer.ip(), group.port))
    }
}

impl GroupSpec {
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.members.iter().any(|m| m.node == node)
    }
    #[must_use]
    pub fn priority(&self, node: NodeId) -> u32 {
        self.members.iter().find(|m| m.node == node).map_or(0, |m| m.priority)
    }
}
