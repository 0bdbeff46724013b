//! Durability strict: `min-replicas-to-write` goes with the committed eligible set.

mod world;

use redkeep_core::ids::node_id;
use redkeep_core::spec::Durability;
use redkeep_core::*;
use world::World;

fn strict_spec() -> spec::ClusterSpec {
    let mut spec = world::spec();
    spec.groups[0].durability = Durability::Strict;
    spec
}

/// a serves, b is eligible, and Redis of a has been told.
fn strict_pair() -> World {
    let mut w = World::settled(World::pair_of(&strict_spec()));
    assert_eq!((w.redis("a").min_replicas, w.redis("a").min_replicas_max_lag), (1, Some(2)));
    w
}

/// Members of the set, as the supervisor of `name` has applied it.
fn members(w: &mut World, name: &str) -> usize {
    let now = w.now();
    w.host(name).core.status(now).groups.first().map_or(0, |g| g.eligible.len())
}

#[test]
fn an_adopted_master_writes_alone_until_its_replica_is_eligible() {
    let mut w = World::pair_of(&strict_spec());
    w.until("a serves", 5000, |w| {
        let asked = w.redis("a").min_replicas;
        assert!(asked <= u32::try_from(members(w, "a")).unwrap());
        w.serving() == Some("a")
    });
    w.until("b is eligible", 5000, |w| members(w, "a") == 1);
    w.until("it was told", 5, |w| w.redis("a").min_replicas == 1);
    w.until("the leader knows", 100, |w| w.pair_status().unwrap().min_replicas == Some(1));
    assert_eq!(w.pair_status().unwrap().durability, Durability::Strict);
}

#[test]
fn the_number_falls_only_after_the_set_without_the_replica_is_applied_and_rises_again() {
    let mut w = strict_pair();
    w.kill_redis("b");
    w.until("a goes on alone", 5000, |w| {
        let alone = w.redis("a").min_replicas == 0;
        assert!(!alone || members(w, "a") == 0, "before the commit");
        alone
    });
    assert!(w.writable("a"));
    w.start_redis("b", false);
    w.until("b is eligible", 5000, |w| members(w, "a") == 1);
    w.until("it was told", 5, |w| w.redis("a").min_replicas == 1);
}

#[test]
fn a_master_that_is_cut_off_is_never_told_to_go_on_alone() {
    let mut w = strict_pair();
    w.isolate("a");
    w.until("b serves", 1000, |w| w.serving() == Some("b"));
    for _ in 0..10_000 {
        assert_eq!(w.redis("a").min_replicas, 1);
        w.step();
    }
    assert_eq!(w.redis("b").min_replicas, 0, "it is alone, as committed");
    w.heal();
    w.until("a is eligible", 20_000, |w| members(w, "b") == 1);
    w.until("it was told", 5, |w| w.redis("b").min_replicas == 1);
}

#[test]
fn a_new_master_has_been_told_when_its_gate_opens() {
    let mut w = strict_pair();
    w.switch_to("b");
    w.until("b is open", 1000, |w| w.is_open("b"));
    assert_eq!(w.redis("b").min_replicas, 1, "the old master is in the set");
    w.until("b serves", 1000, |w| w.serving() == Some("b"));
}

#[test]
fn a_restarted_supervisor_never_lowers_what_the_life_before_it_had_set() {
    let mut w = strict_pair();
    for _ in 0..2 {
        w.stop_supervisor("a");
        w.start_supervisor("a", &strict_spec());
        for _ in 0..3000 {
            assert_eq!(w.redis("a").min_replicas, 1);
            w.step();
        }
        assert!(w.writable("a"));
    }
}

#[test]
fn a_change_of_leader_changes_nothing() {
    let mut w = strict_pair();
    for leader in ["b", "w"] {
        w.lead_by(leader);
        for _ in 0..1000 {
            assert_eq!(w.redis("a").min_replicas, 1);
            w.step();
        }
    }
}

#[test]
fn an_async_group_leaves_the_lag_as_redis_has_it() {
    let mut w = World::settled_pair();
    assert_eq!((w.redis("a").min_replicas, w.redis("a").min_replicas_max_lag), (0, None));
    assert_eq!(w.pair_status().unwrap().master, Some(node_id("a")));
    let told = |a: &&Action| matches!(a, Action::SetMinReplicas(_));
    assert_eq!(w.host("a").actions.iter().filter(told).count(), 0);
}
