//! A replica's link to its master after a long cut: renewed once, when it helps, and never else.

mod world;

use redkeep_core::*;
use world::World;

fn relinks(w: &mut World) -> usize {
    let count = |w: &mut World, name| {
        let actions = &w.host(name).actions;
        actions.iter().filter(|a| matches!(a, Action::Relink { .. })).count()
    };
    assert_eq!(count(w, "a"), 0, "never at the master");
    count(w, "b")
}

/// The link is cut for five seconds by `cut`, and b leaves the eligible set.
fn cut_for_long(w: &mut World, cut: impl FnOnce(&mut World)) {
    cut(w);
    w.redis("b").stuck_since = Some(w.t);
    w.run(5000);
    assert_eq!(relinks(w), 0, "the path is not open");
    assert!(w.pair_status().is_some_and(|g| g.eligible.is_empty()));
    w.heal();
}

fn is_eligible(w: &mut World) -> bool {
    w.pair_status().is_some_and(|g| g.eligible.len() == 1)
}

#[test]
fn a_replica_that_was_cut_off_is_eligible_again_without_waiting_for_tcp() {
    let mut w = World::settled_pair();
    cut_for_long(&mut w, |w| w.isolate("b"));
    let ms = w.until("b is eligible", 2000, is_eligible);
    println!("eligible {ms} ms after the cut");
    w.run(10_000);
    assert_eq!(relinks(&mut w), 1, "once");
}

/// No node was silent: the leader heard both all the time.
#[test]
fn a_link_alone_that_was_cut_is_renewed_once_the_hosts_reach_each_other() {
    let mut w = World::settled_pair();
    cut_for_long(&mut w, |w| w.cut_between("a", "b"));
    w.until("b is eligible", 2000, is_eligible);
    w.run(10_000);
    assert_eq!(relinks(&mut w), 1, "once");
}

#[test]
fn a_leader_beside_either_end_of_the_link_has_it_renewed_too() {
    for leader in ["a", "b"] {
        let mut w = World::settled_pair();
        w.redis("b").stuck_since = Some(w.t);
        w.lead_by(leader);
        w.until("b's link is renewed", 5000, |w| w.redis("b").stuck_since.is_none());
        assert_eq!(relinks(&mut w), 1, "{leader}");
    }
}

/// The master kept too little of its stream: a new link would cost a full copy, the old one may come back.
#[test]
fn a_link_whose_end_would_cost_a_full_copy_is_left_to_tcp() {
    let mut w = World::settled_pair();
    w.redis("a").backlog_from = 1002;
    w.redis("b").stuck_since = Some(w.t);
    w.run(5000);
    assert_eq!(relinks(&mut w), 0);
    w.redis("a").backlog_from = 1001;
    w.until("b's link is renewed", 2000, |w| w.redis("b").stuck_since.is_none());
}

#[test]
fn a_link_that_stays_dead_is_renewed_every_other_second_at_most() {
    let mut w = World::settled_pair();
    for _ in 0..10_000 {
        w.redis("b").stuck_since = Some(w.t.saturating_sub(4_000_000_000));
        w.step();
    }
    assert!((4..=6).contains(&relinks(&mut w)), "{}", relinks(&mut w));
}
