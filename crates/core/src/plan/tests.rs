//! The planner's questions in the order of safety, one case a test.

mod bypass;
mod cold;
mod joining;
mod order;
mod stray;
mod unreached;

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, NodeId, Span};

use super::{
    Candidates, Exclusion, Forced, HoldReason, Loss, MassFailure, Plan, PlanInput,
    eligible::{JoinMark, JoinMarks},
    plan,
};
use crate::{
    command::Cause,
    ids::{Epoch, GroupId, RequestId, RunId, node_id},
    leader::NodeView,
    model::{Assignment, GroupModel},
    observe::*,
    spec::*,
    testing::{self, cluster},
};

const SEC: u64 = 1_000_000_000;

fn redis(name: &str, offset: u64, master: bool) -> RedisObservation {
    let of = if master { testing::master } else { testing::replica };
    RedisObservation { offset, ..of(&format!("run-{name}")) }
}

/// A case: a is master at epoch 1, b and c are eligible, all are well; then changed by the test.
struct Case {
    cluster: ClusterSpec,
    group: GroupModel,
    reports: BTreeMap<&'static str, (Mono, GroupReport)>,
    lease_left: Span,
    deciding: bool,
    paused: bool,
    cooldown_left: Span,
    mass_failure: Option<MassFailure>,
    forced: Option<Forced>,
    marks: JoinMarks,
    now: Mono,
    seen_before: BTreeMap<&'static str, RedisObservation>,
    sights: BTreeMap<&'static str, Vec<Sight>>,
    well_for: Span,
    empty_for: Span,
}

impl Case {
    fn well() -> Self {
        let member =
            |n: &str| EligibleMember { node: node_id(n), run_id: RunId::new(&format!("run-{n}")) };
        let report = |redis: RedisObservation| GroupReport {
            group: GroupId::new("g"),
            redis: RedisView::Up(redis),
            fenced: None,
            serving: None,
            takeover_failure: None,
            min_replicas: None,
            led: None,
        };
        let now = Mono(100 * SEC);
        let mut reports = BTreeMap::new();
        for (n, offset, master) in [("a", 1000, true), ("b", 900, false), ("c", 950, false)] {
            reports.insert(n, (now, report(redis(n, offset, master))));
        }
        Self {
            cluster: cluster(),
            group: GroupModel {
                assignment: Some(Assignment {
                    epoch: Epoch(1),
                    master: node_id("a"),
                    run_id: RunId::new("run-a"),
                    cause: Cause::Adopted,
                    index: 3,
                    serving: true,
                    previous_master: None,
                    since: Epoch(1),
                }),
                eligible: vec![member("b"), member("c")],
                has_data: true,
                ..GroupModel::default()
            },
            reports,
            lease_left: Span::from_millis(200),
            deciding: false,
            paused: false,
            cooldown_left: Span(0),
            mass_failure: None,
            forced: None,
            marks: JoinMarks::new(),
            now,
            seen_before: BTreeMap::new(),
            sights: BTreeMap::new(),
            well_for: Span::from_secs(10),
            empty_for: Span(0),
        }
    }

    fn report(&mut self, node: &str) -> &mut GroupReport {
        &mut self.reports.get_mut(node).unwrap().1
    }

    fn fenced(mut self, cause: FenceCause) -> Self {
        let dead = cause == FenceCause::RedisDead;
        let r = self.report("a");
        r.fenced =
            Some(Fenced { epoch: Epoch(1), offset: 1000, confirmed_by_target: false, cause });
        if dead {
            r.redis = RedisView::Down(DownReason::Dead);
        }
        self
    }

    fn mark(&mut self, newcomer: &EligibleMember, offset: u64) {
        self.marks.insert(newcomer.clone(), JoinMark { offset, at: self.now });
    }

    fn nodes(&self) -> BTreeMap<NodeId, NodeView> {
        let mut nodes: BTreeMap<NodeId, NodeView> = BTreeMap::new();
        for (n, (heard, report)) in &self.reports {
            let sights = self.sights.get(n).cloned().unwrap_or_default();
            let report =
                Report { incarnation: 1, seq: 1, applied: 9, groups: vec![report.clone()], sights };
            nodes.insert(node_id(n), NodeView::for_test(*heard, report, self.seen_before.get(n)));
        }
        nodes
    }

