//! Breadth first over all states, so that a way to two writers is a shortest one.
#![allow(clippy::disallowed_types, reason = "the order of a map's entries is never looked at")]

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::{BuildHasherDefault, Hash, Hasher},
};

use super::{
    Setting, State,
    steps::{self, Step},
};

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
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// States in which a host was open: a model in which nobody can write proves nothing.
    pub open: usize,
    /// States in which b was.
    pub moved: usize,
    /// States in which b was, after a had fenced while it could have gone on: handed over.
    pub handed: usize,
    /// States in which a was again, after such a fence.
    pub back: usize,
    /// States that follow on two nodes having committed different entries. There is none unless a rule of Raft is left out.
    pub diverged: usize,
}

type Keys = HashSet<u128, BuildHasherDefault<AsItIs>>;

/// Look at every state that can be reached.
///
/// States are told apart by 128 bits of a hash: among a billion the chance that two are taken for one is below one in 10^20.
#[must_use]
pub fn search(setting: &Setting) -> Report {
    search_with(setting, |_| {})
}

/// What there is to see of each state (hosts, terms, what leaders know), as a number of sights and a sum of all.
#[must_use]
pub fn sights(setting: &Setting) -> (Report, usize, u128) {
    let mut seen = Keys::default();
    let report = search_with(setting, |state| {
        seen.insert(sight(state));
    });
    let all = seen.iter().fold(0_u128, |all, one| all.wrapping_add(*one));
    (report, seen.len(), all)
}

fn search_with(setting: &Setting, mut look: impl FnMut(&State)) -> Report {
    let first = State::first(setting);
    let mut report = Report {
        found: Found::Nothing,
        states: 0,
        depth: 0,
        open: 0,
        moved: 0,
        handed: 0,
        back: 0,
        diverged: 0,
    };
    let mut known = Keys::default();
    known.insert(key(&first));
    let mut level = vec![first];
    let mut nexts = Vec::new();
    while !level.is_empty() {
        let mut after = Vec::new();
        for state in level {
            look(&state);
            report.states += 1;
            report.open += usize::from(state.is_anybody_open());
            let [a, b] = &state.hosts;
            report.moved += usize::from(b.is_open());
            report.handed += usize::from(b.is_open() && a.burned > 0);
            report.back += usize::from(a.is_open() && a.burned > 0);
            report.diverged += usize::from(state.diverged);
            if report.states > setting.states_max {
                report.found = Found::Unfinished;
                return report;
            }
            steps::all(setting, &state, &mut nexts);
            for (_, next) in &nexts {
                if !known.insert(key(next)) {
                    continue;
                }
                if next.has_two_writers() {
                    drop((known, after));
                    report.found = Found::TwoWriters(way(setting, key(next)));
                    return report;
                }
                after.push(*next);
            }
        }
        level = after;
        report.depth += usize::from(!level.is_empty());
    }
    report
}

/// The same search once more, which now remembers where each state came from.
fn way(setting: &Setting, last: u128) -> Vec<String> {
    let first = State::first(setting);
    let mut from: HashMap<u128, (u128, Step), BuildHasherDefault<AsItIs>> = HashMap::default();
    let mut level = vec![first];
    let mut nexts = Vec::new();
    while !level.is_empty() && !from.contains_key(&last) {
        let mut after = Vec::new();
        for state in level {
            let here = key(&state);
            steps::all(setting, &state, &mut nexts);
            for (step, next) in &nexts {
                if let Entry::Vacant(new) = from.entry(key(next)) {
                    new.insert((here, *step));
                    after.push(*next);
                }
            }
        }
        level = after;
    }
    let (mut at, mut said) = (last, Vec::new());
    while at != key(&first)
        && let Some((before, step)) = from.get(&at)
    {
        said.push(format!("{step:?}"));
        at = *before;
    }
    said.reverse();
    said
}

fn sight(state: &State) -> u128 {
    let mut hasher = Mix::default();
    for (host, node) in state.hosts.iter().zip(&state.nodes) {
        let open = (0..2).filter(|g| host.gate[*g]).map(|g| host.timer[g]).max();
        (open.unwrap_or(0), host.arms, host.burned, host.life, node.group).hash(&mut hasher);
    }
    for node in &state.nodes {
        let leads = node.lead.map(|_| (node.group, node.voters, node.has_committed_in_its_term()));
        (node.term, leads).hash(&mut hasher);
    }
    state.restarts.hash(&mut hasher);
    hasher.key()
}

fn key(state: &State) -> u128 {
    let mut hasher = Mix::default();
    state.hash(&mut hasher);
    hasher.key()
}

/// A hash of many small numbers, eight at a time, into two words. The standard one takes most of a search's time.
#[derive(Default)]
struct Mix {
    word: u64,
    filled: u32,
    lanes: [u64; 2],
}

/// The end of MurmurHash3: each bit of what was mixed changes each bit of this.
fn finish(x: u64) -> u64 {
    let x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

impl Mix {
    fn mix(&mut self) {
        let [a, b] = self.lanes;
        self.lanes = [
            finish(a.wrapping_add(self.word).wrapping_add(0x9e37_79b9_7f4a_7c15)),
            finish(
                (b ^ self.word.rotate_left(32)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1),
            ),
        ];
        (self.word, self.filled) = (0, 0);
    }

    fn key(mut self) -> u128 {
        self.mix();
        u128::from(self.lanes[0]) << 64 | u128::from(self.lanes[1])
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.lanes[0]
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, x: u8) {
        self.word |= u64::from(x) << (8 * self.filled);
        self.filled += 1;
        if self.filled == 8 {
            self.mix();
        }
    }

    /// Lengths of arrays and kinds of an enum, which are all below 256.
    fn write_usize(&mut self, x: usize) {
        self.write_u8(u8::try_from(x).unwrap_or(u8::MAX));
    }

    fn write_isize(&mut self, x: isize) {
        self.write_usize(x.cast_unsigned());
    }
}

/// Of a key that is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut low = [0; 8];
        low.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.0 = u64::from_ne_bytes(low);
    }

    fn write_u128(&mut self, x: u128) {
        self.0 = u64::try_from(x >> 64).unwrap_or(0);
    }
}
