//! What a scenario measured, printed as one line that is the same for all scenarios.

use std::time::Duration;

/// Times of one kind, one a run.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    spans: Vec<Duration>,
}

impl Figure {
    /// A figure without runs yet.
    pub fn new(name: &str) -> Self {
        Figure { name: name.to_owned(), spans: Vec::new() }
    }

    /// Adds a run.
    pub fn add(&mut self, span: Duration) {
        self.spans.push(span);
    }

    /// The slowest run; zero before the first.
    pub fn worst(&self) -> Duration {
        self.spans.iter().max().copied().unwrap_or_default()
    }

    /// The run in the middle; of an even number the slower one, zero before the first.
    pub fn median(&self) -> Duration {
        let mut sorted = self.spans.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// Prints the line that reports are made of.
    pub fn print(&self) {
        println!("{}", self.line());
    }

    fn line(&self) -> String {
        let (median, worst) = (self.median().as_secs_f64() * 1e3, self.worst().as_secs_f64() * 1e3);
        let (name, runs) = (&self.name, self.spans.len());
        format!("FIGURE {name}: p50 {median:.1} ms, worst {worst:.1} ms ({runs} runs)")
    }
}

/// How often a scenario runs: `few`, or `full` where the environment has `LAB_FULL=1`.
pub fn repetitions(few: usize, full: usize) -> usize {
    let wanted = std::env::var_os("LAB_FULL").is_some_and(|value| value == "1");
    if wanted { full } else { few }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_tells_median_worst_and_count() {
        let mut figure = Figure::new("service back");
        for ms in [30, 10, 20] {
            figure.add(Duration::from_millis(ms));
        }
        assert_eq!(figure.line(), "FIGURE service back: p50 20.0 ms, worst 30.0 ms (3 runs)");
    }
}
