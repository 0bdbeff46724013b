//! `Report` and what is in it.

use std::num::NonZeroU64;

use redkeep_core::{
    Epoch, RunId, Span,
    lineage::Lineage,
    observe::{
        AttachedReplica, Bypass, DownReason, FenceCause, Fenced, GroupReport, Led, PreviousHistory,
        ProbeFailure, RedisObservation, RedisRole, RedisView, Report, Seen, Sight, TakeoverFailure,
    },
};
use redkeep_proto::peer::v1::{
    self as pb, bypass::Way as PbWay, redis_observation::Role as PbRole,
    redis_view::State as PbState, sight::Seen as PbSeen,
};

use super::{DecodeError, group_id, name, need, node_id, port};

pub(super) fn to_proto(report: &Report) -> pb::Report {
    let Report { incarnation, seq, applied, groups, sights } = report;
    pb::Report {
        incarnation: *incarnation,
        seq: *seq,
        applied: *applied,
        groups: groups.iter().map(group_to_proto).collect(),
        sights: sights.iter().map(sight_to_proto).collect(),
    }
}

fn sight_to_proto(sight: &Sight) -> pb::Sight {
    let Sight { group, epoch, node, seen } = sight;
    let seen = match seen {
        Seen::Reached => PbSeen::Reached(pb::Reached {}),
        Seen::Lost(why) => PbSeen::Lost(why.clone()),
        Seen::Never(why) => PbSeen::Never(why.clone()),
    };
    pb::Sight { group: name(group), epoch: epoch.0, node: node.0, seen: Some(seen) }
}

fn group_to_proto(report: &GroupReport) -> pb::GroupReport {
    let GroupReport { group, redis, fenced, serving, takeover_failure, min_replicas, led } = report;
    pb::GroupReport {
        group: name(group),
        redis: Some(view_to_proto(redis)),
        fenced: fenced.map(fenced_to_proto),
        serving: serving.map(|e| e.0),
        takeover_failure: takeover_to_proto(*takeover_failure).into(),
        min_replicas: *min_replicas,
        led: led.as_ref().map(led_to_proto),
    }
}

fn led_to_proto(Led { epoch, data }: &Led) -> pb::Led {
    pb::Led {
        epoch: epoch.0,
        replication_id: data.replication_id.clone(),
        previous: data.previous.as_ref().map(previous_to_proto),
        offset: data.offset,
    }
}

fn previous_to_proto(previous: &PreviousHistory) -> pb::PreviousHistory {
    let PreviousHistory { replication_id, until_offset } = previous;
    pb::PreviousHistory { replication_id: replication_id.clone(), until_offset: *until_offset }
}

fn view_to_proto(view: &RedisView) -> pb::RedisView {
    let state = match view {
        RedisView::Unknown => PbState::Unknown(pb::Unknown {}),
        RedisView::Up(seen) => PbState::Up(observation_to_proto(seen)),
        RedisView::Doubtful(last, failure) => PbState::Doubtful(pb::Doubtful {
            last: Some(observation_to_proto(last)),
            failure: failure_to_proto(*failure).into(),
        }),
        RedisView::Down(reason) => PbState::Down(down_to_proto(*reason).into()),
    };
    pb::RedisView { state: Some(state) }
}

fn observation_to_proto(seen: &RedisObservation) -> pb::RedisObservation {
    let RedisObservation {
        run_id,
        role,
        replication_id,
        previous,
        offset,
        keys,
        backlog_from,
        replicas,
        version,
        append_only,
        settled,
        bypass,
    } = seen;
    pb::RedisObservation {
        run_id: run_id.as_str().to_owned(),
        role: Some(role_to_proto(role)),
        replication_id: replication_id.clone(),
        previous: previous.as_ref().map(previous_to_proto),
        offset: *offset,
        keys: *keys,
        backlog_from: backlog_from.map_or(0, NonZeroU64::get),
        replicas: replicas.iter().map(attached_to_proto).collect(),
        version: version.clone(),
        append_only: *append_only,
        settled: *settled,
        bypass: bypass.iter().map(bypass_to_proto).collect(),
    }
}

fn bypass_to_proto(bypass: &Bypass) -> pb::Bypass {
    let way = match bypass {
        Bypass::Tcp(at) => PbWay::Tcp(at.to_string()),
        Bypass::Unix { path, mode, uid } => {
            PbWay::Unix(pb::UnixSocket { path: path.clone(), mode: *mode, uid: *uid })
        }
    };
    pb::Bypass { way: Some(way) }
}

