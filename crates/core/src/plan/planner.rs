//! What a group needs next: a pure function of (model, view, leases, now).
//!
//! The order of the questions is the order of safety: a fence that stands, a lease that is over, a master that is down, and
//! only then the quiet work (serving, eligible set). Every branch that does nothing says why.

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    command::{Assign, Cause},
    ids::{Epoch, RequestId},
    model::Assignment,
    observe::{FenceCause, Fenced, RedisView},
    plan::{
        HoldReason, bypass,
        candidate::{Candidate, Candidates},
        cold,
        eligible::{self, EligibleChange, JoinMarks},
        unreached::{self, Unreached},
    },
    spec::ClusterSpec,
};

/// An operator's order to fail over, until it is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forced {
    pub request: RequestId,
    pub to: Option<NodeId>,
    pub allow_data_loss: bool,
}

/// Groups that fail at once, and how many may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MassFailure {
    pub failing: usize,
    pub limit: u32,
}

/// Everything the planner looks at for one group.
#[derive(Debug)]
pub struct PlanInput<'a> {
    pub cluster: &'a ClusterSpec,
    pub candidates: Candidates<'a>,
    pub now_boot: Mono,
    /// What is left of the old lease; zero = it is over.
    pub lease_left: Span,
    /// A decision to fail over stands already (the old master is asked to fence).
    pub deciding: bool,
    pub paused: bool,
    pub cooldown_left: Span,
    /// More groups fail at once than may, and nobody has acknowledged that of this one.
    pub mass_failure: Option<MassFailure>,
    pub forced: Option<&'a Forced>,
    pub marks: &'a JoinMarks,
    /// For how long the master's node has said, without a break, that it serves and finds its Redis well.
    pub well_for: Span,
    /// For how long the master has said, without a break, that it has no keys.
    pub empty_for: Span,
    /// When the present assignment was applied here, or since when this node leads: the later of the two.
    pub assigned_at: Mono,
    /// The same of the switchover under way: it has its time from this leader too.
    pub switchover_since: Mono,
}

/// What to do next for a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    Nothing,
    Hold(HoldReason),
    Assign(Assign),
    /// Begin the decision: no grants any more, and ask the master's node to fence.
    AskFence(HoldReason),
    Serving(Epoch),
    Eligible(Epoch, EligibleChange),
    SwitchoverAbort(Epoch, String),
}

/// The next step for one group.
#[must_use]
pub fn plan(p: &PlanInput<'_>) -> Plan {
    let Some(a) = &p.candidates.group.assignment else { return plan_first(p) };
    let report = p.candidates.report(a.master);
    // A fence is burned on disk: it stands also when its node is not heard any more.
    if let Some(f) = p.candidates.fenced(a.master).filter(|f| f.epoch == a.epoch) {
        return plan_fenced(p, a, &f);
    }
    if p.candidates.group.switchover.is_some() && p.lease_left > Span(0) && switchover_late(p) {
        return Plan::SwitchoverAbort(a.epoch, "not done within its time".to_owned());
    }
    if p.lease_left == Span(0) {
        return plan_silent(p, a);
    }
    if let Some(forced) = p.forced {
        return plan_forced(p, forced);
    }
    if p.deciding {
        return Plan::AskFence(awaiting_fence(p));
    }
    let Some(report) = report else {
        return Plan::Hold(HoldReason::OldLease { left: p.lease_left });
    };
    if matches!(report.redis, RedisView::Down(_)) {
        return plan_down(p);
    }
    if a.serving {
        return plan_serving(p, a);
    }
    if report.serving == Some(a.epoch) {
        return Plan::Serving(a.epoch);
    }
    plan_takeover(p, a)
}

/// Why the fence is waited for: its cause goes with the request.
fn awaiting_fence(p: &PlanInput<'_>) -> HoldReason {
    let left = p.lease_left;
    match unreached(p) {
        Some(u) => {
            HoldReason::FencingUnreached { node: master_name(p), by: u.names(p.cluster), left }
        }
        None => HoldReason::AwaitingFence { left },
    }
}

fn master_name(p: &PlanInput<'_>) -> String {
    p.candidates.group.master().map_or_else(String::new, |m| p.cluster.node_name(m))
}

