//! Runs plans: once, twice for the proof of determinism, many, and smaller and smaller where one fails.

use crate::{
    check::Violation,
    clock::Real,
    mutants::{Mutant, Shown},
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
            deeds: 0,
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

/// Run a plan with wall clocks that go on and with others that jump: the same must be done (invariant 7).
#[must_use]
pub fn run_by_two_wall_clocks(plan: &Plan, switches: Switches) -> Outcome {
    let first = run(plan, switches, Lines::Tail);
    let jumping = Switches { wall_clock_jumps: true, ..switches };
    let mut second = run(plan, jumping, Lines::Tail);
    if second.violation.is_none() {
        second.violation = first.violation;
    }
    if second.violation.is_none() && first.deeds != second.deeds {
        let (first, second_hash) = (first.deeds, second.deeds);
        second.violation = Some(Violation::WallClockDecides { first, second: second_hash });
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
    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.simulated_ns += other.simulated_ns;
        self.coverage.merge(&other.coverage);
        self.failed.extend(other.failed);
    }

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

/// Run seeds on so many threads: each takes every n-th. A world has one thread; which one, it cannot tell.
pub fn side_by_side(
    seeds: std::ops::Range<u64>,
    threads: usize,
    one: impl Fn(u64) -> (Plan, Outcome) + Sync,
) -> Tally {
    let threads = threads.max(1);
    let every_nth = |first: usize| {
        let mut tally = Tally::default();
        for seed in seeds.clone().skip(first).step_by(threads) {
            let (plan, outcome) = one(seed);
            tally.add(plan, outcome);
        }
        tally
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let every_nth = &every_nth;
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || every_nth(n))).collect();
        for part in running {
            all.merge(part.join().expect("a panic of a run is caught in it"));
        }
    });
    all.failed.sort_by_key(|f| f.plan.seed);
    all
}

/// What to do with a plan that failed.
#[must_use]
pub fn how_to_repeat(plan: &Plan) -> String {
    let (seed, layout, profile) = (plan.seed, plan.layout.as_str(), plan.profile.as_str());
    let same = format!("--layout {layout} --profile {profile}");
    format!(
        "again:   redkeep-sim run --seed {seed} {same} --trace\n\
         smaller: redkeep-sim shrink {seed} {same}\n\
         to keep: a line `{seed} {layout} {profile}  # what it showed` in crates/sim/regressions.txt"
    )
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
    hunt_for(mutant, seeds, |v| v.is_of_safety() || !mutant.unsafe_without)
}

/// The first of `seeds` in which `mutant` does the harm that is `wanted`, and the sound system none.
#[must_use]
pub fn hunt_for(
    mutant: &Mutant,
    seeds: std::ops::Range<u64>,
    wanted: impl Fn(&Violation) -> bool,
) -> Option<(u64, Violation)> {
    for seed in seeds {
        let plan = mutant.plan(seed);
        let Some(violation) = run_for(mutant, &plan, mutant.switches).violation else { continue };
        if wanted(&violation) && run_for(mutant, &plan, Switches::default()).violation.is_none() {
            return Some((seed, violation));
        }
    }
    None
}

/// What each of `seeds` shows of `mutant`.
pub fn census(mutant: &Mutant, seeds: std::ops::Range<u64>) -> impl Iterator<Item = Violation> {
    seeds.filter_map(|seed| run_for(mutant, &mutant.plan(seed), mutant.switches).violation)
}

fn run_for(mutant: &Mutant, plan: &Plan, switches: Switches) -> Outcome {
    match mutant.shown_by {
        Shown::Run => run(plan, switches, Lines::Tail),
        Shown::TwoWallClocks => run_by_two_wall_clocks(plan, switches),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_side_by_side_come_to_the_same_as_one_after_the_other() {
        let one = |seed| {
            let plan = Plan::of_seed(seed);
            let outcome = run(&plan, Switches::default(), Lines::Tail);
            (plan, outcome)
        };
        let [alone, two] = [1, 2].map(|threads| side_by_side(0..5, threads, one));
        assert_eq!(alone.runs, 5);
        assert_eq!((alone.runs, alone.events), (two.runs, two.events));
        assert_eq!(alone.coverage, two.coverage);
    }
}