    fn candidates<'a>(&'a self, nodes: &'a BTreeMap<NodeId, NodeView>) -> Candidates<'a> {
        Candidates {
            group: &self.group,
            spec: &self.cluster.groups[0],
            nodes,
            now_boot: self.now,
            silent_after: Span::from_millis(300),
            old_master: false,
            allow_data_loss: false,
            ignore_eligible: false,
        }
    }

    fn plan(&self) -> Plan {
        let nodes = self.nodes();
        let candidates = self.candidates(&nodes);
        plan(&PlanInput {
            cluster: &self.cluster,
            candidates,
            now_boot: self.now,
            lease_left: self.lease_left,
            deciding: self.deciding,
            paused: self.paused,
            cooldown_left: self.cooldown_left,
            mass_failure: self.mass_failure,
            forced: self.forced.as_ref(),
            marks: &self.marks,
            well_for: self.well_for,
            empty_for: self.empty_for,
            assigned_at: Mono(60 * SEC),
            switchover_since: self.now,
        })
    }

    fn assigned(&self) -> (&'static str, Cause) {
        match self.plan() {
            Plan::Assign(a) => {
                assert_eq!(a.epoch, self.group.epoch().next(), "epochs rise by one");
                let name = ["a", "b", "c"].into_iter().find(|n| node_id(n) == a.master).unwrap();
                (name, a.cause)
            }
            other => panic!("{other:?}"),
        }
    }