/// A majority cannot reach the master's Redis, which is well by itself and was not closed by us.
fn unreached(p: &PlanInput<'_>) -> Option<Unreached> {
    let long = p.well_for >= unreached::well_enough_after(&p.candidates);
    unreached::by_majority(&p.candidates, p.cluster)
        .filter(|_| long && p.candidates.group.switchover.is_none())
}

fn switchover_late(p: &PlanInput<'_>) -> bool {
    let limit = p.cluster.timing.switchover_timeout;
    p.now_boot.since(p.switchover_since) > limit
}

/// The first master ever: adopt the pair as it runs, else the only one with data.
fn plan_first(p: &PlanInput<'_>) -> Plan {
    let c = &p.candidates;
    if let Some(hold) = bypass::hold(c, p.cluster) {
        return Plan::Hold(hold);
    }
    if let Some(forced) = p.forced {
        let Some(to) = forced.to else { return Plan::Hold(HoldReason::NoCandidate) };
        return match (Candidates { allow_data_loss: true, ..*c }).judge(to) {
            Ok(best) => Plan::Assign(assign(p, &best, Cause::Operator, "named by an operator")),
            Err(_) => Plan::Hold(HoldReason::NoCandidate),
        };
    }
    let all: Vec<Candidate> = c
        .spec
        .members
        .iter()
        .filter_map(|m| Candidates { allow_data_loss: true, ..*c }.judge(m.node).ok())
        .collect();
    if all.len() < c.spec.members.len() {
        return Plan::Hold(HoldReason::AdoptionIncomplete);
    }
    let is_master = |x: &&Candidate| matches!(c.report(x.node).map(|r| &r.redis), Some(RedisView::Up(o)) if o.is_master());
    let masters: Vec<&Candidate> = all.iter().filter(is_master).collect();
    let with_data: Vec<&&Candidate> = masters.iter().filter(|m| m.keys > 0).collect();
    match (masters.as_slice(), with_data.as_slice()) {
        ([], _) => Plan::Hold(HoldReason::AdoptionNoMaster),
        // What a replica still holds would be replaced by nothing (invariant 5).
        (_, []) if all.iter().any(|x| x.keys > 0) => Plan::Hold(HoldReason::EmptyDataSet),
        ([one], _) => {
            Plan::Assign(assign(p, one, Cause::Adopted, "the only master of the running pair"))
        }
        (_, [one]) => Plan::Assign(assign(p, one, Cause::Adopted, "the only master with data")),
        ([one, ..], []) => Plan::Assign(assign(p, one, Cause::Adopted, "no member has data")),
        (_, many) => Plan::Hold(HoldReason::AdoptionAmbiguous { masters: many.len() }),
    }
}

/// The old master's gates are out and its epoch is burned: no lease is waited for.
fn plan_fenced(p: &PlanInput<'_>, a: &Assignment, f: &Fenced) -> Plan {
    if let Some(hold) = bypass::of_master(&p.candidates, p.cluster) {
        return plan_stay(p, a, f, hold);
    }
    if let (FenceCause::Switchover, Some(to)) = (f.cause, p.candidates.group.switchover) {
        let back = Candidates { old_master: true, ..p.candidates }.judge(a.master);
        match (p.candidates.judge(to), back) {
            (Ok(target), back) if f.confirmed_by_target => {
                return Plan::Assign(Assign {
                    // Both have the same data now, and should the new one fail at once the old one can go on.
                    old_master_eligible: back.is_ok(),
                    estimated_loss_bytes: Some(0),
                    ..assign(p, &target, Cause::Switchover, "the target confirmed the final offset")
                });
            }
            (_, Ok(old)) => {
                let why = "the target did not confirm";
                return Plan::Assign(assign(p, &old, Cause::SwitchoverBack, why));
            }
            // It may answer in a moment, and then it goes on. If it does not, it is down after some probes.
            (_, Err(_)) if is_doubtful(p, a) => return Plan::Hold(HoldReason::OldMasterDoubtful),
            // Neither can go on: as after any other fence.
            (_, Err(_)) => {}
        }
    }
    if let Some(forced) = p.forced
        && let Some(best) = pick_forced(p, forced)
    {
        return Plan::Assign(assign(p, &best, Cause::Operator, "ordered by an operator"));
    }
    if f.cause == FenceCause::Unreached {
        return plan_moved(p, a);
    }
    choose(p, a, Cause::MasterDown)
}

