//! Random writes as consensus makes them, and what they amount to.

use super::faulty::Rng;
use redkeep_consensus::{Entry, EntryKind, HardState, NodeId, Persist, Recovered, Snapshot};

pub(super) struct Workload {
    rng: Rng,
    /// What consensus believes, with commit indexes that were not synced.
    pub(super) image: Recovered,
    number: u64,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Workload {
        Workload { rng: Rng(seed), image: Recovered::default(), number: 0 }
    }

    /// The next write, already done to `image`.
    pub(super) fn next(&mut self) -> Persist {
        self.number += 1;
        let mut write = if self.image.snapshot.is_none() {
            self.bootstrap()
        } else {
            match self.rng.below(20) {
                0..=9 => self.append(),
                10..=12 => self.vote(),
                13..=16 => self.commit(),
                17..=18 => self.compact(),
                _ => self.replace(),
            }
        };
        write.number = self.number;
        write.apply_to(&mut self.image);
        self.image.validate().expect("the workload is one that consensus could make");
        write
    }

    fn bootstrap(&mut self) -> Persist {
        Persist {
            hard_state: Some(HardState { term: 1, vote: 0, commit: 1 }),
            snapshot: Some(self.snapshot(1, 1)),
            must_sync: true,
            ..Persist::default()
        }
    }

    fn snapshot(&mut self, index: u64, term: u64) -> Snapshot {
        let data = self.data(2000);
        Snapshot { index, term, voters: vec![NodeId(1), NodeId(2)], learners: vec![], data }
    }

    fn data(&mut self, most: u64) -> Vec<u8> {
        let length = self.rng.below(most) + 1;
        (0..length).map(|_| self.rng.next() as u8).collect()
    }

    fn append(&mut self) -> Persist {
        let state = self.image.hard_state;
        let last = self.image.last_index();
        // Uncommitted entries may be replaced from the middle.
        let first = state.commit + 1 + self.rng.below(last - state.commit + 1);
        let replaces = first <= last;
        let hard_state =
            replaces.then_some(HardState { term: state.term + 1, vote: 0, commit: state.commit });
        let term = hard_state.unwrap_or(state).term;
        let entries = (first..=first + self.rng.below(4))
            .map(|index| Entry {
                term,
                index,
                kind: if self.rng.below(9) == 0 {
                    EntryKind::Membership
                } else {
                    EntryKind::Normal
                },
                context: vec![],
                data: self.data(400),
            })
            .collect();
        Persist { hard_state, entries, must_sync: true, ..Persist::default() }
    }

    fn vote(&mut self) -> Persist {
        let HardState { term, vote: _, commit } = self.image.hard_state;
        let hard_state = HardState { term: term + 1, vote: 1 + self.rng.below(3), commit };
        Persist { hard_state: Some(hard_state), must_sync: true, ..Persist::default() }
    }

    fn commit(&mut self) -> Persist {
        let mut state = self.image.hard_state;
        state.commit += self.rng.below(self.image.last_index() - state.commit + 1);
        Persist { hard_state: Some(state), ..Persist::default() }
    }

    fn compact(&mut self) -> Persist {
        let state = self.image.hard_state;
        let base = self.image.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let Some(term) =
            self.image.entries.iter().find(|e| e.index == state.commit).map(|e| e.term)
        else {
            return self.vote();
        };
        if state.commit <= base {
            return self.vote();
        }
        Persist {
            hard_state: Some(state),
            snapshot: Some(self.snapshot(state.commit, term)),
            truncate_before: Some(state.commit.saturating_sub(self.rng.below(6))),
            must_sync: true,
            ..Persist::default()
        }
    }

    fn replace(&mut self) -> Persist {
        let state = self.image.hard_state;
        let index = self.image.last_index() + 1 + self.rng.below(5);
        Persist {
            hard_state: Some(HardState { term: state.term, vote: state.vote, commit: index }),
            snapshot: Some(self.snapshot(index, state.term)),
            replace_log: true,
            must_sync: true,
            ..Persist::default()
        }
    }
}

/// Equal but for a commit index that may have been lost.
pub(super) fn same(found: &Recovered, expected: &Recovered) -> bool {
    let (a, b) = (found.hard_state, expected.hard_state);
    found.entries == expected.entries
        && found.snapshot == expected.snapshot
        && (a.term, a.vote) == (b.term, b.vote)
        && a.commit <= b.commit
}