    fn hold(&self) -> HoldReason {
        match self.plan() {
            Plan::Hold(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_fence_needs_no_lease_to_run_out_and_the_fullest_is_named() {
    assert_eq!(Case::well().fenced(FenceCause::RedisDead).assigned(), ("c", Cause::MasterDown));
}

/// Found by the simulator: the replica had copied all, but the report of it was late, and by the one before it was empty too. The
/// leader may be one that never saw the life before.
#[test]
fn nobody_is_named_where_all_are_empty_and_the_group_had_data() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.group.eligible.clear();
    for n in ["a", "b", "c"] {
        let life = if n == "a" { "a2" } else { n };
        let empty = RedisObservation { keys: 0, ..redis(life, 0, n == "a") };
        case.report(n).redis = RedisView::Up(empty);
    }
    assert_eq!(case.hold(), HoldReason::EmptyDataSet);
    case.group.has_data = false;
    assert_eq!(case.assigned(), ("a", Cause::ColdStart), "nobody ever had anything");
}

#[test]
fn that_a_group_has_data_is_written_down_at_once_and_that_it_has_none_after_a_minute() {
    let written = |case: &Case| match case.plan() {
        Plan::Eligible(_, change) => Some(change.has_data),
        Plan::Nothing => None,
        other => panic!("{other:?}"),
    };
    let mut case = Case::well();
    case.group.eligible.sort();
    assert_eq!(written(&case), None);
    case.group.has_data = false;
    assert_eq!(written(&case), Some(true));
    case.report("a").redis = RedisView::Up(RedisObservation { keys: 0, ..redis("a", 1000, true) });
    assert_eq!(written(&case), None);
    // A queue that is empty now and then, or FLUSHALL.
    case.group.has_data = true;
    (case.empty_for, case.well_for) = (Span(59_999_999_999), Span::from_secs(100));
    assert_eq!(written(&case), None);
    case.empty_for = Span::from_secs(60);
    assert_eq!(written(&case), Some(false));
}

/// Found by the simulator: it was cut off, its Redis ended meanwhile, and the first thing that came of it again was no report.
#[test]
fn who_was_silent_is_no_candidate_before_it_reports_anew() {
    let case = Case::well();
    let mut nodes = case.nodes();
    let at = Mono(case.now.0 + SEC);
    for node in nodes.values_mut() {
        node.hear(at, Span::from_millis(300));
    }
    let later = Candidates { now_boot: at, ..case.candidates(&nodes) };
    assert_eq!(later.judge(node_id("b")), Err(Exclusion::SupervisorSilent));
    let mut view = nodes[&node_id("b")].clone();
    let report = Report { seq: 2, ..view.report.clone().unwrap() };
    assert!(view.take(at, report));
    nodes.insert(node_id("b"), view);
    let later = Candidates { now_boot: at, ..case.candidates(&nodes) };
    assert!(later.judge(node_id("b")).is_ok());
}

/// Found by the simulator: its Redis had restarted empty before the first supervisors agreed.
#[test]
fn an_empty_master_is_not_adopted_beside_a_replica_with_data() {
    let mut case = Case::well();
    (case.group.assignment, case.group.eligible) = (None, Vec::new());
    assert_eq!(case.assigned(), ("a", Cause::Adopted));
    case.report("a").redis = RedisView::Up(RedisObservation { keys: 0, ..redis("a", 0, true) });
    assert_eq!(case.hold(), HoldReason::EmptyDataSet);
}

/// Found by the simulator: the order waited for the end of a switchover that nobody could end.
#[test]
fn an_operator_names_a_master_where_a_switchover_has_left_nobody() {
    let mut case = Case::well().fenced(FenceCause::Switchover);
    case.group.switchover = Some(node_id("b"));
    case.group.eligible.clear();
    let empty = RedisObservation { keys: 0, ..redis("a2", 0, true) };
    case.report("a").redis = RedisView::Up(empty);
    assert!(case.hold().needs_operator());
    let (request, to) = (RequestId(1), Some(node_id("b")));
    case.forced = Some(Forced { request, to, allow_data_loss: true });
    assert_eq!(case.assigned(), ("b", Cause::Operator));
}

#[test]
fn a_fence_of_an_older_epoch_counts_for_nothing() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.group.assignment.as_mut().unwrap().epoch = Epoch(2);
    assert!(matches!(case.plan(), Plan::Hold(_) | Plan::AskFence(_)), "{:?}", case.plan());
}

#[test]
fn a_fence_stands_also_when_its_node_is_silent() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.reports.get_mut("a").unwrap().0 = Mono(0);
    assert_eq!(case.assigned(), ("c", Cause::MasterDown));
}

#[test]
fn a_silent_master_is_waited_for_until_its_lease_is_over() {
    let mut case = Case::well();
    case.reports.get_mut("a").unwrap().0 = Mono(0);
    assert!(matches!(case.hold(), HoldReason::OldLease { .. }));
    case.lease_left = Span(0);
    assert_eq!(case.assigned(), ("c", Cause::NodeSilent));
}

/// Found by the simulator: its reports arrive, its grants do not; it was named again for ever.
#[test]
fn a_master_that_hears_no_grant_is_named_again_once_only() {
    let mut case = Case::well();
    case.lease_left = Span(0);
    assert_eq!(case.assigned(), ("a", Cause::NodeSilent), "it has most");
    let assignment = case.group.assignment.as_mut().unwrap();
    assignment.serving = false;
    assignment.cause = Cause::NodeSilent;
    assert_eq!(case.assigned(), ("c", Cause::NodeSilent));
    case.group.eligible.clear();
    assert_eq!(case.assigned(), ("a", Cause::NodeSilent), "better it than nobody");
}

#[test]
fn a_master_that_was_adopted_and_never_served_is_not_replaced() {
    let mut case = Case::well();
    case.lease_left = Span(0);
    case.group.assignment.as_mut().unwrap().serving = false;
    assert_eq!(case.hold(), HoldReason::AdoptedNotGuarded);
}

#[test]
fn a_hung_master_is_asked_to_fence_and_granted_nothing_more() {
    let mut case = Case::well();
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    assert!(matches!(case.plan(), Plan::AskFence(_)));
    case.report("a").redis = RedisView::Up(redis("a", 1000, true));
    case.deciding = true;
    assert!(matches!(case.plan(), Plan::AskFence(_)), "a decision is not taken back");
}

#[test]
fn a_hung_master_without_candidates_keeps_its_lease() {
    let mut case = Case::well();
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    case.group.eligible.clear();
    assert_eq!(case.hold(), HoldReason::NoCandidate);
}

#[test]
fn a_pause_holds_an_automatic_failover_back() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.paused = true;
    assert_eq!(case.hold(), HoldReason::Paused);
}

