//! What the assumptions of docs/failure-modes.md allow is safe, and what they exclude is seen to break: an assumption that can
//! be left out without harm says nothing.

use redkeep_core::{Span, spec::Timing};
use redkeep_sim::{
    check::Violation,
    fault::{FaultKind, Planned, Target},
    plan::{Layout, Plan, Profile},
    runner::{run, run_by_two_wall_clocks, side_by_side},
    trace::Lines,
    world::{Switches, spec_of},
};

/// Seeds within which something that breaks has to show.
const SEEDS: u64 = 60;

/// The rate of the slowest clock for which `max_clock_drift` still holds beside one that is right, in parts per million.
fn slowest_allowed() -> u64 {
    let knobs = Plan::draw(0, Layout::Trio, Profile::Calm).knobs();
    let drift = spec_of(Layout::Trio, &knobs).timing.max_clock_drift_ppm;
    1_000_000 - 1_000_000_000_000_u64.div_ceil(1_000_000 + drift)
}

fn timing() -> Timing {
    let knobs = Plan::draw(0, Layout::Trio, Profile::Calm).knobs();
    spec_of(Layout::Trio, &knobs).timing
}

/// Every violation of `seeds` plans.
fn violations(plan: impl Fn(u64) -> Plan + Sync, seeds: u64, switches: Switches) -> Vec<Violation> {
    let one = |seed| {
        let plan = plan(seed);
        let outcome = run(&plan, switches, Lines::Tail);
        (plan, outcome)
    };
    side_by_side(0..seeds, 2, one).failed.into_iter().map(|f| f.violation).collect()
}

fn clocks(skew_max_ppm: u64) -> Vec<Violation> {
    let switches = Switches { skew_max_ppm: Some(skew_max_ppm), ..Switches::default() };
    violations(|seed| Plan::draw(seed, Layout::Trio, Profile::Duel), SEEDS, switches)
}

#[test]
fn clock_rates_at_the_bound_are_safe() {
    let bound = slowest_allowed();
    assert!((90_000..91_000).contains(&bound), "{bound}");
    assert_eq!(clocks(bound), []);
}

#[test]
fn clock_rates_beyond_the_bound_are_seen_to_break() {
    let broken = clocks(600_000);
    println!("{} of {SEEDS} seeds: {:?}", broken.len(), broken.first());
    let two =
        |v: &Violation| matches!(v, Violation::TwoLeases { .. } | Violation::TwoWriters { .. });
    assert!(broken.iter().any(two), "{broken:?}");
}

/// The master's machine is paused while it is cut off, and goes on when another was named.
fn paused_master(seed: u64, lasts: Span) -> Plan {
    let mut plan = Plan::draw(seed, Layout::Trio, Profile::Standstill);
    let at = Span::from_millis(4_000 + 7 * seed);
    let fault = |kind, at, lasts| Planned { at, kind, target: Target::Master(0), lasts, pick: 0 };
    plan.faults = vec![
        fault(FaultKind::Isolate, at, Span::from_secs(3)),
        fault(FaultKind::PauseMachine, at + Span::from_micros(seed * 97), lasts),
    ];
    plan
}

#[test]
fn a_machine_paused_for_no_longer_than_the_margin_is_safe() {
    let margin = timing().margin;
    let short = |seed| paused_master(seed, Span(margin.0 - margin.0 / 5));
    assert_eq!(violations(short, 2 * SEEDS, Switches::default()), []);
}

/// Its lease goes on for its rest after the resume: assumption 3.
#[test]
fn a_machine_paused_for_longer_than_a_lease_is_seen_to_break() {
    let long = |seed| paused_master(seed, Span::from_millis(1_500));
    let broken = violations(long, SEEDS, Switches::default());
    println!("{} of {SEEDS} seeds: {:?}", broken.len(), broken.first());
    assert!(broken.iter().any(|v| matches!(v, Violation::TwoLeases { .. })), "{broken:?}");
}

#[test]
fn wall_clocks_that_jump_by_years_change_nothing_that_is_done() {
    for seed in 0..SEEDS {
        let plan = Plan::of_seed(seed);
        let outcome = run_by_two_wall_clocks(&plan, Switches::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}
