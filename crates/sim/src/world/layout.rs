//! Hosts, groups and their first state.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use redkeep_core::{
    GroupId, Span,
    ids::node_id,
    spec::{ClusterSpec, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
};

use crate::{
    clock::{Clock, HostClock, Real},
    disk::Disk,
    lock::{KernelLock, LockRules},
    plan::{Knobs, Layout},
    redis::Redis,
    rng::Rng,
    world::{filter::Filter, host::Host},
};

const fn ms(n: u64) -> Span {
    Span::from_millis(n)
}

pub(crate) fn spec(layout: Layout, knobs: &Knobs) -> ClusterSpec {
    let names: &[&str] = match layout {
        Layout::Trio | Layout::TrioThreeGroups => &["a", "b", "w"],
        Layout::Five => &["a", "b", "c", "v", "w"],
    };
    let nodes: Vec<NodeSpec> = names.iter().enumerate().map(|(i, name)| node(i, name)).collect();
    let groups = (0..layout.groups()).map(|g| group(g, layout, &nodes, knobs)).collect();
    ClusterSpec {
        name: "sim".into(),
        timing: timing(knobs),
        mass_failure_limit: knobs.mass_failure_limit,
        nodes,
        groups,
    }
}

/// Hosts that are there and no part of the first spec.
pub(crate) fn spares(layout: Layout, count: usize) -> Vec<NodeSpec> {
    let names = ["x", "y", "z"].into_iter().take(count).enumerate();
    names.map(|(i, name)| node(layout.hosts() + i, name)).collect()
}

fn node(host: usize, name: &str) -> NodeSpec {
    let addr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + u8::try_from(host).unwrap_or(0)));
    NodeSpec {
        id: node_id(name),
        name: name.to_owned(),
        peer: SocketAddr::new(addr, 7600),
        admin: SocketAddr::new(addr, 7601),
        added: false,
    }
}

fn timing(knobs: &Knobs) -> Timing {
    Timing {
        lease_ttl: knobs.lease_ttl,
        max_clock_drift_ppm: 100_000,
        margin: ms(25),
        switchover_timeout: ms(2_000),
        takeover_timeout: ms(2_000),
        cold_start_wait: ms(2_000),
        failover_cooldown: knobs.failover_cooldown,
    }
}

fn group(g: usize, layout: Layout, nodes: &[NodeSpec], knobs: &Knobs) -> GroupSpec {
    let number = u8::try_from(g).unwrap_or(0);
    // The masters of several groups are spread over the members.
    let members = (0..layout.members())
        .map(|m| Member { node: nodes[(m + g) % layout.members()].id, priority: 100 })
        .collect();
    GroupSpec {
        id: GroupId::new(&format!("g{g}")),
        port: 6379 + u16::from(number),
        vip: Vip { addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100 + number)), prefix: 32 },
        interface: "eth0".into(),
        members,
        probe: ProbeTiming {
            interval: ms(100),
            timeout: ms(250),
            fall: 3,
            loading_timeout: Span::from_secs(60),
        },
        max_lag: knobs.max_lag,
        max_lag_bytes: knobs.max_lag_bytes,
        min_replicas_to_write: 0,
        durability: knobs.durability,
    }
}

pub(crate) fn hosts(
    (spec, nodes): (&ClusterSpec, &[NodeSpec]),
    knobs: &Knobs,
    rules: LockRules,
    dice: &mut Rng,
) -> Vec<Host> {
    let host = |node: &NodeSpec| {
        let redis = |g: &GroupSpec| g.is_member(node.id).then(dead_redis);
        let mut lock = KernelLock::new(rules);
        if knobs.closed_at_first {
            let own = spec.groups.iter().filter(|g| g.is_member(node.id));
            lock.close_all(own.map(|g| g.port).collect());
        }
        Host {
            node: node.id,
            clock: clock(knobs, dice),
            lock,
            vips: vec![None; spec.groups.len()],
            redis: spec.groups.iter().map(redis).collect(),
            member: spec.groups.iter().map(|g| g.is_member(node.id)).collect(),
            in_service: spec.node(node.id).is_some(),
            rival: vec![false; spec.groups.len()],
            filters: vec![Filter::default(); spec.groups.len()],
            destroyed: vec![0; spec.groups.len()],
            disk: Disk::default(),
            powered: true,
            standing: 0,
            process: None,
            disk_fails_until: Real(0),
            disk_stalled_until: Real(0),
            lock_stalled_until: Real(0),
            flushes_untold: 0,
            opened_life: vec![0; spec.groups.len()],
            no_grants_until: Real(0),
            reports_held_until: Real(0),
            holds_reports: false,
        }
    };
    nodes.iter().map(host).collect()
}

fn dead_redis() -> Redis {
    let mut redis = Redis::new(0, crate::redis::Role::Master);
    redis.die();
    redis
}

/// Half of the clocks run at the bound.
fn clock(knobs: &Knobs, dice: &mut Rng) -> HostClock {
    let max = i64::try_from(knobs.skew_max_ppm).unwrap_or(0);
    let skew = skew(max, dice);
    let crystal = skew_between(100, dice);
    HostClock {
        boot: Clock::new(dice.range(1_000_000_000, 1 << 50), skew),
        raw: Clock::new(dice.range(1_000_000_000, 1 << 50), crystal),
        unix_offset_ms: 1_700_000_000_000 + dice.below(100_000_000),
        wall_jumps: false,
    }
}

pub(crate) fn skew(max: i64, dice: &mut Rng) -> i64 {
    match dice.below(4) {
        0 => max,
        1 => -max,
        _ => skew_between(max, dice),
    }
}

fn skew_between(max: i64, dice: &mut Rng) -> i64 {
    let span = u64::try_from(2 * max).unwrap_or(0);
    i64::try_from(dice.range(0, span)).unwrap_or(0) - max
}
