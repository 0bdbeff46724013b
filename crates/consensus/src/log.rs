//! The log that raft-rs reads: all of it in memory. The file behind [`crate::Persist`] is read only
//! at start, so reads never block and never fail.
//!
//! Entries below the snapshot are kept for a while (the tail), so that a follower that is a little
//! behind gets entries and not the whole state machine.

use crate::convert;
use crate::durable::{Entry, Recovered, Snapshot};
use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// Entries kept below a snapshot.
const TAIL_ENTRIES: u64 = 1024;
/// And at most this many bytes of them.
const TAIL_BYTES: usize = 4 * 1024 * 1024;

/// In-memory log. Invariant: `entries` is contiguous and begins at `base.0 + 1`.
#[derive(Debug)]
pub(crate) struct MemLog {
    /// What raft-rs starts from; not kept up to date afterwards.
    start: RaftState,
    snapshot: eraftpb::Snapshot,
    /// Index and term just before the first entry.
    base: (u64, u64),
    entries: VecDeque<eraftpb::Entry>,
}

impl MemLog {
    /// `recovered` has been validated.
    pub(crate) fn new(recovered: &Recovered) -> MemLog {
        let snapshot = recovered.snapshot.as_ref().map(convert::raft_snapshot).unwrap_or_default();
        let meta = snapshot.get_metadata();
        let (snap_index, snap_term) = (meta.index, meta.term);
        let conf_state = meta.get_conf_state().clone();
        let mut kept: &[Entry] = &recovered.entries;
        let base = match kept.split_first() {
            // The term before a kept tail is not stored: the oldest kept entry serves as the base.
            Some((first, rest)) if first.index <= snap_index => {
                kept = rest;
                (first.index, first.term)
            }
            Some(_) | None => (snap_index, snap_term),
        };
        let mut hard_state = recovered.hard_state;
        hard_state.commit = hard_state.commit.max(snap_index);
        MemLog {
            start: RaftState::new(convert::raft_hard_state(hard_state), conf_state),
            snapshot,
            base,
            entries: kept.iter().map(convert::raft_entry).collect(),
        }
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    pub(crate) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        let meta = self.snapshot.get_metadata();
        if index == meta.index {
            return Some(meta.term);
        }
        let offset = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(offset).ok()?).map(|entry| entry.term)
    }

    /// Takes a snapshot received from the leader: the log becomes empty behind it.
    pub(crate) fn replace(&mut self, snapshot: eraftpb::Snapshot) {
        let meta = snapshot.get_metadata();
        self.base = (meta.index, meta.term);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// Appends, replacing everything from the first new index on.
    ///
    /// # Panics
    /// On a gap or on entries below the first one: raft-rs hands out neither.
    pub(crate) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index >= self.first() && first.index <= self.last() + 1,
            "append at {} to a log of {}..={}",
            first.index,
            self.first(),
            self.last()
        );
        self.entries.truncate((first.index - self.first()) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Takes a snapshot of the own state machine and drops what lies below the tail. Gives the
    /// first index kept.
    pub(crate) fn compact(&mut self, snapshot: &Snapshot) -> u64 {
        assert!(snapshot.index > self.snapshot_index(), "snapshots only advance");
        assert!(snapshot.index <= self.last(), "a snapshot is not ahead of the log");
        self.snapshot = convert::raft_snapshot(snapshot);
        let mut keep_from = self.first().max((snapshot.index + 1).saturating_sub(TAIL_ENTRIES));
        let mut bytes = 0;
        for index in (keep_from..=snapshot.index).rev() {
            bytes += self.entries[(index - self.first()) as usize].data.len();
            if bytes > TAIL_BYTES {
                keep_from = index + 1;
                break;
            }
        }
        while self.first() < keep_from {
            let Some(dropped) = self.entries.pop_front() else { break };
            self.base = (dropped.index, dropped.term);
        }
        self.first()
    }

    /// Term of an index that is in the log or its base.
    pub(crate) fn known_term(&self, index: u64) -> u64 {
        self.term_at(index).unwrap_or(0)
    }
}

impl Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let from = (low - self.first()) as usize;
        let to = (high - self.first()) as usize;
        let mut found: Vec<_> = self.entries.range(from..to).cloned().collect();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if let Some(term) = self.term_at(index) {
            return Ok(term);
        }
        if index < self.base.0 {
            return Err(StorageError::Compacted.into());
        }
        Err(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// raft-rs takes no snapshot whose membership lacks the receiver. A node that joins is in none
    /// older than its own addition, so it is sent as a learner there: it changes no quorum, and the
    /// entry that adds it follows.
    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        if self.snapshot_index() == 0 {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = self.snapshot.clone();
        let members = snapshot.mut_metadata().mut_conf_state();
        if !members.voters.contains(&to) && !members.learners.contains(&to) {
            members.learners.push(to);
        }
        Ok(snapshot)
    }
}
