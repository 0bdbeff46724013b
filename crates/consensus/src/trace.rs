//! Carries raft-rs' slog records into `tracing`, one level down: an election is news for an
//! operator, but the product says it once, in its own words.

use slog::{Drain, KV, Level, OwnedKVList, Record};
use std::fmt::{self, Write};

const TARGET: &str = "redkeep_consensus::raft";

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        // Formatting raft's messages costs more than stepping them, so ask first.
        match record.level() {
            Level::Critical | Level::Error if tracing::enabled!(target: TARGET, tracing::Level::ERROR) =>
            {
                tracing::error!(target: TARGET, "{}", text(record, values));
            }
            Level::Warning if tracing::enabled!(target: TARGET, tracing::Level::WARN) => {
                tracing::warn!(target: TARGET, "{}", text(record, values));
            }
            Level::Info if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) => {
                tracing::debug!(target: TARGET, "{}", text(record, values));
            }
            Level::Debug | Level::Trace if tracing::enabled!(target: TARGET, tracing::Level::TRACE) =>
            {
                tracing::trace!(target: TARGET, "{}", text(record, values));
            }
            Level::Critical
            | Level::Error
            | Level::Warning
            | Level::Info
            | Level::Debug
            | Level::Trace => {}
        }
        Ok(())
    }
}

fn text(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // Writing into a string cannot fail, and a lost log field must not stop consensus.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl slog::Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}

/// The logger handed to raft-rs.
pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Fuse(ToTracing), slog::o!())
}
