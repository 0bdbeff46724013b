//! Bookkeeping of linearizable reads (Raft dissertation 6.4, "ReadIndex").
//!
//! raft-rs drops reads silently in many cases. Here each accepted read has an id and a deadline and
//! ends in exactly one outcome.

use crate::NodeId;
use crate::time::Mono;
use std::collections::BTreeMap;

/// Reads waiting at one time. A driver with more than this has lost its way.
const PENDING_MAX: usize = 4096;

/// Names one read of this process. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Why a read was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error("not the leader")]
    NotLeader { leader: Option<NodeId> },
    #[error("the deadline has passed")]
    DeadlinePassed,
    #[error("{pending} reads are waiting already")]
    TooMany { pending: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits until an entry of the leader's own term is committed.
    Queued,
    /// Its round was sent to the followers.
    Round(u64),
    /// A quorum confirmed; waits until the state machine has reached the index.
    Confirmed(u64),
}

#[derive(Debug)]
struct Pending {
    deadline: Mono,
    stage: Stage,
}

#[derive(Debug)]
pub(crate) struct Reads {
    /// Differs between process lives, so that a late answer to a predecessor matches nothing.
    salt: u64,
    next_id: u64,
    next_round: u64,
    pending: BTreeMap<ReadId, Pending>,
}

impl Reads {
    pub(crate) fn new(salt: u64) -> Reads {
        Reads { salt, next_id: 1, next_round: 1, pending: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, now: Mono, deadline: Mono) -> Result<ReadId, ReadError> {
        if deadline <= now {
            return Err(ReadError::DeadlinePassed);
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(ReadError::TooMany { pending: self.pending.len() });
        }
        let id = ReadId(self.next_id);
        self.next_id += 1;
        self.pending.insert(id, Pending { deadline, stage: Stage::Queued });
        Ok(id)
    }

    /// Puts all queued reads into one new round and gives its context, if there are any.
    pub(crate) fn start_round(&mut self) -> Option<Vec<u8>> {
        let round = self.next_round;
        let mut any = false;
        for read in self.pending.values_mut() {
            if read.stage == Stage::Queued {
                read.stage = Stage::Round(round);
                any = true;
            }
        }
        if !any {
            return None;
        }
        self.next_round += 1;
        Some([self.salt.to_be_bytes(), round.to_be_bytes()].concat())
    }

    /// raft-rs reports the round with this context as confirmed by a quorum.
    pub(crate) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some((salt, round)) = context.split_first_chunk::<8>() else { return };
        let Ok(round) = <[u8; 8]>::try_from(round) else { return };
        if u64::from_be_bytes(*salt) != self.salt {
            return;
        }
        let round = Stage::Round(u64::from_be_bytes(round));
        for read in self.pending.values_mut().filter(|read| read.stage == round) {
            read.stage = Stage::Confirmed(index);
        }
    }

    /// A read needs no round: a quorum has confirmed it already.
    pub(crate) fn confirm_one(&mut self, id: ReadId, index: u64) {
        if let Some(read) = self.pending.get_mut(&id) {
            read.stage = Stage::Confirmed(index);
        }
    }

    /// Takes the confirmed reads whose index has been reached.
    pub(crate) fn take_ready(&mut self, applied: u64) -> Vec<(ReadId, u64)> {
        let mut ready = Vec::new();
        self.pending.retain(|id, read| match read.stage {
            Stage::Confirmed(index) if index <= applied => {
                ready.push((*id, index));
                false
            }
            Stage::Queued | Stage::Round(_) | Stage::Confirmed(_) => true,
        });
        ready
    }

    /// Takes the reads whose deadline has come.
    pub(crate) fn take_expired(&mut self, now: Mono) -> Vec<ReadId> {
        let mut lost = Vec::new();
        self.pending.retain(|id, read| {
            let keep = read.deadline > now;
            if !keep {
                lost.push(*id);
            }
            keep
        });
        lost
    }

    /// Takes all: leadership or its term is over.
    pub(crate) fn take_all(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.pending).into_keys().collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        self.pending.values().map(|read| read.deadline).min()
    }
}
