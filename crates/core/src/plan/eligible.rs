//! The committed eligible set: who joins it, and what must be known before.
//!
//! Joining (ADR on the eligible set): WAIT's n rises first (`joining` is committed and applied at the master's node), then the
//! newcomer's acknowledged offset passes the master's offset read after that, then the set with it commits. A restarted
//! Redis leaves by itself, since members are (node, `run_id`). Lagging members leave through the renewal that lists them.

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    model::GroupModel,
    observe::{AttachedReplica, EligibleMember, RedisObservation, RedisRole, RedisView},
    plan::candidate::Candidates,
    spec::{ClusterSpec, GroupSpec},
};

/// A replica that acknowledges each second has done so after a mark of this age, if its last acknowledgement is no older than a
/// second: in whole seconds, and seen a probe ago.
const ACKNOWLEDGED_SINCE: Span = Span::from_secs(3);

/// A data set that was emptied on purpose counts as none after so long. Many groups are empty now and then: not each time is written down.
const EMPTY_AFTER: Span = Span::from_secs(60);

/// By newcomer.
pub type JoinMarks = BTreeMap<EligibleMember, JoinMark>;

/// What a newcomer must pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinMark {
    /// The master's offset, read when its node knew of the newcomer.
    pub offset: u64,
    /// When it was told.
    pub at: Mono,
}

/// The next `Eligible` command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EligibleChange {
    pub members: Vec<EligibleMember>,
    pub joining: Vec<EligibleMember>,
    pub has_data: bool,
}

/// A change of the eligible set that is due, if one is.
#[must_use]
pub fn change(
    c: &Candidates<'_>,
    cluster: &ClusterSpec,
    (marks, empty_for): (&JoinMarks, Span),
) -> Option<EligibleChange> {
    let master_node = c.group.master()?;
    let RedisView::Up(master) = &c.report(master_node)?.redis else { return None };
    // Of what somebody put in its place nobody is a good copy.
    if !master.is_master() || c.is_stray(master_node) {
        return None;
    }
    let mut members = c.group.eligible.clone();
    let mut joining = Vec::new();
    members.retain(|m| still_alive(c, m));
    for m in &c.spec.members {
        if m.node == master_node {
            continue;
        }
        let Some((id, newcomer)) = follows(c, cluster, m.node, master) else { continue };
        if members.contains(&id) {
            continue;
        }
        let was_joining = c.group.joining.contains(&id);
        let lacks = master.offset.saturating_sub(newcomer.offset);
        let is_near = is_within(lacks, c.spec.max_lag_bytes / 2, c.spec);
        let passed = marks.get(&id).is_some_and(|mark| newcomer.has_passed(*mark, c.now_boot));
        if was_joining && passed && is_near {
            members.push(id);
        } else if is_near || was_joining && is_within(lacks, c.spec.max_lag_bytes, c.spec) {
            joining.push(id);
        }
    }
    members.sort();
    joining.sort();
    let has_data = master.keys > 0 || c.group.has_data && empty_for < EMPTY_AFTER;
    let changed =
        members != c.group.eligible || joining != c.group.joining || has_data != c.group.has_data;
    changed.then_some(EligibleChange { members, joining, has_data })
}

/// A newcomer is near at half of what a member may lack, so that it does not come and go.
fn is_within(lacks: u64, limit: u64, spec: &GroupSpec) -> bool {
    spec.max_lag_bytes == 0 || lacks <= limit
}

/// False when its own node says that this life of Redis is over, or has the data of another.
fn still_alive(c: &Candidates<'_>, m: &EligibleMember) -> bool {
    match c.report(m.node).map(|r| &r.redis) {
        Some(RedisView::Up(o) | RedisView::Doubtful(o, _)) => {
            o.run_id == m.run_id && !c.is_stray(m.node) && !c.is_emptied(o)
        }
        Some(RedisView::Down(_)) => false,
        Some(RedisView::Unknown) | None => true,
    }
}

/// How far a newcomer is.
struct Progress {
    offset: u64,
    /// What the master knows of it; 0 before its first acknowledgement, which Redis sends once a second, and where nothing was
    /// ever written.
    acknowledged: u64,
    /// Since its last acknowledgement.
    lag: Span,
}

impl Progress {
    /// After a full sync the master may hold the stream back until the first acknowledgement (`repl_start_cmd_stream_on_ack`),
    /// while it shows the replica as online: so being there is not enough, the stream must have been seen to flow.
    fn has_passed(&self, mark: JoinMark, now: Mono) -> bool {
        let acknowledges =
            now.since(mark.at) >= ACKNOWLEDGED_SINCE && self.lag <= Span::from_secs(1);
        self.offset > mark.offset
            || (self.offset == mark.offset && (self.acknowledged > 0 || acknowledges))
    }
}

/// A replica that follows the master's present data set closely.
fn follows(
    c: &Candidates<'_>,
    cluster: &ClusterSpec,
    node: NodeId,
    master: &RedisObservation,
) -> Option<(EligibleMember, Progress)> {
    let RedisView::Up(redis) = &c.report(node)?.redis else { return None };
    let RedisRole::Replica { link_up, .. } = &redis.role else { return None };
    if !link_up || !redis.settled || redis.replication_id != master.replication_id {
        return None;
    }
    let near = attached(master, cluster, node).filter(|r| r.lag <= c.spec.max_lag);
    let line = near.max_by_key(|r| r.offset)?;
    let id = EligibleMember { node, run_id: redis.run_id.clone() };
    Some((id, Progress { offset: redis.offset, acknowledged: line.offset, lag: line.lag }))
}

/// A node's replicas at the master that are online.
fn attached<'a>(
    master: &'a RedisObservation,
    cluster: &ClusterSpec,
    node: NodeId,
) -> impl Iterator<Item = &'a AttachedReplica> + use<'a> {
    lines(master, cluster, node).filter(|r| r.online)
}

/// A node's replicas at the master; the line of a dead connection may stand beside that of a living one.
pub(crate) fn lines<'a>(
    master: &'a RedisObservation,
    cluster: &ClusterSpec,
    node: NodeId,
) -> impl Iterator<Item = &'a AttachedReplica> + use<'a> {
    let ip = cluster.node(node).map(|n| n.peer.ip());
    master.replicas.iter().filter(move |r| Some(r.addr) == ip)
}

/// Members of the set that are attached, and the offset that each has acknowledged.
#[must_use]
pub fn acknowledged(
    group: &GroupModel,
    cluster: &ClusterSpec,
    master: &RedisObservation,
) -> Vec<(EligibleMember, u64)> {
    let offset = |m: &EligibleMember| {
        let offsets = attached(master, cluster, m.node).map(|r| r.offset);
        offsets.max().map(|offset| (m.clone(), offset))
    };
    group.eligible.iter().filter_map(offset).collect()
}

/// Members of the set that are not close to the master, as the master's node sees it, and for how long that is known:
/// Redis counts it while the link stands.
#[must_use]
pub fn far_members(
    group: &GroupModel,
    cluster: &ClusterSpec,
    max_lag: Span,
    master: &RedisObservation,
) -> Vec<(EligibleMember, Span)> {
    let far = |m: &EligibleMember| {
        let lag = attached(master, cluster, m.node).map(|r| r.lag).min();
        lag.is_none_or(|lag| lag > max_lag).then(|| (m.clone(), lag.unwrap_or_default()))
    };
    group.eligible.iter().filter_map(far).collect()
}
