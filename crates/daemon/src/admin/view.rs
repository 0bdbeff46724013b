//! One node's view of the cluster, for operators.

use std::sync::Arc;

use redkeep_consensus::Role;
use redkeep_core::{
    NodeId, Span,
    command::Cause,
    model::{Record, RecordKind},
    observe::{
        AttachedReplica, DownReason, FenceCause, Fenced, ProbeFailure, RedisObservation, RedisRole,
        RedisView, Seen, Sight, TakeoverFailure,
    },
    spec::{ClusterSpec, GroupSpec, NodeSpec},
    status::{GroupStatus, MemberStatus, NodeStatus, StatusView},
};
use redkeep_proto::admin::v1 as pb;

use super::{
    outcome::{exclusion, hold},
    problems,
    spec::{cluster, vip},
    time::{duration, span, unix_ms},
};

/// A view with what is needed to write it down.
#[derive(Clone)]
pub(super) struct View {
    pub(super) me: String,
    pub(super) status: Arc<StatusView>,
    pub(super) history: Arc<Vec<Record>>,
    pub(super) leader_heard_ago: Option<std::time::Duration>,
}

impl View {
    pub(super) fn leads(&self) -> bool {
        self.status.role == Role::Leader
    }

    pub(super) fn spec(&self) -> Option<&ClusterSpec> {
        self.status.cluster.as_ref()
    }

    pub(super) fn name(&self, node: NodeId) -> String {
        self.spec().map_or_else(
            || {
                if node == self.status.node {
                    self.me.clone()
                } else {
                    format!("node-{:x}", node.0)
                }
            },
            |spec| spec.node_name(node),
        )
    }

    /// `note`: why the leader did not answer.
    pub(super) fn freshness(&self, note: String) -> pb::Freshness {
        let source =
            if self.leads() { pb::FreshnessSource::Leader } else { pb::FreshnessSource::Local };
        pb::Freshness {
            node: self.me.clone(),
            source: source.into(),
            leader_heard_ago: if self.leads() { None } else { self.leader_heard_ago.map(duration) },
            note,
        }
    }

    /// The whole status; only `group`'s part where it is named.
    pub(super) fn to_proto(&self, group: &str, note: String) -> pb::Status {
        let StatusView {
            node: _,
            cluster: spec,
            role,
            term,
            leader,
            applied,
            committed,
            voters: _,
            learners: _,
            nodes: _,
            groups,
        } = &*self.status;
        let wanted = |name: &str| group.is_empty() || group == name;
        pb::Status {
            cluster: spec.as_ref().map_or_else(String::new, |s| s.name.clone()),
            answered_by: self.me.clone(),
            freshness: Some(self.freshness(note)),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            role: raft_role(*role).into(),
            term: *term,
            leader: leader.map_or_else(String::new, |l| self.name(l)),
            applied: *applied,
            committed: *committed,
            nodes: spec
                .as_ref()
                .map_or_else(Vec::new, |s| s.nodes.iter().map(|n| self.node(s, n)).collect()),
            groups: groups
                .iter()
                .filter(|g| wanted(g.group.as_str()))
                .map(|g| self.group(g))
                .collect(),
            problems: problems::of(self)
                .into_iter()
                .filter(|p| p.group.is_empty() || wanted(&p.group))
                .collect(),
            spec: spec.as_ref().map(cluster),
        }
    }

    fn node(&self, spec: &ClusterSpec, node: &NodeSpec) -> pb::NodeStatus {
        let NodeSpec { id, name, peer, admin, added: _ } = node;
        let seen = self.status.nodes.iter().find(|n| n.node == *id);
        pb::NodeStatus {
            name: name.clone(),
            id: id.0,
            leader: self.status.leader == Some(*id),
            witness: !spec.groups.iter().any(|g| g.is_member(*id)),
            observed: self.leads(),
            heard_ago: seen.and_then(|n| n.heard_ago).map(span),
            applied: seen.map_or(0, |n| n.applied),
            admin: admin.to_string(),
            peer: peer.to_string(),
            heard: seen.is_some_and(|n| is_heard(spec, n)),
            vote: self.vote(*id).into(),
        }
    }

    fn vote(&self, node: NodeId) -> pb::Vote {
        if self.status.voters.contains(&node) {
            pb::Vote::Voter
        } else if self.status.learners.contains(&node) {
            pb::Vote::Learner
        } else {
            pb::Vote::None
        }
    }