#[test]
fn brakes_hold_back_what_nobody_ordered_and_nothing_else() {
    let mass = Some(MassFailure { failing: 3, limit: 1 });
    let held = HoldReason::MassFailure { failing: 3, limit: 1 };
    let mut dead = Case::well().fenced(FenceCause::RedisDead);
    dead.mass_failure = mass;
    assert_eq!(dead.hold(), held);
    dead.forced =
        Some(Forced { request: RequestId(1), to: Some(node_id("b")), allow_data_loss: false });
    assert_eq!(dead.assigned(), ("b", Cause::Operator));
    let mut hung = Case::well();
    hung.mass_failure = mass;
    hung.report("a").redis = RedisView::Down(DownReason::Hung);
    assert_eq!(hung.hold(), held, "it keeps its lease");
    let mut silent = Case::well();
    silent.mass_failure = mass;
    silent.lease_left = Span(0);
    assert_eq!(silent.assigned(), ("a", Cause::NodeSilent), "it is heard again");
    silent.reports.get_mut("a").unwrap().0 = Mono(0);
    assert_eq!(silent.hold(), held);
    let mut planned = Case::well().fenced(FenceCause::Switchover);
    planned.mass_failure = mass;
    planned.group.switchover = Some(node_id("b"));
    planned.report("a").fenced.as_mut().unwrap().confirmed_by_target = true;
    assert_eq!(planned.assigned(), ("b", Cause::Switchover));
    let mut cold = Case::well().fenced(FenceCause::RedisDead);
    cold.mass_failure = mass;
    cold.group.eligible.clear();
    cold.report("a").redis =
        RedisView::Up(RedisObservation { run_id: RunId::new("new"), ..redis("a", 1000, true) });
    assert_eq!(cold.assigned(), ("a", Cause::ColdStart));
}

#[test]
fn a_cooldown_holds_and_so_does_a_takeover_that_would_be_tried_elsewhere() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.cooldown_left = Span::from_secs(9);
    assert_eq!(case.hold(), HoldReason::Cooldown { left: Span::from_secs(9) });
    let mut late = Case::well();
    let a = late.group.assignment.as_mut().unwrap();
    (a.serving, a.cause) = (false, Cause::MasterDown);
    assert!(matches!(late.plan(), Plan::AskFence(_)), "beyond takeover_timeout");
    late.cooldown_left = Span::from_secs(9);
    assert_eq!(late.hold(), HoldReason::Cooldown { left: Span::from_secs(9) });
}

#[test]
fn only_members_of_the_eligible_set_are_promoted() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.group.eligible.retain(|m| m.node == node_id("b"));
    assert_eq!(case.assigned(), ("b", Cause::MasterDown), "c has more but is not in the set");
}

#[test]
fn a_restarted_replica_has_left_the_set_by_itself() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.report("c").redis =
        RedisView::Up(RedisObservation { run_id: RunId::new("new"), ..redis("c", 2000, false) });
    assert_eq!(case.assigned(), ("b", Cause::MasterDown));
}

#[test]
fn the_same_life_of_the_old_master_may_be_named_again_after_a_fence() {
    assert_eq!(
        Case::well().fenced(FenceCause::LeaderAsked).assigned(),
        ("a", Cause::MasterDown),
        "it has most"
    );
}

#[test]
fn a_switchover_ends_at_the_target_only_if_it_confirmed_the_final_offset() {
    let mut case = Case::well().fenced(FenceCause::Switchover);
    case.group.switchover = Some(node_id("b"));
    assert_eq!(case.assigned(), ("a", Cause::SwitchoverBack));
    case.report("a").fenced.as_mut().unwrap().confirmed_by_target = true;
    assert_eq!(case.assigned(), ("b", Cause::Switchover));
}

#[test]
fn a_switchover_keeps_the_old_master_eligible_if_its_life_is_well_and_no_failover_does() {
    let keeps = |case: &Case| match case.plan() {
        Plan::Assign(a) => (a.cause, a.old_master_eligible),
        other => panic!("{other:?}"),
    };
    let mut case = Case::well().fenced(FenceCause::Switchover);
    case.group.switchover = Some(node_id("b"));
    assert_eq!(keeps(&case), (Cause::SwitchoverBack, false));
    case.report("a").fenced.as_mut().unwrap().confirmed_by_target = true;
    assert_eq!(keeps(&case), (Cause::Switchover, true));
    let another = RedisObservation { run_id: RunId::new("new"), ..redis("a", 1000, true) };
    for view in [
        RedisView::Up(another),
        RedisView::Doubtful(redis("a", 1000, true), ProbeFailure::Timeout),
        RedisView::Down(DownReason::Dead),
    ] {
        case.report("a").redis = view;
        assert_eq!(keeps(&case), (Cause::Switchover, false));
    }
    // Its tail is not in the new one: what is promoted later would bring it back and drop what was written since.
    case.report("a").fenced.as_mut().unwrap().cause = FenceCause::LeaderAsked;
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    assert_eq!(keeps(&case), (Cause::MasterDown, false));
}

