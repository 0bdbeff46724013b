//! The durable side in plain types: what is to be written, and what came back.
//!
//! [`Persist::apply_to`] is the meaning of a write. A storage engine does the same to its files,
//! and tests hold the two against each other.

use crate::NodeId;

/// Term, vote and commit index. Term and vote must be durable before a vote leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: u64,
    /// The node voted for in `term`; zero for none.
    pub vote: u64,
    pub commit: u64,
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Normal,
    Membership,
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub index: u64,
    pub kind: EntryKind,
    pub context: Vec<u8>,
    pub data: Vec<u8>,
}

/// The state machine and the membership at `index`. Membership changes are one node at a time, so
/// there is no joint state to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub index: u64,
    pub term: u64,
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    pub data: Vec<u8>,
}

/// Everything a node knew durably. `Default` is a node that never ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

/// One durable write. Absent parts stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// Rises by one with each write of this process.
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub snapshot: Option<Snapshot>,
    /// The snapshot came from the leader and replaces the log: all older entries go, at any index.
    pub replace_log: bool,
    /// Contiguous. They replace what is stored from the first one's index on, to the end.
    pub entries: Vec<Entry>,
    /// Entries with a lower index may be dropped.
    pub truncate_before: Option<u64>,
    /// False if only the commit index changed: then losing the write in a crash is harmless.
    pub must_sync: bool,
}

impl Persist {
    /// Does to `image` what this write does to the disk.
    pub fn apply_to(&self, image: &mut Recovered) {
        if let Some(hard_state) = self.hard_state {
            image.hard_state = hard_state;
        }
        if let Some(snapshot) = &self.snapshot {
            image.snapshot = Some(snapshot.clone());
        }
        if self.replace_log {
            image.entries.clear();
        }
        if let Some(first) = self.entries.first() {
            image.entries.retain(|entry| entry.index < first.index);
            image.entries.extend(self.entries.iter().cloned());
        }
        if let Some(keep_from) = self.truncate_before {
            image.entries.retain(|entry| entry.index >= keep_from);
        }
    }
}

/// Why a recovered state cannot be one that this program wrote. The data is damaged or mixed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveredError {
    #[error("log has entry {found} where {expected} should be")]
    Gap { expected: u64, found: u64 },
    #[error("entry {index} has term {term}, the one before it {before}")]
    TermFell { index: u64, term: u64, before: u64 },
    #[error("commit index {commit} is beyond the end of the log at {last}")]
    CommitBeyondLog { commit: u64, last: u64 },
    #[error("stored term {term} is below the log's last term {last_term}")]
    TermBehindLog { term: u64, last_term: u64 },
    #[error("log begins at {first}, but there is no snapshot")]
    NoSnapshot { first: u64 },
    #[error("snapshot at index {index}, term {term} has no valid membership")]
    Membership { index: u64, term: u64 },
}

impl Recovered {
    /// True for a node that never ran.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        *self == Recovered::default()
    }

    /// Index of the last entry, or of the snapshot, or zero.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        match (self.entries.last(), &self.snapshot) {
            (Some(entry), _) => entry.index,
            (None, Some(snapshot)) => snapshot.index,
            (None, None) => 0,
        }
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`RecoveredError`]: the node must not run on such data.
    pub fn validate(&self) -> Result<(), RecoveredError> {
        let (base_index, base_term) = match &self.snapshot {
            Some(snapshot) => (snapshot.index, snapshot.term),
            None => (0, 0),
        };
        if let Some(snapshot) = &self.snapshot
            && (snapshot.index == 0
                || snapshot.term == 0
                || !valid_membership(&snapshot.voters, &snapshot.learners))
        {
            return Err(RecoveredError::Membership { index: snapshot.index, term: snapshot.term });
        }
        if let Some(first) = self.entries.first() {
            if self.snapshot.is_none() {
                return Err(RecoveredError::NoSnapshot { first: first.index });
            }
            if first.index > base_index + 1 {
                return Err(RecoveredError::Gap { expected: base_index + 1, found: first.index });
            }
        }
        let mut before: Option<&Entry> = None;
        for entry in &self.entries {
            let floor = match before {
                Some(previous) if entry.index != previous.index + 1 => {
                    return Err(RecoveredError::Gap {
                        expected: previous.index + 1,
                        found: entry.index,
                    });
                }
                Some(previous) => previous.term,
                None => 1,
            };
            let wrong_at_snapshot = entry.index == base_index && entry.term != base_term;
            let floor = if entry.index > base_index { floor.max(base_term) } else { floor };
            if entry.term < floor || wrong_at_snapshot {
                let before = if wrong_at_snapshot { base_term } else { floor };
                return Err(RecoveredError::TermFell {
                    index: entry.index,
                    term: entry.term,
                    before,
                });
            }
            before = Some(entry);
        }
        self.validate_end(base_index, base_term)
    }

    fn validate_end(&self, base_index: u64, base_term: u64) -> Result<(), RecoveredError> {
        if let Some(last) = self.entries.last()
            && last.index < base_index
        {
            return Err(RecoveredError::Gap { expected: base_index, found: last.index });
        }
        let last_index = self.last_index();
        if self.hard_state.commit > last_index {
            return Err(RecoveredError::CommitBeyondLog {
                commit: self.hard_state.commit,
                last: last_index,
            });
        }
        let last_term = self.entries.last().map_or(base_term, |entry| entry.term);
        if self.hard_state.term < last_term {
            return Err(RecoveredError::TermBehindLog { term: self.hard_state.term, last_term });
        }
        Ok(())
    }
}

/// At least one voter, no zero, nobody twice.
pub(crate) fn valid_membership(voters: &[NodeId], learners: &[NodeId]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    !voters.is_empty() && voters.iter().chain(learners).all(|node| node.0 != 0 && seen.insert(node))
}
