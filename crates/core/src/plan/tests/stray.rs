//! A Redis of the group that became a copy of another one, whoever ordered it: nobody gets its data.

use super::*;
use crate::{lineage::Lineage, plan::eligible};

type Data = (&'static str, u64, Option<(&'static str, u64)>);

fn previous(of: Option<(&str, u64)>) -> Option<PreviousHistory> {
    of.map(|(id, until_offset)| PreviousHistory { replication_id: id.into(), until_offset })
}

fn with(name: &str, master: bool, (id, offset, before): Data) -> RedisObservation {
    RedisObservation {
        replication_id: id.into(),
        previous: previous(before),
        ..redis(name, offset, master)
    }
}

fn led(epoch: u64, (id, offset, before): Data) -> Option<Led> {
    let data = Lineage { replication_id: id.into(), previous: previous(before), offset };
    Some(Led { epoch: Epoch(epoch), data })
}

/// a fenced, and served `h` up to 1000 before.
fn fenced(now: RedisObservation) -> Case {
    let mut case = Case::well().fenced(FenceCause::WrongRole);
    case.report("a").led = led(1, ("h", 1000, None));
    case.report("a").redis = RedisView::Up(now);
    case
}

fn judged(case: &Case, node: &str) -> Result<NodeId, Exclusion> {
    let nodes = case.nodes();
    let c = Candidates { old_master: true, ..case.candidates(&nodes) };
    c.judge(node_id(node)).map(|x| x.node)
}

#[test]
fn an_old_master_goes_on_only_with_the_data_that_it_served() {
    let empty = RedisObservation { keys: 0, ..with("a", false, ("x", 1, None)) };
    for (what, now, goes_on) in [
        ("as they were", with("a", false, ("h", 1000, None)), true),
        ("written to since the last look", with("a", false, ("h", 1090, None)), true),
        ("master again, of its own data", with("a", true, ("n", 1010, Some(("h", 1001)))), true),
        ("a small one's", with("a", false, ("x", 70, None)), false),
        ("a large one's", with("a", false, ("x", 70_000, None)), false),
        ("an empty one's", empty, false),
        ("being replaced", with("a", false, ("h", 1, None)), false),
        ("master again, of another's", with("a", true, ("n", 5010, Some(("x", 5001)))), false),
    ] {
        let case = fenced(now);
        let want = if goes_on { "a" } else { "c" };
        assert_eq!(case.assigned(), (want, Cause::MasterDown), "{what}");
        let why = judged(&case, "a").err();
        assert_eq!(why, (!goes_on).then_some(Exclusion::OtherHistory), "{what}");
        let nodes = case.nodes();
        let lost = case.candidates(&nodes).loss(node_id("c")).map(|loss| loss.bytes);
        assert!(lost.is_some_and(|bytes| bytes >= 50), "{what}: of what it served, {lost:?}");
    }
}

#[test]
fn a_strayed_master_without_replica_waits_for_an_operator() {
    let mut case = fenced(with("a", false, ("x", 70, None)));
    let nodes = case.nodes();
    let said = case.candidates(&nodes).judge(node_id("a")).err();
    assert_eq!(said, Some(Exclusion::OtherHistory), "`explain` says so");
    case.group.eligible.clear();
    assert_eq!(case.hold(), HoldReason::OtherHistory);
    assert!(case.hold().needs_operator());
    let (request, to) = (RequestId(1), Some(node_id("b")));
    case.forced = Some(Forced { request, to, allow_data_loss: true });
    assert_eq!(case.assigned(), ("b", Cause::Operator));
}

/// Neither its leader nor its own supervisor was there before.
#[test]
fn of_a_master_that_is_a_replica_now_and_whom_nobody_saw_serve_nothing_is_taken() {
    let mut case = fenced(with("a", false, ("x", 70_000, None)));
    case.report("a").led = None;
    assert_eq!(case.assigned(), ("c", Cause::MasterDown));
    // It has not served at this epoch: it is a replica until it is promoted.
    case.group.assignment.as_mut().unwrap().serving = false;
    assert_eq!(judged(&case, "a"), Ok(node_id("a")));
}