    pub(super) fn group(&self, status: &GroupStatus) -> pb::GroupStatus {
        let GroupStatus {
            group,
            epoch,
            master,
            cause,
            assigned_at,
            serving,
            eligible,
            joining,
            wait_replicas,
            switchover_to,
            paused_for,
            paused_with_all: _,
            lease_left,
            members,
            hold: why,
            durability,
            min_replicas,
            sights,
        } = status;
        let spec = self.spec().and_then(|s| s.group(group));
        let master_offset = master
            .and_then(|m| members.iter().find(|s| s.node == m))
            .and_then(|m| m.redis.observation())
            .map(|o| o.offset);
        let set = |members: &[redkeep_core::observe::EligibleMember]| {
            members
                .iter()
                .map(|m| pb::EligibleMember {
                    node: self.name(m.node),
                    run_id: m.run_id.to_string(),
                })
                .collect()
        };
        pb::GroupStatus {
            name: group.to_string(),
            epoch: epoch.0,
            master: master.map_or_else(String::new, |m| self.name(m)),
            cause: cause.map_or(pb::Cause::Unspecified, assigned_because).into(),
            assigned_at: *assigned_at,
            assigned_time: self.assigned_unix_ms(*assigned_at).map(unix_ms),
            serving: *serving,
            eligible: set(eligible),
            joining: set(joining),
            wait_replicas: u32::try_from(*wait_replicas).unwrap_or(u32::MAX),
            switchover_to: switchover_to.map_or_else(String::new, |t| self.name(t)),
            paused_for: paused_for.map(span),
            lease_left: lease_left.map(span),
            members: members.iter().map(|m| self.member(status, spec, m, master_offset)).collect(),
            hold: why.as_ref().map(hold),
            vip: spec.map_or_else(String::new, |s| vip(s.vip)),
            port: spec.map_or(0, |s| u32::from(s.port)),
            interface: spec.map_or_else(String::new, |s| s.interface.clone()),
            durability: super::spec::durability(*durability).into(),
            min_replicas: *min_replicas,
            sights: sights.iter().map(|(by, s)| self.sight(*by, s)).collect(),
        }
    }

    fn sight(&self, by: NodeId, sight: &Sight) -> pb::Sight {
        let Sight { group: _, epoch: _, node, seen } = sight;
        let (state, why) = match seen {
            Seen::Reached => (pb::SightState::Reached, ""),
            Seen::Lost(why) => (pb::SightState::Lost, why.as_str()),
            Seen::Never(why) => (pb::SightState::Never, why.as_str()),
        };
        let (by, node, why) = (self.name(by), self.name(*node), why.to_owned());
        pb::Sight { by, node, state: state.into(), why }
    }

    fn assigned_unix_ms(&self, index: u64) -> Option<u64> {
        let is_it = |r: &&Record| r.index == index && matches!(r.kind, RecordKind::Assigned { .. });
        self.history.iter().rev().find(is_it).map(|r| r.at_unix_ms)
    }

    fn member(
        &self,
        group: &GroupStatus,
        spec: Option<&GroupSpec>,
        member: &MemberStatus,
        master_offset: Option<u64>,
    ) -> pb::MemberStatus {
        let MemberStatus {
            node,
            redis,
            fenced,
            serving,
            takeover_failure,
            excluded,
            // Of candidates, in the explanation.
            loss: _,
            known,
        } = member;
        let (health, trouble) = health(redis);
        let seen = redis.observation();
        let address = spec.and_then(|g| self.spec().and_then(|s| s.redis_addr(*node, g)));
        let behind = seen.filter(|o| !o.is_master()).zip(master_offset);
        let lag_bytes = behind.map(|(o, master)| master.saturating_sub(o.offset));
        pb::MemberStatus {
            node: self.name(*node),
            known: *known,
            health: health.into(),
            redis: seen.map(|o| observation(o, lag_bytes)),
            trouble,
            fenced: fenced.map(fence),
            serving: serving.map(|e| e.0),
            excluded: excluded.as_ref().map(exclusion),
            priority: spec.map_or(0, |s| s.priority(*node)),
            address: address.map_or_else(String::new, |a| a.to_string()),
            eligible: is_eligible(group, member),
            takeover_failure: takeover(*takeover_failure).into(),
        }
    }
}

/// In the committed eligible set with this life of its Redis; without sight of its Redis, with any life.
pub(super) fn is_eligible(group: &GroupStatus, member: &MemberStatus) -> bool {
    let life = member.redis.observation().map(|o| &o.run_id);
    group.eligible.iter().any(|e| e.node == member.node && life.is_none_or(|l| *l == e.run_id))
}

/// Heard by the leader within one lease.
pub(super) fn is_heard(spec: &ClusterSpec, node: &NodeStatus) -> bool {
    node.heard_ago.is_some_and(|ago| ago <= Span(spec.timing.lease_ttl.0))
}

fn raft_role(role: Role) -> pb::RaftRole {
    match role {
        Role::Follower => pb::RaftRole::Follower,
        Role::PreCandidate => pb::RaftRole::PreCandidate,
        Role::Candidate => pb::RaftRole::Candidate,
        Role::Leader => pb::RaftRole::Leader,
    }
}

pub(super) fn assigned_because(cause: Cause) -> pb::Cause {
    match cause {
        Cause::Adopted => pb::Cause::Adopted,
        Cause::MasterDown => pb::Cause::MasterDown,
        Cause::NodeSilent => pb::Cause::NodeSilent,
        Cause::MasterUnreached => pb::Cause::MasterUnreached,
        Cause::Switchover => pb::Cause::Switchover,
        Cause::SwitchoverBack => pb::Cause::SwitchoverBack,
        Cause::Operator => pb::Cause::Operator,
        Cause::ColdStart => pb::Cause::ColdStart,
    }
}

