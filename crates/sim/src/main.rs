//! `redkeep-sim`: run seeds, replay a plan, make a failing one smaller.
//!
//! Exit codes: 0 every run kept the invariants, 1 one did not, 2 usage.

use std::{ops::Range, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use redkeep_sim::{
    claims,
    lease_model::{self, Found, Report, Rule, Setting, Start},
    mutants,
    plan::{Layout, Plan, Profile},
    runner::{self, Failed},
    trace::{Coverage, Lines},
    world::{Outcome, Switches},
};

#[derive(Debug, Parser)]
#[command(name = "redkeep-sim", about = "Deterministic simulator of redkeep clusters")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run one seed, or a range of them (each twice, with equal trace hashes).
    Run(Run),
    /// Run the plan in a file, as `show` or `shrink` printed it.
    Replay {
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Print the plan of a seed.
    Show {
        seed: u64,
        #[command(flatten)]
        what: What,
    },
    /// Leave faults out of a failing seed's plan as long as it fails in the same way; print what is left.
    Shrink {
        seed: u64,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        how: How,
    },
    /// Look for a seed that catches each rule switched off, or the one named.
    Hunt {
        mutant: Option<String>,
        #[arg(long, value_parser = parse_range, default_value = "0..300")]
        seeds: Range<u64>,
        /// Run all of the seeds, and count which checker found each.
        #[arg(long)]
        census: bool,
    },
    /// Search a small model of the lease rules exhaustively, with all of them or without one.
    Lease(Lease),
    /// List the rules that `--mutate` can switch off.
    Mutants,
}

#[derive(Debug, Args)]
struct Lease {
    /// Ticks of a lease.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    ttl: u8,
    /// Fewer ticks, which a holder may arm instead.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    armed: Option<u8>,
    /// Elections after the first, at most two.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=2))]
    elections: u8,
    /// Armings of each host.
    #[arg(long, default_value_t = 2)]
    arms: u8,
    /// Decisions besides the first, at most two.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=2))]
    assigns: u8,
    /// Restarts of supervisors beside a Redis.
    #[arg(long, default_value_t = 0)]
    restarts: u8,
    /// Deaths of each Redis.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=1))]
    deaths: u8,
    /// A fourth voter may be added, and the witness removed.
    #[arg(long)]
    membership: bool,
    /// witness-leads, master-leads or cold.
    #[arg(long, default_value = "witness-leads", value_parser = parse_start)]
    start: Start,
    /// Leave out this rule; a wrong name lists them.
    #[arg(long, value_parser = parse_rule)]
    forget: Option<Rule>,
    /// Without the reductions: the same answers from some ten to a hundred times as many states.
    #[arg(long)]
    plain: bool,
    /// Give up after so many states.
    #[arg(long, default_value_t = 50_000_000)]
    states: usize,
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// `A..B`, B not included.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// So many seeds that nobody has run before, or those that the environment names in REDKEEP_SIM_SEEDS as `A..B`.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    fresh: Option<u64>,
    /// Run so many seeds at a time.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Run each seed once only.
    #[arg(long)]
    once: bool,
    /// Print how often each fault and state was met.
    #[arg(long)]
    coverage: bool,
    /// List each kind of fault, reason to wait and deed that was met less often, and fail if there is one.
    #[arg(long, requires = "coverage")]
    at_least: Option<u64>,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct What {
    /// Instead of the one drawn from the seed: trio, trio-three-groups, five.
    #[arg(long, value_parser = parse_layout)]
    layout: Option<Layout>,
    /// Instead of the one drawn from the seed: swarm, single, duel, late, calm, stall, hand-over, corner, first-start,
    /// standstill, membership, filtered, by-hand.
    #[arg(long, value_parser = parse_profile)]
    profile: Option<Profile>,
}

#[derive(Debug, Args)]
struct How {
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Switch a rule off; see `mutants`.
    #[arg(long)]
    mutate: Option<String>,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("a range is A..B")?;
    let number = |t: &str| t.parse::<u64>().map_err(|e| e.to_string());
    Ok(number(from)?..number(to)?)
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "witness-leads" => Ok(Start::WitnessLeads),
        "master-leads" => Ok(Start::MasterLeads),
        "cold" => Ok(Start::Cold),
        _ => Err(format!("no start \"{text}\"; there are witness-leads, master-leads and cold")),
    }
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let names = Rule::ALL.map(|rule| (format!("{rule:?}"), rule));
    let found = names.iter().find(|(name, _)| name == text).map(|(_, rule)| *rule);
    let all = || names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("no rule \"{text}\"; there are {}", all()))
}

