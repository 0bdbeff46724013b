//! A Redis that can be reached around the lock, on the whole path.

mod world;

use redkeep_core::ids::node_id;
use redkeep_core::observe::Bypass;
use redkeep_core::plan::{Exclusion, HoldReason};
use redkeep_core::*;
use world::World;

fn socket() -> Vec<Bypass> {
    vec![Bypass::Unix { path: "/run/redis.sock".into(), mode: 0o777, uid: 0 }]
}

fn held(node: &str) -> HoldReason {
    HoldReason::Bypass { node: node.into(), open: socket() }
}

/// How often it was told that the Redis of `node` is open, and that it no longer is.
fn told(w: &mut World, node: &str) -> (usize, usize) {
    let log = &w.host(node).log;
    let count = |is: fn(&EventKind) -> bool| log.iter().filter(|e| is(&e.kind)).count();
    (
        count(|k| matches!(k, EventKind::Bypass { .. })),
        count(|k| matches!(k, EventKind::BypassClosed)),
    )
}

fn switchover(to: Option<&str>) -> AdminRequest {
    AdminRequest::Switchover { group: GroupId::new("pair"), to: to.map(node_id), dry_run: false }
}

#[test]
fn a_pair_is_adopted_once_the_way_around_the_lock_is_closed() {
    let mut w = World::pair();
    w.redis("b").bypass = socket();
    w.run(3000);
    let status = w.pair_status().unwrap();
    assert_eq!((status.master, status.hold), (None, Some(held("b"))));
    assert_eq!(told(&mut w, "b"), (1, 0), "told once, not with each probe");
    assert_eq!(w.force("a"), [AdminReply::Refused(Refusal::Held(held("b")))]);
    w.redis("b").bypass.clear();
    w.until("a serves", 3000, |w| w.serving() == Some("a"));
    assert_eq!(told(&mut w, "b"), (1, 1));
}

#[test]
fn a_master_that_is_opened_at_run_time_goes_on_and_is_moved_only_when_it_is_dead() {
    let mut w = World::settled_pair();
    w.redis("a").bypass = socket();
    w.run(1000);
    assert!(w.writable("a"), "it is not thrown down for it");
    let refused = [AdminReply::Refused(Refusal::Held(held("a")))];
    assert_eq!(w.ask(switchover(None)), refused);
    assert_eq!(w.force("b"), refused);
    w.redis("a").hung = true;
    w.run(1000);
    assert_eq!(w.pair_status().unwrap().hold, Some(held("a")), "hung, not known to be dead");
    assert!(!w.writable("b"));
    w.kill_redis("a");
    w.until("b is writable", 100, |w| w.writable("b"));
}

#[test]
fn a_master_that_is_open_around_the_lock_is_waited_for_when_its_host_is_silent() {
    let mut w = World::settled_pair();
    w.redis("a").bypass = socket();
    w.run(200);
    w.isolate("a");
    w.run(3000);
    assert_eq!(w.pair_status().unwrap().hold, Some(held("a")));
    assert!(!w.writable("b") && !w.is_open("a"));
    w.heal();
    w.until("a goes on", 2000, |w| w.writable("a"));
}

#[test]
fn nobody_is_moved_to_a_replica_that_is_open_around_the_lock() {
    let mut w = World::settled_pair();
    w.redis("b").bypass = socket();
    w.run(200);
    let why = Exclusion::Bypass { open: socket() };
    let refused = [AdminReply::Refused(Refusal::Excluded { node: "b".into(), why })];
    assert_eq!(w.ask(switchover(Some("b"))), refused);
    assert_eq!(w.ask(switchover(None)), refused);
    assert_eq!(w.force("b"), refused);
    w.kill_redis("a");
    w.run(1000);
    assert_eq!(w.pair_status().unwrap().hold, Some(held("b")));
    w.redis("b").bypass.clear();
    w.until("b is writable", 1000, |w| w.writable("b"));
}
