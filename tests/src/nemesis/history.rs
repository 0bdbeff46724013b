//! What happened in a run: deeds, reigns, acknowledgements, addresses; the checker's only input.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::plan::Fault;
use crate::redis::Redis;
use crate::time::{Mono, WallOffset};
use crate::timeline::Moment;
use crate::verdict::LostWrite;
use crate::writer::{Ack, Record, WriterSpec};

/// A fault as it was done.
#[derive(Clone, Debug)]
pub struct Deed {
    pub fault: Fault,
    /// The host that had the target's role; of faults that concern the whole machine, `all`.
    pub host: String,
    pub from: Mono,
    /// When everything was given back, processes started again included.
    pub to: Mono,
    /// Why it was left out, or what went wrong while it was done.
    pub note: Option<String>,
    pub done: bool,
}

/// From this instant on a start of a Redis was a master: by its own file, or by command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// As writers name it.
    pub server: String,
    pub since: Mono,
}

/// An acknowledged write and what became of it.
#[derive(Clone, Debug)]
pub struct Write {
    pub writer: String,
    pub ack: Ack,
    pub lost: bool,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub deeds: Vec<Deed>,
    pub reigns: Vec<Reign>,
    pub writes: Vec<Write>,
    /// Kernels' address notifications, of the VIP alone.
    pub addresses: Vec<Moment>,
    /// What the supervisors told, with its stamp.
    pub events: Vec<(Mono, Value)>,
    /// From the end of the last fault until all was well; none if it never was.
    pub healed: Option<Duration>,
    /// What was still wrong then.
    pub ailment: Option<String>,
    /// Zero of all printed times.
    pub origin: Option<Mono>,
}

impl History {
    /// Takes what the writers saw, which of it is lost, and what the logs of both Redis say.
    pub(super) fn take(
        &mut self,
        records: &[(WriterSpec, Record)],
        lost: &[LostWrite],
        pair: [&Redis; 2],
    ) {
        let lost: BTreeSet<&str> = lost.iter().map(|lost| lost.key.as_str()).collect();
        for (spec, record) in records {
            self.writes.extend(record.acks.iter().map(|ack| Write {
                writer: spec.name.clone(),
                ack: ack.clone(),
                lost: lost.contains(spec.key(ack.sequence).as_str()),
            }));
        }
        let offset = WallOffset::measure();
        let reigns = pair.into_iter().flat_map(|redis| redis.reigns(offset));
        self.reigns.extend(reigns.map(|(server, since)| Reign { server, since }));
    }

    /// Since when the group named which host as master, by the first of its nodes that told so. A node that lags or
    /// starts again tells old ones once more: these are none.
    pub(super) fn assignments(&self) -> Vec<(Mono, &str)> {
        let told = self.events.iter().filter(|(_, event)| event["kind"] == "assigned");
        let mut told: Vec<(Mono, u64, &str)> = told
            .filter_map(|(at, event)| {
                Some((*at, event["epoch"].as_u64()?, event["about"].as_str()?))
            })
            .collect();
        told.sort_unstable();
        let mut highest = 0;
        told.retain(|(_, epoch, _)| {
            let new = *epoch > highest;
            highest = highest.max(*epoch);
            new
        });
        told.into_iter().map(|(at, _, host)| (at, host)).collect()
    }

    /// Milliseconds from the beginning, for people.
    pub fn millis(&self, at: Mono) -> f64 {
        let origin = self.origin.unwrap_or(Mono(0));
        (at.millis_from(origin) * 10.0).round() / 10.0
    }

    /// One JSON object a line, in the order of time.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut lines: Vec<(Mono, Value)> = Vec::new();
        for deed in &self.deeds {
            let (fault, host) = (deed.fault.to_string(), &deed.host);
            let note = &deed.note;
            let (did, undid) = if deed.done { ("fault", "fault over") } else { ("skipped", "") };
            let line = json!({ "what": did, "fault": fault, "host": host, "note": note });
            lines.push((deed.from, line));
            if deed.done && deed.to > deed.from {
                lines.push((deed.to, json!({ "what": undid, "fault": fault, "host": host })));
            }
        }
        for reign in &self.reigns {
            lines.push((reign.since, json!({ "what": "master", "server": reign.server })));
        }
        for moment in &self.addresses {
            let line = json!({ "what": "address", "who": moment.witness, "told": moment.what });
            lines.push((moment.at, line));
        }
        for (at, event) in &self.events {
            lines.push((*at, json!({ "what": "event", "event": event })));
        }
        self.acknowledged(&mut lines);
        lines.sort_by_key(|(at, _)| *at);
        let mut file = std::fs::File::create(path).context("create the history")?;
        for (at, mut line) in lines {
            line["ms"] = json!(self.millis(at));
            writeln!(file, "{line}")?;
        }
        Ok(())
    }

    /// For each writer: how long one server answered without another between, and each lost write.
    fn acknowledged(&self, lines: &mut Vec<(Mono, Value)>) {
        let mut sorted: Vec<&Write> = self.writes.iter().collect();
        sorted.sort_by(|one, other| {
            (&one.writer, one.ack.seen).cmp(&(&other.writer, other.ack.seen))
        });
        let same = |one: &&Write, other: &&Write| {
            one.writer == other.writer
                && one.ack.server == other.ack.server
                && other.ack.seen.since(one.ack.seen) < Duration::from_millis(250)
        };
        for run in sorted.chunk_by(same) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let line = json!({
                "what": "acknowledged", "writer": first.writer, "server": *first.ack.server,
                "count": run.len(), "until_ms": self.millis(last.ack.seen),
                "confirmed": run.iter().filter(|write| write.ack.confirmed).count(),
                "lost": run.iter().filter(|write| write.lost).count(),
            });
            lines.push((first.ack.seen, line));
        }
        for write in self.writes.iter().filter(|write| write.lost) {
            let line = json!({
                "what": "lost", "writer": write.writer, "server": *write.ack.server,
                "sequence": write.ack.sequence, "confirmed": write.ack.confirmed,
                "sent_ms": self.millis(write.ack.sent),
            });
            lines.push((write.ack.seen, line));
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.done { "" } else { "NOT DONE " };
        let span = self.to.since(self.from).as_secs_f64();
        write!(f, "{done}{} at {}, {span:.3} s", self.fault, self.host)?;
        match &self.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}
