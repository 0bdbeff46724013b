//! A master that its own node finds well, behind a filter on its port: who must not reach it before it is moved.

mod world;

use redkeep_core::command::Cause;
use redkeep_core::observe::Seen;
use redkeep_core::plan::HoldReason;
use redkeep_core::*;
use world::World;

/// Long enough for every look to have failed often enough, and for `max_lag`.
const LONG: u64 = 6000;

fn filter(w: &mut World, from: &[&'static str], to: &'static str) {
    w.filtered.extend(from.iter().map(|from| (*from, to)));
}

fn stays_at_a(w: &mut World) {
    let epoch = w.pair_status().expect("a leader").epoch;
    for _ in 0..LONG {
        w.step();
        assert!(w.writable("a"), "{}", w.describe());
    }
    assert_eq!(w.pair_status().expect("a leader").epoch, epoch);
}

fn seen(w: &mut World) -> Vec<(&'static str, &'static str, Seen)> {
    let sights = w.pair_status().expect("a leader").sights;
    sights.into_iter().map(|(by, s)| (world::name_of(by), world::name_of(s.node), s.seen)).collect()
}

/// A second between looks, two probes of 50 ms, and at least two timeouts of 100 ms.
#[test]
fn a_master_that_the_two_others_cannot_reach_hands_over_to_the_replica() {
    let mut w = World::settled_pair();
    filter(&mut w, &["b", "w", "a"], "a");
    let ms = w.until("b is writable", 1400, |w| {
        assert!(!(w.writable("a") && w.writable("b")), "two writers");
        w.writable("b")
    });
    println!("moved {ms} ms after the filter");
    w.until("b serves", 100, |w| w.serving() == Some("b"));
    assert_eq!(w.pair_status().expect("a leader").cause, Some(Cause::MasterUnreached));
    let told = |w: &mut World, name, kind: fn(&EventKind) -> bool| {
        w.host(name).log.iter().filter(|e| kind(&e.kind)).count()
    };
    for name in ["b", "w"] {
        assert_eq!(told(&mut w, name, |e| matches!(e, EventKind::Unreached { .. })), 1, "{name}");
    }
    // It follows, and is eligible; the filter is still there and nothing moves again.
    w.until("a is eligible", 8000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
    w.run(LONG);
    assert_eq!(w.serving(), Some("b"));
}

#[test]
fn a_filter_towards_one_node_alone_is_told_and_moves_nothing() {
    for one in ["b", "w"] {
        let mut w = World::settled_pair();
        filter(&mut w, &[one], "a");
        stays_at_a(&mut w);
        let seen = seen(&mut w);
        assert!(
            matches!(seen.iter().find(|(_, of, _)| *of == "a"), Some((by, _, Seen::Lost(_))) if *by == one),
            "{seen:?}"
        );
        w.filtered.clear();
        w.run(1500);
        assert_eq!(self::seen(&mut w), []);
    }
}

#[test]
fn a_link_between_the_two_redis_hosts_moves_nothing() {
    let mut w = World::settled_pair();
    w.cut_between("a", "b");
    stays_at_a(&mut w);
}

/// The port was never open to the witness; then the link of the pair is cut.
#[test]
fn a_witness_that_never_reached_the_master_does_not_count() {
    let mut w = World::pair();
    filter(&mut w, &["w"], "a");
    filter(&mut w, &["w"], "b");
    let mut w = World::settled(w);
    w.run(3000);
    let never = |w: &mut World| {
        let by =
            |(by, of, seen): &(_, _, _)| (*by, *of) == ("w", "a") && matches!(seen, Seen::Never(_));
        seen(w).iter().any(by)
    };
    assert!(never(&mut w));
    filter(&mut w, &["b"], "a");
    stays_at_a(&mut w);
}

#[test]
fn a_replica_that_the_witness_does_not_reach_is_not_named() {
    let mut w = World::settled_pair();
    filter(&mut w, &["b", "w"], "a");
    filter(&mut w, &["w"], "b");
    stays_at_a(&mut w);
    let hold = w.pair_status().expect("a leader").hold;
    assert!(matches!(hold, Some(HoldReason::Unreached { .. })), "{hold:?}");
}

/// No supervisor leads for seconds: the lock closes the port by itself, and everybody who looks is refused.
#[test]
fn a_port_that_the_lock_closed_is_not_taken_for_a_filter() {
    let mut w = World::settled_pair();
    w.stop_supervisor("w");
    w.cut_between("a", "b");
    w.until("the lease is over", 1000, |w| !w.writable("a"));
    w.run(3000);
    let spec = world::spec();
    w.start_supervisor("w", &spec);
    w.heal();
    w.until("a master serves", 5000, |w| w.writable("a") || w.writable("b"));
    let epoch = w.pair_status().expect("a leader").epoch;
    w.run(LONG);
    let status = w.pair_status().expect("a leader");
    assert_eq!((status.epoch, status.sights.len()), (epoch, 0));
    assert_ne!(status.cause, Some(Cause::MasterUnreached));
}

/// The filter comes in the middle of a planned switchover, and at a takeover: both end as they would.
#[test]
fn a_switchover_ends_as_it_would_without_a_filter() {
    let mut w = World::settled_pair();
    w.switch_to("b");
    filter(&mut w, &["b", "w"], "a");
    w.until("b serves", 2000, |w| w.serving() == Some("b"));
    assert_eq!(w.pair_status().expect("a leader").cause, Some(Cause::Switchover));
    w.run(LONG);
    assert_eq!(w.serving(), Some("b"));
}

#[test]
fn a_cooldown_holds_it_back_until_somebody_has_looked() {
    let mut w = World::cooling_down();
    w.run(1500);
    filter(&mut w, &["a", "w"], "b");
    w.until("it is held", 2500, World::is_cooling);
    w.run(1000);
    assert!(w.is_cooling() && w.writable("b"));
    w.ask(AdminRequest::Acknowledge { group: None, dry_run: false });
    w.until("a serves", 500, |w| w.serving() == Some("a"));
}
