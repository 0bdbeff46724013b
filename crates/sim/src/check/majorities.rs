//! Raft's membership never has two majorities that do not meet, seen from outside: of two supervisors that lead, the one of the
//! earlier term can commit nothing any more.
//!
//! The later one was elected by a majority of the voters that it went by then. Each of these had the later term on its disk
//! before its vote left. So where the two memberships have majorities that meet, every majority of the earlier leader's
//! voters holds one who refuses it. What a leader goes by is asked of the leader; terms are read from the disks.

use std::collections::BTreeMap;

use redkeep_core::NodeId;

use crate::check::Violation;

/// A supervisor that leads, running or stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    pub node: NodeId,
    pub term: u64,
    /// As it has applied them.
    pub voters: Vec<NodeId>,
}

#[derive(Debug, Default)]
pub struct Majorities {
    /// By term: who leads or led in it.
    leaders: BTreeMap<u64, NodeId>,
}

impl Majorities {
    /// All that lead at one instant; `term_of` reads a node's disk.
    ///
    /// # Errors
    /// Two led in one term, or one could still commit although another leads in a later term.
    pub fn meet(
        &mut self,
        seats: &[Seat],
        term_of: impl Fn(NodeId) -> u64,
    ) -> Result<(), Violation> {
        for seat in seats {
            let first = *self.leaders.entry(seat.term).or_insert(seat.node);
            if first != seat.node {
                return Err(apart(seat, first, seat.term));
            }
        }
        let Some(newest) = seats.iter().max_by_key(|s| s.term) else { return Ok(()) };
        for old in seats.iter().filter(|s| s.term < newest.term) {
            let with = old.voters.iter().filter(|v| term_of(**v) <= old.term).count();
            if with > old.voters.len() / 2 {
                return Err(apart(old, newest.node, newest.term));
            }
        }
        Ok(())
    }
}

fn apart(older: &Seat, newer: NodeId, newer_term: u64) -> Violation {
    Violation::TwoMajorities { older: older.node, term: older.term, newer, newer_term }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(node: u64, term: u64, voters: &[u64]) -> Seat {
        let voters = voters.iter().map(|v| NodeId(*v)).collect();
        Seat { node: NodeId(node), term, voters }
    }

    /// Nodes 1, 2 and 3; 4 and 5 joined.
    fn meet(seats: &[Seat], in_later_term: &[u64]) -> bool {
        let term = |n: NodeId| if in_later_term.contains(&n.0) { 7 } else { 6 };
        Majorities::default().meet(seats, term).is_ok()
    }

    #[test]
    fn a_deposed_leader_that_a_majority_of_its_voters_left_is_harmless() {
        let old = seat(1, 6, &[1, 2, 3]);
        assert!(meet(&[old.clone(), seat(2, 7, &[1, 2, 3])], &[2, 3]));
        assert!(meet(&[old.clone(), seat(2, 7, &[2, 3, 4])], &[2, 3, 4]));
        assert!(meet(&[old], &[]), "it leads alone");
    }

    #[test]
    fn a_leader_of_newcomers_beside_one_that_can_still_commit_is_caught() {
        let old = seat(1, 6, &[1, 2, 3]);
        assert!(!meet(&[old.clone(), seat(4, 7, &[1, 4, 5])], &[4, 5]));
        assert!(!meet(&[old, seat(3, 7, &[3, 4, 5])], &[3, 4, 5]));
    }

    #[test]
    fn two_that_lead_in_one_term_are_caught_at_any_distance() {
        let mut majorities = Majorities::default();
        assert!(majorities.meet(&[seat(1, 6, &[1, 2, 3])], |_| 6).is_ok());
        assert!(majorities.meet(&[seat(2, 7, &[1, 2, 3])], |_| 7).is_ok());
        assert!(majorities.meet(&[seat(3, 6, &[1, 2, 3])], |_| 7).is_err());
    }
}
