//! One group's machine on one host: what it orders from the kernel lock, and in which order.

use redkeep_consensus::Mono;

use super::{AtStart, Cx, HostGroup};
use crate::{
    command::{Assign, Body, Cause, Command},
    effect::{Action, Effect, LockEvent, LockOp},
    ids::{Epoch, GroupId, Now, RunId, node_id},
    input::HostEvent,
    lease::Holder,
    model::Model,
    mutations::Mutations,
    observe::{RedisObservation, RedisRole},
    sink::Sink,
    testing::{cluster, master, replica},
};

fn group() -> GroupId {
    GroupId::new("g")
}

/// The life `run` at `master` is master of the group.
fn model(master: &str, run: &str, cause: Cause) -> Model {
    let mut model = Model::default();
    let assign = Assign {
        group: group(),
        epoch: Epoch(1),
        master: node_id(master),
        run_id: RunId::new(run),
        cause,
        evidence: String::new(),
        estimated_loss_bytes: Some(0),
        old_master_eligible: false,
        goes_on: false,
    };
    let serving = Body::Serving { group: group(), epoch: Epoch(1) };
    let mut bodies = vec![Body::Bootstrap(cluster()), Body::Assign(assign)];
    if cause != Cause::Adopted {
        bodies.push(serving);
    }
    for (index, body) in (1..).zip(bodies) {
        model.apply(index, 1, Command { at_unix_ms: 0, body });
    }
    model
}

/// The host of b.
struct Bench {
    host: HostGroup,
    model: Model,
    holder: Holder,
    sink: Sink,
    now_ms: u64,
}

impl Bench {
    /// Its Redis is a replica of a's, which serves.
    fn replica() -> Self {
        Self::new(model("a", "a", Cause::Operator), true)
    }

    fn new(model: Model, guarded: bool) -> Self {
        let at_start = AtStart { guarded, replica: guarded, open: false };
        let spec = cluster().groups.remove(0);
        Self {
            host: HostGroup::new(node_id("b"), spec, Epoch::NONE, at_start),
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
        let cluster = cluster();
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
                Effect::Act { action: Action::DestroySockets { .. }, .. } => {
                    orders.push("destroy".to_owned());
                }
                _ => {}
            }
        }
        orders
    }

    fn sees(&mut self, run: &str) -> Vec<String> {
        self.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(replica(run))))
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
    let mut b = Bench::new(model("b", "1", Cause::Adopted), false);
    b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(master("1"))));
    b.orders(|host, cx| host.host_event(cx, &HostEvent::LockLost));
    let orders = b.orders(|host, cx| host.fence_requested(cx, Epoch(1), false));
    assert_eq!(orders, ["guard", "close"]);
    // Nobody else is named: 100 ms later who is connected is told.
    assert_eq!(b.orders(|_, _| {}), ["destroy"]);
    assert_eq!(b.orders(|_, _| {}), [""; 0], "once");
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
    b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(other)));
    assert_eq!(ask(&mut b, 1), [""; 0]);
    let mut b = Bench::new(model("b", "1", Cause::Operator), true);
    b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(master("1"))));
    assert_eq!(ask(&mut b, 1), [""; 0]);
}

/// Found by the simulator: while its supervisor was down somebody had made the master a copy of another Redis. The next process took it
/// for one that had not been promoted yet.
#[test]
fn a_life_that_served_is_fenced_at_the_first_look_if_it_is_a_replica_by_then() {
    let mut b = Bench::new(model("b", "1", Cause::Operator), true);
    let orders = b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(replica("1"))));
    assert!(orders.contains(&"close".to_owned()), "{orders:?}");
}

fn writable(by_role: bool) -> RedisObservation {
    let mut seen = replica("1");
    match &mut seen.role {
        RedisRole::Replica { read_only, .. } if !by_role => *read_only = false,
        role => *role = RedisRole::Master,
    }
    seen
}

/// Found by an audit: the element that clients read through was left to end by itself, so the port of a replica that somebody
/// had promoted took writes for the rest of it, beside the group's master.
#[test]
fn a_replica_that_takes_writes_is_shut_when_it_is_seen_and_not_when_its_element_ends() {
    for by_role in [true, false] {
        let mut b = Bench::replica();
        b.sees("1");
        let seen = |b: &mut Bench| {
            b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(writable(by_role))))
        };
        assert_eq!(seen(&mut b), ["forbid", "destroy"], "role {by_role}");
        assert_eq!(seen(&mut b), [""; 0], "once");
        // Mended by hand, what came before is reset before clients may read again; a master is made a replica first.
        let then: &[&str] = if by_role { &[] } else { &["destroy"] };
        assert_eq!(b.sees("1"), then, "role {by_role}");
    }
}

#[test]
fn an_element_that_was_left_by_an_earlier_life_of_the_supervisor_is_taken_out_too() {
    let mut b = Bench::replica();
    let orders = b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(writable(true))));
    assert_eq!(orders, ["admit 1", "forbid", "destroy", "close", "destroy", "destroy"]);
}

#[test]
fn an_element_that_could_not_be_taken_out_is_tried_again_at_the_next_look() {
    let mut b = Bench::replica();
    b.sees("1");
    let look =
        |b: &mut Bench| b.orders(|host, cx| host.observed(cx, cx.now.boot, Ok(writable(true))));
    assert_eq!(look(&mut b), ["forbid", "destroy"]);
    let refused = LockEvent::ReplicaForbidden { group: group(), ok: false };
    b.orders(|host, cx| host.lock_event(cx, &refused));
    assert_eq!(look(&mut b), ["forbid", "destroy"]);
    let done = LockEvent::ReplicaForbidden { group: group(), ok: true };
    b.orders(|host, cx| host.lock_event(cx, &done));
    assert_eq!(look(&mut b), [""; 0]);
}
