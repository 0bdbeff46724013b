//! The replicated spec for operators.

use redkeep_core::spec::{
    ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip,
};
use redkeep_proto::admin::v1 as pb;

use super::time::span;

pub(super) fn cluster(spec: &ClusterSpec) -> pb::ClusterSpec {
    let ClusterSpec { name, timing, mass_failure_limit, nodes, groups } = spec;
    pb::ClusterSpec {
        name: name.clone(),
        timing: Some(times(timing)),
        nodes: nodes
            .iter()
            .map(|NodeSpec { id, name, peer, admin, added: _ }| pb::NodeSpec {
                name: name.clone(),
                id: id.0,
                peer: peer.to_string(),
                admin: admin.to_string(),
            })
            .collect(),
        groups: groups.iter().map(|g| group(spec, g)).collect(),
        mass_failure_limit: *mass_failure_limit,
    }
}

pub(super) fn vip(Vip { addr, prefix }: Vip) -> String {
    format!("{addr}/{prefix}")
}

pub(super) const fn durability(durability: Durability) -> pb::Durability {
    match durability {
        Durability::Async => pb::Durability::Async,
        Durability::Strict => pb::Durability::Strict,
    }
}

fn times(timing: &Timing) -> pb::Timing {
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
        lease_ttl: Some(span(lease_ttl)),
        max_clock_drift_ppm,
        margin: Some(span(margin)),
        switchover_timeout: Some(span(switchover_timeout)),
        takeover_timeout: Some(span(takeover_timeout)),
        cold_start_wait: Some(span(cold_start_wait)),
        failover_cooldown: Some(span(failover_cooldown)),
    }
}

fn group(spec: &ClusterSpec, group: &GroupSpec) -> pb::GroupSpec {
    let GroupSpec {
        id,
        port,
        vip: address,
        interface,
        members,
        probe,
        max_lag,
        max_lag_bytes,
        min_replicas_to_write,
        durability: mode,
    } = group;
    let ProbeTiming { interval, timeout, fall, loading_timeout } = *probe;
    pb::GroupSpec {
        name: id.to_string(),
        port: u32::from(*port),
        vip: vip(*address),
        interface: interface.clone(),
        members: members
            .iter()
            .map(|Member { node, priority }| pb::MemberSpec {
                node: spec.node_name(*node),
                priority: *priority,
            })
            .collect(),
        probe_interval: Some(span(interval)),
        probe_timeout: Some(span(timeout)),
        fall,
        loading_timeout: Some(span(loading_timeout)),
        max_lag: Some(span(*max_lag)),
        min_replicas_to_write: *min_replicas_to_write,
        max_lag_bytes: *max_lag_bytes,
        durability: durability(*mode).into(),
    }
}
