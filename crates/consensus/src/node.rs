//! [`Consensus`]: one Raft node, driven from outside.
//!
//! Every input goes the same way: let time pass up to `now`, hand the input to raft-rs, then
//! `pump` until raft-rs has nothing more to say. After each call into raft-rs the election timeout
//! is overwritten, because raft-rs draws it from a random source of its own (its only one).

use crate::config::{Config, ConfigError, RaftRefused};
use crate::durable::{HardState, Persist, Recovered, Snapshot};
use crate::effect::{Effect, Role};
use crate::log::MemLog;
use crate::message::{self, StepError};
use crate::outbox::Outbox;
use crate::proposal::{DATA_MAX, Members, MembershipChange, ProposeError, Proposed};
use crate::reads::{ReadError, ReadId, Reads};
use crate::rng::Rng;
use crate::ticker::Ticker;
use crate::time::{Mono, Span};
use crate::{NodeId, convert, trace};
use protobuf::Message as _;
use raft::eraftpb::{self, ConfChange, ConfChangeType, EntryType, Message, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use std::collections::BTreeMap;

/// One append message carries at most about this many bytes of entries.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Append messages sent to one follower ahead of its acknowledgements.
const INFLIGHT_MAX: usize = 256;
/// Bytes proposed and not yet committed.
const UNCOMMITTED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Index and term of the state that all first members start from.
const BOOTSTRAP: (u64, u64) = (1, 1);

/// One Raft node. See the crate documentation for the rules of driving it.
pub struct Consensus {
    config: Config,
    raft: RawNode<MemLog>,
    ticker: Ticker,
    rng: Rng,
    outbox: Outbox,
    reads: Reads,
    /// Role, term and leader as last announced.
    announced: (Role, u64, Option<NodeId>),
    election_timeout: usize,
    applied: u64,
    /// Memberships by the index from which each holds; the last is the present one.
    members: Vec<(u64, Members)>,
    /// When a snapshot was last sent to a follower that has not answered.
    snapshots_sent: BTreeMap<NodeId, Mono>,
    forced_election_at: Option<Mono>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("id", &self.config.id)
            .field("role", &self.role())
            .field("term", &self.term())
            .field("leader", &self.leader())
            .field("committed", &self.committed())
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

/// Start and inputs.
impl Consensus {
    /// Starts a node, from nothing or from what it knew before.
    ///
    /// From nothing, a node that `config` lists among its members begins with that membership; it
    /// must be the same on all of them. The state machine is rebuilt by the first effects:
    /// `Restore` from the snapshot, then `Apply` for what is known to be committed.
    ///
    /// # Errors
    /// [`ConfigError`]: a setting, or the recovered state, is not usable.
    pub fn new(config: Config, recovered: Recovered, now: Mono) -> Result<Self, ConfigError> {
        config.validate()?;
        recovered.validate()?;
        let (recovered, first_write) = initial(&config, recovered);
        let log = MemLog::new(&recovered);
        let applied = log.snapshot_index();
        let raft = RawNode::new(&raft_config(&config, applied), log, &trace::logger())
            .map_err(|error| RaftRefused(error.to_string()))
            .map_err(ConfigError::Raft)?;
        let mut rng = Rng::new(config.seed, config.id.0);
        let reads = Reads::new(rng.next());
        let members = Members {
            voters: recovered.snapshot.as_ref().map(|s| s.voters.clone()).unwrap_or_default(),
            learners: recovered.snapshot.as_ref().map(|s| s.learners.clone()).unwrap_or_default(),
        };
        let mut node = Consensus {
            ticker: Ticker::new(config.tick(), now),
            announced: (Role::Follower, recovered.hard_state.term, None),
            election_timeout: config.ticks(config.election_min),
            members: vec![(applied, members)],
            outbox: Outbox::default(),
            snapshots_sent: BTreeMap::new(),
            forced_election_at: None,
            config,
            raft,
            rng,
            reads,
            applied,
        };
        node.draw_election_timeout();
        if let Some(write) = first_write {
            let number = node.outbox.persist(write);
            node.outbox.await_write(number, 0, None);
        }
        if let Some(snapshot) = recovered.snapshot {
            node.announce_snapshot(snapshot);
        }
        node.pump();
        Ok(node)
    }

    /// Takes a message from a peer. `from` is the sender as the transport has authenticated it.
    ///
    /// A sender outside the membership is heard, except for answers: a node that lags may not yet
    /// know its new leader.
    ///
    /// # Errors
    /// [`StepError`]: the message was refused. [`StepError::CommitBeyondLog`] means that this
    /// node's data is gone or old: the caller must stop the node.
    pub fn step(&mut self, now: Mono, from: NodeId, bytes: &[u8]) -> Result<(), StepError> {
        let message = message::decode(bytes, self.config.id, from)?;
        self.pass_time(now, false);
        self.check_against_log(&message)?;
        let forced = message.get_msg_type() == MessageType::MsgTimeoutNow;
        if forced && self.is_campaign_blocked() {
            return Ok(());
        }
        let outcome = self.raft.step(message).map_err(|error| match error {
            raft::Error::StepPeerNotFound => StepError::UnknownSender(from),
            other => StepError::Raft(other),
        });
        if self.raft.raft.election_elapsed == 0 {
            // The timer starts anew now; ticks that were due before belong to the past.
            self.ticker.take(self.ticker.due(now));
        }
        self.pump();
        outcome
    }

    /// Appends an entry, as leader only; nothing is forwarded.
    ///
    /// # Errors
    /// [`ProposeError`]: nothing was appended.
    pub fn propose(&mut self, now: Mono, data: Vec<u8>) -> Result<Proposed, ProposeError> {
        if data.is_empty() {
            return Err(ProposeError::Empty);
        }
        if data.len() > DATA_MAX {
            return Err(ProposeError::TooLarge { bytes: data.len(), max: DATA_MAX });
        }
        self.pass_time(now, false);
        self.check_may_propose()?;
        // Leadership and transfer were checked, so this can only be the limit on waiting bytes.
        self.raft.propose(Vec::new(), data).map_err(|_| ProposeError::TooMuchInFlight)?;
        Ok(self.appended())
    }

    /// Appends a change of the membership by one node, as leader only.
    ///
    /// # Errors
    /// [`ProposeError`]: nothing was appended.
    pub fn propose_membership(
        &mut self,
        now: Mono,
        change: MembershipChange,
    ) -> Result<Proposed, ProposeError> {
        self.pass_time(now, false);
        self.check_may_propose()?;
        self.present_members().check(change, self.config.id)?;
        // raft-rs would silently turn the change into an empty entry.
        if self.raft.raft.has_pending_conf() {
            return Err(ProposeError::ChangePending);
        }
        let (kind, node) = match change {
            MembershipChange::AddVoter(node) | MembershipChange::Promote(node) => {
                (ConfChangeType::AddNode, node)
            }
            MembershipChange::AddLearner(node) => (ConfChangeType::AddLearnerNode, node),
            MembershipChange::Remove(node) => (ConfChangeType::RemoveNode, node),
        };
        let mut raw = ConfChange::default();
        raw.set_change_type(kind);
        raw.node_id = node.0;
        self.raft
            .propose_conf_change(Vec::new(), raw)
            .map_err(|_| ProposeError::TooMuchInFlight)?;
        Ok(self.appended())
    }

    /// Begins a linearizable read (ReadIndex), as leader only. It ends in exactly one
    /// `ReadReady` or `ReadLost`. Before an entry of the own term is committed the read waits here
    /// and begins afterwards.
    ///
    /// # Errors
    /// [`ReadError`]: no read was begun, and no effect will name it.
    pub fn read_index(&mut self, now: Mono, deadline: Mono) -> Result<ReadId, ReadError> {
        self.pass_time(now, false);
        if self.role() != Role::Leader {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        let id = self.reads.add(now, deadline)?;
        self.pump();
        Ok(id)
    }

    /// All writes up to `number` are durable.
    ///
    /// # Panics
    /// If `number` was never emitted.
    pub fn persisted(&mut self, now: Mono, number: u64) {
        self.pass_time(now, false);
        let released = self.outbox.release(number);
        if let Some(ready_number) = released.ready_number {
            self.raft.on_persist_ready(ready_number);
        }
        for message in &released.messages {
            self.outbox.send(message);
        }
        for snapshot in released.restores {
            self.restore(&snapshot);
        }
        self.pump();
    }

    /// Asks for leadership to move to `to`. It is given up after one election timeout; watch
    /// `RoleChanged` and [`Consensus::transferee`]. Does nothing unless leader.
    pub fn transfer_leader(&mut self, now: Mono, to: NodeId) {
        self.pass_time(now, false);
        if self.role() == Role::Leader {
            self.raft.transfer_leader(to.0);
        }
        self.pump();
    }

    /// The caller has proof that the leader's process is gone, and this node is the one to succeed
    /// it: stand for election at once, without pre-vote, as after a leadership transfer. Safe in
    /// any case, disruptive if the proof is wrong, hence at most once per `election_min`.
    pub fn leader_died(&mut self, now: Mono) {
        self.pass_time(now, false);
        let too_soon = self
            .forced_election_at
            .is_some_and(|earlier| now.since(earlier) < self.config.election_min);
        let Some(leader) = self.leader() else { return };
        if too_soon || self.role() != Role::Follower || self.is_campaign_blocked() {
            return;
        }
        self.forced_election_at = Some(now);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgTimeoutNow);
        message.from = leader.0;
        message.to = self.config.id.0;
        message.term = self.term();
        if let Err(error) = self.raft.step(message) {
            tracing::warn!(%error, "forced election refused");
        }
        self.pump();
    }

    /// The last message to `peer` could not be sent.
    pub fn report_unreachable(&mut self, peer: NodeId) {
        self.raft.report_unreachable(peer.0);
        self.pump();
    }

    /// The snapshot for `peer` was handed over (`ok`), or could not be.
    pub fn report_snapshot(&mut self, peer: NodeId, ok: bool) {
        self.snapshots_sent.remove(&peer);
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(peer.0, status);
        self.pump();
    }

    /// `data` is the state machine with all entries up to `index` applied. It becomes the snapshot
    /// and the log before it is dropped, but for a bounded tail. Ignored if a snapshot at `index`
    /// or later is there already.
    ///
    /// # Panics
    /// If `index` was not yet handed out for applying.
    pub fn compact(&mut self, index: u64, data: Vec<u8>) {
        assert!(index <= self.applied, "compact at {index}, applied {}", self.applied);
        if index <= self.snapshot_index() || self.outbox.is_restoring() {
            return;
        }
        let keep = self.members.partition_point(|(from, _)| *from <= index).saturating_sub(1);
        self.members.drain(..keep);
        let members = &self.members[0].1;
        let snapshot = Snapshot {
            index,
            term: self.raft.store().known_term(index),
            voters: members.voters.clone(),
            learners: members.learners.clone(),
            data,
        };
        let keep_from = self.raft.mut_store().compact(&snapshot);
        self.outbox.persist(Persist {
            hard_state: Some(convert::hard_state(&self.raft.raft.hard_state())),
            snapshot: Some(snapshot),
            // The entry before the first one kept gives its term after a restart.
            truncate_before: Some(keep_from.saturating_sub(1)),
            must_sync: true,
            ..Persist::default()
        });
    }

    /// Lets time pass up to `now`. To be called at [`Consensus::deadline`] at the latest.
    pub fn advance(&mut self, now: Mono) {
        self.pass_time(now, true);
        self.retry_snapshots(now);
    }

    /// When [`Consensus::advance`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Mono {
        let raft = &self.raft.raft;
        let idle = self.config.ticks(self.config.election_max);
        let ticks = if self.role() == Role::Leader {
            let heartbeat = raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed());
            heartbeat.min(raft.election_timeout().saturating_sub(raft.election_elapsed))
        } else if raft.promotable() && !self.is_campaign_blocked() {
            self.election_timeout.saturating_sub(raft.election_elapsed)
        } else {
            idle
        };
        let tick = self.ticker.after(ticks.max(1) as u64);
        self.reads.next_deadline().map_or(tick, |read| read.min(tick))
    }

    /// The next thing to do, until there is none.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.outbox.pop()
    }
}