fn role_to_proto(role: &RedisRole) -> PbRole {
    match role {
        RedisRole::Master => PbRole::Master(pb::MasterRole {}),
        RedisRole::Replica { master_host, master_port, link_up, read_only } => {
            PbRole::Replica(pb::ReplicaRole {
                master_host: master_host.clone(),
                master_port: u32::from(*master_port),
                link_up: *link_up,
                read_only: *read_only,
            })
        }
    }
}

fn attached_to_proto(replica: &AttachedReplica) -> pb::AttachedReplica {
    let AttachedReplica { addr, port, online, offset, lag } = *replica;
    pb::AttachedReplica {
        address: addr.to_string(),
        port: u32::from(port),
        online,
        offset,
        lag_ns: lag.0,
    }
}

fn fenced_to_proto(Fenced { epoch, offset, confirmed_by_target, cause }: Fenced) -> pb::Fenced {
    pb::Fenced { epoch: epoch.0, offset, confirmed_by_target, cause: cause_to_proto(cause).into() }
}

/// Both ways between enums that name the same things; on the wire there is also a value that says nothing.
macro_rules! same_names {
    ($Enum:ident as $field:literal by $to:ident and $from:ident: $($Name:ident),+) => {
        fn $to(ours: $Enum) -> pb::$Enum {
            match ours {
                $($Enum::$Name => pb::$Enum::$Name,)+
            }
        }

        fn $from(value: i32) -> Result<$Enum, DecodeError> {
            match pb::$Enum::try_from(value) {
                $(Ok(pb::$Enum::$Name) => Ok($Enum::$Name),)+
                Ok(pb::$Enum::Unspecified) | Err(_) => {
                    Err(DecodeError::UnknownValue { field: $field, value })
                }
            }
        }
    };
}

same_names!(ProbeFailure as "doubtful.failure" by failure_to_proto and failure_from_proto:
    Timeout, Refused, Closed, Loading, Busy, Misconfigured, Denied, WritesHeld, Protocol);
same_names!(DownReason as "redis_view.down" by down_to_proto and down_from_proto:
    Dead, Hung, LoadingTooLong, DiskError, Denied, WritesHeld, Protocol);
same_names!(FenceCause as "fenced.cause" by cause_to_proto and cause_from_proto:
    RedisDead, RunIdChanged, WrongRole, LeaderAsked, Unreached, Switchover, TakeoverFailed, Stopping);

fn takeover_to_proto(failure: Option<TakeoverFailure>) -> pb::TakeoverFailure {
    match failure {
        None => pb::TakeoverFailure::Unspecified,
        Some(TakeoverFailure::Promote) => pb::TakeoverFailure::Promote,
        Some(TakeoverFailure::Vip) => pb::TakeoverFailure::Vip,
        Some(TakeoverFailure::NotAnsweringAtVip) => pb::TakeoverFailure::NotAnsweringAtVip,
        Some(TakeoverFailure::Lock) => pb::TakeoverFailure::Lock,
    }
}

pub(super) fn from_proto(report: pb::Report) -> Result<Report, DecodeError> {
    let pb::Report { incarnation, seq, applied, groups, sights } = report;
    Ok(Report {
        incarnation,
        seq,
        applied,
        groups: groups.into_iter().map(group_from_proto).collect::<Result<_, _>>()?,
        sights: sights.into_iter().map(sight_from_proto).collect::<Result<_, _>>()?,
    })
}

fn sight_from_proto(sight: pb::Sight) -> Result<Sight, DecodeError> {
    let pb::Sight { group, epoch, node, seen } = sight;
    Ok(Sight {
        group: group_id(&group, "sight.group")?,
        epoch: Epoch(epoch),
        node: node_id(node, "sight.node")?,
        seen: match need(seen, "sight.seen")? {
            PbSeen::Reached(pb::Reached {}) => Seen::Reached,
            PbSeen::Lost(why) => Seen::Lost(why),
            PbSeen::Never(why) => Seen::Never(why),
        },
    })
}

fn group_from_proto(report: pb::GroupReport) -> Result<GroupReport, DecodeError> {
    let pb::GroupReport { group, redis, fenced, serving, takeover_failure, min_replicas, led } =
        report;
    Ok(GroupReport {
        group: group_id(&group, "report.groups.group")?,
        redis: view_from_proto(need(redis, "report.groups.redis")?)?,
        fenced: fenced.map(|f| fenced_from_proto(&f)).transpose()?,
        serving: serving.map(Epoch),
        takeover_failure: takeover_from_proto(takeover_failure)?,
        min_replicas,
        led: led.map(led_from_proto),
    })
}