/// It fenced because a majority did not reach it: one that they reach, and only if there is none any more the old one again.
/// What holds automatic failovers back was asked before the fence; now it would only keep both closed.
fn plan_moved(p: &PlanInput<'_>, a: &Assignment) -> Plan {
    let reached =
        unreached::by_majority(&p.candidates, p.cluster).and_then(|u| u.best(&p.candidates));
    match reached {
        Some(best) => Plan::Assign(assign(
            p,
            &best,
            Cause::MasterUnreached,
            "a majority of nodes did not reach the old master's Redis, and its node fenced",
        )),
        None => choose(p, a, Cause::MasterUnreached),
    }
}

/// The life of Redis that was assigned missed its last probes and is not known to be down.
fn is_doubtful(p: &PlanInput<'_>, a: &Assignment) -> bool {
    let redis = p.candidates.report(a.master).map(|r| &r.redis);
    matches!(redis, Some(RedisView::Doubtful(o, _)) if o.run_id == a.run_id)
}

/// The old master can still be written to around the lock: it alone may go on.
fn plan_stay(p: &PlanInput<'_>, a: &Assignment, f: &Fenced, hold: HoldReason) -> Plan {
    let cause = match f.cause {
        FenceCause::Switchover => Cause::SwitchoverBack,
        _ => Cause::MasterDown,
    };
    match (Candidates { old_master: true, ..p.candidates }).judge(a.master) {
        Ok(old) => Plan::Assign(assign(p, &old, cause, "it can be reached around the lock")),
        Err(_) => Plan::Hold(hold),
    }
}

/// No grant was given for a whole wait: nobody can hold the old lease any more.
fn plan_silent(p: &PlanInput<'_>, a: &Assignment) -> Plan {
    if a.is_adopting() {
        return Plan::Hold(HoldReason::AdoptedNotGuarded);
    }
    // The end of its lease closes the guarded port alone. Heard again, it goes on at the same epoch.
    if let Some(hold) = bypass::of_master(&p.candidates, p.cluster) {
        return Plan::Hold(hold);
    }
    if let Some(best) = p.forced.and_then(|f| pick_forced(p, f)) {
        return Plan::Assign(assign(p, &best, Cause::Operator, "ordered by an operator"));
    }
    choose(p, a, Cause::NodeSilent)
}

fn plan_forced(p: &PlanInput<'_>, forced: &Forced) -> Plan {
    if let Some(hold) = bypass::of_master(&p.candidates, p.cluster) {
        return Plan::Hold(hold);
    }
    match pick_forced(p, forced) {
        Some(_) => Plan::AskFence(HoldReason::AwaitingFence { left: p.lease_left }),
        None => Plan::Hold(no_candidate(p)),
    }
}

/// Nobody may be promoted; where a way around the lock is all that is in the way, it is named.
pub(super) fn no_candidate(p: &PlanInput<'_>) -> HoldReason {
    bypass::of_candidate(&p.candidates, p.cluster).unwrap_or(HoldReason::NoCandidate)
}

fn pick_forced(p: &PlanInput<'_>, forced: &Forced) -> Option<Candidate> {
    let c = Candidates { allow_data_loss: forced.allow_data_loss, ..p.candidates };
    match forced.to {
        Some(to) => c.judge(to).ok(),
        None => c.ranked().into_iter().find(|x| Some(x.node) != p.candidates.group.master()),
    }
}

/// The master's node is well and says that its Redis is not.
fn plan_down(p: &PlanInput<'_>) -> Plan {
    let held = bypass::of_master(&p.candidates, p.cluster).or_else(|| brake(p));
    if let Some(hold) = held {
        return Plan::Hold(hold);
    }
    match p.candidates.ranked().first() {
        Some(_) => Plan::AskFence(HoldReason::AwaitingFence { left: p.lease_left }),
        None => Plan::Hold(no_candidate(p)),
    }
}

/// Assigned and not serving yet: it has `takeover_timeout`, then another is tried.
fn plan_takeover(p: &PlanInput<'_>, a: &Assignment) -> Plan {
    let limit = p.cluster.timing.takeover_timeout;
    let spent = p.now_boot.since(p.assigned_at).0;
    if a.cause != Cause::Adopted
        && spent > limit.0
        && !p.candidates.ranked().is_empty()
        && bypass::of_master(&p.candidates, p.cluster).is_none()
    {
        return match brake(p) {
            Some(hold) => Plan::Hold(hold),
            None => Plan::AskFence(HoldReason::AwaitingFence { left: p.lease_left }),
        };
    }
    Plan::Hold(HoldReason::TakeoverRunning { left: Span(limit.0.saturating_sub(spent)) })
}

