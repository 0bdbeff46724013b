//! One line for each event, a running hash over all of them, and counts of what was met.
//!
//! Two runs of one plan must give the same hash: then nothing outside the plan had a say.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
};

use crate::clock::Real;

/// Lines that are kept for a report when they are not printed.
const KEPT_LINES: usize = 400;

/// What becomes of the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lines {
    /// Only the last ones are kept.
    #[default]
    Tail,
    /// Each goes to standard output at once.
    Print,
}

#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: Lines,
    tail: VecDeque<String>,
    buffer: String,
    events: u64,
}

impl Trace {
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines,
            tail: VecDeque::new(),
            buffer: String::new(),
            events: 0,
        }
    }

    pub fn line(&mut self, at: Real, what: fmt::Arguments<'_>) {
        self.buffer.clear();
        // Writing to a String cannot fail.
        let _ = write!(
            self.buffer,
            "{:>12.6} {what}",
            std::time::Duration::from_nanos(at.0).as_secs_f64()
        );
        for chunk in self.buffer.as_bytes().chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash = mixed ^ (mixed >> 29);
        }
        self.events += 1;
        match self.lines {
            Lines::Print => println!("{}", self.buffer),
            Lines::Tail => {
                if self.tail.len() == KEPT_LINES {
                    self.tail.pop_front();
                }
                self.tail.push_back(self.buffer.clone());
            }
        }
    }

    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}

/// How often each thing was met: a swarm that never stops a process proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage(pub BTreeMap<&'static str, u64>);

impl Coverage {
    pub fn met(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
    pub fn merge(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_every_line_and_every_time_apart() {
        let hash = |at, text: &str| {
            let mut trace = Trace::new(Lines::Tail);
            trace.line(Real(at), format_args!("{text}"));
            trace.hash()
        };
        assert_eq!(hash(1_000, "a"), hash(1_000, "a"));
        assert_ne!(hash(1_000, "a"), hash(2_000, "a"));
        assert_ne!(hash(1_000, "a"), hash(1_000, "b"));
    }
}
