//! The conversation with raft-rs: what it may be told, and what it has to say.

use super::Consensus;
use super::reading::is_unwanted;
use crate::convert;
use crate::durable::{Persist, Snapshot};
use crate::effect::{Effect, Role};
use crate::message::StepError;
use crate::proposal::{Members, ProposeError, Proposed};
use protobuf::Message as _;
use raft::eraftpb::{self, ConfChange, EntryType, Message, MessageType};

impl Consensus {
    /// Refuses what contradicts the log, where raft-rs would panic.
    pub(super) fn check_against_log(&self, message: &Message) -> Result<(), StepError> {
        let raft = &self.raft.raft;
        if message.term < raft.term {
            return Ok(());
        }
        let last = raft.raft_log.last_index();
        match message.get_msg_type() {
            MessageType::MsgHeartbeat if message.commit > last => {
                Err(StepError::CommitBeyondLog { commit: message.commit, last })
            }
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
                if message.term == raft.term && self.role() == Role::Leader =>
            {
                Err(StepError::Malformed("another leader in this term"))
            }
            MessageType::MsgAppendResponse
                if message.term == raft.term
                    && self.role() == Role::Leader
                    && message.index > last =>
            {
                Err(StepError::Malformed("acknowledges entries that were never sent"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_may_propose(&self) -> Result<(), ProposeError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if self.transferee().is_some() {
            return Err(ProposeError::TransferInProgress);
        }
        Ok(())
    }

    pub(super) fn appended(&mut self) -> Proposed {
        let proposed = Proposed { index: self.last_index(), term: self.term() };
        self.pump();
        proposed
    }

    /// Takes everything raft-rs has to say.
    pub(super) fn pump(&mut self) {
        loop {
            self.announce_role();
            if self.raft.has_ready() {
                self.take_ready();
            } else if !self.start_reads() {
                break;
            }
        }
        if self.role() == Role::Leader {
            for (id, index) in self.reads.take_ready(self.applied) {
                self.outbox.push(Effect::ReadReady { id, index });
            }
        }
    }

    /// Announces a new role, term or leader, ends the reads of a lost leadership, and puts back the
    /// election timeout that raft-rs may have drawn anew.
    fn announce_role(&mut self) {
        let (role, term) = (self.role(), self.term());
        if (role, term) == (self.announced.0, self.announced.1) {
            self.raft.raft.set_randomized_election_timeout(self.election_timeout);
        } else {
            self.draw_election_timeout();
        }
        let present = (role, term, self.leader());
        if present == self.announced {
            return;
        }
        let led_before = self.announced.0 == Role::Leader;
        let still_leads = role == Role::Leader && term == self.announced.1;
        self.announced = present;
        self.outbox.push(Effect::RoleChanged { role, term, leader: present.2 });
        if led_before && !still_leads {
            for id in self.reads.take_all() {
                self.outbox.push(Effect::ReadLost { id });
            }
        }
    }

    /// Handles one `Ready`. Between `ready` and `advance_append_async` nothing else may be called
    /// on raft-rs.
    fn take_ready(&mut self) {
        let mut ready = self.raft.ready();
        for mut message in ready.take_messages() {
            if !self.is_spare_heartbeat(&message) {
                self.mark_unanswered(&mut message);
                self.outbox.send(&message);
            }
        }
        let snapshot = Some(ready.snapshot()).filter(|s| !s.is_empty()).cloned();
        let entries = ready.take_entries();
        if let Some(snapshot) = &snapshot {
            self.raft.mut_store().replace(snapshot.clone());
        }
        self.raft.mut_store().append(&entries);
        let persist = Persist {
            hard_state: ready.hs().map(convert::hard_state),
            snapshot: snapshot.as_ref().map(convert::snapshot),
            replace_log: snapshot.is_some(),
            entries: entries.iter().map(convert::entry).collect(),
            must_sync: ready.must_sync(),
            ..Persist::default()
        };
        let mut parked = ready.take_persisted_messages();
        parked.retain(|message| !is_unwanted(message));
        let gives_way = parked.iter().any(is_granted_pre_vote);
        let committed = ready.take_committed_entries();
        for read in ready.take_read_states() {
            self.reads.confirm(&read.request_ctx, read.index);
        }
        let ready_number = ready.number();
        self.raft.advance_append_async(ready);
        if gives_way {
            self.give_way();
        }
        self.write(persist, ready_number, snapshot);
        if let Some(messages) = self.outbox.park(ready_number, parked) {
            // Nothing is on its way to the disk: what these messages promise is durable.
            self.raft.on_persist_ready(ready_number);
            for message in &messages {
                self.outbox.send(message);
            }
        }
        self.apply(&committed);
    }

    fn write(&mut self, persist: Persist, ready_number: u64, restore: Option<eraftpb::Snapshot>) {
        let must_sync = persist.must_sync;
        if !must_sync && persist.hard_state.is_none() {
            return;
        }
        let number = self.outbox.persist(persist);
        // A commit index alone promises nothing, so nothing waits for it.
        if must_sync {
            self.outbox.await_write(number, ready_number, restore);
        }
    }

    fn apply(&mut self, committed: &[eraftpb::Entry]) {
        let Some(last) = committed.last() else { return };
        for entry in committed {
            assert_eq!(entry.index, self.applied + 1, "entries are applied in order, each once");
            match entry.get_entry_type() {
                EntryType::EntryNormal => self.outbox.push(Effect::Apply {
                    index: entry.index,
                    term: entry.term,
                    data: entry.data.to_vec(),
                }),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_membership(entry);
                }
            }
            self.applied = entry.index;
        }
        self.raft.advance_apply_to(last.index);
        self.step_down_if_removed();
    }

    /// A change that does not fit is void, on all nodes alike, since all apply it to one membership.
    fn apply_membership(&mut self, entry: &eraftpb::Entry) {
        match ConfChange::parse_from_bytes(&entry.data) {
            Ok(change) => match self.raft.apply_conf_change(&change) {
                Ok(state) => {
                    let members = Members {
                        voters: convert::ids(state.get_voters()),
                        learners: convert::ids(state.get_learners()),
                    };
                    self.members.push((entry.index, members));
                }
                Err(error) => {
                    tracing::error!(index = entry.index, %error, "membership change is void");
                }
            },
            Err(error) => {
                tracing::error!(index = entry.index, %error, "membership change is unreadable");
            }
        }
        self.announce_members(entry.index, entry.term);
    }

    /// raft-rs panics in a leader that is no longer a voter once it commits. It is one when it
    /// inherited its own removal from the leader before.
    fn step_down_if_removed(&mut self) {
        if self.role() == Role::Leader && !self.present_members().voters.contains(&self.config.id) {
            let term = self.term();
            self.raft.raft.become_follower(term, 0);
        }
    }

    /// A snapshot from the leader is durable: it replaces the state machine.
    pub(super) fn restore(&mut self, snapshot: &eraftpb::Snapshot) {
        let snapshot = convert::snapshot(snapshot);
        self.raft.advance_apply_to(snapshot.index);
        self.applied = snapshot.index;
        let members =
            Members { voters: snapshot.voters.clone(), learners: snapshot.learners.clone() };
        self.members = vec![(snapshot.index, members)];
        self.announce_snapshot(snapshot);
    }

    pub(super) fn announce_snapshot(&mut self, snapshot: Snapshot) {
        let Snapshot { index, term, data, voters: _, learners: _ } = snapshot;
        self.outbox.push(Effect::Restore { index, term, data });
        self.announce_members(index, term);
    }

    fn announce_members(&mut self, index: u64, term: u64) {
        let Members { voters, learners } = self.present_members().clone();
        self.outbox.push(Effect::Membership { index, term, voters, learners });
    }
}

fn is_granted_pre_vote(message: &eraftpb::Message) -> bool {
    message.get_msg_type() == eraftpb::MessageType::MsgRequestPreVoteResponse && !message.reject
}

pub(super) fn is_granted_vote(message: &eraftpb::Message) -> bool {
    message.get_msg_type() == eraftpb::MessageType::MsgRequestVoteResponse && !message.reject
}