/// b copied the other data through a before a's port was closed.
#[test]
fn a_replica_that_copied_them_too_is_no_candidate() {
    let mut case = fenced(with("a", false, ("x", 70_000, None)));
    case.report("c").redis = RedisView::Up(with("c", false, ("x", 70_000, None)));
    assert_eq!(case.assigned(), ("b", Cause::MasterDown));
    assert_eq!(judged(&case, "c"), Err(Exclusion::OtherHistory));
    case.report("b").redis = RedisView::Up(with("b", false, ("x", 70_000, None)));
    assert_eq!(case.hold(), HoldReason::OtherHistory);
}

#[test]
fn a_strayed_or_emptied_replica_leaves_the_eligible_set() {
    let emptied = RedisObservation { keys: 0, ..with("b", false, ("h", 1, None)) };
    for (now, why) in [
        (with("b", false, ("x", 2000, None)), Exclusion::OtherHistory),
        (with("b", true, ("n", 2000, Some(("x", 1990)))), Exclusion::OtherHistory),
        (emptied, Exclusion::Empty),
    ] {
        let mut case = Case::well();
        case.report("a").led = led(1, ("h", 990, None));
        case.report("b").redis = RedisView::Up(now);
        assert_eq!(judged(&case, "b"), Err(why));
        let nodes = case.nodes();
        let change =
            eligible::change(&case.candidates(&nodes), &case.cluster, (&case.marks, Span(0)));
        let members = change.expect("b leaves").members;
        assert_eq!(members.iter().map(|m| m.node).collect::<Vec<_>>(), [node_id("c")]);
    }
}

/// Its node will fence at the same look; until then its replicas are not measured against what it is now.
#[test]
fn what_a_strayed_master_has_changes_no_eligible_set() {
    for now in [
        with("a", false, ("x", 70, None)),
        with("a", true, ("n", 80, Some(("x", 71)))),
        with("a", false, ("h", 1000, None)),
    ] {
        let mut case = Case::well();
        case.report("a").led = led(1, ("h", 1000, None));
        case.report("a").redis = RedisView::Up(now);
        let nodes = case.nodes();
        let c = case.candidates(&nodes);
        assert_eq!(eligible::change(&c, &case.cluster, (&case.marks, Span(0))), None);
    }
}

/// Redis forgets the name after two promotions; whoever led in between has it still.
#[test]
fn a_replica_two_promotions_behind_is_no_stranger() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.group.assignment.as_mut().unwrap().epoch = Epoch(3);
    case.report("a").fenced.as_mut().unwrap().epoch = Epoch(3);
    case.report("a").led = led(3, ("n2", 1400, Some(("n1", 1301))));
    case.group.eligible.retain(|m| m.node == node_id("c"));
    case.report("b").redis = RedisView::Down(DownReason::Dead);
    assert_eq!(judged(&case, "c"), Err(Exclusion::OtherHistory), "as far as is known");
    case.report("b").led = led(2, ("n1", 1300, Some(("h", 941))));
    assert_eq!(case.assigned(), ("c", Cause::MasterDown));
}

/// A supervisor that started after the change knows only what is there since.
#[test]
fn other_data_than_were_served_at_an_epoch_are_not_taken_for_them() {
    let mut view = NodeView::default();
    let (at, report) = Case::well().reports["a"].clone();
    let mut tell = |seq, led: Option<Led>| {
        let report = GroupReport { led, ..report.clone() };
        view.take(
            at,
            Report { incarnation: 1, seq, applied: 9, groups: vec![report], sights: vec![] },
        );
        view.led(&GroupId::new("g")).map(|(_, led)| led.data.offset)
    };
    assert_eq!(tell(1, led(1, ("h", 1000, None))), Some(1000));
    assert_eq!(tell(2, None), Some(1000));
    assert_eq!(tell(3, led(1, ("n", 80, Some(("x", 71))))), Some(1000));
    assert_eq!(tell(4, led(1, ("h", 1200, None))), Some(1200));
    assert_eq!(tell(5, led(2, ("n", 80, Some(("x", 71))))), Some(80));
}
