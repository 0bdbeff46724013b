//! The tables on stdout and the document made of them.

use std::fmt::Write as _;
use std::time::Duration;

use super::contender::Kind;
use super::facts::Facts;
use super::results::{Cell, Measure, Results, median, times, worst};
use super::run::Scenario;

/// What the scenario is compared by.
fn measure_of(scenario: Scenario) -> Measure {
    match scenario {
        Scenario::Crash | Scenario::HostLoss | Scenario::Cut => Measure::Back,
        // A planned change has no fault; what clients feel is the gap.
        Scenario::Switchover => Measure::Gap,
    }
}

/// All tables, ratios and failures, as Markdown.
pub(super) fn tables(results: &Results) -> String {
    let mut text = String::new();
    for scenario in results.scenarios() {
        let _ = writeln!(text, "## {}\n", scenario.title());
        text.push_str(&scenario_table(results, scenario));
        let ratios = ratios(results, scenario);
        if !ratios.is_empty() {
            let _ = writeln!(text, "\n{}", ratios.join("; ") + ".");
        }
        text.push_str(&failures(results, scenario));
        text.push('\n');
    }
    text.push_str(&cost_table(results));
    text
}

fn scenario_table(results: &Results, scenario: Scenario) -> String {
    let mut text = String::from(
        "| contender | service back: median | worst | write gap: median | worst | \
         lost: median | worst | two masters: worst | runs | failed |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for kind in &results.kinds {
        if let Some(cell) = results.cell(scenario, *kind) {
            let _ = writeln!(text, "| {} | {} |", kind.name(), row(cell).join(" | "));
        }
    }
    text
}

fn row(cell: &Cell) -> Vec<String> {
    let number = |found: Option<usize>| found.map_or("-".to_owned(), |count| count.to_string());
    vec![
        millis(median(&cell.back)),
        millis(worst(&cell.back)),
        millis(median(&cell.gap)),
        millis(worst(&cell.gap)),
        number((!cell.lost.is_empty()).then(|| middle(&cell.lost))),
        number(cell.lost.iter().max().copied()),
        millis(worst(&cell.two_masters)),
        cell.runs().to_string(),
        cell.failures.len().to_string(),
    ]
}