/// The master's node finds it well. If the others do not get to it, it is moved; else the quiet work is done.
fn plan_serving(p: &PlanInput<'_>, a: &Assignment) -> Plan {
    let Some(u) = unreached(p) else { return plan_quiet(p, a) };
    let held = match u.best(&p.candidates) {
        None => HoldReason::Unreached { node: master_name(p), by: u.names(p.cluster) },
        Some(_) => match bypass::of_master(&p.candidates, p.cluster).or_else(|| brake(p)) {
            None => return Plan::AskFence(awaiting_fence(p)),
            Some(hold) => hold,
        },
    };
    match plan_quiet(p, a) {
        Plan::Nothing => Plan::Hold(held),
        quiet => quiet,
    }
}

/// All is well: keep the eligible set true.
fn plan_quiet(p: &PlanInput<'_>, a: &Assignment) -> Plan {
    if p.candidates.group.switchover.is_some() {
        return Plan::Nothing;
    }
    match eligible::change(&p.candidates, p.cluster, (p.marks, p.empty_for)) {
        Some(change) => Plan::Eligible(a.epoch, change),
        None => Plan::Nothing,
    }
}

/// What holds an automatic failover back although a candidate is there.
fn brake(p: &PlanInput<'_>) -> Option<HoldReason> {
    if p.paused {
        return Some(HoldReason::Paused);
    }
    if let Some(MassFailure { failing, limit }) = p.mass_failure {
        return Some(HoldReason::MassFailure { failing, limit });
    }
    (p.cooldown_left > Span(0)).then_some(HoldReason::Cooldown { left: p.cooldown_left })
}

/// Whom an automatic failover would name, now that nobody holds the lease.
pub(crate) fn next_in_line(c: &Candidates<'_>, a: &Assignment, cause: Cause) -> Option<Candidate> {
    // The old master may go on: it loses nothing. But not again and again, if it was named and was not heard to serve.
    let unheard = cause == Cause::NodeSilent && !a.serving;
    let ranked = |old_master| Candidates { old_master, ..*c }.ranked().into_iter().next();
    ranked(!unheard).or_else(|| ranked(true))
}

/// Nobody holds a lease: name the next master.
fn choose(p: &PlanInput<'_>, a: &Assignment, cause: Cause) -> Plan {
    let Some(best) = next_in_line(&p.candidates, a, cause) else { return cold::start(p, a) };
    if best.node != a.master
        && let Some(hold) = brake(p)
    {
        return Plan::Hold(hold);
    }
    // An eligible replica of the same history is as full as the master was, whatever has expired since. The old master is of its own
    // history whatever somebody put there.
    let is_kin = best.same_history && (best.node != a.master || !p.candidates.group.has_data);
    if best.keys == 0 && !is_kin && cold::fuller_elsewhere(p, &best).is_some() {
        return Plan::Hold(HoldReason::EmptyDataSet);
    }
    let evidence = match cause {
        Cause::NodeSilent => "no lease was granted to the old master's node for a whole lease",
        _ => "the old master's node fenced",
    };
    Plan::Assign(assign(p, &best, cause, evidence))
}

/// What goes into the history: nothing where there was no master, or the same life of it goes on.
fn loss(p: &PlanInput<'_>, to: &Candidate) -> Option<u64> {
    match &p.candidates.group.assignment {
        None => Some(0),
        Some(a) if (a.master, &a.run_id) == (to.node, &to.run_id) => Some(0),
        Some(_) => p.candidates.loss(to.node).map(|loss| loss.bytes),
    }
}

pub(super) fn assign(p: &PlanInput<'_>, to: &Candidate, cause: Cause, evidence: &str) -> Assign {
    let group = p.candidates.group;
    let seen = p.candidates.report(to.node).map(|r| &r.redis);
    Assign {
        group: p.candidates.spec.id.clone(),
        epoch: group.epoch().next(),
        master: to.node,
        run_id: to.run_id.clone(),
        cause,
        evidence: evidence.to_owned(),
        estimated_loss_bytes: loss(p, to),
        old_master_eligible: false,
        goes_on: matches!(seen, Some(RedisView::Up(o)) if o.is_master() && o.run_id == to.run_id),
    }
}
