//! One group's machine on one host: what it orders from the kernel lock, and in which order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use redkeep_consensus::{Mono, NodeId, Span};

use super::{AtStart, Cx, HostGroup};
use crate::{
    command::{Assign, Body, Cause, Command},
    effect::{Action, Effect, LockEvent, LockOp},
    ids::{Epoch, GroupId, Now, RunId},
    input::HostEvent,
    lease::Holder,
    model::Model,
    mutations::Mutations,
    observe::{RedisObservation, RedisRole},
    sink::Sink,
    spec::{ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn group() -> GroupId {
    GroupId::new("pair")
}

fn spec() -> ClusterSpec {
    let ms = Span::from_millis;
    let addr = |n: u8| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), 1);
    let node =
        |id, n| NodeSpec { id, name: format!("n{n}"), peer: addr(n), admin: addr(n), added: false };
    ClusterSpec {
        name: "c".into(),
        timing: Timing {
            lease_ttl: ms(300),
            max_clock_drift_ppm: 100_000,
            margin: ms(25),
            switchover_timeout: ms(2_000),
            takeover_timeout: ms(2_000),
            cold_start_wait: ms(2_000),
            failover_cooldown: ms(0),
        },
        mass_failure_limit: 0,
        nodes: vec![node(A, 1), node(B, 2)],
        groups: vec![GroupSpec {
            id: group(),
            port: 6379,
            vip: Vip { addr: addr(100).ip(), prefix: 32 },
            interface: "eth0".into(),
            members: [A, B].map(|node| Member { node, priority: 100 }).to_vec(),
            probe: ProbeTiming {
                interval: ms(100),
                timeout: ms(250),
                fall: 3,
                loading_timeout: ms(1_000),
            },
            max_lag: ms(1_000),
            max_lag_bytes: 0,
            min_replicas_to_write: 0,
            durability: Durability::Async,
        }],
    }
}

/// The life `run` at `master` is master of the group.
fn model(master: NodeId, run: &str, cause: Cause) -> Model {
    let mut model = Model::default();
    let assign = Assign {
        group: group(),
        epoch: Epoch(1),
        master,
        run_id: RunId::new(run),
        cause,
        evidence: String::new(),
        estimated_loss_bytes: 0,
        old_master_eligible: false,
    };
    let serving = Body::Serving { group: group(), epoch: Epoch(1) };
    let mut bodies = vec![Body::Bootstrap(spec()), Body::Assign(assign)];
    if cause != Cause::Adopted {
        bodies.push(serving);
    }
    for (index, body) in (1..).zip(bodies) {
        model.apply(index, 1, Command { at_unix_ms: 0, body });
    }
    model
}

pub(super) fn replica(run: &str) -> RedisObservation {
    RedisObservation {
        run_id: RunId::new(run),
        role: RedisRole::Replica {
            master_host: "10.0.0.1".into(),
            master_port: 6379,
            link_up: true,
            read_only: true,
        },
        replication_id: "h".into(),
        previous: None,
        offset: 7,
        keys: 1,
        backlog_from: None,
        replicas: Vec::new(),
        version: "7.0.15".into(),
        append_only: false,
        settled: true,
        bypass: Vec::new(),
    }
}

/// The host of `B`.
struct Bench {
    host: HostGroup,
    model: Model,
    holder: Holder,
    sink: Sink,
    now_ms: u64,
}

impl Bench {
    /// Its Redis is a replica of `A`'s, which serves.
    fn replica() -> Self {
        Self::new(model(A, "a", Cause::Operator), true)
    }

    fn new(model: Model, guarded: bool) -> Self {
        let at_start = AtStart { guarded, replica: guarded, open: false };
        let spec = spec().groups.remove(0);
        Self {
            host: HostGroup::new(B, spec, Epoch::NONE, at_start),
            model,
            holder: Holder::new(1, None, 1, Mutations::NONE),
            sink: Sink::default(),
            now_ms: 0,
        }
    }

