//! Runs plans: once, twice for the proof of determinism, many, and smaller and smaller where one fails.

use crate::{
    check::Violation,
    clock::Real,
    mutants::Mutant,
    plan::Plan,
    trace::{Coverage, Lines},
    world::{Outcome, Switches, World},
};

/// Runs that a search for a smaller plan may take.
const SHRINK_RUNS_MAX: usize = 400;

/// A panic of a core is a failure of the run, not of the runner.
#[must_use]
pub fn run(plan: &Plan, switches: Switches, lines: Lines) -> Outcome {
    let whole = || World::new(plan.clone(), switches, lines).run();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(whole)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Outcome {
            violation: Some(Violation::Panicked { message: text.unwrap_or_default() }),
            hash: 0,
            events: 0,
            ended: Real(0),
            coverage: Coverage::default(),
            tail: Vec::new(),
        }
    })
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

/// The first of `seeds` in which `mutant` does harm that the sound system does not.
#[must_use]
pub fn hunt(mutant: &Mutant, seeds: std::ops::Range<u64>) -> Option<(u64, Violation)> {
    let profile = mutant.hunted_in;
    let plan = |seed| match profile {
        Some((layout, profile)) => Plan::draw(seed, layout, profile),
        None => Plan::of_seed(seed),
    };
    for seed in seeds {
        let plan = plan(seed);
        let Some(violation) = run(&plan, mutant.switches, Lines::Tail).violation else { continue };
        if mutant.unsafe_without && !violation.is_of_safety() {
            continue;
        }
        if run(&plan, Switches::default(), Lines::Tail).violation.is_none() {
            return Some((seed, violation));
        }
    }
    None
}
