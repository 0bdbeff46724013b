//! [`Consensus`]: one Raft node, driven from outside.
//!
//! Every input goes the same way: let time pass up to `now`, hand the input to raft-rs, then
//! `pump` until raft-rs has nothing more to say. After each call into raft-rs the election timeout
//! is overwritten, because raft-rs draws it from a random source of its own (its only one).

mod passing;
mod query;
mod reading;
mod ready;

pub use reading::Asker;

use crate::config::{Config, ConfigError, RaftRefused};
use crate::durable::{HardState, Persist, Recovered, Snapshot};
use crate::effect::{Effect, Role};
use crate::log::MemLog;
use crate::message::{self, StepError};
use crate::outbox::Outbox;
use crate::proposal::{DATA_MAX, Members, MembershipChange, ProposeError, Proposed};
use crate::reads::Reads;
use crate::rng::Rng;
use crate::ticker::Ticker;
use crate::time::Mono;
use crate::{NodeId, convert, trace};
use raft::eraftpb::{ConfChange, ConfChangeType, Message, MessageType};
use raft::{RawNode, SnapshotStatus};
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
    /// When the peers were last sent a heartbeat, plain or of a ReadIndex round.
    beat_at: Mono,
    /// A plain heartbeat is being sent.
    is_beating: bool,
    /// Who need not answer it.
    beats_unanswered: Option<NodeId>,
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
            beat_at: now,
            is_beating: false,
            beats_unanswered: None,
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
        let refused = message.get_msg_type() == MessageType::MsgRequestVoteResponse
            && message.reject
            && message.term == self.term();
        if self.yields_to(&message) {
            self.stop_standing();
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
        if refused {
            self.vote_refused();
        }
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
        let own_vote = self.role() == Role::Candidate && self.outbox.is_settled();
        if own_vote || released.messages.iter().any(ready::is_granted_vote) {
            // The votes leave only now: the time to answer them, and to lead by them, begins.
            self.raft.raft.election_elapsed = 0;
            self.ticker.take(self.ticker.due(now));
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
        let next = self.ticker.after(1);
        let tick = if self.role() == Role::Leader {
            // Whether a majority is still heard is looked at with it.
            self.beat_due()
        } else if raft.promotable() && !self.is_campaign_vain() {
            self.ticker.after(self.election_timeout.saturating_sub(raft.election_elapsed) as u64)
        } else {
            self.ticker.after(self.config.ticks(self.config.election_max) as u64)
        };
        let tick = tick.max(next);
        self.reads.next_deadline().map_or(tick, |read| read.min(tick))
    }

    /// The next thing to do, until there is none.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.outbox.pop()
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
        // Heartbeats are counted here: see `beat_if_due`.
        heartbeat_tick: election_tick - 1,
        applied,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: election_tick,
        // A timeout is drawn below `election_max`, or as many times that as votes are waited for, twice at most.
        max_election_tick: config.ticks(config.election_max) * passing::VOTE_PATIENCE * 2,
        read_only_option: raft::ReadOnlyOption::Safe,
        skip_bcast_commit: false,
        batch_append: false,
        priority: 0,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: raft::NO_LIMIT,
    }
}
