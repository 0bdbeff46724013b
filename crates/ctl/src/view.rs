//! What `-o json` prints: structs of this program, stable across versions of the wire.
//!
//! Rules: names in snake case with their unit, enums as words in snake case, absent values as `null`, times of the wall
//! clock as RFC 3339 in UTC. Fields are added, never renamed or removed. Deliberately absent: arithmetic and layout.

mod event;
mod explain;
mod history;
mod outcome;
mod status;
mod time;

pub(crate) use event::EventView;
pub(crate) use explain::{CandidateView, ExplainView};
pub(crate) use history::{HistoryView, RecordView};
pub(crate) use outcome::OutcomeView;
pub(crate) use status::{FreshnessView, GroupView, MemberView, ProblemView, RedisView, StatusView};

/// The word of an enum value: `CAUSE_MASTER_DOWN` becomes `master_down`; none for UNSPECIFIED.
fn word(name: &str, prefix: &str) -> Option<String> {
    let word = name.strip_prefix(prefix).unwrap_or(name).to_lowercase();
    (word != "unspecified").then_some(word)
}

/// Empty text is no value.
fn text(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}
