//! A master that is well by itself and that others cannot reach.

use super::*;

/// a is master, b its only replica, c a witness. Those `by` lost a; b is seen well.
fn lost(by: &[&'static str]) -> Case {
    let mut case = Case::well();
    case.cluster.groups[0].members.retain(|m| m.node != node_id("c"));
    case.group.eligible.retain(|m| m.node == node_id("b"));
    case.report("a").serving = Some(Epoch(1));
    for by in by {
        let others = ["a", "b"].into_iter().filter(|n| n != by);
        let seen = |n| if n == "a" { Seen::Lost("no answer".into()) } else { Seen::Reached };
        case.sights.insert(by, others.map(|n| sight(n, seen(n))).collect());
    }
    case
}

fn sight(node: &str, seen: Seen) -> Sight {
    Sight { group: GroupId::new("g"), epoch: Epoch(1), node: node_id(node), seen }
}

fn is_asked(case: &Case) -> bool {
    matches!(case.plan(), Plan::AskFence(HoldReason::FencingUnreached { .. }))
}

/// Nothing is asked; the eligible set is looked after as ever.
fn is_left(case: &Case) -> bool {
    matches!(case.plan(), Plan::Nothing | Plan::Eligible(..))
}

#[test]
fn two_of_three_that_lost_the_master_have_its_node_fence() {
    let case = lost(&["b", "c"]);
    let Plan::AskFence(hold) = case.plan() else { panic!("{:?}", case.plan()) };
    assert_eq!(
        hold.to_string(),
        "b and c cannot reach Redis at a: its node is asked to fence (at most 200ms)"
    );
}

#[test]
fn one_of_three_that_lost_it_moves_nothing() {
    assert!(is_left(&lost(&["b"])));
    assert!(is_left(&lost(&["c"])));
    assert!(is_left(&lost(&[])));
}

#[test]
fn who_never_reached_it_or_is_not_heard_counts_for_nothing() {
    let mut never = lost(&["b", "c"]);
    never.sights.get_mut("c").unwrap()[0].seen = Seen::Never("no answer".into());
    assert!(is_left(&never));
    let mut unheard = lost(&["b", "c"]);
    unheard.reports.get_mut("c").unwrap().0 = Mono(99 * SEC);
    assert!(is_left(&unheard));
    let mut old = lost(&["b", "c"]);
    old.sights.get_mut("c").unwrap()[0].epoch = Epoch(7);
    assert!(is_left(&old));
}

#[test]
fn a_port_that_our_own_lock_closed_is_not_lost() {
    let mut lapsed = lost(&["b", "c"]);
    lapsed.well_for = Span(0);
    assert!(is_left(&lapsed));
    // It is open again, and what they say is of before.
    lapsed.well_for = Span::from_millis(1000);
    assert!(is_left(&lapsed));
    lapsed.well_for = Span::from_millis(1050);
    assert!(is_asked(&lapsed));
}

#[test]
fn without_a_replica_that_they_reach_the_master_stays() {
    let mut unseen = lost(&["b", "c"]);
    unseen.sights.get_mut("c").unwrap()[1].seen = Seen::Lost("no answer".into());
    let mut gone = lost(&["b", "c"]);
    gone.group.eligible.clear();
    let mut unasked = lost(&["b", "c"]);
    unasked.sights.get_mut("c").unwrap().pop();
    for case in [unseen, gone, unasked] {
        let plan = case.plan();
        assert!(matches!(plan, Plan::Hold(HoldReason::Unreached { .. })), "{plan:?}");
    }
}

#[test]
fn brakes_hold_it_back() {
    let mut paused = lost(&["b", "c"]);
    paused.paused = true;
    assert_eq!(paused.hold(), HoldReason::Paused);
    let mut cooling = lost(&["b", "c"]);
    cooling.cooldown_left = Span::from_secs(9);
    assert_eq!(cooling.hold(), HoldReason::Cooldown { left: Span::from_secs(9) });
    let mut many = lost(&["b", "c"]);
    many.mass_failure = Some(MassFailure { failing: 3, limit: 2 });
    assert_eq!(many.hold(), HoldReason::MassFailure { failing: 3, limit: 2 });
}

#[test]
fn neither_a_switchover_nor_a_takeover_is_disturbed() {
    let mut handing = lost(&["b", "c"]);
    handing.group.switchover = Some(node_id("b"));
    assert!(is_left(&handing));
    let mut taking = lost(&["b", "c"]);
    taking.group.assignment.as_mut().unwrap().serving = false;
    assert_eq!(taking.plan(), Plan::Serving(Epoch(1)));
}

#[test]
fn once_it_fenced_the_replica_that_they_reach_is_named_although_the_old_one_has_more() {
    let case = lost(&["b", "c"]).fenced(FenceCause::Unreached);
    assert_eq!(case.assigned(), ("b", Cause::MasterUnreached));
    let mut braked = lost(&["b", "c"]).fenced(FenceCause::Unreached);
    braked.paused = true;
    assert_eq!(braked.assigned(), ("b", Cause::MasterUnreached), "asked before the fence");
}

#[test]
fn once_it_fenced_and_nobody_else_may_be_named_it_goes_on() {
    let mut case = lost(&["b", "c"]).fenced(FenceCause::Unreached);
    case.report("b").redis = RedisView::Down(DownReason::Dead);
    assert_eq!(case.assigned(), ("a", Cause::MasterUnreached));
}

/// The request is repeated, with its cause.
#[test]
fn while_the_fence_is_waited_for_its_cause_stands() {
    let mut case = lost(&["b", "c"]);
    case.deciding = true;
    assert!(is_asked(&case));
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    case.well_for = Span(0);
    let left = case.lease_left;
    assert_eq!(case.plan(), Plan::AskFence(HoldReason::AwaitingFence { left }));
}