    /// Does `f`, lets what follows happen, and names the orders for the lock.
    fn orders(&mut self, f: impl FnOnce(&mut HostGroup, &mut Cx<'_>)) -> Vec<String> {
        self.now_ms += 100;
        let at = Mono(self.now_ms * 1_000_000);
        let cluster = spec();
        let mut cx = Cx {
            now: Now { boot: at, raw: at, unix_ms: 0 },
            cluster: &cluster,
            model: &self.model,
            holder: &mut self.holder,
            sink: &mut self.sink,
            mutations: Mutations::NONE,
        };
        f(&mut self.host, &mut cx);
        self.host.reconcile(&mut cx, true);
        let mut orders = Vec::new();
        while let Some(effect) = self.sink.pop() {
            match effect {
                Effect::Lock(LockOp::Admit { run_id, .. }) => {
                    orders.push(format!("admit {run_id}"));
                }
                Effect::Lock(LockOp::PermitReplica { .. }) => orders.push("permit".to_owned()),
                Effect::Lock(LockOp::ForbidReplica { .. }) => orders.push("forbid".to_owned()),
                Effect::Lock(LockOp::Guard { .. }) => orders.push("guard".to_owned()),
                Effect::Lock(LockOp::Close { .. }) => orders.push("close".to_owned()),
                Effect::Act { action: Action::Relink { master }, .. } => {
                    orders.push(format!("relink {master}"));
                }
                _ => {}
            }
        }
        orders
    }

    fn sees(&mut self, run: &str) -> Vec<String> {
        self.orders(|host, cx| host.observed(cx, Ok(replica(run))))
    }
}

#[test]
fn a_life_is_admitted_once_and_before_anything_that_follows_from_it() {
    let mut b = Bench::replica();
    assert_eq!(b.sees("1"), ["admit 1", "close", "permit"]);
    assert_eq!(b.sees("1"), ["permit"]);
    assert_eq!(b.sees("2"), ["admit 2", "permit"]);
    assert_eq!(b.sees("2"), ["permit"]);
}

#[test]
fn a_life_that_was_not_admitted_is_tried_again_when_seen_again() {
    let mut b = Bench::replica();
    b.sees("1");
    let refused =
        |run: &str| LockEvent::Admitted { group: group(), run_id: RunId::new(run), ok: false };
    b.orders(|host, cx| host.lock_event(cx, &refused("0")));
    assert_eq!(b.sees("1"), ["permit"], "the answer was about another life");
    b.orders(|host, cx| host.lock_event(cx, &refused("1")));
    assert_eq!(b.sees("1"), ["admit 1", "permit"]);
}

/// Between a death and the next look nothing is permitted by what was seen of the dead.
#[test]
fn after_a_death_nothing_is_permitted_until_the_next_life_is_admitted() {
    let mut b = Bench::replica();
    b.sees("1");
    let dead = RunId::new("1");
    assert_eq!(b.orders(|host, cx| host.died(cx, Some(&dead))), ["forbid"]);
    assert_eq!(b.orders(|_, _| {}), [""; 0]);
    assert_eq!(b.sees("2").first().map(String::as_str), Some("admit 2"));
}

/// Found by reading: a table that was flushed before a running master was adopted came back without its port, and this
/// node took it for guarded. Its gates were out then, and the port was open.
#[test]
fn a_fence_guards_what_was_not_guarded_when_the_table_was_lost() {
    let mut b = Bench::new(model(B, "1", Cause::Adopted), false);
    let seen = RedisObservation { role: RedisRole::Master, ..replica("1") };
    b.orders(|host, cx| host.observed(cx, Ok(seen)));
    b.orders(|host, cx| host.host_event(cx, &HostEvent::LockLost));
    let orders = b.orders(|host, cx| host.fence_requested(cx, Epoch(1), false));
    assert_eq!(orders, ["guard", "close"]);
}

#[test]
fn a_link_is_renewed_at_the_present_epoch_at_a_replica_and_not_twice_in_a_second() {
    let mut b = Bench::replica();
    b.sees("1");
    let ask = |b: &mut Bench, epoch| b.orders(|host, cx| host.relink_requested(cx, Epoch(epoch)));
    assert_eq!(ask(&mut b, 2), [""; 0]);
    assert_eq!(ask(&mut b, 1), ["relink 10.0.0.1:6379"]);
    assert_eq!(ask(&mut b, 1), [""; 0]);
    b.now_ms += 1000;
    assert_eq!(ask(&mut b, 1), ["relink 10.0.0.1:6379"]);
    // Not of a replica that is to follow another, nor of a master.
    b.now_ms += 1000;
    let mut other = replica("1");
    let RedisRole::Replica { master_host, .. } = &mut other.role else { panic!() };
    *master_host = "10.0.0.9".into();
    b.orders(|host, cx| host.observed(cx, Ok(other)));
    assert_eq!(ask(&mut b, 1), [""; 0]);
    let mut b = Bench::new(model(B, "1", Cause::Operator), true);
    b.sees("1");
    assert_eq!(ask(&mut b, 1), [""; 0]);
}
