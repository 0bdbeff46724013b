//! One dot a run on a logarithmic scale, as SVG text.

use std::fmt::Write as _;
use std::time::Duration;

use super::results::{Measure, Results, median};
use super::run::Scenario;

const LEFT: f64 = 140.0;
const WIDTH: f64 = 620.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 34.0;
const FOOT: f64 = 30.0;
/// The scale goes from 1 ms to 100 s.
const DECADES: f64 = 5.0;

/// Horizontal place of a span; what is off the scale is at its end.
fn place(span: Duration) -> f64 {
    let ms = (span.as_secs_f64() * 1e3).max(1.0);
    LEFT + WIDTH * (ms.log10() / DECADES).min(1.0)
}

/// The whole picture: one panel a scenario, one row a contender.
pub(super) fn svg(results: &Results) -> String {
    let panel = HEAD + ROW * results.kinds.len() as f64 + FOOT;
    let scenarios = results.scenarios();
    let height = panel * scenarios.len() as f64 + 10.0;
    let width = LEFT + WIDTH + 30.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, scenario) in scenarios.into_iter().enumerate() {
        draw_panel(&mut text, results, scenario, panel * index as f64);
    }
    text.push_str("</svg>\n");
    text
}

fn draw_panel(text: &mut String, results: &Results, scenario: Scenario, top: f64) {
    let (measure, what) = match scenario {
        Scenario::Crash | Scenario::HostLoss | Scenario::Cut => (Measure::Back, "service back"),
        Scenario::Switchover => (Measure::Gap, "write gap"),
    };
    let rows_end = top + HEAD + ROW * results.kinds.len() as f64;
    let _ = writeln!(
        text,
        "<text x=\"10\" y=\"{:.1}\" font-weight=\"bold\">{}: {what}</text>",
        top + 20.0,
        scenario.title()
    );
    for (ms, label) in [
        (1, "1 ms"),
        (10, "10 ms"),
        (100, "100 ms"),
        (1000, "1 s"),
        (10_000, "10 s"),
        (100_000, "100 s"),
    ] {
        let x = place(Duration::from_millis(ms));
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{rows_end:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
            top + HEAD,
            rows_end + 14.0
        );
    }
    for (index, kind) in results.kinds.iter().enumerate() {
        let y = top + HEAD + ROW * (index as f64 + 0.5);
        let _ = writeln!(text, "<text x=\"10\" y=\"{:.1}\">{}</text>", y + 4.0, kind.name());
        let Some(cell) = results.cell(scenario, *kind) else { continue };
        draw_runs(text, cell.spans(measure), y);
    }
}

/// A dot a run, and a bar at the median.
fn draw_runs(text: &mut String, spans: &[Duration], y: f64) {
    for span in spans {
        let _ = writeln!(
            text,
            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#36c\" fill-opacity=\"0.45\"/>",
            place(*span)
        );
    }
    if let Some(middle) = median(spans) {
        let _ = writeln!(
            text,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\" stroke=\"#c33\" \
             stroke-width=\"2\"/>",
            place(middle),
            y - 8.0,
            y + 8.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::contender::Kind;
    use super::*;

    #[test]
    fn scale_is_logarithmic_and_ends() {
        let at = |ms| place(Duration::from_millis(ms));
        assert!((at(1) - LEFT).abs() < 1e-9 && (at(0) - LEFT).abs() < 1e-9);
        assert!(((at(100) - at(10)) - (at(10) - at(1))).abs() < 1e-9);
        assert!((at(10_000_000) - LEFT - WIDTH).abs() < 1e-9);
    }

    #[test]
    fn every_run_is_a_dot_and_the_text_is_closed() {
        let mut text = String::new();
        draw_runs(&mut text, &[Duration::from_millis(5), Duration::from_millis(7)], 10.0);
        assert_eq!((text.matches("<circle").count(), text.matches("<line").count()), (2, 1));
        let mut results = Results::new(vec![Kind::Oracle], 1);
        results.add(Scenario::Crash, Kind::Oracle, Err(anyhow::anyhow!("failed")));
        let picture = svg(&results);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("oracle") && !picture.contains("<circle"));
    }
}
