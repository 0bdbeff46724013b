//! One line for each event, a running hash over all of them, and counts of what was met.
//!
//! Two runs of one plan must give the same hash: then nothing outside the plan had a say.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
};

use crate::clock::Real;

const HASH_FROM: u64 = 0xcbf2_9ce4_8422_2325;

fn mixed(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

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
    deeds: u64,
    lines: Lines,
    tail: VecDeque<String>,
    buffer: String,
    events: u64,
}

impl Trace {
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self {
            hash: HASH_FROM,
            deeds: HASH_FROM,
            lines,
            tail: VecDeque::new(),
            buffer: String::new(),
            events: 0,
        }
    }

    pub fn line(&mut self, at: Real, what: fmt::Arguments<'_>) {
        self.line_with(at, what, None);
    }

    /// A line, and a sum over something that the wall clock is in.
    pub fn line_with(&mut self, at: Real, what: fmt::Arguments<'_>, wall_clock_in: Option<u64>) {
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
            let word = u64::from_le_bytes(word);
            self.hash = mixed(self.hash, word);
            self.deeds = mixed(self.deeds, word);
        }
        if let Some(sum) = wall_clock_in {
            self.hash = mixed(self.hash, sum);
            let _ = write!(self.buffer, " {sum:x}");
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
    /// The hash of the lines without the sums.
    #[must_use]
    pub fn deeds(&self) -> u64 {
        self.deeds
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

    #[test]
    fn what_the_wall_clock_is_in_is_no_deed() {
        let both = |sum| {
            let mut trace = Trace::new(Lines::Tail);
            trace.line_with(Real(1), format_args!("a"), sum);
            (trace.hash(), trace.deeds())
        };
        let (one, other) = (both(Some(1)), both(Some(2)));
        assert_ne!(one.0, other.0);
        assert_eq!(one.1, other.1);
    }
}