fn led_from_proto(led: pb::Led) -> Led {
    let pb::Led { epoch, replication_id, previous, offset } = led;
    let previous = previous.map(previous_from_proto);
    let data = Lineage { replication_id, previous, offset };
    Led { epoch: Epoch(epoch), data }
}

fn previous_from_proto(previous: pb::PreviousHistory) -> PreviousHistory {
    let pb::PreviousHistory { replication_id, until_offset } = previous;
    PreviousHistory { replication_id, until_offset }
}

fn view_from_proto(view: pb::RedisView) -> Result<RedisView, DecodeError> {
    let pb::RedisView { state } = view;
    Ok(match need(state, "redis_view.state")? {
        PbState::Unknown(pb::Unknown {}) => RedisView::Unknown,
        PbState::Up(seen) => RedisView::Up(observation_from_proto(seen)?),
        PbState::Doubtful(pb::Doubtful { last, failure }) => RedisView::Doubtful(
            observation_from_proto(need(last, "doubtful.last")?)?,
            failure_from_proto(failure)?,
        ),
        PbState::Down(reason) => RedisView::Down(down_from_proto(reason)?),
    })
}

fn observation_from_proto(seen: pb::RedisObservation) -> Result<RedisObservation, DecodeError> {
    let pb::RedisObservation {
        run_id,
        role,
        replication_id,
        previous,
        offset,
        keys,
        backlog_from,
        replicas,
        version,
        append_only,
        settled,
        bypass,
    } = seen;
    Ok(RedisObservation {
        run_id: RunId::new(&run_id),
        role: role_from_proto(need(role, "redis_observation.role")?)?,
        replication_id,
        previous: previous.map(previous_from_proto),
        offset,
        keys,
        backlog_from: NonZeroU64::new(backlog_from),
        replicas: replicas.into_iter().map(attached_from_proto).collect::<Result<_, _>>()?,
        version,
        append_only,
        settled,
        bypass: bypass.into_iter().map(bypass_from_proto).collect::<Result<_, _>>()?,
    })
}

fn bypass_from_proto(bypass: pb::Bypass) -> Result<Bypass, DecodeError> {
    let pb::Bypass { way } = bypass;
    Ok(match need(way, "bypass.way")? {
        PbWay::Tcp(text) => {
            let at = text.parse();
            Bypass::Tcp(at.map_err(|_| DecodeError::Address { field: "bypass.tcp", text })?)
        }
        PbWay::Unix(pb::UnixSocket { path, mode, uid }) => Bypass::Unix { path, mode, uid },
    })
}

fn role_from_proto(role: PbRole) -> Result<RedisRole, DecodeError> {
    Ok(match role {
        PbRole::Master(pb::MasterRole {}) => RedisRole::Master,
        PbRole::Replica(pb::ReplicaRole { master_host, master_port, link_up, read_only }) => {
            RedisRole::Replica {
                master_host,
                master_port: port(master_port, "replica_role.master_port")?,
                link_up,
                read_only,
            }
        }
    })
}

fn attached_from_proto(replica: pb::AttachedReplica) -> Result<AttachedReplica, DecodeError> {
    let pb::AttachedReplica { address, port: tcp_port, online, offset, lag_ns } = replica;
    let field = "attached_replica.address";
    let addr = address.parse().map_err(|_| DecodeError::Address { field, text: address })?;
    let port = port(tcp_port, "attached_replica.port")?;
    Ok(AttachedReplica { addr, port, online, offset, lag: Span(lag_ns) })
}

fn fenced_from_proto(fenced: &pb::Fenced) -> Result<Fenced, DecodeError> {
    let pb::Fenced { epoch, offset, confirmed_by_target, cause } = *fenced;
    Ok(Fenced { epoch: Epoch(epoch), offset, confirmed_by_target, cause: cause_from_proto(cause)? })
}

fn takeover_from_proto(value: i32) -> Result<Option<TakeoverFailure>, DecodeError> {
    match pb::TakeoverFailure::try_from(value) {
        Ok(pb::TakeoverFailure::Unspecified) => Ok(None),
        Ok(pb::TakeoverFailure::Promote) => Ok(Some(TakeoverFailure::Promote)),
        Ok(pb::TakeoverFailure::Vip) => Ok(Some(TakeoverFailure::Vip)),
        Ok(pb::TakeoverFailure::NotAnsweringAtVip) => Ok(Some(TakeoverFailure::NotAnsweringAtVip)),
        Ok(pb::TakeoverFailure::Lock) => Ok(Some(TakeoverFailure::Lock)),
        Err(_) => Err(DecodeError::UnknownValue { field: "report.groups.takeover_failure", value }),
    }
}
