//! Linearizable reads: by a round of its own, or confirmed by the very message that asks.

use super::Consensus;
use crate::NodeId;
use crate::effect::Role;
use crate::reads::{ReadError, ReadId};
use crate::time::Mono;
use raft::ProgressState;
use raft::eraftpb::{Message, MessageType};

/// Context of a heartbeat that need not be answered. A context of a round is longer.
const UNANSWERED: &[u8] = b"-";

/// A node that asks for a read, and the term it was in as it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub node: NodeId,
    pub term: u64,
}

impl Consensus {
    /// Begins a linearizable read (ReadIndex), as leader only. It ends in exactly one
    /// `ReadReady` or `ReadLost`. Before an entry of the own term is committed the read waits here
    /// and begins afterwards.
    ///
    /// # Errors
    /// [`ReadError`]: no read was begun, and no effect will name it.
    pub fn read_index(&mut self, now: Mono, deadline: Mono) -> Result<ReadId, ReadError> {
        let id = self.add_read(now, deadline)?;
        self.pump();
        Ok(id)
    }

    /// Begins a linearizable read for another node. That node was in this leader's term as it asked: so it had voted for no
    /// later leader, and if it and this node are a majority, none was elected before it asked. That is what a round would
    /// find out, so none is begun, and the read sees all that was committed before it was asked for. Else as
    /// [`Consensus::read_index`].
    ///
    /// # Errors
    /// [`ReadError`]: no read was begun, and no effect will name it.
    pub fn read_index_for(
        &mut self,
        now: Mono,
        deadline: Mono,
        asker: Asker,
    ) -> Result<ReadId, ReadError> {
        let id = self.add_read(now, deadline)?;
        if self.is_confirmed_by(asker) {
            self.reads.confirm_one(id, self.committed());
            self.heard_from(asker.node);
        }
        self.pump();
        Ok(id)
    }

    fn add_read(&mut self, now: Mono, deadline: Mono) -> Result<ReadId, ReadError> {
        self.pass_time(now, false);
        if self.role() != Role::Leader {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        self.reads.add(now, deadline)
    }

    fn is_confirmed_by(&self, asker: Asker) -> bool {
        let voters = &self.present_members().voters;
        let both = [self.config.id, asker.node];
        let yes = voters.iter().filter(|v| both.contains(v)).count();
        asker.term == self.term()
            && self.raft.raft.commit_to_current_term()
            && yes > voters.len() / 2
    }

    /// The asker follows this leader: that counts for the majority that a leader must hear, and makes a good moment for the
    /// next heartbeat, which goes to the asker with the answer.
    fn heard_from(&mut self, asker: NodeId) {
        if let Some(progress) = self.raft.raft.mut_prs().get_mut(asker.0) {
            progress.recent_active = true;
        }
        if self.beat_due() <= self.ticker.now() + self.config.heartbeat / 2 {
            self.beats_unanswered = Some(asker);
            self.beat();
            self.beats_unanswered = None;
        }
    }

    /// An answer would tell nothing that the question did not: this one has all entries, and was heard just now.
    pub(super) fn mark_unanswered(&self, message: &mut Message) {
        if message.get_msg_type() != MessageType::MsgHeartbeat
            || !message.context.is_empty()
            || self.beats_unanswered != Some(NodeId(message.to))
        {
            return;
        }
        let last = self.raft.raft.raft_log.last_index();
        let has_all = self.raft.raft.prs().get(message.to).is_some_and(|progress| {
            progress.state == ProgressState::Replicate && progress.matched == last
        });
        if has_all {
            message.context = UNANSWERED.to_vec().into();
        }
    }

    pub(super) fn start_reads(&mut self) -> bool {
        if self.role() != Role::Leader || !self.raft.raft.commit_to_current_term() {
            return false;
        }
        let Some(context) = self.reads.start_round() else { return false };
        self.raft.read_index(context);
        true
    }
}

/// The answer to a heartbeat that need not be answered.
pub(super) fn is_unwanted(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeatResponse && *message.context == *UNANSWERED
}
