//! In which order candidates come, what each would lose, and which rule excludes the rest.

use super::*;

/// Who is ranked how, by (id, offset, before) of the master and of b and c: what a candidate has beyond the master's history
/// is not the master's.
#[test]
fn candidates_are_ordered_by_what_they_have_of_the_master_s_history() {
    type Data = (&'static str, u64, Option<(&'static str, u64)>);
    let with = |name: &str, (id, offset, before): Data| RedisObservation {
        replication_id: id.into(),
        previous: before
            .map(|(id, until_offset)| PreviousHistory { replication_id: id.into(), until_offset }),
        ..redis(name, offset, name == "a")
    };
    let old: Data = ("h", 1000, None);
    let by_id = if node_id("b") < node_id("c") { ["b", "c"] } else { ["c", "b"] };
    let promoted: Data = ("new", 1000, Some(("h", 901)));
    let cases: [(&str, Data, Data, Data, &[&str]); 7] = [
        ("the highest offset", old, ("h", 900, None), ("h", 950, None), &["c", "b"]),
        ("then the node id", old, ("h", 950, None), ("h", 950, None), &by_id),
        ("not another history", old, ("h", 1, None), ("x", 9999, None), &["b"]),
        ("not its own writes", old, ("own", 9999, Some(("h", 901))), ("h", 950, None), &["c", "b"]),
        (
            "who followed it",
            promoted,
            ("h", 960, None),
            ("new", 905, Some(("h", 901))),
            &["c", "b"],
        ),
        ("or had it before", promoted, ("h", 880, None), ("x", 9999, None), &["b"]),
        ("an older one too", promoted, ("h", 880, None), ("h", 890, None), &["c", "b"]),
    ];
    for (what, master, b, c, order) in cases {
        let mut case = Case::well();
        case.seen_before.insert("a", with("a", master));
        case.report("b").redis = RedisView::Up(with("b", b));
        case.report("c").redis = RedisView::Up(with("c", c));
        let nodes = case.nodes();
        let ranked: Vec<_> = case.candidates(&nodes).ranked().iter().map(|x| x.node).collect();
        let order: Vec<_> = order.iter().copied().map(node_id).collect();
        assert_eq!(ranked, order, "{what}");
    }
}

#[test]
fn priority_decides_among_equals_only_and_an_unknown_master_leaves_the_offsets() {
    let prefer_b = |offset| {
        let mut case = Case::well();
        case.cluster.groups[0].members.iter_mut().for_each(|m| {
            m.priority = if m.node == node_id("b") { 200 } else { 100 };
        });
        case.report("b").redis = RedisView::Up(redis("b", offset, false));
        case.reports.remove("a");
        let nodes = case.nodes();
        case.candidates(&nodes).ranked().first().map(|x| x.node)
    };
    assert_eq!(prefer_b(950), Some(node_id("b")));
    assert_eq!(prefer_b(949), Some(node_id("c")));
}

/// What a restarted master has read from its disk is less than its replicas have, and says nothing about them.
#[test]
fn a_master_that_restarted_with_less_does_not_level_its_replicas() {
    let mut view = NodeView::default();
    let case = Case::well();
    let (at, report) = case.reports["a"].clone();
    let told = |seq, redis| {
        let report = GroupReport { redis: RedisView::Up(redis), ..report.clone() };
        Report { incarnation: 1, seq, applied: 9, groups: vec![report], sights: vec![] }
    };
    let previous = Some(PreviousHistory { replication_id: "h".into(), until_offset: 501 });
    let restarted = RedisObservation {
        run_id: RunId::new("new"),
        replication_id: "fresh".into(),
        previous,
        ..redis("a", 500, true)
    };
    assert!(view.take(at, told(1, redis("a", 1000, true))));
    assert!(view.take(at, told(2, restarted)));
    let mut nodes = case.nodes();
    nodes.insert(node_id("a"), view);
    let c = case.candidates(&nodes);
    assert_eq!(c.ranked().iter().map(|x| x.node).collect::<Vec<_>>(), ["c", "b"].map(node_id));
    assert_eq!(c.loss(node_id("c")).map(|loss| loss.bytes), Some(50));
}

#[test]
fn another_history_comes_after_the_same_history() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.seen_before.insert("a", redis("a", 1000, true));
    case.report("c").redis =
        RedisView::Up(RedisObservation { replication_id: "x".into(), ..redis("c", 2000, false) });
    assert_eq!(case.assigned(), ("b", Cause::MasterDown));
}

#[test]
fn what_is_lost_is_counted_in_the_master_s_history_from_the_fence_on_and_has_an_age() {
    let mut case = Case::well().fenced(FenceCause::LeaderAsked);
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    case.seen_before.insert("a", redis("a", 980, true));
    case.reports.get_mut("a").unwrap().0 = Mono(99 * SEC);
    let previous = Some(PreviousHistory { replication_id: "h".into(), until_offset: 901 });
    let apart =
        RedisObservation { replication_id: "own".into(), previous, ..redis("b", 5000, false) };
    case.report("b").redis = RedisView::Up(apart);
    let nodes = case.nodes();
    let c = case.candidates(&nodes);
    let age = Span::from_secs(1);
    assert_eq!(c.loss(node_id("a")), None);
    assert_eq!(c.loss(node_id("b")), Some(Loss { bytes: 100, known_ago: age }));
    assert_eq!(c.loss(node_id("c")), Some(Loss { bytes: 50, known_ago: age }));
    let Plan::Assign(assign) = case.plan() else { panic!() };
    assert_eq!((assign.master, assign.estimated_loss_bytes), (node_id("c"), Some(50)));
    case.report("c").redis =
        RedisView::Up(RedisObservation { replication_id: "x".into(), ..redis("c", 950, false) });
    let nodes = case.nodes();
    assert_eq!(case.candidates(&nodes).loss(node_id("c")), None, "it cannot be compared");
}

/// Found by reading: what a new leader never saw was written down as a loss of nothing.
#[test]
fn a_loss_that_is_not_known_is_not_written_down_as_none() {
    let lost = |case: &Case| match case.plan() {
        Plan::Assign(assign) => assign.estimated_loss_bytes,
        other => panic!("{other:?}"),
    };
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    assert_eq!(lost(&case), None, "no report ever showed the old master's data set");
    case.seen_before.insert("a", redis("a", 1000, true));
    assert_eq!(lost(&case), Some(50));
    // It goes on at its own node, as the same life.
    let goes_on = Case::well().fenced(FenceCause::LeaderAsked);
    assert_eq!((goes_on.assigned().0, lost(&goes_on)), ("a", Some(0)));
    // The last report is older than the final offset, which the target confirmed.
    let mut planned = Case::well().fenced(FenceCause::Switchover);
    planned.group.switchover = Some(node_id("b"));
    planned.report("a").fenced.as_mut().unwrap().confirmed_by_target = true;
    assert_eq!((planned.assigned().0, lost(&planned)), ("b", Some(0)));
}

#[test]
fn each_exclusion_names_its_rule() {
    let mut case = Case::well();
    case.group.eligible.retain(|m| m.node == node_id("b"));
    case.report("b").redis = RedisView::Down(DownReason::Hung);
    let nodes = case.nodes();
    let c = case.candidates(&nodes);
    assert_eq!(c.judge(node_id("a")), Err(Exclusion::IsMaster));
    assert_eq!(c.judge(node_id("b")), Err(Exclusion::RedisDown));
    assert_eq!(c.judge(node_id("c")), Err(Exclusion::NotEligible));
    assert_eq!(c.judge(node_id("x")), Err(Exclusion::SupervisorSilent));
}