fn health(redis: &RedisView) -> (pb::RedisHealth, String) {
    match redis {
        RedisView::Unknown => (pb::RedisHealth::Unknown, String::new()),
        RedisView::Up(_) => (pb::RedisHealth::Up, String::new()),
        RedisView::Doubtful(_, why) => {
            (pb::RedisHealth::Doubtful, format!("the last probe failed: {}", probe_failure(*why)))
        }
        RedisView::Down(why) => (pb::RedisHealth::Down, down_reason(*why).to_owned()),
    }
}

const fn probe_failure(why: ProbeFailure) -> &'static str {
    match why {
        ProbeFailure::Timeout => "no answer in time",
        ProbeFailure::Refused => "nobody listens",
        ProbeFailure::Closed => "the connection ended",
        ProbeFailure::Loading => "it loads its data set",
        ProbeFailure::Busy => "a script keeps it busy",
        ProbeFailure::Misconfigured => "it refuses writes (MISCONF)",
        ProbeFailure::WritesHeld => "it answers, and holds writes back",
        ProbeFailure::Denied => "password or ACL is wrong",
        ProbeFailure::Protocol => "the answer was not understood",
    }
}

pub(super) const fn down_reason(why: DownReason) -> &'static str {
    match why {
        DownReason::Dead => "its process died",
        DownReason::Hung => "it does not answer",
        DownReason::LoadingTooLong => "it loads its data set for too long",
        DownReason::DiskError => "it cannot write its disk and refuses writes",
        DownReason::WritesHeld => "it answers, and holds writes back (CLIENT PAUSE?)",
        DownReason::Denied => "password or ACL is wrong",
        DownReason::Protocol => "its answers are not understood",
    }
}

fn observation(seen: &RedisObservation, lag_bytes: Option<u64>) -> pb::Redis {
    let RedisObservation {
        run_id,
        role,
        replication_id,
        previous,
        offset,
        keys,
        backlog_from: _,
        replicas,
        version,
        append_only: _,
        settled,
        bypass,
    } = seen;
    let (role, follows, link_up, read_only) = match role {
        RedisRole::Master => (pb::RedisRole::Master, String::new(), false, false),
        RedisRole::Replica { master_host, master_port, link_up, read_only } => {
            (pb::RedisRole::Replica, host_port(master_host, *master_port), *link_up, *read_only)
        }
    };
    pb::Redis {
        run_id: run_id.to_string(),
        role: role.into(),
        follows,
        link_up,
        read_only,
        replication_id: replication_id.clone(),
        offset: *offset,
        keys: *keys,
        version: version.clone(),
        replicas: replicas.iter().map(attached).collect(),
        settled: *settled,
        lag_bytes,
        previous_replication_id: previous
            .as_ref()
            .map_or_else(String::new, |p| p.replication_id.clone()),
        previous_until_offset: previous.as_ref().map_or(0, |p| p.until_offset),
        bypass: bypass.iter().map(ToString::to_string).collect(),
    }
}

/// IPv6 in brackets, as everywhere.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn attached(replica: &AttachedReplica) -> pb::AttachedReplica {
    let AttachedReplica { addr, port, online, offset, lag } = *replica;
    pb::AttachedReplica {
        address: std::net::SocketAddr::new(addr, port).to_string(),
        online,
        offset,
        lag: Some(span(lag)),
    }
}

const fn takeover(failure: Option<TakeoverFailure>) -> pb::TakeoverFailure {
    match failure {
        None => pb::TakeoverFailure::Unspecified,
        Some(TakeoverFailure::Promote) => pb::TakeoverFailure::Promote,
        Some(TakeoverFailure::Vip) => pb::TakeoverFailure::Vip,
        Some(TakeoverFailure::NotAnsweringAtVip) => pb::TakeoverFailure::NotAnsweringAtVip,
        Some(TakeoverFailure::Lock) => pb::TakeoverFailure::Lock,
    }
}

fn fence(Fenced { epoch, offset, confirmed_by_target, cause }: Fenced) -> pb::Fenced {
    let cause = match cause {
        FenceCause::RedisDead => pb::FenceCause::RedisDead,
        FenceCause::RunIdChanged => pb::FenceCause::RunIdChanged,
        FenceCause::WrongRole => pb::FenceCause::WrongRole,
        FenceCause::LeaderAsked => pb::FenceCause::LeaderAsked,
        FenceCause::Unreached => pb::FenceCause::Unreached,
        FenceCause::Switchover => pb::FenceCause::Switchover,
        FenceCause::TakeoverFailed => pb::FenceCause::TakeoverFailed,
        FenceCause::Stopping => pb::FenceCause::Stopping,
    };
    pb::Fenced { epoch: epoch.0, offset, confirmed_by_target, cause: cause.into() }
}
