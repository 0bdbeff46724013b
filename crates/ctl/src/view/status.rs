//! The status.

use redkeep_proto::admin::v1 as pb;
use serde::Serialize;

use super::{
    text,
    time::{ms, ms_ago, rfc3339},
    word,
};

#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) cluster: Option<String>,
    pub(crate) answered_by: String,
    pub(crate) freshness: FreshnessView,
    pub(crate) server_version: String,
    /// Of the node whose view this is: follower, pre_candidate, candidate, leader.
    pub(crate) role: Option<String>,
    pub(crate) term: u64,
    pub(crate) leader: Option<String>,
    pub(crate) applied: u64,
    pub(crate) committed: u64,
    pub(crate) lease_ttl_ms: Option<u64>,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) groups: Vec<GroupView>,
    pub(crate) problems: Vec<ProblemView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FreshnessView {
    pub(crate) node: String,
    /// leader = as of now; local = that node's own view, which may be old.
    pub(crate) source: Option<String>,
    pub(crate) leader_heard_ago_ms: Option<u64>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) leader: bool,
    pub(crate) witness: bool,
    /// Whether the leader hears it; null where this is not the leader's view.
    pub(crate) heard: Option<bool>,
    pub(crate) heard_ago_ms: Option<u64>,
    pub(crate) applied: Option<u64>,
    /// voter, learner (follows the log and does not vote yet), none.
    pub(crate) vote: Option<String>,
    pub(crate) peer: String,
    pub(crate) admin: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct GroupView {
    pub(crate) name: String,
    pub(crate) vip: String,
    pub(crate) port: u32,
    pub(crate) interface: String,
    pub(crate) epoch: u64,
    pub(crate) master: Option<String>,
    pub(crate) serving: bool,
    pub(crate) cause: Option<String>,
    pub(crate) assigned_index: u64,
    pub(crate) assigned_at: Option<String>,
    pub(crate) assigned_ago_ms: Option<u64>,
    /// At the leader: the longest time the holder's lease may still run.
    pub(crate) lease_left_ms: Option<u64>,
    pub(crate) wait_replicas: u32,
    /// async, strict.
    pub(crate) durability: Option<String>,
    /// `min-replicas-to-write` as Redis was told by the master's node; null where that is not known.
    pub(crate) min_replicas: Option<u32>,
    pub(crate) eligible: Vec<EligibleView>,
    pub(crate) joining: Vec<EligibleView>,
    pub(crate) switchover_to: Option<String>,
    pub(crate) paused_for_ms: Option<u64>,
    pub(crate) hold: Option<HoldView>,
    pub(crate) members: Vec<MemberView>,
    /// How nodes that cannot reach the master's Redis over the network see the members.
    pub(crate) sights: Vec<SightView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SightView {
    pub(crate) by: String,
    pub(crate) node: String,
    /// reached, lost, never.
    pub(crate) state: Option<String>,
    pub(crate) why: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EligibleView {
    pub(crate) node: String,
    pub(crate) run_id: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct HoldView {
    pub(crate) reason: Option<String>,
    pub(crate) text: String,
    pub(crate) left_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReasonView {
    pub(crate) reason: Option<String>,
    pub(crate) text: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct MemberView {
    pub(crate) node: String,
    pub(crate) address: String,
    /// False where the answering node knows nothing of it at first hand.
    pub(crate) known: bool,
    /// unknown, up, doubtful, down.
    pub(crate) health: Option<String>,
    pub(crate) trouble: Option<String>,
    pub(crate) eligible: bool,
    pub(crate) serving_epoch: Option<u64>,
    /// promote, vip, not_answering_at_vip, lock.
    pub(crate) takeover_failure: Option<String>,
    pub(crate) priority: u32,
    pub(crate) fenced: Option<FencedView>,
    pub(crate) excluded: Option<ReasonView>,
    pub(crate) redis: Option<RedisView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FencedView {
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) confirmed_by_target: bool,
    pub(crate) cause: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RedisView {
    pub(crate) run_id: String,
    pub(crate) version: String,
    /// master, replica.
    pub(crate) role: Option<String>,
    pub(crate) follows: Option<String>,
    pub(crate) link_up: Option<bool>,
    pub(crate) read_only: Option<bool>,
    pub(crate) replication_id: String,
    pub(crate) previous_replication_id: Option<String>,
    pub(crate) offset: u64,
    pub(crate) lag_bytes: Option<u64>,
    pub(crate) keys: u64,
    pub(crate) replicas: Vec<AttachedView>,
    /// Ways in that the kernel lock does not guard.
    pub(crate) bypass: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AttachedView {
    pub(crate) address: String,
    pub(crate) online: bool,
    pub(crate) offset: u64,
    pub(crate) lag_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProblemView {
    /// warning, critical.
    pub(crate) severity: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) text: String,
    pub(crate) help: Option<String>,
}

impl From<pb::Status> for StatusView {
    fn from(status: pb::Status) -> Self {
        let role = word(status.role().as_str_name(), "RAFT_ROLE_");
        let pb::Status {
            cluster,
            answered_by,
            freshness,
            server_version,
            role: _,
            term,
            leader,
            applied,
            committed,
            nodes,
            groups,
            problems,
            spec,
        } = status;
        Self {
            cluster: text(cluster),
            answered_by,
            freshness: freshness.unwrap_or_default().into(),
            server_version,
            role,
            term,
            leader: text(leader),
            applied,
            committed,
            lease_ttl_ms: spec.and_then(|s| s.timing).and_then(|t| t.lease_ttl).map(ms),
            nodes: nodes.into_iter().map(NodeView::from).collect(),
            groups: groups.into_iter().map(GroupView::from).collect(),
            problems: problems.into_iter().map(ProblemView::from).collect(),
        }
    }
}

impl From<pb::Freshness> for FreshnessView {
    fn from(freshness: pb::Freshness) -> Self {
        let source = word(freshness.source().as_str_name(), "FRESHNESS_SOURCE_");
        let pb::Freshness { node, source: _, leader_heard_ago, note } = freshness;
        Self { node, source, leader_heard_ago_ms: leader_heard_ago.map(ms), note: text(note) }
    }
}

impl From<pb::NodeStatus> for NodeView {
    fn from(node: pb::NodeStatus) -> Self {
        let vote = word(node.vote().as_str_name(), "VOTE_");
        let pb::NodeStatus {
            name,
            id: _,
            leader,
            witness,
            observed,
            heard_ago,
            applied,
            admin,
            peer,
            heard,
            vote: _,
        } = node;
        Self {
            name,
            leader,
            witness,
            heard: observed.then_some(heard),
            heard_ago_ms: heard_ago.map(ms),
            applied: observed.then_some(applied),
            vote,
            peer,
            admin,
        }
    }
}

impl From<pb::GroupStatus> for GroupView {
    fn from(group: pb::GroupStatus) -> Self {
        let cause = word(group.cause().as_str_name(), "CAUSE_");
        let durability = word(group.durability().as_str_name(), "DURABILITY_");
        let pb::GroupStatus {
            name,
            epoch,
            master,
            cause: _,
            assigned_at,
            assigned_time,
            serving,
            eligible,
            joining,
            wait_replicas,
            switchover_to,
            paused_for,
            lease_left,
            members,
            hold,
            vip,
            port,
            interface,
            durability: _,
            min_replicas,
            sights,
        } = group;
        Self {
            name,
            vip,
            port,
            interface,
            epoch,
            master: text(master),
            serving,
            cause,
            assigned_index: assigned_at,
            assigned_at: assigned_time.map(rfc3339),
            assigned_ago_ms: assigned_time.and_then(ms_ago),
            lease_left_ms: lease_left.map(ms),
            wait_replicas,
            durability,
            min_replicas,
            eligible: eligible.into_iter().map(EligibleView::from).collect(),
            joining: joining.into_iter().map(EligibleView::from).collect(),
            switchover_to: text(switchover_to),
            paused_for_ms: paused_for.map(ms),
            hold: hold.map(HoldView::from),
            members: members.into_iter().map(MemberView::from).collect(),
            sights: sights.into_iter().map(SightView::from).collect(),
        }
    }
}

impl From<pb::Sight> for SightView {
    fn from(sight: pb::Sight) -> Self {
        let state = word(sight.state().as_str_name(), "SIGHT_STATE_");
        Self { by: sight.by, node: sight.node, state, why: text(sight.why) }
    }
}

impl From<pb::EligibleMember> for EligibleView {
    fn from(pb::EligibleMember { node, run_id }: pb::EligibleMember) -> Self {
        Self { node, run_id }
    }
}

impl From<pb::Hold> for HoldView {
    fn from(hold: pb::Hold) -> Self {
        let reason = word(hold.reason().as_str_name(), "HOLD_REASON_");
        Self { reason, text: hold.text, left_ms: hold.left.map(ms) }
    }
}

impl From<pb::Exclusion> for ReasonView {
    fn from(why: pb::Exclusion) -> Self {
        let reason = word(why.reason().as_str_name(), "EXCLUSION_REASON_");
        Self { reason, text: why.text }
    }
}

impl From<pb::MemberStatus> for MemberView {
    fn from(member: pb::MemberStatus) -> Self {
        let health = word(member.health().as_str_name(), "REDIS_HEALTH_");
        let takeover_failure = word(member.takeover_failure().as_str_name(), "TAKEOVER_FAILURE_");
        let pb::MemberStatus {
            node,
            known,
            health: _,
            redis,
            trouble,
            fenced,
            serving,
            excluded,
            priority,
            address,
            eligible,
            takeover_failure: _,
        } = member;
        Self {
            node,
            address,
            known,
            health,
            trouble: text(trouble),
            eligible,
            serving_epoch: serving,
            takeover_failure,
            priority,
            fenced: fenced.map(FencedView::from),
            excluded: excluded.map(ReasonView::from),
            redis: redis.map(RedisView::from),
        }
    }
}

impl From<pb::Fenced> for FencedView {
    fn from(fenced: pb::Fenced) -> Self {
        let cause = word(fenced.cause().as_str_name(), "FENCE_CAUSE_");
        let pb::Fenced { epoch, offset, confirmed_by_target, cause: _ } = fenced;
        Self { epoch, offset, confirmed_by_target, cause }
    }
}

impl From<pb::Redis> for RedisView {
    fn from(redis: pb::Redis) -> Self {
        let is_replica = redis.role() == pb::RedisRole::Replica;
        let role = word(redis.role().as_str_name(), "REDIS_ROLE_");
        let pb::Redis {
            run_id,
            role: _,
            follows,
            link_up,
            read_only,
            replication_id,
            offset,
            keys,
            version,
            replicas,
            settled: _,
            lag_bytes,
            previous_replication_id,
            previous_until_offset: _,
            bypass,
        } = redis;
        Self {
            run_id,
            version,
            role,
            follows: text(follows),
            link_up: is_replica.then_some(link_up),
            read_only: is_replica.then_some(read_only),
            replication_id,
            previous_replication_id: text(previous_replication_id),
            offset,
            lag_bytes,
            keys,
            replicas: replicas.into_iter().map(AttachedView::from).collect(),
            bypass,
        }
    }
}

impl From<pb::AttachedReplica> for AttachedView {
    fn from(replica: pb::AttachedReplica) -> Self {
        let pb::AttachedReplica { address, online, offset, lag } = replica;
        Self { address, online, offset, lag_ms: lag.map(ms) }
    }
}

impl From<pb::Problem> for ProblemView {
    fn from(problem: pb::Problem) -> Self {
        let severity = word(problem.severity().as_str_name(), "SEVERITY_");
        let pb::Problem { severity: _, group, node, text: told, help } = problem;
        Self { severity, group: text(group), node: text(node), text: told, help: text(help) }
    }
}
