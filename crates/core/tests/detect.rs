//! A Redis that lives and is no use as a master: how long it takes, and what becomes of it.

mod world;

use redkeep_core::ids::node_id;
use redkeep_core::observe::{DownReason, ProbeFailure, RedisView};
use redkeep_core::*;
use world::World;

fn view(w: &mut World, node: &str) -> RedisView {
    let status = w.pair_status().expect("a leader");
    let member = status.members.into_iter().find(|m| m.node == node_id(node));
    member.expect("a member").redis
}

fn follows(w: &mut World, name: &str) -> usize {
    w.host(name).actions.iter().filter(|a| matches!(a, Action::Follow { .. })).count()
}

/// Two probes of 50 ms: `fall` is 2.
#[test]
fn a_master_that_answers_and_holds_writes_back_is_replaced_and_follows() {
    let mut w = World::settled_pair();
    w.redis("a").no_writes = Some((ProbeFailure::WritesHeld, false));
    let ms = w.until("b is writable", 1000, |w| {
        assert!(!(w.writable("a") && w.writable("b")), "two writers");
        w.writable("b")
    });
    assert!(ms <= 110, "{ms} ms");
    w.until("a follows", 2000, |w| w.redis("a").master.is_some());
    w.until("a is eligible", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
    assert!(matches!(view(&mut w, "a"), RedisView::Up(_)));
}

/// As a replica Redis 7 would end itself at the first write that comes to it.
#[test]
fn a_master_that_cannot_write_its_disk_is_replaced_and_follows_when_it_can() {
    let mut w = World::settled_pair();
    w.redis("a").no_writes = Some((ProbeFailure::Misconfigured, true));
    let ms = w.until("b is writable", 1000, |w| w.writable("b"));
    assert!(ms <= 110, "{ms} ms");
    w.run(5000);
    assert_eq!(follows(&mut w, "a"), 0);
    assert!(!w.is_open("a"));
    assert_eq!(view(&mut w, "a"), RedisView::Down(DownReason::DiskError));
    assert!(w.pair_status().unwrap().eligible.is_empty(), "it would refuse writes again");
    w.redis("a").no_writes = None;
    w.until("a is eligible", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
}

#[test]
fn a_master_that_loads_for_too_long_is_replaced_and_before_that_it_is_not() {
    let mut spec = world::spec();
    spec.groups[0].probe.loading_timeout = Span::from_millis(1000);
    let mut w = World::settled(World::pair_of(&spec));
    w.redis("a").no_writes = Some((ProbeFailure::Loading, true));
    w.run(900);
    assert_eq!(w.serving(), Some("a"));
    w.redis("a").no_writes = None;
    w.run(500);
    w.redis("a").no_writes = Some((ProbeFailure::Loading, true));
    let ms = w.until("b is writable", 3000, |w| w.writable("b"));
    assert!((1000..=1160).contains(&ms), "{ms} ms");
    assert_eq!(view(&mut w, "a"), RedisView::Down(DownReason::LoadingTooLong));
    w.redis("a").no_writes = None;
    w.until("a is eligible", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
}

#[test]
fn a_master_that_somebody_made_a_replica_fences_at_the_second_look_and_goes_on_as_master() {
    let mut w = World::settled_pair();
    let b = std::net::SocketAddr::from(([10, 99, 0, 2], 16465));
    w.redis("a").master = Some(b);
    let ms = w.until("a is master again", 1000, |w| {
        assert!(!w.writable("b"), "nobody needs another master");
        w.writable("a")
    });
    assert!(ms <= 110, "{ms} ms");
    w.until("a serves", 1000, |w| w.serving() == Some("a"));
    let told = w
        .host("a")
        .log
        .iter()
        .any(|e| e.kind == EventKind::Fencing { cause: observe::FenceCause::WrongRole });
    assert!(told);
}

/// Nobody can promote anybody, and nothing is promoted: an operator decides.
#[test]
fn when_both_data_sets_are_doubtful_an_operator_decides() {
    let mut w = World::without_b();
    w.kill_redis("a");
    w.run(300);
    // The last master comes back empty, and who has data is not in the set.
    w.start_redis("a", true);
    w.start_redis("b", false);
    w.run(40_000);
    let group = w.pair_status().unwrap();
    assert_eq!(group.hold, Some(plan::HoldReason::EmptyDataSet));
    assert!(!w.writable("a") && !w.writable("b"));
    // Found by reading: without a name the best by rank was taken, here the empty one.
    for dry_run in [true, false] {
        let group = GroupId::new("pair");
        let unnamed = AdminRequest::Failover { group, to: None, allow_data_loss: true, dry_run };
        assert_eq!(w.ask(unnamed), [AdminReply::Refused(Refusal::LossUnnamed)]);
    }
    w.force("b");
    w.until("b serves", 3000, |w| w.serving() == Some("b"));
    w.until("a has its data", 3000, |w| w.redis("a").keys == 10);
}

/// Somebody makes a the replica of another Redis, and the copy is there before the next look.
fn stray(w: &mut World, keys: u64) {
    let r = w.redis("a");
    r.master = Some(([10, 99, 0, 77], 16465).into());
    (r.history, r.previous, r.keys, r.offset) = ("other".into(), None, keys, 5000 * keys + 1);
}

/// b serves with the group's data, and a gets them.
fn b_goes_on(w: &mut World) {
    let ms = w.until("b serves", 3000, |w| {
        assert!(!w.writable("a") || w.redis("a").keys == 10, "other data are served");
        w.serving() == Some("b")
    });
    println!("b serves after {ms} ms");
    assert_eq!(w.redis("b").keys, 10);
    w.until("a has the data again", 3000, |w| w.redis("a").keys == 10);
    w.until("a is eligible", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
    assert_eq!((w.serving(), w.redis("b").keys), (Some("b"), 10));
}

#[test]
fn a_master_that_became_a_copy_of_another_redis_is_replaced_by_its_replica() {
    for keys in [3, 0, 500] {
        let mut w = World::settled_pair();
        stray(&mut w, keys);
        b_goes_on(&mut w);
    }
}

/// Who decides then never saw a as a master; a's own node did.
#[test]
fn the_same_while_the_leader_is_lost() {
    for keys in [3, 0] {
        let mut w = World::settled_pair();
        let leader = w.leader().expect("a leader");
        assert_eq!(leader, "w");
        w.isolate("w");
        stray(&mut w, keys);
        b_goes_on(&mut w);
    }
}

/// A replica of another Redis and a master again, between two looks: it never shows the wrong role.
#[test]
fn a_master_whose_data_were_changed_between_two_looks_fences_at_once() {
    let mut w = World::settled_pair();
    // Its replica lost the link, and tries again once a second.
    w.no_replication = true;
    stray(&mut w, 3);
    let r = w.redis("a");
    (r.master, r.history, r.previous) = (None, "own".into(), Some(("other".into(), 15_002)));
    w.until("a fences", 51, |w| !w.is_open("a"));
    w.no_replication = false;
    b_goes_on(&mut w);
}

#[test]
fn a_replica_that_became_a_copy_of_another_redis_leaves_the_set_and_is_not_promoted() {
    let mut w = World::settled_pair();
    w.no_replication = true;
    let r = w.redis("b");
    r.master = Some(([10, 99, 0, 77], 16465).into());
    (r.history, r.keys, r.offset) = ("other".into(), 700, 90_000);
    w.until("b left the set", 500, |w| w.pair_status().is_some_and(|g| g.eligible.is_empty()));
    w.redis("a").append_only = true;
    w.kill_redis("a");
    for _ in 0..2000 {
        w.step();
        assert!(!w.writable("b"));
    }
    w.start_redis("a", false);
    w.until("a serves", 5000, |w| w.serving() == Some("a"));
    w.no_replication = false;
    w.until("b has the group's data", 3000, |w| w.redis("b").keys == 10);
}
