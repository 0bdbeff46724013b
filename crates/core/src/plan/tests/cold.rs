//! Cold start: what was read from two disks, and which of them goes on.

use super::*;
use crate::lineage::Lineage;

/// What `INFO` shows of a Redis that has started anew.
#[derive(Clone, Copy)]
struct Started {
    id: &'static str,
    offset: u64,
    before: Option<(&'static str, u64)>,
    keys: u64,
    append_only: bool,
}

/// An append-only file never names its history, and a master's RDB does not before Redis 7.
const fn unnamed(offset: u64, keys: u64, append_only: bool) -> Started {
    Started { id: "fresh", offset, before: None, keys, append_only }
}

/// A replica by its own file, from an RDB.
const fn replica(offset: u64) -> Started {
    Started { id: "h", offset, before: None, keys: 4, append_only: false }
}

/// A master by its own file, from an RDB of Redis 7 that was taken at `saved`; some keys have expired since.
const fn master(saved: u64) -> Started {
    Started {
        id: "fresh",
        offset: saved + 30,
        before: Some(("h", saved + 1)),
        keys: 5,
        append_only: false,
    }
}

fn seen(name: &str, is_master: bool, s: Started) -> RedisView {
    let before = s.before;
    RedisView::Up(RedisObservation {
        run_id: RunId::new(&format!("run-{name}-2")),
        replication_id: if s.id == "fresh" { format!("fresh-{name}") } else { s.id.into() },
        previous: before
            .map(|(id, until_offset)| PreviousHistory { replication_id: id.into(), until_offset }),
        keys: s.keys,
        append_only: s.append_only,
        ..redis(name, s.offset, is_master)
    })
}

/// a was master and b eligible, and both have started anew.
fn off_and_on(a: Started, b: Started) -> Case {
    let mut case = Case::well().fenced(FenceCause::RunIdChanged);
    case.cluster.groups[0].members.retain(|m| m.node != node_id("c"));
    case.group.eligible.retain(|m| m.node == node_id("b"));
    case.reports.remove("c");
    case.report("a").redis = seen("a", true, a);
    case.report("b").redis = seen("b", b.id != "h", b);
    case
}

fn unrelated(case: &Case) -> bool {
    let hold = case.hold();
    assert!(hold.needs_operator(), "{hold:?}");
    matches!(hold, HoldReason::UnrelatedDataSets { .. })
}

#[test]
fn an_offset_of_another_history_does_not_win_against_the_last_master() {
    for (what, a, b) in [
        ("Redis 5: a has an AOF, b an old RDB", unnamed(0, 9, true), replica(500_000)),
        (
            "Redis 7: both have an AOF, and a key expired at b",
            unnamed(0, 9, true),
            unnamed(40, 9, true),
        ),
        ("b has an RDB that names its history", unnamed(0, 9, true), master(900)),
        ("b is empty", unnamed(0, 9, false), Started { keys: 0, ..replica(500_000) }),
    ] {
        let mut case = off_and_on(a, b);
        assert_eq!(case.assigned(), ("a", Cause::ColdStart), "{what}");
        // Who is not eligible any more does not hold it back either.
        case.group.eligible.clear();
        assert_eq!(case.assigned(), ("a", Cause::ColdStart), "{what}");
    }
}

#[test]
fn within_a_history_the_one_that_goes_on_from_the_other_wins() {
    for (a, b, want) in [
        (master(800), replica(900), "b"),
        (master(900), replica(900), "a"),
        (master(900), replica(899), "a"),
        (master(900), master(900), "a"),
        (master(800), master(801), "b"),
    ] {
        let mut case = off_and_on(a, b);
        assert_eq!(case.assigned(), (want, Cause::ColdStart));
        case.group.eligible.clear();
        let old = want == "b";
        assert_eq!(old, matches!(case.plan(), Plan::Hold(HoldReason::OlderDataSet)));
    }
}

#[test]
fn what_nobody_can_compare_waits_for_an_operator() {
    for (what, a, b) in [
        ("Redis 6: two RDBs", unnamed(0, 9, false), replica(500_000)),
        ("an RDB beside an AOF", master(900), unnamed(0, 9, true)),
    ] {
        let mut case = off_and_on(a, b);
        assert!(unrelated(&case), "{what}");
        let (request, to) = (RequestId(1), Some(node_id("b")));
        case.forced = Some(Forced { request, to, allow_data_loss: true });
        assert_eq!(case.assigned(), ("b", Cause::Operator));
        case.forced = None;
        // It would be overwritten, eligible or not.
        case.group.eligible.clear();
        assert!(unrelated(&case), "{what}");
    }
}

#[test]
fn an_empty_last_master_leaves_it_to_the_replica_and_one_that_is_away_is_waited_for() {
    let case = off_and_on(unnamed(0, 0, true), replica(900));
    assert_eq!(case.assigned(), ("b", Cause::ColdStart));
    let mut away = off_and_on(unnamed(0, 9, true), replica(900));
    away.cluster.timing.cold_start_wait = Span::from_secs(600);
    away.reports.get_mut("a").unwrap().0 = Mono(0);
    assert!(matches!(away.hold(), HoldReason::ColdStart { .. }));
    away.now = Mono(1000 * SEC);
    away.reports.get_mut("b").unwrap().0 = Mono(1000 * SEC);
    // What is known of it counts for longer.
    assert!(unrelated(&away));
    away.report("a").redis = seen("a", true, master(950));
    assert_eq!(away.hold(), HoldReason::OlderDataSet);
    away.report("a").redis = RedisView::Down(DownReason::Dead);
    assert_eq!(away.assigned(), ("b", Cause::ColdStart), "it did not come within cold_start_wait");
}

/// Found by the simulator: it came back with an old file, and who went on from there was cut off.
#[test]
fn a_last_master_that_fell_back_waits_for_those_who_are_away() {
    let mut case = off_and_on(master(800), replica(900));
    case.now = Mono(1000 * SEC);
    case.reports.get_mut("a").unwrap().0 = case.now;
    let unheard = RedisView::Unknown;
    case.report("b").redis = unheard;
    case.group.eligible.clear();
    assert_eq!(case.assigned(), ("a", Cause::ColdStart), "nothing says what it had");
    let data = Lineage { replication_id: "h".into(), previous: None, offset: 1000 };
    case.report("a").led = Some(Led { epoch: Epoch(1), data });
    assert_eq!(case.hold(), HoldReason::OlderDataSet);
    case.reports.get_mut("b").unwrap().0 = case.now;
    case.report("b").redis = seen("b", false, replica(790));
    assert_eq!(case.assigned(), ("a", Cause::ColdStart), "nobody has more");
}

/// Found by the simulator: it was named, lost power before it served, and its predecessor had more all the time.
#[test]
fn an_append_only_file_of_one_that_never_served_is_not_taken_for_the_whole() {
    let mut case = off_and_on(unnamed(0, 9, true), unnamed(500, 12, false));
    assert_eq!(case.assigned(), ("a", Cause::ColdStart));
    case.group.assignment.as_mut().unwrap().serving = false;
    assert!(unrelated(&case));
}

/// a had become a copy of another Redis before it ended.
#[test]
fn a_strayed_master_that_started_anew_does_not_win() {
    let mut case = off_and_on(unnamed(0, 9, true), replica(900));
    let data = Lineage { replication_id: "h".into(), previous: None, offset: 1000 };
    case.report("a").led = Some(Led { epoch: Epoch(1), data });
    assert_eq!(case.assigned(), ("a", Cause::ColdStart));
    let copy = RedisObservation { replication_id: "x".into(), ..redis("a", 70, false) };
    case.seen_before.insert("a", copy);
    assert!(unrelated(&case));
}

/// What a life wrote while it led is no expiry of keys.
#[test]
fn what_a_master_wrote_while_it_led_counts_in_full() {
    let mut case = off_and_on(master(800), replica(900));
    let data = Lineage { replication_id: "fresh-a".into(), previous: None, offset: 800 };
    case.report("a").led = Some(Led { epoch: Epoch(1), data });
    assert_eq!(case.assigned(), ("a", Cause::ColdStart), "the two parted at 800");
}
