//! Proposals: what a leader may be asked to append, and why it refuses.

use crate::NodeId;

/// Longest data of one entry, bytes.
pub(crate) const DATA_MAX: usize = 1024 * 1024;

/// Where the entry stands. It is committed if an entry with this index *and* term is applied; if
/// another term's entry is applied at the index, it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    pub index: u64,
    pub term: u64,
}

/// One node at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a new node that votes at once. Prefer `AddLearner`, then `Promote`.
    AddVoter(NodeId),
    /// Adds a new node that follows the log and does not vote.
    AddLearner(NodeId),
    /// Makes a learner a voter.
    Promote(NodeId),
    /// Takes a voter or learner out. Its id must not come back.
    Remove(NodeId),
}

/// Why a proposal was not appended. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    #[error("not the leader")]
    NotLeader { leader: Option<NodeId> },
    #[error("leadership is being transferred")]
    TransferInProgress,
    #[error("too much data is waiting to be committed")]
    TooMuchInFlight,
    #[error("an entry has at least one byte")]
    Empty,
    #[error("entry of {bytes} bytes, at most {max} allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("a membership change is not yet applied")]
    ChangePending,
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    #[error("node {0} is not a member")]
    NotMember(NodeId),
    #[error("node {0} is not a learner")]
    NotLearner(NodeId),
    #[error("node {0} leads: transfer the leadership first")]
    RemovesLeader(NodeId),
    #[error("node id 0 is not allowed")]
    ZeroNode,
}

/// The membership that holds from an index on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) voters: Vec<NodeId>,
    pub(crate) learners: Vec<NodeId>,
}

impl Members {
    /// Refuses a change that would do nothing, or harm.
    pub(crate) fn check(&self, change: MembershipChange, own: NodeId) -> Result<(), ProposeError> {
        let learner = |node| self.learners.contains(&node);
        let member = |node| self.voters.contains(&node) || learner(node);
        match change {
            MembershipChange::AddVoter(NodeId(0))
            | MembershipChange::AddLearner(NodeId(0))
            | MembershipChange::Promote(NodeId(0))
            | MembershipChange::Remove(NodeId(0)) => Err(ProposeError::ZeroNode),
            MembershipChange::AddVoter(node) | MembershipChange::AddLearner(node)
                if member(node) =>
            {
                Err(ProposeError::AlreadyMember(node))
            }
            MembershipChange::Promote(node) if !member(node) => Err(ProposeError::NotMember(node)),
            MembershipChange::Promote(node) if !learner(node) => {
                Err(ProposeError::NotLearner(node))
            }
            MembershipChange::Remove(node) if !member(node) => Err(ProposeError::NotMember(node)),
            // raft-rs panics in a leader that is no member and commits.
            MembershipChange::Remove(node) if node == own => Err(ProposeError::RemovesLeader(node)),
            MembershipChange::AddVoter(_)
            | MembershipChange::AddLearner(_)
            | MembershipChange::Promote(_)
            | MembershipChange::Remove(_) => Ok(()),
        }
    }
}