/// What can be asked.
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

    fn present_members(&self) -> &Members {
        // Never empty: it starts with one and only older ones are dropped.
        &self.members[self.members.len() - 1].1
    }
}

/// Time.
impl Consensus {
    /// Ends expired reads and runs due ticks. An input that may prove the leader alive must not be
    /// preceded by an election, so only `advance` lets one begin.
    fn pass_time(&mut self, now: Mono, may_campaign: bool) {
        for id in self.reads.take_expired(now) {
            self.outbox.push(Effect::ReadLost { id });
        }
        let due = self.ticker.due(now);
        let most = self.config.ticks(self.config.election_min) as u64 - 1;
        // After a stall the inputs that wait unread must count before the time that passed.
        self.ticker.take(due.saturating_sub(most));
        for _ in 0..due.min(most) {
            let campaigns = self.next_tick_campaigns();
            if campaigns && !may_campaign {
                return;
            }
            self.ticker.take(1);
            if campaigns && self.is_campaign_blocked() {
                continue;
            }
            self.raft.tick();
            self.pump();
        }
    }

    fn next_tick_campaigns(&self) -> bool {
        let raft = &self.raft.raft;
        self.role() != Role::Leader
            && raft.promotable()
            && raft.election_elapsed + 1 >= self.election_timeout
    }

