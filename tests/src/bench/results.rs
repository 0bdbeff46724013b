//! All runs of a measurement, and what is computed from them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::contender::Kind;
use super::cost::Cost;
use super::run::Scenario;
use crate::figure::Figure;
use crate::verdict::Verdict;

/// The runs of one contender in one scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) back: Vec<Duration>,
    pub(super) gap: Vec<Duration>,
    pub(super) lost: Vec<usize>,
    pub(super) acked: Vec<usize>,
    pub(super) two_masters: Vec<Duration>,
    /// Why runs failed.
    pub(super) failures: Vec<String>,
}

/// A time that a cell has many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Back,
    Gap,
}

impl Cell {
    pub(super) fn spans(&self, measure: Measure) -> &[Duration] {
        match measure {
            Measure::Back => &self.back,
            Measure::Gap => &self.gap,
        }
    }

    pub(super) fn runs(&self) -> usize {
        self.gap.len() + self.failures.len()
    }

    fn add(&mut self, verdict: &Verdict) {
        let Some(back) = verdict.service_back else {
            self.failures.push("no other server answered".to_owned());
            return;
        };
        self.back.push(back);
        self.gap.push(verdict.write_gap);
        self.lost.push(verdict.lost);
        self.acked.push(verdict.acked);
        self.two_masters.push(verdict.two_masters.seen);
    }
}

#[derive(Debug)]
pub(super) struct Results {
    pub(super) kinds: Vec<Kind>,
    pub(super) rounds: usize,
    cells: BTreeMap<(Scenario, Kind), Cell>,
    pub(super) costs: BTreeMap<Kind, Result<BTreeMap<String, Cost>, String>>,
}

impl Results {
    pub(super) fn new(kinds: Vec<Kind>, rounds: usize) -> Self {
        Results { kinds, rounds, cells: BTreeMap::new(), costs: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, scenario: Scenario, kind: Kind, outcome: Result<Verdict>) {
        let cell = self.cells.entry((scenario, kind)).or_default();
        match outcome {
            Ok(verdict) => cell.add(&verdict),
            Err(error) => cell.failures.push(one_line(&error)),
        }
    }

    pub(super) fn add_cost(&mut self, kind: Kind, cost: Result<BTreeMap<String, Cost>>) {
        self.costs.insert(kind, cost.map_err(|error| one_line(&error)));
    }

    /// Scenarios that were run, in order.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let ran = |scenario: &Scenario| self.cells.keys().any(|(other, _)| other == scenario);
        Scenario::ALL.into_iter().filter(ran).collect()
    }

    pub(super) fn cell(&self, scenario: Scenario, kind: Kind) -> Option<&Cell> {
        self.cells.get(&(scenario, kind))
    }

    /// The contender with the smallest median whose name begins with `family`.
    pub(super) fn fastest(
        &self,
        scenario: Scenario,
        family: &str,
        measure: Measure,
    ) -> Option<(Kind, Duration)> {
        let of_family = self.kinds.iter().filter(|kind| kind.name().starts_with(family));
        let medians = of_family
            .filter_map(|kind| Some((*kind, median(self.cell(scenario, *kind)?.spans(measure))?)));
        medians.min_by_key(|(_, median)| *median)
    }
}

/// One run, for who watches.
pub(super) fn line(
    round: usize,
    scenario: Scenario,
    kind: Kind,
    outcome: &Result<Verdict>,
) -> String {
    let begin = format!("round {}, {}, {}", round + 1, scenario.name(), kind.name());
    match outcome {
        Ok(verdict) => format!("{begin}: {verdict}"),
        Err(error) => format!("{begin}: FAILED: {error:#}"),
    }
}

/// An error can carry a whole log; the document has its first line.
fn one_line(error: &anyhow::Error) -> String {
    let whole = error.chain().map(ToString::to_string).collect::<Vec<_>>();
    let parts: Vec<&str> = whole.iter().filter_map(|part| part.lines().next()).collect();
    parts.join(": ").chars().take(200).collect()
}

/// The run in the middle, as a [`Figure`] takes it; none without runs.
pub(super) fn median(spans: &[Duration]) -> Option<Duration> {
    let mut figure = Figure::new("");
    spans.iter().for_each(|span| figure.add(*span));
    (!spans.is_empty()).then(|| figure.median())
}

pub(super) fn worst(spans: &[Duration]) -> Option<Duration> {
    spans.iter().max().copied()
}

/// `12 times`, `3.4 times`; nothing when one of the two is missing or zero.
pub(super) fn times(slow: Duration, fast: Duration) -> Option<String> {
    if fast.is_zero() {
        return None;
    }
    let ratio = slow.as_secs_f64() / fast.as_secs_f64();
    Some(if ratio < 10.0 { format!("{ratio:.1} times") } else { format!("{ratio:.0} times") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn middle_and_worst_of_no_runs_are_absent() {
        assert_eq!((median(&[]), worst(&[])), (None, None));
        assert_eq!(median(&[ms(9), ms(1), ms(2)]), Some(ms(2)));
        assert_eq!(median(&[ms(9), ms(1)]), Some(ms(9)), "of two the slower");
        assert_eq!(worst(&[ms(9), ms(1)]), Some(ms(9)));
    }

    #[test]
    fn ratios_have_two_digits_that_matter() {
        assert_eq!(times(ms(30), ms(20)).as_deref(), Some("1.5 times"));
        assert_eq!(times(ms(1234), ms(20)).as_deref(), Some("62 times"));
        assert_eq!(times(ms(1), ms(0)), None);
    }

    #[test]
    fn failed_runs_are_counted_and_the_fastest_is_by_its_median() {
        let mut results = Results::new(vec![Kind::Sentinel300, Kind::Sentinel1000], 1);
        for (kind, span) in [(Kind::Sentinel300, 900), (Kind::Sentinel1000, 1900)] {
            let cell = results.cells.entry((Scenario::Crash, kind)).or_default();
            cell.back.push(ms(span));
            cell.gap.push(ms(span));
        }
        let error = anyhow::anyhow!("waited\nlong log").context("start");
        results.add(Scenario::Crash, Kind::Sentinel300, Err(error));
        let cell = results.cell(Scenario::Crash, Kind::Sentinel300).expect("ran");
        assert_eq!((cell.runs(), cell.failures.as_slice()), (2, &["start: waited".to_owned()][..]));
        let fastest = results.fastest(Scenario::Crash, "sentinel", Measure::Back);
        assert_eq!(fastest, Some((Kind::Sentinel300, ms(900))));
        assert_eq!(results.scenarios(), [Scenario::Crash]);
    }
}
