//! An old master comes back: what only it holds is kept aside before it is overwritten, and nothing waits for ever.

mod world;

use redkeep_core::effect::Kept;
use redkeep_core::*;
use world::{Keeping, World};

/// a is cut off, has 40 bytes that b never got, and b serves.
fn parted() -> World {
    let mut w = World::settled_pair();
    w.isolate("a");
    w.redis("a").offset += 40;
    w.until("b serves", 1000, |w| w.serving() == Some("b"));
    w
}

fn follows(w: &mut World) -> bool {
    w.redis("a").master.is_some()
}

/// What a's supervisor told of it.
fn told(w: &mut World) -> Vec<String> {
    let of = |e: &Event| match &e.kind {
        EventKind::Quarantined { gap, size, path } => Some(format!("{gap:?} {size} {path}")),
        EventKind::QuarantineFailed { gap, reason } => Some(format!("{gap:?} {reason}")),
        _ => None,
    };
    w.host("a").log.iter().filter_map(of).collect()
}

fn count(w: &mut World, wanted: fn(&Action) -> bool) -> usize {
    w.host("a").actions.iter().filter(|a| wanted(a)).count()
}

fn keeps(w: &mut World) -> usize {
    count(w, |a| matches!(a, Action::KeepAside { .. }))
}

#[test]
fn a_tail_is_kept_and_only_then_overwritten() {
    let mut w = parted();
    w.keeping = Keeping::Lasts;
    w.heal();
    w.until("a keeps its data set", 1000, |w| keeps(w) == 1);
    for _ in 0..5000 {
        assert!(!follows(&mut w) && !w.is_open("a"), "not kept yet");
        w.step();
    }
    assert_eq!(keeps(&mut w), 1, "one at a time");
    let (group, id) = (GroupId::new("pair"), w.host("a").keep_id.unwrap());
    let outcome = ActionOutcome::Kept(Kept { path: "/kept".into(), size: 7 });
    w.feed("a", Input::ActionDone { group, id, outcome });
    w.until("a follows", 10, follows);
    assert_eq!(told(&mut w), ["Some(40) 7 /kept"]);
    w.until("a is eligible", 3000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
}

#[test]
fn an_old_master_that_holds_nothing_more_follows_at_once() {
    let mut w = World::settled_pair();
    w.switch_to("b");
    w.until("b serves", 1000, |w| w.serving() == Some("b"));
    w.until("a follows", 10, follows);
    w.run(1000);
    assert_eq!((keeps(&mut w), told(&mut w)), (0, Vec::new()));
    let compared = count(&mut w, |a| matches!(a, Action::Compare { .. }));
    assert_eq!(compared, 1);
}

#[test]
fn an_empty_or_restarted_one_is_not_kept_but_from_an_append_only_file() {
    for (empty, append_only, kept) in [(true, true, 0), (false, false, 0), (false, true, 1)] {
        let mut w = World::settled_pair();
        w.redis("a").append_only = append_only;
        w.kill_redis("a");
        w.until("b serves", 100, |w| w.serving() == Some("b"));
        w.start_redis("a", empty);
        w.until("a follows", 1000, follows);
        assert_eq!(keeps(&mut w), kept, "empty {empty}, AOF {append_only}");
        assert_eq!(told(&mut w).len(), kept);
        // Restarted again at this epoch it holds what a replica holds.
        w.run(500);
        w.kill_redis("a");
        w.step();
        w.start_redis("a", false);
        w.until("a follows again", 1000, follows);
        assert_eq!(keeps(&mut w), kept, "empty {empty}, AOF {append_only}, again");
    }
}

#[test]
fn a_replica_that_gets_another_master_is_not_kept() {
    let mut w = World::settled_pair();
    w.switch_to("b");
    w.until("b serves", 1000, |w| w.serving() == Some("b"));
    w.until("a follows", 100, follows);
    w.run(2000);
    w.switch_to("a");
    w.until("a serves", 1000, |w| w.serving() == Some("a"));
    w.host("a").actions.clear();
    w.host("b").actions.clear();
    w.redis("b").master = Some(([10, 99, 0, 9], 1).into());
    w.until("b is repointed", 1000, |w| w.redis("b").master.is_some_and(|m| m.port() != 1));
    let asked = |a: &&Action| matches!(a, Action::Compare { .. } | Action::KeepAside { .. });
    assert_eq!(w.host("b").actions.iter().filter(asked).count(), 0);
}

#[test]
fn what_cannot_be_kept_is_told_and_overwritten_after_three_attempts() {
    for (retry, attempts, least_ms) in [(true, 3, 2000), (false, 1, 0)] {
        let mut w = parted();
        w.keeping = Keeping::Fails { retry };
        w.heal();
        let ms = w.until("a follows", 10_000, follows);
        assert!((least_ms..least_ms + 1000).contains(&ms), "{ms}");
        assert_eq!((keeps(&mut w), told(&mut w)), (attempts, vec!["Some(40) no room".to_owned()]));
    }
}

/// The copy of its memory cost it its life, time and again.
#[test]
fn a_redis_that_dies_of_it_is_not_asked_for_ever() {
    let mut w = parted();
    w.redis("a").append_only = true;
    w.keeping = Keeping::Lasts;
    w.heal();
    for attempt in 1..=3 {
        w.until("a keeps its data set", 1000, |w| keeps(w) == attempt);
        w.kill_redis("a");
        w.step();
        w.start_redis("a", false);
    }
    w.until("a follows", 1000, follows);
    assert_eq!(keeps(&mut w), 3);
    assert_eq!(told(&mut w).len(), 1, "{:?}", told(&mut w));
}

#[test]
fn nothing_is_overwritten_while_the_new_master_cannot_be_reached() {
    let mut w = parted();
    w.heal();
    w.cut_between("a", "b");
    w.run(20_000);
    assert!(!follows(&mut w) && keeps(&mut w) == 0);
    let failed = |e: &&Event| matches!(e.kind, EventKind::ActionFailed { .. });
    assert_eq!(w.host("a").log.iter().filter(failed).count(), 1, "told once");
    w.heal();
    w.until("a follows", 1000, follows);
    assert_eq!(told(&mut w), ["Some(40) 100 /kept/1040"]);
}

#[test]
fn a_supervisor_that_restarts_in_the_middle_begins_anew() {
    let mut w = parted();
    w.keeping = Keeping::Lasts;
    w.heal();
    w.until("a keeps its data set", 1000, |w| keeps(w) == 1);
    w.stop_supervisor("a");
    w.run(100);
    w.keeping = Keeping::Succeeds;
    w.start_supervisor("a", &world::spec());
    w.until("a follows", 5000, follows);
    assert_eq!(w.host("a").kept, [(1040, Some(40))]);
}

/// It becomes master again, and what was begun for its overwriting is void.
#[test]
fn an_assignment_in_the_middle_ends_it() {
    let mut w = parted();
    w.keeping = Keeping::Lasts;
    w.heal();
    w.until("a keeps its data set", 1000, |w| keeps(w) == 1);
    let id = w.host("a").keep_id.unwrap();
    w.force("a");
    w.until("a serves", 3000, |w| w.serving() == Some("a"));
    let failure = effect::ActionFailure { retry: false, text: "ended".into() };
    let outcome = ActionOutcome::Failed(failure);
    w.feed("a", Input::ActionDone { group: GroupId::new("pair"), id, outcome });
    w.run(500);
    assert!(w.writable("a") && !follows(&mut w));
    assert_eq!(told(&mut w), [""; 0]);
}

/// A BGSAVE that failed makes Redis refuse writes. As a replica Redis 7 would end itself at the first write that comes to it,
/// so it is made one when its disk is well again.
#[test]
fn an_old_master_whose_disk_refuses_writes_is_repointed_once_it_is_well() {
    let mut w = parted();
    w.keeping = Keeping::Lasts;
    w.heal();
    w.until("a keeps its data set", 1000, |w| keeps(w) == 1);
    w.redis("a").no_writes = Some((observe::ProbeFailure::Misconfigured, true));
    w.run(500);
    let (group, id) = (GroupId::new("pair"), w.host("a").keep_id.unwrap());
    let failure = effect::ActionFailure { retry: false, text: "BGSAVE failed".into() };
    w.feed("a", Input::ActionDone { group, id, outcome: ActionOutcome::Failed(failure) });
    w.run(1000);
    assert!(!follows(&mut w));
    w.redis("a").no_writes = None;
    w.until("a follows", 1000, follows);
    assert_eq!(told(&mut w), ["Some(40) BGSAVE failed"]);
    w.run(2000);
    assert_eq!(count(&mut w, |a| matches!(a, Action::Follow { .. })), 1);
}
