//! Breadth first over all states, so that a way to two writers is a shortest one.
#![allow(clippy::disallowed_types, reason = "the order of the map's entries is never looked at")]

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{Hash, Hasher},
};

use super::{Setting, State, steps};

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Every state within the bounds was seen.
    Nothing,
    /// The steps to two writers.
    TwoWriters(Vec<String>),
    /// More states than allowed: this proves nothing.
    Unfinished,
}

/// A search and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub found: Found,
    pub states: usize,
    /// States in which a host was open: a model in which nobody can write proves nothing.
    pub open: usize,
    /// States in which b was.
    pub moved: usize,
}

/// Look at every state that can be reached.
///
/// States are told apart by 64 bits of a hash: among ten million the chance that two are taken for one is about 3 in a million.
#[must_use]
pub fn search(setting: &Setting) -> Report {
    let first = State::first(setting);
    let mut report = Report { found: Found::Nothing, states: 0, open: 0, moved: 0 };
    let mut from: HashMap<u64, u64> = HashMap::from([(hash(&first), 0)]);
    let mut queue = VecDeque::from([(hash(&first), first)]);
    while let Some((here, state)) = queue.pop_front() {
        report.states += 1;
        report.open += usize::from(state.is_anybody_open());
        report.moved += usize::from(state.hosts[1].is_open());
        if report.states > setting.states_max {
            report.found = Found::Unfinished;
            return report;
        }
        for (_, next) in steps::all(setting, &state) {
            let there = hash(&next);
            let Entry::Vacant(new) = from.entry(there) else { continue };
            new.insert(here);
            if next.has_two_writers() {
                report.found = Found::TwoWriters(way(setting, &from, there));
                return report;
            }
            queue.push_back((there, next));
        }
    }
    report
}

/// A hash of small numbers one by one; the standard one takes most of a search's time.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        // The end of MurmurHash3: each bit of what was mixed changes each bit of this.
        let mut x = self.0;
        x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^ (x >> 33)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, x: u8) {
        self.write_u64(u64::from(x));
    }

    fn write_u64(&mut self, x: u64) {
        self.0 = (self.0 ^ x).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0 = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }

    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }

    fn write_isize(&mut self, x: isize) {
        self.write_u64(x.cast_unsigned() as u64);
    }
}

fn hash(state: &State) -> u64 {
    let mut hasher = Mix::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// The steps are taken again, along the states whose hashes are known.
fn way(setting: &Setting, from: &HashMap<u64, u64>, last: u64) -> Vec<String> {
    let mut hashes = vec![last];
    while let Some(before) = hashes.last().and_then(|h| from.get(h)).filter(|h| **h != 0) {
        hashes.push(*before);
    }
    let mut state = State::first(setting);
    let mut said = Vec::new();
    for wanted in hashes.iter().rev().skip(1) {
        let step = steps::all(setting, &state).into_iter().find(|(_, next)| hash(next) == *wanted);
        let Some((step, next)) = step else { break };
        said.push(format!("{step:?}"));
        state = next;
    }
    said
}
