//! Time passing: ticks, election timeouts, reads that expire, snapshots that got lost.

use std::cmp::Reverse;

use super::Consensus;
use crate::effect::{Effect, Role};
use crate::time::{Mono, Span};
use crate::{NodeId, convert};
use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, ProgressState};

/// How many election timeouts a candidate waits for votes that were neither given nor refused.
pub(super) const VOTE_PATIENCE: usize = 3;

impl Consensus {
    /// Ends expired reads and runs due ticks. An input that may prove the leader alive must not be
    /// preceded by an election, so only `advance` lets one begin.
    pub(super) fn pass_time(&mut self, now: Mono, may_campaign: bool) {
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
            if campaigns && self.is_campaign_vain() {
                continue;
            }
            let heir = self.heir();
            self.raft.tick();
            if self.role() != Role::Leader {
                heir.into_iter().for_each(|heir| self.resign_to(heir));
            }
            self.pump();
            self.beat_if_due();
        }
    }

    /// Who should stand if the coming tick finds no majority heard: who was heard last, then who has most of the log.
    fn heir(&self) -> Option<NodeId> {
        let raft = &self.raft.raft;
        let looks = raft.election_elapsed + 1 >= self.config.ticks(self.config.election_min);
        if self.role() != Role::Leader || !looks {
            return None;
        }
        let voters = self.present_members().voters.iter().filter(|id| **id != self.config.id);
        let standing = |id: &&NodeId| {
            let progress = raft.prs().get(id.0);
            (progress.map(|p| (p.recent_active, p.matched)), Reverse(**id))
        };
        voters.max_by_key(standing).copied()
    }

    /// A leader that hears no majority any more may still be heard: the others would wait for an election timeout from its last
    /// heartbeat on. So it lets one of them stand at once, as after a transfer. Who has seen a later term takes no notice.
    fn resign_to(&mut self, heir: NodeId) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgTimeoutNow);
        message.from = self.config.id.0;
        message.to = heir.0;
        message.term = self.term();
        self.outbox.send(&message);
    }

    /// The heartbeat of a ReadIndex round does all that a plain one does, so the next is due one interval after either. raft-rs
    /// counts on regardless of the rounds: what it sends by its own count is dropped.
    fn beat_if_due(&mut self) {
        if self.role() == Role::Leader && self.ticker.now() >= self.beat_due() {
            self.beat();
        }
    }

    pub(super) fn beat(&mut self) {
        self.is_beating = true;
        self.raft.ping();
        self.pump();
        self.is_beating = false;
    }

    /// When a leader is to be heard again at the latest.
    pub(super) fn beat_due(&self) -> Mono {
        self.beat_at + self.config.heartbeat
    }

    /// Whether a message that raft-rs wants to send is to be dropped.
    pub(super) fn is_spare_heartbeat(&mut self, message: &Message) -> bool {
        if message.get_msg_type() != MessageType::MsgHeartbeat {
            return false;
        }
        let is_wanted = self.is_beating || !message.context.is_empty();
        if is_wanted {
            self.beat_at = self.ticker.now();
        }
        !is_wanted
    }

    fn next_tick_campaigns(&self) -> bool {
        let raft = &self.raft.raft;
        self.role() != Role::Leader
            && raft.promotable()
            && raft.election_elapsed + 1 >= self.election_timeout
    }

    /// raft-rs panics if an election begins while a snapshot is on its way to the disk (the log
    /// between is gone), or if a lone voter wins with a log that is not durable.
    pub(super) fn is_campaign_blocked(&self) -> bool {
        let lone = self.raft.raft.prs().is_singleton();
        self.outbox.is_restoring() || (lone && !self.outbox.is_settled())
    }

    /// A vote counts only when it is on the disk, also one's own. While an earlier write is still on its way there, another
    /// campaign could but throw away the votes that the present one is about to get.
    pub(super) fn is_campaign_vain(&self) -> bool {
        self.is_campaign_blocked() || !self.outbox.is_settled()
    }

    /// raft-rs waits for the fate of a snapshot for ever; a lost message must not stall a follower.
    pub(super) fn retry_snapshots(&mut self, now: Mono) {
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

    pub(super) fn draw_election_timeout(&mut self) {
        // A candidate was promised a majority in the pre-vote; only disks stand between it and the votes.
        let patience = if self.role() == Role::Candidate { VOTE_PATIENCE } else { 1 };
        self.set_election_timeout(0, patience);
    }

    /// Another was promised this node's vote. Its own vote must reach its disk before it can ask for this one: a campaign
    /// of this node in between would split the votes.
    pub(super) fn give_way(&mut self) {
        if matches!(self.role(), Role::Follower | Role::PreCandidate) {
            // Not by setting the timer back: raft-rs would take that for a leader that was heard.
            self.set_election_timeout(self.raft.raft.election_elapsed, VOTE_PATIENCE);
        }
    }

    /// Two that stand at the same instant would promise each other a majority and then split the votes: a second timeout,
    /// during which leases run out. The one with the smaller id goes on.
    pub(super) fn yields_to(&self, message: &Message) -> bool {
        self.role() == Role::PreCandidate
            && message.get_msg_type() == MessageType::MsgRequestPreVote
            && message.from < self.config.id.0
            && message.term == self.term() + 1
            && self.raft.raft.raft_log.is_up_to_date(message.index, message.log_term)
    }

    /// The answers to this node's pre-vote count no more.
    pub(super) fn stop_standing(&mut self) {
        let term = self.term();
        self.raft.raft.become_follower(term, INVALID_ID);
    }

    /// A vote was refused, so they are split, or the log is behind: waiting longer brings nothing.
    pub(super) fn vote_refused(&mut self) {
        if self.role() == Role::Candidate {
            self.set_election_timeout(0, 1);
        }
    }

    fn set_election_timeout(&mut self, elapsed: usize, patience: usize) {
        let low = self.config.ticks(self.config.election_min) * patience;
        let high = self.config.ticks(self.config.election_max) * patience;
        // Whoever gives way again and again stands in the end.
        let most = self.config.ticks(self.config.election_max) * VOTE_PATIENCE * 2 - 1;
        self.election_timeout = (elapsed + self.rng.in_range(low, high)).min(most);
        self.raft.raft.set_randomized_election_timeout(self.election_timeout);
    }
}
