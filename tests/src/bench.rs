//! The side-by-side measurement: the same pair, the same clients, the same faults, different
//! things that watch over it.
//!
//! Runs are interleaved: each round runs every contender once in each scenario, each in a lab of
//! its own, so that what the machine does meanwhile meets all of them. Nothing is asserted about
//! times. A run that failed is counted and told, not repeated.

mod contender;
mod cost;
mod facts;
mod keepalived;
mod oracle;
mod plot;
mod redkeep;
mod report;
mod results;
mod run;
pub(crate) mod sentinel;
pub(crate) mod stage;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use contender::Kind;
use results::Results;
use run::Scenario;

/// What to measure, and where the document goes.
#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: usize,
    /// Names of contenders or beginnings of them; none = all.
    pub only: Vec<String>,
    /// Names of scenarios; none = all and the cost while idle.
    pub scenarios: Vec<String>,
    /// Directory for `benchmarks.md` and `benchmarks.svg`.
    pub out: PathBuf,
    /// The command, for the document.
    pub command: String,
}

/// The scenario that has no fault.
const IDLE: &str = "idle";

/// Measures, prints the tables and writes the document.
pub fn run(options: &Options) -> Result<()> {
    let kinds = chosen_kinds(&options.only)?;
    let (scenarios, idle) = chosen_scenarios(&options.scenarios)?;
    let mut facts = facts::Facts::collect(&options.command)?;
    let mut results = Results::new(kinds.clone(), options.rounds);
    for round in 0..options.rounds {
        for scenario in &scenarios {
            for kind in &kinds {
                let outcome = run::run_once(*kind, *scenario, round);
                println!("{}", results::line(round, *scenario, *kind, &outcome));
                results.add(*scenario, *kind, outcome);
            }
        }
    }
    if idle {
        for kind in kinds.iter().filter(|kind| kind.has_processes()) {
            let cost = cost::measure(*kind);
            println!("idle: {} {cost:?}", kind.name());
            results.add_cost(*kind, cost);
        }
    }
    facts.finish()?;
    println!("\n{}", report::tables(&results));
    std::fs::create_dir_all(&options.out)?;
    let (document, plot) = (options.out.join("benchmarks.md"), options.out.join("benchmarks.svg"));
    std::fs::write(&document, report::document(&results, &facts)).context("write document")?;
    std::fs::write(&plot, plot::svg(&results)).context("write plot")?;
    println!("written: {} and {}", document.display(), plot.display());
    Ok(())
}

fn chosen_kinds(only: &[String]) -> Result<Vec<Kind>> {
    let mut chosen = Vec::new();
    for wanted in only {
        let before = chosen.len();
        chosen.extend(Kind::ALL.into_iter().filter(|kind| kind.name().starts_with(wanted)));
        if chosen.len() == before {
            bail!("no contender {wanted}; there are {}", Kind::ALL.map(Kind::name).join(", "));
        }
    }
    Ok(if only.is_empty() { Kind::ALL.to_vec() } else { chosen })
}

fn chosen_scenarios(wanted: &[String]) -> Result<(Vec<Scenario>, bool)> {
    if wanted.is_empty() {
        return Ok((Scenario::ALL.to_vec(), true));
    }
    let mut chosen = Vec::new();
    for name in wanted.iter().filter(|name| *name != IDLE) {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        let names = Scenario::ALL.map(Scenario::name).join(", ");
        chosen
            .push(found.with_context(|| format!("no scenario {name}; there are {names}, {IDLE}"))?);
    }
    Ok((chosen, wanted.iter().any(|name| name == IDLE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_and_scenarios_are_chosen_by_name() {
        let named = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let kinds = chosen_kinds(&named(&["redkeep", "sentinel"])).expect("known");
        assert_eq!(kinds, [Kind::Redkeep, Kind::Sentinel300, Kind::Sentinel1000]);
        assert!(chosen_kinds(&named(&["patroni"])).is_err());
        let (scenarios, idle) = chosen_scenarios(&named(&["crash", "idle"])).expect("known");
        assert_eq!((scenarios, idle), (vec![Scenario::Crash], true));
        assert_eq!(chosen_scenarios(&[]).expect("all").0.len(), Scenario::ALL.len());
    }
}
