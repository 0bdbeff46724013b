//! How a newcomer gets into the eligible set.

use super::*;

#[test]
fn a_newcomer_joins_before_it_counts_and_counts_when_it_passed_the_mark() {
    let mut case = Case::well();
    case.group.eligible.retain(|m| m.node == node_id("c"));
    let attached = |n: u8, offset| AttachedReplica {
        addr: [10, 0, 0, n].into(),
        port: 6379,
        online: true,
        offset,
        lag: Span(0),
    };
    let master = RedisObservation {
        replicas: vec![attached(2, 900), attached(3, 950)],
        ..redis("a", 1000, true)
    };
    case.report("a").redis = RedisView::Up(master);
    let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
    let Plan::Eligible(_, first) = case.plan() else { panic!("{:?}", case.plan()) };
    assert_eq!((first.members.len(), first.joining.clone()), (1, vec![b.clone()]));
    case.group.joining = first.joining;
    assert_eq!(case.plan(), Plan::Nothing, "no mark yet");
    case.mark(&b, 901);
    assert_eq!(case.plan(), Plan::Nothing, "not passed");
    case.mark(&b, 900);
    let Plan::Eligible(_, second) = case.plan() else { panic!("{:?}", case.plan()) };
    assert_eq!((second.members.len(), second.joining.len()), (2, 0));
}

/// After a full sync Redis shows a replica as online, with the master's offset, up to a second before the stream begins.
#[test]
fn a_newcomer_whose_stream_was_not_seen_to_flow_does_not_count() {
    let mut case = Case::well();
    case.group.eligible.retain(|m| m.node == node_id("c"));
    let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
    case.group.joining = vec![b.clone()];
    case.mark(&b, 900);
    let mut seen = |acknowledged, offset| {
        let attached = |n: u8, offset| AttachedReplica {
            addr: [10, 0, 0, n].into(),
            port: 6379,
            online: true,
            offset,
            lag: Span(0),
        };
        let replicas = vec![attached(2, acknowledged), attached(3, 950)];
        case.report("a").redis =
            RedisView::Up(RedisObservation { replicas, ..redis("a", 1000, true) });
        case.report("b").redis = RedisView::Up(redis("b", offset, false));
        case.plan()
    };
    assert_eq!(seen(0, 900), Plan::Nothing, "no acknowledgement, and nothing came");
    assert!(matches!(seen(900, 900), Plan::Eligible(..)), "acknowledged");
    assert!(matches!(seen(0, 901), Plan::Eligible(..)), "something came");
}

/// Nothing was ever written, so an acknowledgement says 0, and only its age tells that there was one.
#[test]
fn a_newcomer_to_an_empty_master_counts_when_it_has_acknowledged() {
    let mut case = Case::well();
    case.group.eligible.retain(|m| m.node == node_id("c"));
    let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
    case.group.joining = vec![b.clone()];
    case.mark(&b, 0);
    let at = case.marks[&b].at;
    let mut after = |age: u64, lag: u64| {
        let attached = |n: u8, lag| AttachedReplica {
            addr: [10, 0, 0, n].into(),
            port: 6379,
            online: true,
            offset: 0,
            lag: Span::from_secs(lag),
        };
        let replicas = vec![attached(2, lag), attached(3, 0)];
        case.report("a").redis =
            RedisView::Up(RedisObservation { replicas, ..redis("a", 0, true) });
        case.report("b").redis = RedisView::Up(redis("b", 0, false));
        case.marks.insert(b.clone(), JoinMark { offset: 0, at: Mono(at.0 - age * SEC) });
        case.plan()
    };
    assert_eq!(after(2, 1), Plan::Nothing, "its line may be as it was when it attached");
    assert_eq!(after(3, 2), Plan::Nothing, "it has not acknowledged for long");
    assert!(matches!(after(3, 1), Plan::Eligible(..)));
}

/// What a member may lack is `max_lag_bytes`; a newcomer joins at half of it, and stays while it is within it.
#[test]
fn a_newcomer_joins_when_it_lacks_less_than_half_of_what_a_member_may() {
    let b = EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") };
    let after = |offset: u64, joining: bool, limit: u64| {
        let mut case = Case::well();
        case.cluster.groups[0].max_lag_bytes = limit;
        case.group.eligible.retain(|m| m.node == node_id("c"));
        if joining {
            case.group.joining = vec![b.clone()];
            case.mark(&b, 100);
        }
        let attached = |n: u8| AttachedReplica {
            addr: [10, 0, 0, n].into(),
            port: 6379,
            online: true,
            offset: 200,
            lag: Span(0),
        };
        let replicas = vec![attached(2), attached(3)];
        case.report("a").redis =
            RedisView::Up(RedisObservation { replicas, ..redis("a", 1000, true) });
        case.report("b").redis = RedisView::Up(redis("b", offset, false));
        case.plan()
    };
    let sizes = |plan: Plan| match plan {
        Plan::Eligible(_, change) => Some((change.members.len(), change.joining.len())),
        Plan::Nothing => None,
        other => panic!("{other:?}"),
    };
    for (offset, joining, limit, expected) in [
        (849, false, 300, None),
        (850, false, 300, Some((1, 1))),
        (850, true, 300, Some((2, 0))),
        (849, true, 300, None),
        (700, true, 300, None),
        (699, true, 300, Some((1, 0))),
        (200, false, 0, Some((1, 1))),
        (200, true, 0, Some((2, 0))),
    ] {
        let seen = sizes(after(offset, joining, limit));
        assert_eq!(seen, expected, "offset {offset}, joining {joining}, limit {limit}");
    }
}