/// The count in the middle, of an even number the larger one; zero of none.
fn middle(counts: &[usize]) -> usize {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Milliseconds, with a decimal where it says something.
fn millis(span: Option<Duration>) -> String {
    span.map_or("-".to_owned(), |span| {
        let ms = span.as_secs_f64() * 1e3;
        if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
    })
}

/// The medians compared, as sentences.
fn ratios(results: &Results, scenario: Scenario) -> Vec<String> {
    let measure = measure_of(scenario);
    let fastest = |family: &str| results.fastest(scenario, family, measure);
    let mut sentences = Vec::new();
    let Some((_, redkeep)) = fastest("redkeep") else { return sentences };
    if let Some((_, oracle)) = fastest("oracle")
        && let Some(ratio) = times(redkeep, oracle)
    {
        sentences.push(format!("redkeep takes {ratio} as long as the oracle"));
    }
    for family in ["sentinel", "keepalived"] {
        if let Some((kind, other)) = fastest(family)
            && let Some(ratio) = times(other, redkeep)
        {
            let lost = results.cell(scenario, kind).map_or(0, |cell| middle(&cell.lost));
            let price = if lost > 0 { format!(", and loses {lost} writes") } else { String::new() };
            sentences.push(format!("{} takes {ratio} as long as redkeep{price}", kind.name()));
        }
    }
    sentences
}

fn failures(results: &Results, scenario: Scenario) -> String {
    let mut text = String::new();
    for kind in &results.kinds {
        let Some(cell) = results.cell(scenario, *kind) else { continue };
        for failure in &cell.failures {
            let _ = write!(text, "\n- failed run of {}: {failure}", kind.name());
        }
    }
    if text.is_empty() { text } else { format!("{text}\n") }
}

fn cost_table(results: &Results) -> String {
    if results.costs.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## Cost while idle\n\nOver 10 s without clients, all processes of the contender on a \
         host together, Redis itself not counted. CPU in percent of one core, memory resident.\n\n\
         | contender | a: CPU | b | w | a: MiB | b | w |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (kind, cost) in &results.costs {
        let cells = match cost {
            Ok(hosts) => {
                let of = |host: &str| hosts.get(host).copied().unwrap_or_default();
                let each = ["a", "b", "w"].map(of);
                let cpu = each.map(|cost| format!("{:.1} %", cost.cpu * 100.0));
                let memory =
                    each.map(|cost| format!("{:.1}", cost.resident as f64 / f64::from(1 << 20)));
                format!("{} | {}", cpu.join(" | "), memory.join(" | "))
            }
            Err(error) => format!("failed: {error} | | | | |"),
        };
        let _ = writeln!(text, "| {} | {cells} |", kind.name());
    }
    text
}

/// The whole of `benchmarks.md`.
pub(super) fn document(results: &Results, facts: &Facts) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench`; do not edit, run it again. The same Redis pair, the same \
         clients and the same faults, with different things that watch over the pair. What is \
         measured is what clients see.\n\n![One dot a run](benchmarks.svg)\n\n",
    );
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in &facts.rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let _ = writeln!(text, "| rounds | {} |", results.rounds);
    text.push_str("\n## What is measured\n\n");
    text.push_str(METHOD);
    text.push_str("\n## Contenders\n\n");
    for kind in &results.kinds {
        let _ = writeln!(text, "- **{}**: {}.", kind.name(), kind.description());
    }
    if results.kinds.iter().any(|kind| is_keepalived(*kind)) {
        text.push_str(KEEPALIVED_NOTE);
    }
    text.push('\n');
    text.push_str(tables(results).trim_end());
    text.push('\n');
    text
}

fn is_keepalived(kind: Kind) -> bool {
    matches!(kind, Kind::KeepalivedSeed | Kind::KeepalivedTuned)
}

const METHOD: &str = "\
Hosts are network namespaces on one bridge of one machine: a and b with a Redis each, w as the third opinion where a contender has one, and the clients on c. \
All times are in milliseconds, of one clock. In each round every contender meets every scenario once, each time with hosts and data of its own; \
rounds are interleaved, so other load meets all of them.

- **Clients**: one opens a connection every 5 ms and writes once on it, one holds a connection and writes every 2 ms. Where the master's host is cut off, one more is on its side of the cut; it counts for loss and two masters only. All keys are unique; who acknowledged is known.
- **Service back**: from the fault (of a switchover: from the command) to the first write that another Redis than the old master acknowledged.
- **Write gap**: the longest time in which no client got an acknowledgement.
- **Lost**: acknowledged writes that are not in the final master. Replication is asynchronous with all contenders.
- **Two masters**: how long the old master still acknowledged after the new one's first acknowledgement, as clients saw it. After a cut a run goes on for two to three seconds: a figure of that size has no end.
- **Failed**: no other Redis acknowledged within a minute, or the contender did not start. Failed runs are not in the other columns.

Sentinel has no VIP; its users' clients ask it for the master, and so do these. A `client-reconfig-script` that moves a VIP would start at the moment at which these clients are \
answered, and run for longer. `SENTINEL FAILOVER` promotes the replica without waiting for it and leaves the old master writable until it is made a replica, about a second later: \
the write gap is short because clients go on writing to the old master, and those writes are lost. The Redis configuration is `tests/fixtures/redis.conf` for all.
";

const KEEPALIVED_NOTE: &str = "
keepalived's `track_process` would notice a dead Redis at once instead of by the script, but needs process events that the kernel keeps from network namespaces: it is not \
measured. It would shorten the crash of keepalived-tuned by up to the script's second, and no other scenario.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_a_decimal_where_it_matters() {
        assert_eq!(millis(Some(Duration::from_micros(12_345))), "12.3");
        assert_eq!(millis(Some(Duration::from_micros(1_234_567))), "1235");
        assert_eq!(millis(None), "-");
    }

    #[test]
    fn document_tells_failures_ratios_and_a_missing_median() {
        let mut results = Results::new(vec![Kind::Oracle, Kind::Redkeep], 1);
        let failed = || Err(anyhow::anyhow!("waited 60s for b"));
        results.add(Scenario::Crash, Kind::Oracle, failed());
        let facts = Facts { rows: vec![("kernel", "Linux 6".to_owned())] };
        let text = document(&results, &facts);
        assert!(text.contains("| oracle | - | - | - | - | - | - | - | 1 | 1 |"), "{text}");
        assert!(text.contains("- failed run of oracle: waited 60s for b"), "{text}");
        assert!(text.contains("| kernel | Linux 6 |") && !text.contains("as long as"), "{text}");
    }
}
