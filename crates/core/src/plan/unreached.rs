//! A master that its own node finds well and that a majority of nodes cannot reach over the network.
//!
//! Clients are where the others are, not where the master is: so it is moved, as in a switchover (its node is heard, and fences
//! at once), to a replica that the same majority reaches. One node that does not reach it is no majority of three: a cut between
//! two hosts moves nothing. A node that never reached it says more of a filter in its own way than of the master, and counts for
//! nothing. Nor does what was seen while the port was closed by our own lock, which looks the same from outside: the master's node
//! must have served, and found its Redis well, for longer than an old sight can live.

use redkeep_consensus::{NodeId, Span};

use crate::{
    model::Assignment,
    observe::{RedisView, Seen},
    plan::candidate::{Candidate, Candidates},
    spec::ClusterSpec,
};

/// The master that no majority reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreached {
    /// Those that lost it, in the order of the spec.
    pub by: Vec<NodeId>,
    needed: usize,
}

impl Unreached {
    /// "b and w".
    #[must_use]
    pub fn names(&self, cluster: &ClusterSpec) -> String {
        let names: Vec<String> = self.by.iter().map(|n| cluster.node_name(*n)).collect();
        names.join(" and ")
    }

    /// A majority of all nodes lost the master and reaches this one; its own node need not look.
    #[must_use]
    pub fn is_reached(&self, c: &Candidates<'_>, candidate: NodeId) -> bool {
        let reaches = |by: &&NodeId| {
            **by == candidate || matches!(seen(c, **by, candidate), Some(Seen::Reached))
        };
        self.by.iter().filter(reaches).count() >= self.needed
    }

    /// The best that may be promoted and is reached.
    #[must_use]
    pub fn best(&self, c: &Candidates<'_>) -> Option<Candidate> {
        c.ranked().into_iter().find(|x| self.is_reached(c, x.node))
    }
}

/// The master serves, says its own node, and has for a while without a break.
#[must_use]
pub fn is_well(c: &Candidates<'_>, a: &Assignment) -> bool {
    let report = c.report(a.master);
    a.serving
        && report.is_some_and(|r| {
            r.serving == Some(a.epoch) && matches!(r.redis, RedisView::Up(_)) && r.fenced.is_none()
        })
}

/// How long [`is_well`] must have held. A node that lost a Redis looks again and again, so what it saw before is mended by then.
#[must_use]
pub fn well_enough_after(c: &Candidates<'_>) -> Span {
    let probe = &c.spec.probe;
    Span(3 * (probe.interval.0 + probe.timeout.0))
}

/// A majority of all nodes lost the master of this epoch. Who is not heard says nothing.
#[must_use]
pub fn by_majority(c: &Candidates<'_>, cluster: &ClusterSpec) -> Option<Unreached> {
    let master = c.group.master()?;
    let nodes = cluster.nodes.iter().map(|n| n.id).filter(|n| *n != master);
    let lost = |by: &NodeId| matches!(seen(c, *by, master), Some(Seen::Lost(_)));
    let by: Vec<NodeId> = nodes.filter(lost).collect();
    let needed = cluster.nodes.len() / 2 + 1;
    (by.len() >= needed).then_some(Unreached { by, needed })
}

/// How the Redis of `node` is seen by another node, if that is heard and has told it.
fn seen<'a>(c: &Candidates<'a>, by: NodeId, node: NodeId) -> Option<&'a Seen> {
    let mut sights = c.heard(by)?.sights.iter();
    let of = sights.find(|s| s.group == c.spec.id && s.node == node)?;
    (of.epoch == c.group.epoch()).then_some(&of.seen)
}