    /// raft-rs panics if an election begins while a snapshot is on its way to the disk (the log
    /// between is gone), or if a lone voter wins with a log that is not durable.
    fn is_campaign_blocked(&self) -> bool {
        let lone = self.raft.raft.prs().is_singleton();
        self.outbox.is_restoring() || (lone && !self.outbox.is_settled())
    }

    /// raft-rs waits for the fate of a snapshot for ever; a lost message must not stall a follower.
    fn retry_snapshots(&mut self, now: Mono) {
        if self.role() != Role::Leader {
            self.snapshots_sent.clear();
            return;
        }
        let waiting: Vec<NodeId> = convert::ids(
            &self
                .raft
                .raft
                .prs()
                .iter()
                .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
                .map(|(id, _)| *id)
                .collect::<Vec<u64>>(),
        );
        self.snapshots_sent.retain(|peer, _| waiting.contains(peer));
        for peer in waiting {
            let sent = *self.snapshots_sent.entry(peer).or_insert(now);
            if now.since(sent) >= self.snapshot_patience() {
                self.report_snapshot(peer, false);
            }
        }
    }

    fn snapshot_patience(&self) -> Span {
        self.config.election_max * 2
    }

    fn draw_election_timeout(&mut self) {
        let low = self.config.ticks(self.config.election_min);
        let high = self.config.ticks(self.config.election_max);
        self.election_timeout = self.rng.in_range(low, high);
        self.raft.raft.set_randomized_election_timeout(self.election_timeout);
    }
}

