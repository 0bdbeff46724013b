//! What unit tests of several modules begin with: a cluster of three, and Redis that is well.

use redkeep_consensus::Span;

use crate::{
    ids::{GroupId, RunId, node_id},
    observe::{RedisObservation, RedisRole},
    spec::{ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
};

/// Nodes a, b and c at 10.0.0.1 to 10.0.0.3, all of them members of group g.
pub(crate) fn cluster() -> ClusterSpec {
    let ms = Span::from_millis;
    let node = |name: &str, n: u8| NodeSpec {
        id: node_id(name),
        name: name.into(),
        peer: ([10, 0, 0, n], 7600).into(),
        admin: ([10, 0, 0, n], 7601).into(),
        added: false,
    };
    ClusterSpec {
        name: "t".into(),
        timing: Timing {
            lease_ttl: ms(300),
            max_clock_drift_ppm: 100_000,
            margin: ms(25),
            switchover_timeout: ms(2000),
            takeover_timeout: ms(2000),
            cold_start_wait: ms(30_000),
            failover_cooldown: ms(0),
        },
        mass_failure_limit: 0,
        nodes: vec![node("a", 1), node("b", 2), node("c", 3)],
        groups: vec![GroupSpec {
            id: GroupId::new("g"),
            port: 6379,
            vip: Vip { addr: [10, 0, 0, 100].into(), prefix: 32 },
            interface: "eth0".into(),
            members: ["a", "b", "c"].map(|n| Member { node: node_id(n), priority: 100 }).to_vec(),
            probe: ProbeTiming {
                interval: ms(100),
                timeout: ms(250),
                fall: 3,
                loading_timeout: ms(1000),
            },
            max_lag: ms(3000),
            max_lag_bytes: 0,
            min_replicas_to_write: 0,
            durability: Durability::Async,
        }],
    }
}

pub(crate) fn master(run: &str) -> RedisObservation {
    RedisObservation {
        run_id: RunId::new(run),
        role: RedisRole::Master,
        replication_id: "h".into(),
        previous: None,
        offset: 7,
        keys: 1,
        backlog_from: None,
        replicas: Vec::new(),
        version: "7.0.15".into(),
        settled: true,
        append_only: false,
        bypass: Vec::new(),
    }
}

/// Of a's.
pub(crate) fn replica(run: &str) -> RedisObservation {
    let role = RedisRole::Replica {
        master_host: "10.0.0.1".into(),
        master_port: 6379,
        link_up: true,
        read_only: true,
    };
    RedisObservation { role, ..master(run) }
}
