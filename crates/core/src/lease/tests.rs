//! L1, L3, L4, L6, L7 one by one.

use redkeep_consensus::{Mono, NodeId, ReadId, Span};

use super::{Grantor, Holder, grantor::InFlight, holder::Claim};
use crate::{
    effect::LockOp,
    ids::{ArmId, Epoch, Generation, GroupId},
    message::{Grant, Renew, RenewGroup},
    mutations::Mutations,
    spec::Timing,
    testing::cluster,
};

const MS: u64 = 1_000_000;
const TTL: Span = Span(300 * MS);
/// 95 % of it.
const ARMED: Span = Span(285 * MS);
const A: NodeId = NodeId(1);

fn group() -> GroupId {
    GroupId::new("g")
}

fn claim(epoch: u64) -> Claim {
    let request = RenewGroup { group: group(), epoch: Epoch(epoch), lagging: Vec::new() };
    Claim { spec: cluster().groups.remove(0), request }
}

fn timing() -> Timing {
    cluster().timing
}

fn holder() -> Holder {
    Holder::new(7, None, 1, Mutations::NONE)
}

fn arm(h: &mut Holder, at_ms: u64) -> (ArmId, Generation) {
    match h.arm(Mono(at_ms * MS), timing(), &[claim(1)]) {
        LockOp::Arm { arm, generation, .. } => (arm, generation),
        other => panic!("{other:?}"),
    }
}

fn grant(arm: ArmId) -> Grant {
    Grant { arm, term: 1, groups: vec![(group(), Epoch(1))], from: NodeId(3) }
}

fn opens(h: &mut Holder, at_ms: u64) -> usize {
    h.open(Mono(at_ms * MS), |_, _| true).len()
}

#[test]
fn the_request_leaves_only_after_the_kernel_acknowledged_the_arming() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    assert_eq!(h.request(), None);
    let renew = h.armed(id, true).expect("a request");
    assert_eq!((renew.arm, renew.ttl, renew.last_grant), (id, ARMED, None));
    assert_eq!(opens(&mut h, 1), 0, "opened without a grant");
}

#[test]
fn a_failed_arming_asks_for_nothing_and_is_made_again() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    assert_eq!(h.armed(id, false), None);
    assert_eq!(h.due(timing(), true), Mono(0));
}

#[test]
fn a_grant_opens_only_the_arming_that_it_names() {
    let mut h = holder();
    let (first, _) = arm(&mut h, 0);
    h.armed(first, true);
    let (second, _) = arm(&mut h, 100);
    h.armed(second, true);
    assert!(!h.granted(&grant(first)), "the arming was replaced");
    assert_eq!(opens(&mut h, 101), 0);
    assert!(h.granted(&grant(second)));
    assert_eq!(opens(&mut h, 101), 1);
    assert_eq!(opens(&mut h, 101), 0, "one opening for one grant");
}

#[test]
fn a_grant_for_another_epoch_or_another_life_opens_nothing() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    h.armed(id, true);
    let mut other_epoch = grant(id);
    other_epoch.groups = vec![(group(), Epoch(2))];
    h.granted(&other_epoch);
    let other_life = ArmId { incarnation: 6, ..id };
    h.granted(&grant(other_life));
    assert_eq!(opens(&mut h, 1), 0);
}

#[test]
fn a_grant_that_comes_after_the_timer_opens_nothing() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    h.armed(id, true);
    h.granted(&grant(id));
    assert_eq!(opens(&mut h, 285), 0);
    assert!(!h.has_grant(Mono(285 * MS), &group(), Epoch(1)));
}

#[test]
fn the_generation_that_was_not_granted_last_is_armed() {
    let mut h = holder();
    let (id, first) = arm(&mut h, 0);
    h.armed(id, true);
    h.granted(&grant(id));
    let (_, second) = arm(&mut h, 60);
    assert_eq!(second, first.other());
    // That grant is lost: the live gate must not be the next to be taken out.
    let (_, third) = arm(&mut h, 160);
    assert_eq!(third, second);
}

#[test]
fn after_a_restart_the_open_generation_is_left_alone() {
    let mut h = Holder::new(8, Some(Generation::A), 1, Mutations::NONE);
    assert_eq!(arm(&mut h, 0).1, Generation::B);
}

#[test]
fn nothing_is_armed_while_a_young_request_is_out() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    h.armed(id, true);
    assert_eq!(h.due(timing(), true), Mono(100 * MS), "ttl/3, urgent or not");
    h.granted(&grant(id));
    assert_eq!(h.due(timing(), false), Mono(100 * MS), "ttl/3 after a grant");
    assert_eq!(h.due(timing(), true), Mono(0));
}

/// A grant that comes later than the renewal interval makes the next arming due at once; it would replace the open
/// generation while nobody knows yet that the other one is open, and the lease would seem to have ended.
#[test]
fn a_late_grant_does_not_make_an_open_lease_look_ended() {
    let mut h = holder();
    let (first, _) = arm(&mut h, 0);
    h.armed(first, true);
    h.granted(&grant(first));
    assert_eq!(opens(&mut h, 1), 1);
    assert_eq!(h.opened(first, &[group()], true), [group()]);
    let (second, _) = arm(&mut h, 60);
    h.armed(second, true);
    h.granted(&grant(second));
    assert_eq!(opens(&mut h, 140), 1);
    assert_eq!(h.due(timing(), false), Mono(345 * MS), "the opening is not answered");
    assert_eq!(h.due(timing(), true), Mono(345 * MS), "a takeover waits for it as well");
    assert_eq!(h.open_until(&group()), Some(Mono(285 * MS)));
    h.opened(second, &[group()], true);
    assert_eq!(h.due(timing(), false), Mono(160 * MS));
    assert_eq!(h.open_until(&group()), Some(Mono(345 * MS)));
}

