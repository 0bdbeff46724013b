//! `ClusterSpec`, used by the first command and by every snapshot.

use core::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use redkeep_consensus::Span;
use redkeep_proto::log::v1 as pb;

use super::{CodecError, group_id, need, node_id};
use crate::spec::{ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip};

pub(super) fn to_proto(spec: &ClusterSpec) -> pb::ClusterSpec {
    let ClusterSpec { name, timing, mass_failure_limit, nodes, groups } = spec;
    pb::ClusterSpec {
        name: name.clone(),
        timing: Some(timing_to_proto(timing)),
        nodes: nodes.iter().map(node_to_proto).collect(),
        groups: groups.iter().map(group_to_proto).collect(),
        mass_failure_limit: *mass_failure_limit,
    }
}

fn timing_to_proto(timing: &Timing) -> pb::Timing {
    let Timing {
        lease_ttl,
        max_clock_drift_ppm,
        margin,
        switchover_timeout,
        takeover_timeout,
        cold_start_wait,
        failover_cooldown,
    } = *timing;
    pb::Timing {
        lease_ttl_ns: lease_ttl.0,
        max_clock_drift_ppm,
        margin_ns: margin.0,
        switchover_timeout_ns: switchover_timeout.0,
        takeover_timeout_ns: takeover_timeout.0,
        cold_start_wait_ns: cold_start_wait.0,
        failover_cooldown_ns: failover_cooldown.0,
    }
}

pub(super) fn node_to_proto(node: &NodeSpec) -> pb::NodeSpec {
    let NodeSpec { id, name, peer, admin, added } = node;
    pb::NodeSpec {
        id: id.0,
        name: name.clone(),
        peer: peer.to_string(),
        admin: admin.to_string(),
        added: *added,
    }
}

fn group_to_proto(group: &GroupSpec) -> pb::GroupSpec {
    let GroupSpec {
        id,
        port,
        vip,
        interface,
        members,
        probe,
        max_lag,
        max_lag_bytes,
        min_replicas_to_write,
        durability,
    } = group;
    let Vip { addr, prefix } = *vip;
    let ProbeTiming { interval, timeout, fall, loading_timeout } = *probe;
    pb::GroupSpec {
        name: id.as_str().to_owned(),
        port: u32::from(*port),
        vip: Some(pb::Vip { address: addr.to_string(), prefix: u32::from(prefix) }),
        interface: interface.clone(),
        members: members.iter().map(member_to_proto).collect(),
        probe: Some(pb::ProbeTiming {
            interval_ns: interval.0,
            timeout_ns: timeout.0,
            fall,
            loading_timeout_ns: loading_timeout.0,
        }),
        max_lag_ns: max_lag.0,
        min_replicas_to_write: *min_replicas_to_write,
        durability: match durability {
            Durability::Async => pb::Durability::Async.into(),
            Durability::Strict => pb::Durability::Strict.into(),
        },
        max_lag_bytes: *max_lag_bytes,
    }
}

pub(super) fn from_proto(spec: pb::ClusterSpec) -> Result<ClusterSpec, CodecError> {
    let pb::ClusterSpec { name, timing, nodes, groups, mass_failure_limit } = spec;
    Ok(ClusterSpec {
        name,
        timing: timing_from_proto(&need(timing, "spec.timing")?),
        mass_failure_limit,
        nodes: nodes.into_iter().map(node_from_proto).collect::<Result<_, _>>()?,
        groups: groups.into_iter().map(group_from_proto).collect::<Result<_, _>>()?,
    })
}

fn timing_from_proto(timing: &pb::Timing) -> Timing {
    let pb::Timing {
        lease_ttl_ns,
        max_clock_drift_ppm,
        margin_ns,
        switchover_timeout_ns,
        takeover_timeout_ns,
        cold_start_wait_ns,
        failover_cooldown_ns,
    } = *timing;
    Timing {
        lease_ttl: Span(lease_ttl_ns),
        max_clock_drift_ppm,
        margin: Span(margin_ns),
        switchover_timeout: Span(switchover_timeout_ns),
        takeover_timeout: Span(takeover_timeout_ns),
        cold_start_wait: Span(cold_start_wait_ns),
        failover_cooldown: Span(failover_cooldown_ns),
    }
}

pub(super) fn node_from_proto(node: pb::NodeSpec) -> Result<NodeSpec, CodecError> {
    let pb::NodeSpec { id, name, peer, admin, added } = node;
    Ok(NodeSpec {
        id: node_id(id, "spec.nodes.id")?,
        name,
        peer: address::<SocketAddr>(peer, "spec.nodes.peer")?,
        admin: address::<SocketAddr>(admin, "spec.nodes.admin")?,
        added,
    })
}

fn group_from_proto(group: pb::GroupSpec) -> Result<GroupSpec, CodecError> {
    let pb::GroupSpec {
        name,
        port,
        vip,
        interface,
        members,
        probe,
        max_lag_ns,
        min_replicas_to_write,
        max_lag_bytes,
        durability,
    } = group;
    let pb::ProbeTiming { interval_ns, timeout_ns, fall, loading_timeout_ns } =
        need(probe, "spec.groups.probe")?;
    Ok(GroupSpec {
        id: group_id(&name, "spec.groups.name")?,
        port: u16::try_from(port).map_err(|_| CodecError::OutOfRange {
            field: "spec.groups.port",
            value: u64::from(port),
        })?,
        vip: vip_from_proto(need(vip, "spec.groups.vip")?)?,
        interface,
        members: members.iter().map(member_from_proto).collect::<Result<_, _>>()?,
        probe: ProbeTiming {
            interval: Span(interval_ns),
            timeout: Span(timeout_ns),
            fall,
            loading_timeout: Span(loading_timeout_ns),
        },
        max_lag: Span(max_lag_ns),
        max_lag_bytes,
        min_replicas_to_write,
        durability: durability_from_proto(durability)?,
    })
}

pub(super) fn member_to_proto(member: &Member) -> pb::Member {
    let Member { node, priority } = *member;
    pb::Member { node: node.0, priority }
}

/// Entries of before there was a choice say nothing.
fn durability_from_proto(value: i32) -> Result<Durability, CodecError> {
    match pb::Durability::try_from(value) {
        Ok(pb::Durability::Unspecified | pb::Durability::Async) => Ok(Durability::Async),
        Ok(pb::Durability::Strict) => Ok(Durability::Strict),
        Err(_) => Err(CodecError::UnknownValue { field: "spec.groups.durability", value }),
    }
}

pub(super) fn member_from_proto(member: &pb::Member) -> Result<Member, CodecError> {
    let pb::Member { node, priority } = *member;
    Ok(Member { node: node_id(node, "spec.groups.members.node")?, priority })
}

fn vip_from_proto(vip: pb::Vip) -> Result<Vip, CodecError> {
    let pb::Vip { address: text, prefix } = vip;
    let addr = address::<IpAddr>(text, "spec.groups.vip.address")?;
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    match u8::try_from(prefix) {
        Ok(prefix) if prefix <= longest => Ok(Vip { addr, prefix }),
        Ok(_) | Err(_) => Err(CodecError::OutOfRange {
            field: "spec.groups.vip.prefix",
            value: u64::from(prefix),
        }),
    }
}

fn address<T: FromStr>(text: String, field: &'static str) -> Result<T, CodecError> {
    text.parse().map_err(|_| CodecError::Address { field, text })
}