/// raft-rs' side.
impl Consensus {
    /// Refuses what contradicts the log, where raft-rs would panic.
    fn check_against_log(&self, message: &Message) -> Result<(), StepError> {
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

    fn check_may_propose(&self) -> Result<(), ProposeError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if self.transferee().is_some() {
            return Err(ProposeError::TransferInProgress);
        }
        Ok(())
    }

    fn appended(&mut self) -> Proposed {
        let proposed = Proposed { index: self.last_index(), term: self.term() };
        self.pump();
        proposed
    }

    /// Takes everything raft-rs has to say.
    fn pump(&mut self) {
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

    fn start_reads(&mut self) -> bool {
        if self.role() != Role::Leader || !self.raft.raft.commit_to_current_term() {
            return false;
        }
        let Some(context) = self.reads.start_round() else { return false };
        self.raft.read_index(context);
        true
    }

    /// Handles one `Ready`. Between `ready` and `advance_append_async` nothing else may be called
    /// on raft-rs.
    fn take_ready(&mut self) {
        let mut ready = self.raft.ready();
        for message in ready.take_messages() {
            self.outbox.send(&message);
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
        let parked = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        for read in ready.take_read_states() {
            self.reads.confirm(&read.request_ctx, read.index);
        }
        let ready_number = ready.number();
        self.raft.advance_append_async(ready);
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
    fn restore(&mut self, snapshot: &eraftpb::Snapshot) {
        let snapshot = convert::snapshot(snapshot);
        self.raft.advance_apply_to(snapshot.index);
        self.applied = snapshot.index;
        let members =
            Members { voters: snapshot.voters.clone(), learners: snapshot.learners.clone() };
        self.members = vec![(snapshot.index, members)];
        self.announce_snapshot(snapshot);
    }

    fn announce_snapshot(&mut self, snapshot: Snapshot) {
        let Snapshot { index, term, data, voters: _, learners: _ } = snapshot;
        self.outbox.push(Effect::Restore { index, term, data });
        self.announce_members(index, term);
    }

    fn announce_members(&mut self, index: u64, term: u64) {
        let Members { voters, learners } = self.present_members().clone();
        self.outbox.push(Effect::Membership { index, term, voters, learners });
    }
}

/// What a node starts from, and the first write of one that starts from nothing.
fn initial(config: &Config, recovered: Recovered) -> (Recovered, Option<Persist>) {
    if !recovered.is_fresh() {
        return (recovered, None);
    }
    let is_member = config.voters.contains(&config.id) || config.learners.contains(&config.id);
    let mut voters = config.voters.clone();
    let mut learners = config.learners.clone();
    voters.sort_unstable();
    learners.sort_unstable();
    let (index, term) = BOOTSTRAP;
    // All first members start from one snapshot, so that a node that joins later can only begin
    // with the leader's snapshot and never with a membership of its own.
    let snapshot =
        is_member.then_some(Snapshot { index, term, voters, learners, data: Vec::new() });
    let commit = if is_member { index } else { 0 };
    // Never term zero: raft-rs cannot answer a pre-vote in it.
    let hard_state = HardState { term, vote: 0, commit };
    let write = Persist {
        hard_state: Some(hard_state),
        snapshot: snapshot.clone(),
        must_sync: true,
        ..Persist::default()
    };
    (Recovered { hard_state, snapshot, entries: Vec::new() }, Some(write))
}

fn raft_config(config: &Config, applied: u64) -> raft::Config {
    let election_tick = config.ticks(config.election_min);
    raft::Config {
        id: config.id.0,
        election_tick,
        heartbeat_tick: config.ticks(config.heartbeat),
        applied,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: election_tick,
        max_election_tick: config.ticks(config.election_max),
        read_only_option: raft::ReadOnlyOption::Safe,
        skip_bcast_commit: false,
        batch_append: false,
        priority: 0,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: raft::NO_LIMIT,
    }
}
