//! What can be asked of a node. Nothing here changes anything.

use super::Consensus;
use crate::NodeId;
use crate::effect::Role;
use crate::proposal::Members;
use raft::StateRole;

impl Consensus {
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    #[must_use]
    pub fn role(&self) -> Role {
        match self.raft.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    #[must_use]
    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// The leader of the present term, as far as known here.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.raft.raft.leader_id)).filter(|id| id.0 != 0)
    }

    /// Target of a leadership transfer in progress.
    #[must_use]
    pub fn transferee(&self) -> Option<NodeId> {
        self.raft.raft.lead_transferee.map(NodeId)
    }

    /// Last index handed out by `Apply`, `Membership` or `Restore`.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// Highest index known to be committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// Index of the newest snapshot; `last_index - snapshot_index` is the replay at a restart.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.raft.store().snapshot_index()
    }

    /// First index kept as an entry.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.raft.store().first()
    }

    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.raft.raft.raft_log.last_index()
    }

    /// Voters as of `applied_index`, ascending.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.present_members().voters
    }

    /// Learners as of `applied_index`, ascending.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.present_members().learners
    }

    /// For the leader: highest index known to be stored by `peer`.
    #[must_use]
    pub fn matched(&self, peer: NodeId) -> Option<u64> {
        if self.role() != Role::Leader {
            return None;
        }
        self.raft.raft.prs().get(peer.0).map(|progress| progress.matched)
    }

    pub(super) fn present_members(&self) -> &Members {
        // Never empty: it starts with one and only older ones are dropped.
        &self.members[self.members.len() - 1].1
    }
}
