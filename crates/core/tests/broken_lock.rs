//! A kernel lock that cannot be put back, and a replica that somebody made writable: a port that is open beside the master's.

mod world;

use redkeep_core::observe::TakeoverFailure;
use redkeep_core::*;
use world::World;

fn broken(w: &mut World, name: &'static str) {
    w.host(name).lock_broken = true;
    w.host(name).actions.clear();
    w.feed(name, Input::Host(HostEvent::LockBroken));
}

fn told(w: &mut World, name: &str, kind: &EventKind) -> usize {
    w.host(name).log.iter().filter(|e| e.kind == *kind).count()
}

fn ordered(w: &mut World, name: &str, is: impl Fn(&Action) -> bool) -> usize {
    w.host(name).actions.iter().filter(|a| is(a)).count()
}

/// Found by an audit: the port of a master whose table could not be made anew stayed open with the VIP, while another was
/// named after the lease.
#[test]
fn a_master_whose_lock_cannot_be_put_back_shuts_writes_and_another_takes_over_after_the_lease() {
    let mut w = World::settled_pair();
    broken(&mut w, "a");
    w.run(3);
    assert!(!w.host("a").vip, "the VIP stays where no lock is");
    assert_eq!(w.redis("a").min_replicas, u32::MAX, "Redis takes writes");
    assert!(ordered(&mut w, "a", |a| matches!(a, Action::DestroySockets { .. })) > 0);
    assert_eq!(told(&mut w, "a", &EventKind::LockBroken), 1);
    let failure = |w: &mut World| w.pair_status().unwrap().members[0].takeover_failure;
    assert_eq!(failure(&mut w), Some(TakeoverFailure::Lock));
    // Not by a second wait: who cannot work its lock is not named again.
    let epoch = w.pair_status().unwrap().epoch;
    let ms = w.until("b is writable", 1000, |w| w.writable("b"));
    assert!((280..=365).contains(&ms), "{ms} ms");
    assert_eq!(w.pair_status().unwrap().epoch, epoch.next());
    w.until("a follows b", 1000, |w| w.redis("a").master.is_some());
    w.run(2_000);
    assert!(told(&mut w, "a", &EventKind::LockBroken) == 1 && !w.host("a").vip);
    // Mended: it is a replica as any other.
    w.host("a").lock_broken = false;
    w.until("a is a candidate", 3_000, |w| {
        w.pair_status().is_some_and(|g| g.members[0].excluded.is_none())
    });
    assert_eq!(told(&mut w, "a", &EventKind::LockRestored), 1);
    assert_eq!(w.serving(), Some("b"));
}

#[test]
fn writes_stay_shut_for_as_long_as_the_lock_is_broken() {
    let mut w = World::settled_pair();
    for name in ["b", "w"] {
        w.stop_supervisor(name);
    }
    broken(&mut w, "a");
    w.run(3);
    // Somebody sets it back, and connects again.
    w.redis("a").min_replicas = 0;
    w.host("a").actions.clear();
    w.run(600);
    assert_eq!(w.redis("a").min_replicas, u32::MAX);
    assert!(ordered(&mut w, "a", |a| matches!(a, Action::DestroySockets { .. })) > 0);
    assert_eq!(ordered(&mut w, "a", |a| matches!(a, Action::EnsureVip { .. })), 0);
}

/// Nobody else may be promoted: it goes on by itself, and takes writes again.
#[test]
fn a_lock_that_is_back_is_opened_by_a_new_grant_and_redis_gets_its_setting_back() {
    let mut w = World::settled_pair();
    w.kill_redis("b");
    w.run(50);
    broken(&mut w, "a");
    w.run(100);
    w.host("a").lock_broken = false;
    w.until("a is writable", 2_000, |w| w.writable("a") && w.host("a").vip);
    w.run(50);
    assert_eq!((w.redis("a").min_replicas, w.serving()), (0, Some("a")));
    assert_eq!(told(&mut w, "a", &EventKind::LockRestored), 1);
}

#[test]
fn a_replica_whose_lock_is_broken_disturbs_nobody_and_is_no_candidate() {
    let mut w = World::settled_pair();
    broken(&mut w, "b");
    w.run(700);
    assert!(w.host("b").actions.is_empty(), "{:?}", w.host("b").actions);
    assert!(w.writable("a"));
    let excluded = w.pair_status().unwrap().members[1].excluded.clone();
    assert_eq!(excluded, Some(plan::Exclusion::Lock));
}

/// The port is open by the element that clients read through.
fn read_at(w: &mut World, name: &str) -> bool {
    let t = w.t;
    w.host(name).lock.replica.get(&16465).is_some_and(|until| t < *until)
}

/// Found by an audit: its port stayed open until the element that clients read through ended by itself.
#[test]
fn a_replica_promoted_by_hand_is_shut_at_the_next_look_and_follows_again() {
    let mut w = World::settled_pair();
    w.run(50);
    assert!(read_at(&mut w, "b"));
    w.redis("b").master = None;
    let ms = w.until("b is closed", 1_000, |w| !read_at(w, "b"));
    assert!(ms <= 101, "{ms} ms, with a look each 100 ms");
    assert_eq!(told(&mut w, "b", &EventKind::WritableByHand { role: "a master" }), 1);
    w.until("b follows a and may be read", 2_000, |w| {
        w.redis("b").master.is_some() && read_at(w, "b")
    });
    assert!(w.writable("a"));
}
