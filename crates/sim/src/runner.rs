//! Runs plans: once, twice for the proof of determinism, many, and smaller and smaller where one fails.

use crate::{
    check::Violation,
    plan::Plan,
    trace::{Coverage, Lines},
    world::{Outcome, Switches, World},
};

/// Runs that a search for a smaller plan may take.
const SHRINK_RUNS_MAX: usize = 400;

#[must_use]
pub fn run(plan: &Plan, switches: Switches, lines: Lines) -> Outcome {
    World::new(plan.clone(), switches, lines).run()
}

/// Run a plan twice: the traces must be equal.
#[must_use]
pub fn run_twice(plan: &Plan, switches: Switches) -> Outcome {
    let first = run(plan, switches, Lines::Tail);
    let mut second = run(plan, switches, Lines::Tail);
    if first.hash != second.hash {
        let (first, second_hash) = (first.hash, second.hash);
        second.violation = Some(Violation::NotDeterministic { first, second: second_hash });
    }
    second
}

/// A seed that failed.
#[derive(Debug)]
pub struct Failed {
    pub plan: Plan,
    pub violation: Violation,
    pub tail: Vec<String>,
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub events: u64,
    /// Simulated time, nanoseconds.
    pub simulated_ns: u64,
    pub coverage: Coverage,
    pub failed: Vec<Failed>,
}

impl Tally {
    pub fn add(&mut self, plan: Plan, outcome: Outcome) {
        self.runs += 1;
        self.events += outcome.events;
        self.simulated_ns += outcome.ended.0;
        self.coverage.merge(&outcome.coverage);
        if let Some(violation) = outcome.violation {
            self.failed.push(Failed { plan, violation, tail: outcome.tail });
        }
    }
}

/// The same kind of failure with fewer faults, found by leaving some out.
#[must_use]
pub fn shrink(plan: &Plan, switches: Switches) -> Plan {
    let Some(goal) = run(plan, switches, Lines::Tail).violation else { return plan.clone() };
    let same = |p: &Plan| {
        let got = run(p, switches, Lines::Tail).violation;
        got.is_some_and(|v| std::mem::discriminant(&v) == std::mem::discriminant(&goal))
    };
    let mut best = plan.clone();
    let mut runs = 0;
    let mut chunk = best.faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < best.faults.len() && runs < SHRINK_RUNS_MAX {
            let mut smaller = best.clone();
            let end = (at + chunk).min(best.faults.len());
            smaller.faults.drain(at..end);
            runs += 1;
            if same(&smaller) {
                best = smaller;
            } else {
                at = end;
            }
        }
        if chunk == 1 || runs >= SHRINK_RUNS_MAX {
            return best;
        }
        chunk = chunk.div_ceil(2);
    }
}