fn parse_layout(text: &str) -> Result<Layout, String> {
    Layout::ALL.into_iter().find(|l| l.as_str() == text).ok_or_else(|| "no such layout".into())
}

fn parse_profile(text: &str) -> Result<Profile, String> {
    Profile::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| "no such profile".into())
}

impl What {
    fn plan(&self, seed: u64) -> Plan {
        let drawn = Plan::of_seed(seed);
        if self.layout.is_none() && self.profile.is_none() {
            return drawn;
        }
        Plan::draw(seed, self.layout.unwrap_or(drawn.layout), self.profile.unwrap_or(drawn.profile))
    }
}

impl How {
    fn switches(&self) -> anyhow::Result<Switches> {
        let Some(name) = &self.mutate else { return Ok(Switches::default()) };
        let mutant = mutants::named(name);
        mutant.map(|m| m.switches).with_context(|| format!("no mutant named {name}"))
    }
    fn lines(&self) -> Lines {
        if self.trace { Lines::Print } else { Lines::Tail }
    }
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("redkeep-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True if every run kept the invariants.
fn act(verb: Verb) -> anyhow::Result<bool> {
    match verb {
        Verb::Run(run) => run_seeds(&run),
        Verb::Replay { file, how } => {
            let text =
                std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let plan: Plan = text.parse().with_context(|| file.display().to_string())?;
            Ok(report(&runner::run(&plan, how.switches()?, how.lines())))
        }
        Verb::Show { seed, what } => {
            print!("{}", what.plan(seed));
            Ok(true)
        }
        Verb::Shrink { seed, what, how } => {
            let small = runner::shrink(&what.plan(seed), how.switches()?);
            print!("{small}");
            Ok(report(&runner::run(&small, how.switches()?, Lines::Tail)))
        }
        Verb::Hunt { mutant, seeds, census } => {
            if census {
                take_census(mutant.as_deref(), &seeds);
                return Ok(true);
            }
            Ok(hunt(mutant.as_deref(), &seeds))
        }
        Verb::Lease(lease) => Ok(search_leases(&lease)),
        Verb::Mutants => {
            for mutant in mutants::all() {
                println!("{:<26} {}", mutant.name, mutant.rule);
            }
            Ok(true)
        }
    }
}

/// True if all states were seen and none has two writers.
fn search_leases(lease: &Lease) -> bool {
    let setting = Setting {
        ttl: lease.ttl,
        armed: lease.armed.unwrap_or(lease.ttl).min(lease.ttl),
        elections: lease.elections,
        arms: lease.arms,
        assigns: lease.assigns,
        restarts: lease.restarts,
        deaths: lease.deaths,
        membership: lease.membership,
        start: lease.start,
        forget: lease.forget,
        plain: lease.plain,
        states_max: lease.states,
    };
    let report = lease_model::search(&setting);
    let Report { states, depth, open, moved, diverged, .. } = report;
    println!(
        "{states} states, the furthest {depth} steps away; a host open in {open}, b in {moved}"
    );
    if diverged > 0 {
        println!("in {diverged} two nodes committed different entries: Raft is broken");
    }
    match &report.found {
        Found::Nothing => println!("every state within the bounds was seen: never two writers"),
        Found::Unfinished => println!("not all states were seen: this proves nothing"),
        Found::TwoWriters(steps) => {
            println!("two writers after {} steps:", steps.len());
            for step in steps {
                println!("  {step}");
            }
        }
    }
    report.found == Found::Nothing
}

/// Which checkers see each rule's absence, and how often.
fn take_census(name: Option<&str>, seeds: &Range<u64>) {
    for mutant in mutants::all().iter().filter(|m| name.is_none_or(|n| n == m.name)) {
        let mut found = std::collections::BTreeMap::<&str, u64>::new();
        for violation in runner::census(mutant, seeds.clone()) {
            *found.entry(violation.name()).or_default() += 1;
        }
        let found: Vec<String> = found.iter().map(|(name, n)| format!("{name} {n}")).collect();
        println!("{:<26} {}", mutant.name, found.join(", "));
    }
}

/// True if every one was caught.
fn hunt(name: Option<&str>, seeds: &Range<u64>) -> bool {
    let mut all = true;
    for mutant in mutants::all().iter().filter(|m| name.is_none_or(|n| n == m.name)) {
        match runner::hunt(mutant, seeds.clone()) {
            Some((seed, violation)) => println!("{:<26} seed {seed}: {violation}", mutant.name),
            None => {
                all = false;
                println!("{:<26} not caught", mutant.name);
            }
        }
    }
    all
}

fn run_seeds(run: &Run) -> anyhow::Result<bool> {
    let switches = run.how.switches()?;
    if let Some(seed) = run.seed {
        let outcome = runner::run(&run.what.plan(seed), switches, run.how.lines());
        if run.coverage {
            print_coverage(&outcome.coverage);
        }
        return Ok(report(&outcome));
    }
    let seeds = match (run.seeds.clone(), run.fresh) {
        (Some(seeds), _) => seeds,
        (None, Some(count)) => fresh(count)?,
        (None, None) => bail!("--seed N, --seeds A..B or --fresh N"),
    };
    let one = |seed| {
        let plan = run.what.plan(seed);
        let outcome = if run.once {
            runner::run(&plan, switches, Lines::Tail)
        } else {
            runner::run_twice(&plan, switches)
        };
        (plan, outcome)
    };
    let tally = runner::side_by_side(seeds, run.threads, one);
    for Failed { plan, violation, .. } in &tally.failed {
        let (layout, profile) = (plan.layout.as_str(), plan.profile.as_str());
        println!("seed {} {layout} {profile}: {violation}", plan.seed);
    }
    let seconds = tally.simulated_ns / 1_000_000_000;
    println!(
        "{} seeds, {} events, {seconds} s simulated, {} failed",
        tally.runs,
        tally.events,
        tally.failed.len()
    );
    if let Some(first) = tally.failed.first() {
        println!("{}", runner::how_to_repeat(&first.plan));
    }
    if run.coverage {
        print_coverage(&tally.coverage);
    }
    let enough = run.at_least.is_none_or(|least| is_met(&tally.coverage, least));
    Ok(tally.failed.is_empty() && enough)
}

/// Seeds by the time of day, so that each run takes others; printed, so that a failure can be repeated.
fn fresh(count: u64) -> anyhow::Result<Range<u64>> {
    let named = std::env::var("REDKEEP_SIM_SEEDS").ok();
    let seeds = match named {
        Some(text) => parse_range(&text).map_err(|e| anyhow::anyhow!("REDKEEP_SIM_SEEDS: {e}"))?,
        None => {
            let from = seconds_since_1970() * FRESH_APART;
            from..from + count
        }
    };
    println!("fresh seeds {}..{}", seeds.start, seeds.end);
    Ok(seeds)
}

/// Two runs that begin in different seconds share no seed, up to so many.
const FRESH_APART: u64 = 10_000;

#[allow(clippy::disallowed_methods, reason = "chooses the seeds; no run ever sees it")]
fn seconds_since_1970() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs())
}

fn print_coverage(coverage: &Coverage) {
    for (what, n) in &coverage.0 {
        println!("{n:>9} {what}");
    }
}

fn is_met(coverage: &Coverage, least: u64) -> bool {
    let rare = claims::rarer_than(coverage, least);
    println!(
        "{} of {} claims met {least} times",
        claims::all().count() - rare.len(),
        claims::all().count()
    );
    for (what, n) in &rare {
        println!("{n:>9} RARE {what}");
    }
    rare.is_empty()
}

fn report(outcome: &Outcome) -> bool {
    let seconds = std::time::Duration::from_nanos(outcome.ended.0).as_secs_f64();
    println!("{} events, {seconds:.3} s simulated, trace {:016x}", outcome.events, outcome.hash);
    match &outcome.violation {
        Some(violation) => {
            println!("VIOLATION: {violation}");
            false
        }
        None => true,
    }
}
