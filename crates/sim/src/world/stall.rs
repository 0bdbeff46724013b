//! Stops of a supervisor at moments that are seldom met by chance.
//!
//! Each waits until its process does the thing, then stops it there and does what makes the moment dangerous.

use redkeep_consensus::Role as RaftRole;
use redkeep_core::{AdminRequest, Effect, Input, Now, Span, message::PeerMessage};

use crate::{
    fault::FaultKind,
    net::Endpoint,
    world::{
        World,
        event::{Event, Keep, Undo},
        host::Stall,
    },
};

/// How long a stop waits for its moment.
const WAITS: Span = Span::from_secs(1);
/// From when the answer to a late request is there until the one who asked goes on.
const ANSWER_WAITS: Span = Span::from_millis(15);
/// How long the new leader is not heard by the others but the one that led.
const UNHEARD: Span = Span::from_secs(1);

impl World {
    /// The leader hands over to `host`.
    pub(super) fn stall_next_election(&mut self, host: Endpoint, lasts: Span) -> bool {
        let until = self.now.after(WAITS);
        let Some(leader) = self.leader().filter(|l| *l != host) else { return false };
        let Some(p) = self.hosts[host].process.as_mut() else { return false };
        p.stop_as_candidate = Some(Stall { lasts, until });
        let to = self.hosts[host].node;
        self.awaits(FaultKind::StalledElection, Some(host), WAITS);
        self.ask(leader, AdminRequest::TransferLeadership { to });
        false
    }

    /// Its requests for votes leave and are long on their way; it hears nothing of the leader, and is stopped until an
    /// answer waits for it. So the answer is the first that it takes in since it asked. Whoever gave it votes last, but
    /// had acknowledged the leader's rounds till then, and does not hear the new leader.
    pub(super) fn stall_as_candidate(&mut self, host: Endpoint, effects: &[Effect]) {
        let asks = |e: &Effect| matches!(e, Effect::Send { message: PeerMessage::Raft { .. }, .. });
        let now = self.hosts[host].clock.now(self.now);
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let Some(stall) = p.stop_as_candidate.filter(|s| self.now < s.until) else { return };
        if p.core.status(now).role != RaftRole::Candidate || !effects.iter().any(asks) {
            return;
        }
        p.stop_as_candidate = None;
        p.sends_held = stall.lasts;
        self.coverage.met("candidate stopped");
        self.moment(FaultKind::StalledElection, Some(host));
        let stopped = stall.lasts + ANSWER_WAITS;
        if let Some(leader) = self.leader() {
            self.cut_for(leader, host, stopped);
            let others: Vec<Endpoint> =
                (0..self.hosts.len()).filter(|o| *o != host && *o != leader).collect();
            for other in others {
                let cut = Event::Cut { from: host, to: other, lasts: UNHEARD };
                self.after(stall.lasts + Span::from_millis(8), cut);
            }
        }
        self.freeze_supervisor(host, stopped);
    }

    pub(super) fn cut_for(&mut self, from: Endpoint, to: Endpoint, lasts: Span) {
        self.net.cut(from, to);
        self.undo_after(lasts, Undo::Join { from, to });
    }

    /// What a probe saw is taken from the queue and not used yet; Redis is started anew meanwhile.
    pub(super) fn stall_at_look(
        &mut self,
        host: Endpoint,
        now: Now,
        input: Input,
    ) -> Option<Input> {
        let replica = match &input {
            Input::Observed { group, result: Ok(o), .. } if !o.is_master() => {
                self.group_index(group)
            }
            _ => None,
        };
        let (Some(group), Some(p)) = (replica, self.hosts[host].process.as_mut()) else {
            return Some(input);
        };
        let Some(stall) = p.stop_at_look.take().filter(|s| self.now < s.until) else {
            return Some(input);
        };
        p.held = Some((now, input));
        self.coverage.met("stopped between look and use");
        self.moment(FaultKind::StalledLook, Some(host));
        self.freeze_supervisor(host, stall.lasts);
        if self.kill_redis(host, group) {
            let delay = Span(self.dice.faults.range(5_000_000, 30_000_000));
            self.after(delay, Event::RedisStart { host, group, keep: Keep::Most });
        }
        None
    }

    pub(super) fn stall_next_look(&mut self, host: Endpoint, lasts: Span) -> bool {
        let until = self.now.after(WAITS);
        let Some(p) = self.hosts[host].process.as_mut() else { return false };
        p.stop_at_look = Some(Stall { lasts, until });
        self.awaits(FaultKind::StalledLook, Some(host), WAITS);
        false
    }
}
