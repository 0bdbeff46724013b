//! Time passing: ticks, election timeouts, reads that expire, snapshots that got lost.

use super::Consensus;
use crate::effect::{Effect, Role};
use crate::time::{Mono, Span};
use crate::{NodeId, convert};
use raft::ProgressState;

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
    pub(super) fn is_campaign_blocked(&self) -> bool {
        let lone = self.raft.raft.prs().is_singleton();
        self.outbox.is_restoring() || (lone && !self.outbox.is_settled())
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
        let low = self.config.ticks(self.config.election_min);
        let high = self.config.ticks(self.config.election_max);
        self.election_timeout = self.rng.in_range(low, high);
        self.raft.raft.set_randomized_election_timeout(self.election_timeout);
    }
}
