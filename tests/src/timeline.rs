//! One story from several witnesses: supervisors, Redis, the kernel's addresses, the clients.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::host::Host;
use crate::process::{Process, wait_until};
use crate::supervisor::ctl_options;
use crate::time::Mono;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Mono,
    /// Who saw it: a node's supervisor, a Redis, a kernel, a client.
    pub witness: String,
    pub what: String,
}

/// Moments in order, told relative to a fault.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    moments: Vec<Moment>,
    fault: Option<Mono>,
}

impl Timeline {
    /// A timeline whose zero is `fault`.
    pub fn since(fault: Mono) -> Self {
        Timeline { moments: Vec::new(), fault: Some(fault) }
    }

    pub fn add(&mut self, at: Mono, witness: &str, what: impl Into<String>) {
        self.moments.push(Moment { at, witness: witness.to_owned(), what: what.into() });
    }

    pub fn extend(&mut self, moments: impl IntoIterator<Item = Moment>) {
        self.moments.extend(moments);
    }

    /// Drops what lies outside the window.
    pub fn keep_within(&mut self, from: Mono, to: Mono) {
        self.moments.retain(|moment| moment.at >= from && moment.at <= to);
    }

    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Moment> = self.moments.iter().collect();
        sorted.sort_by_key(|moment| moment.at);
        let Some(origin) = self.fault.or_else(|| sorted.first().map(|first| first.at)) else {
            return Ok(());
        };
        for moment in sorted {
            let offset = moment.at.millis_from(origin);
            writeln!(f, "{offset:>+10.1} ms  {:<10} {}", moment.witness, moment.what)?;
        }
        Ok(())
    }
}

/// `redkeepctl events -o json` at one node: what its supervisor says of itself.
#[derive(Debug)]
pub struct EventWatch {
    node: String,
    process: Process,
}

impl EventWatch {
    /// Starts the stream on the node's own host.
    pub fn start(host: &Host) -> Result<Self> {
        let mut command = Command::new(crate::binaries::redkeepctl()?);
        command.args(ctl_options(host, host)).args(["-o", "json", "events"]);
        let process = host.spawn("events", &command)?;
        Ok(EventWatch { node: host.name().to_owned(), process })
    }

    /// Name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether the stream has not ended.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Ends the stream.
    pub fn stop(&self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// The events so far, one JSON object a line, with the stamp `mono_ns`.
    pub fn events(&self) -> Vec<(Mono, Value)> {
        let text = self.process.log_text();
        let parse = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            Some((Mono(value.get("mono_ns")?.as_u64()?), value))
        };
        text.lines().filter_map(parse).collect()
    }

    /// The events as moments; `tell` puts one into words, or leaves it out.
    pub fn moments(&self, tell: impl Fn(&Value) -> Option<String>) -> Vec<Moment> {
        self.events()
            .into_iter()
            .filter_map(|(at, value)| {
                Some(Moment { at, witness: format!("node {}", self.node), what: tell(&value)? })
            })
            .collect()
    }

    /// Waits for an event.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        good: impl Fn(&Value) -> bool,
    ) -> Result<(Mono, Value)> {
        wait_until(what, limit, || self.events().into_iter().find(|(_, value)| good(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_order_around_the_fault() {
        let fault = Mono(1_000_000_000);
        let mut timeline = Timeline::since(fault);
        timeline.add(fault + Duration::from_micros(12_300), "client", "first write");
        timeline.add(fault, "lab", "kill -9");
        timeline.add(fault + Duration::from_secs(60), "lab", "later");
        timeline.keep_within(fault, fault + Duration::from_secs(1));
        let told = timeline.to_string();
        assert_eq!(
            told,
            "      +0.0 ms  lab        kill -9\n     +12.3 ms  client     first write\n"
        );
    }
}