#[test]
fn a_failed_opening_holds_no_arming_back() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    h.armed(id, true);
    h.granted(&grant(id));
    assert_eq!(opens(&mut h, 1), 1);
    assert_eq!(h.opened(id, &[group()], false), []);
    assert_eq!(h.due(timing(), false), Mono(100 * MS));
}

#[test]
fn a_group_that_was_given_up_is_not_opened_by_what_was_granted() {
    let mut h = holder();
    let (id, _) = arm(&mut h, 0);
    h.armed(id, true);
    h.granted(&grant(id));
    h.drop_group(&group());
    assert_eq!(opens(&mut h, 1), 0);
}

fn grantor(elected_ms: u64) -> Grantor {
    Grantor::new(Mono(elected_ms * MS), timing(), Mutations::NONE)
}

fn left_ms(g: &mut Grantor, at_ms: u64) -> u64 {
    g.wait_left(Mono(at_ms * MS), &group()).as_millis()
}

#[test]
fn a_new_leader_waits_for_every_lease_that_may_run() {
    let mut g = grantor(1000);
    assert_eq!(left_ms(&mut g, 1000), 355, "300 ms * 1.1 + 25 ms");
    assert_eq!(left_ms(&mut g, 1355), 0);
}

#[test]
fn each_grant_moves_the_wait_by_what_was_armed_and_never_back() {
    let mut g = grantor(0);
    assert!(g.grant(Mono(500 * MS), A, &group(), Span(100 * MS)));
    assert_eq!(left_ms(&mut g, 500), 135);
    assert!(g.grant(Mono(500 * MS), A, &group(), Span(1000 * MS)));
    assert_eq!(left_ms(&mut g, 500), 1125);
    assert!(g.grant(Mono(501 * MS), A, &group(), timing().armed_ttl()));
    assert_eq!(left_ms(&mut g, 501), 1124, "the longer one still runs");
}

#[test]
fn a_host_that_dies_right_after_a_grant_leaves_time_for_the_move() {
    let mut g = grantor(0);
    assert!(g.grant(Mono(500 * MS), A, &group(), timing().armed_ttl()));
    let wait = g.wait_left(Mono(500 * MS), &group());
    assert_eq!(wait, Span(338_500_000), "285 ms * 1.1 + 25 ms");
}

#[test]
fn nothing_is_granted_from_the_decision_until_its_index_is_applied() {
    let mut g = grantor(0);
    let at = |ms: u64| Mono(ms * MS);
    g.begin(at(1), &group(), InFlight::Deciding);
    assert!(!g.grant(at(60_000), A, &group(), TTL), "a time-out ended it");
    g.begin(at(1), &group(), InFlight::Proposed { index: 9 });
    g.applied(8);
    assert!(!g.grant(at(60_000), A, &group(), TTL));
    g.applied(9);
    assert!(g.grant(at(60_000), A, &group(), TTL));
}

#[test]
fn a_deaf_holder_gets_two_grants_and_then_none_until_its_lease_is_over() {
    let mut g = grantor(0);
    let at = |ms: u64| Mono(ms * MS);
    for ms in [400, 460] {
        assert!(g.grant(at(ms), A, &group(), TTL));
        g.sent(A);
    }
    assert!(!g.grant(at(520), A, &group(), TTL));
    assert!(!g.grant(at(460 + 354), A, &group(), TTL));
    assert!(g.grant(at(460 + 355), A, &group(), TTL), "nobody else was named: it may go on");
}

/// Found by the simulator: its two grants were lost, and every new assignment put `not_before` ahead again.
#[test]
fn a_new_assignment_is_granted_although_earlier_grants_were_lost() {
    let mut g = grantor(0);
    let at = |ms: u64| Mono(ms * MS);
    for ms in [400, 460] {
        assert!(g.grant(at(ms), A, &group(), TTL));
        g.sent(A);
    }
    g.assigned(at(900), &group(), A);
    assert!(g.grant(at(910), A, &group(), TTL));
}

#[test]
fn naming_a_grant_that_arrived_lifts_the_limit() {
    let mut g = grantor(0);
    let at = |ms: u64| Mono(ms * MS);
    let id = |counter| ArmId { incarnation: 1, counter };
    let renew = |arm, last_grant| Renew { arm, last_grant, ttl: TTL, groups: Vec::new() };
    for n in 1..10 {
        g.ask(ReadId(n), A, renew(id(n), (n > 1).then(|| id(n - 1))));
        assert!(g.grant(at(400 + n * 60), A, &group(), TTL), "renewal {n}");
        g.sent(A);
    }
}

#[test]
fn a_request_is_answered_only_when_its_round_is_back_and_its_index_applied() {
    let mut g = grantor(0);
    let arm = ArmId { incarnation: 1, counter: 1 };
    g.ask(ReadId(1), A, Renew { arm, last_grant: None, ttl: TTL, groups: Vec::new() });
    assert!(g.take_answerable(100).is_empty(), "the round is not back");
    g.read_ready(ReadId(1), 5);
    assert!(g.take_answerable(4).is_empty(), "not applied");
    assert_eq!(g.take_answerable(5).len(), 1);
    assert!(g.take_answerable(5).is_empty());
}

/// Simulator finding: two lost grants, then the same node assigned anew, was refused for ever.
#[test]
fn a_new_tenure_begins_with_a_clean_record() {
    let mut g = grantor(0);
    let at = |ms: u64| Mono(ms * MS);
    for ms in [400, 460] {
        assert!(g.grant(at(ms), A, &group(), TTL));
        g.sent(A);
    }
    assert!(!g.grant(at(500), A, &group(), TTL));
    g.assigned(at(900), &group(), A);
    assert!(g.grant(at(901), A, &group(), TTL));
}