/// A host that stalls lets a pause run out and misses probes at the same time.
#[test]
fn a_switchover_without_confirmation_waits_for_an_old_master_that_misses_probes() {
    let mut case = Case::well().fenced(FenceCause::Switchover);
    case.group.switchover = Some(node_id("b"));
    case.report("a").redis = RedisView::Doubtful(redis("a", 1000, true), ProbeFailure::Timeout);
    assert_eq!(case.hold(), HoldReason::OldMasterDoubtful);
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    assert_eq!(case.assigned(), ("c", Cause::MasterDown), "it is a failover then");
}

/// A master may run on a node that is never promoted: adopted there, or named by an operator.
#[test]
fn a_master_whose_node_is_never_promoted_goes_on_after_a_fence() {
    let mut case = Case::well().fenced(FenceCause::Switchover);
    case.group.switchover = Some(node_id("b"));
    case.cluster.groups[0].members.iter_mut().for_each(|m| {
        m.priority = if m.node == node_id("a") { 0 } else { 100 };
    });
    assert_eq!(case.assigned(), ("a", Cause::SwitchoverBack), "the target lacks the tail");
    let mut alone = Case::well().fenced(FenceCause::LeaderAsked);
    alone.group.eligible.clear();
    alone.cluster.groups[0].members[0].priority = 0;
    assert_eq!(alone.assigned(), ("a", Cause::MasterDown), "nobody else is there");
}

#[test]
fn no_order_of_an_operator_skips_the_old_lease() {
    let mut case = Case::well();
    case.forced =
        Some(Forced { request: RequestId(1), to: Some(node_id("b")), allow_data_loss: true });
    assert!(matches!(case.plan(), Plan::AskFence(_)));
    case.lease_left = Span(0);
    assert_eq!(case.assigned(), ("b", Cause::Operator));
}

#[test]
fn a_last_master_that_restarted_empty_does_not_win_against_data() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.group.eligible.clear();
    let empty = RedisObservation { run_id: RunId::new("new"), keys: 0, ..redis("a", 0, true) };
    case.report("a").redis = RedisView::Up(empty);
    assert_eq!(case.hold(), HoldReason::EmptyDataSet);
}

#[test]
fn a_cold_start_waits_for_an_eligible_member_that_may_hold_more() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.report("a").redis =
        RedisView::Up(RedisObservation { run_id: RunId::new("new"), ..redis("a", 500, true) });
    case.group.eligible.retain(|m| m.node == node_id("b"));
    case.reports.remove("b");
    assert!(matches!(case.hold(), HoldReason::ColdStart { .. }));
    case.now = Mono(1000 * SEC);
    for (heard, _) in case.reports.values_mut() {
        *heard = Mono(1000 * SEC);
    }
    assert!(matches!(case.hold(), HoldReason::ColdStart { .. }), "no time-out lets older data win");
}

#[test]
fn two_masters_with_data_are_not_adopted() {
    let mut case = Case::well();
    case.group.assignment = None;
    case.report("b").redis = RedisView::Up(redis("b", 900, true));
    assert_eq!(case.hold(), HoldReason::AdoptionAmbiguous { masters: 2 });
    case.reports.remove("c");
    assert_eq!(case.hold(), HoldReason::AdoptionIncomplete);
}

/// Simulator finding: the fuller member's Redis was down for a moment when the empty last master was named.
#[test]
fn an_empty_last_master_does_not_win_against_data_whose_redis_is_down() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.group.eligible.clear();
    case.report("a").redis = RedisView::Up(RedisObservation {
        run_id: RunId::new("new"),
        keys: 0,
        ..redis("a", 0, true)
    });
    for n in ["b", "c"] {
        case.report(n).redis = RedisView::Down(DownReason::Dead);
    }
    case.seen_before.insert("b", redis("b", 900, false));
    case.now = Mono(1000 * SEC);
    for (heard, _) in case.reports.values_mut() {
        *heard = Mono(1000 * SEC);
    }
    assert_eq!(case.hold(), HoldReason::EmptyDataSet);
}
