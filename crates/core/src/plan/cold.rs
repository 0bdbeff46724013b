//! Cold start: no member of the eligible set is there as it was, so what was read from disks is compared (ADR 0027).
//!
//! Offsets say something within one history alone. A Redis that starts takes a new one: from Redis 7 on an RDB names the history
//! that it was taken of; before that it does so for a replica alone, and an append-only file never does. So the last master's data
//! set wins, unless another is known to have all of it and more, and unless nobody can say whether it does.

use redkeep_consensus::{NodeId, Span};

use super::planner::{PlanInput, assign, no_candidate};
use crate::{
    command::Cause,
    lineage::Lineage,
    model::Assignment,
    observe::RedisObservation,
    plan::{
        HoldReason, Plan, bypass,
        candidate::{Candidate, Candidates},
    },
};

/// What a member has, as far as its Redis can tell.
struct Held {
    candidate: Candidate,
    data: Lineage,
    append_only: bool,
}

/// Only the nodes of the eligible set and the last master are considered, and only when nobody who might hold more is missing.
pub(super) fn start(p: &PlanInput<'_>, a: &Assignment) -> Plan {
    let c = Candidates { allow_data_loss: true, ..p.candidates };
    let eligible_nodes: Vec<NodeId> = p.candidates.group.eligible.iter().map(|m| m.node).collect();
    let all_eligible_report = eligible_nodes.iter().all(|n| c.judge(*n).is_ok());
    let everybody = p.candidates.spec.members.iter().all(|m| c.judge(m.node).is_ok());
    let in_question = |n: NodeId| n == a.master || eligible_nodes.contains(&n);
    let (stray, pool): (Vec<Candidate>, Vec<Candidate>) = c
        .ranked()
        .into_iter()
        .filter(|x| in_question(x.node) && x.priority > 0)
        .partition(|x| p.candidates.is_stray(x.node));
    if pool.is_empty() && stray.is_empty() {
        return Plan::Hold(no_candidate(p));
    }
    let waited = p.now_boot.since(p.assigned_at);
    let left = p.cluster.timing.cold_start_wait.0.saturating_sub(waited.0);
    if !everybody && (left > 0 || !all_eligible_report) {
        let open = bypass::of_candidate(&p.candidates, p.cluster);
        return Plan::Hold(open.unwrap_or(HoldReason::ColdStart { left: Span(left) }));
    }
    let best = match fullest(p, a, &c, pool) {
        Ok(best) => best,
        Err(hold) => return Plan::Hold(hold),
    };
    match fuller_elsewhere(p, &best.candidate) {
        Some(hold) => Plan::Hold(hold),
        None if !everybody && fell_back(&c, &best.data) => Plan::Hold(HoldReason::OlderDataSet),
        // Whoever had keys is empty by now, or what was said of it last is older than its data set (found by the simulator).
        None if best.candidate.keys == 0 && (!everybody || p.candidates.group.has_data) => {
            Plan::Hold(HoldReason::EmptyDataSet)
        }
        None if p.paused => Plan::Hold(HoldReason::Paused),
        None => Plan::Assign(assign(
            p,
            &best.candidate,
            Cause::ColdStart,
            "the fullest data set among eligible members and the last master",
        )),
    }
}

/// The last master's data set; or one that goes on from it; or, without it, one that goes on from all others.
fn fullest(
    p: &PlanInput<'_>,
    a: &Assignment,
    c: &Candidates<'_>,
    pool: Vec<Candidate>,
) -> Result<Held, HoldReason> {
    let held = |candidate: Candidate| {
        let seen = c.report(candidate.node)?.redis.observation()?;
        let data = data_of(c, candidate.node, seen);
        Some(Held { candidate, data, append_only: seen.append_only })
    };
    let mut all: Vec<Held> = pool.into_iter().filter_map(held).collect();
    // The last master first, whom a tie does not move; an empty one only where all are.
    all.sort_by_key(|x| (x.candidate.keys == 0, x.candidate.node != a.master));
    let mut all = all.into_iter();
    let mut best = all.next().ok_or(HoldReason::OtherHistory)?;
    for other in all.filter(|x| x.candidate.keys > 0) {
        match surplus(&other.data, &best.data) {
            Some(true) => best = other,
            Some(false) => {}
            // Before it fell, the last master had all that the others had; an append-only file has all that it had. One that
            // never served may have lost what its predecessor still has.
            None if best.candidate.node == a.master && a.serving && best.append_only => {}
            None => return Err(unrelated(p, &best.candidate, other.candidate.node)),
        }
    }
    Ok(best)
}

/// Whether `other` has all that `best` has, and more; none = they have no history in common, so nobody knows. Where they parted,
/// what `best` has is the group's.
fn surplus(other: &Lineage, best: &Lineage) -> Option<bool> {
    let (more, less) = (other.beyond(best)?, best.beyond(other)?);
    Some(more > 0 && less == 0)
}

/// It is known to lack some of what the last master served. Who is not there may have it.
fn fell_back(c: &Candidates<'_>, data: &Lineage) -> bool {
    let served = c.last_look_at_master();
    served.is_some_and(|(_, served)| served.beyond(data).is_some_and(|lacks| lacks > 0))
}

/// A master that never led has what it read from its disk: nobody could reach it since, and what makes its offset grow is the
/// expiry of keys.
fn data_of(c: &Candidates<'_>, node: NodeId, seen: &RedisObservation) -> Lineage {
    let own = seen.lineage();
    let tenure = c.nodes.get(&node).and_then(|n| n.led(&c.spec.id));
    let led = tenure.is_some_and(|(_, led)| led.data.replication_id == own.replication_id);
    if led || !seen.is_master() { own } else { own.as_loaded().unwrap_or(own) }
}

fn unrelated(p: &PlanInput<'_>, best: &Candidate, other: NodeId) -> HoldReason {
    let nodes = [best.node, other].map(|n| p.cluster.node_name(n));
    HoldReason::UnrelatedDataSets { nodes: nodes.join(" and ") }
}

/// Somebody holds more than `best`, or may (invariant 5).
pub(super) fn fuller_elsewhere(p: &PlanInput<'_>, best: &Candidate) -> Option<HoldReason> {
    let c = Candidates { allow_data_loss: true, ..p.candidates };
    let mine = c.report(best.node).and_then(|r| r.redis.observation());
    let append_only = mine.is_some_and(|o| o.append_only);
    let assigned = p.candidates.group.assignment.as_ref();
    let is_whole = append_only && assigned.is_some_and(|a| a.serving && a.master == best.node);
    let others = p.candidates.spec.members.iter().filter(|m| m.node != best.node);
    let mut hold = None;
    for m in others {
        // The last known data set counts also while its Redis is down: it will be back.
        let Some(o) =
            p.candidates.nodes.get(&m.node).and_then(|n| n.last_observation(&p.candidates.spec.id))
        else {
            continue;
        };
        if best.keys == 0 && o.keys > 0 {
            return Some(HoldReason::EmptyDataSet);
        }
        if o.keys == 0 {
            continue;
        }
        let theirs = data_of(&c, m.node, o);
        match mine.and_then(|mine| surplus(&theirs, &data_of(&c, best.node, mine))) {
            Some(true) => hold = Some(HoldReason::OlderDataSet),
            // Found by the simulator: it was not heard for a moment, just when the wait was over.
            None if !is_whole => {
                hold = hold.or_else(|| Some(unrelated(p, best, m.node)));
            }
            Some(false) | None => {}
        }
    }
    hold
}
