//! What waits for one peer.
//!
//! Heartbeats and reports stand alone, so only the latest of each is kept; all else queues in order and the oldest
//! falls out when the peer does not take it: Raft sends again, and a late renewal or grant is worth nothing.

use std::{collections::VecDeque, sync::Mutex};

use redkeep_core::message::{PeerMessage, RaftClass};
use tokio::sync::Notify;

/// Messages that may wait for one peer.
const QUEUE_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    heartbeat: Option<PeerMessage>,
    report: Option<PeerMessage>,
    queue: VecDeque<PeerMessage>,
}

impl Outbox {
    pub(crate) fn put(&self, message: PeerMessage) {
        let mut waiting = lock(&self.waiting);
        match &message {
            PeerMessage::Raft { class: RaftClass::Heartbeat, .. } => {
                waiting.heartbeat = Some(message);
            }
            PeerMessage::Report(_) => waiting.report = Some(message),
            PeerMessage::Raft { class: RaftClass::Other, .. }
            | PeerMessage::Renew { .. }
            | PeerMessage::Grant(_)
            | PeerMessage::Reach(_)
            | PeerMessage::FenceRequest { .. }
            | PeerMessage::RelinkRequest { .. } => {
                if waiting.queue.len() == QUEUE_MAX {
                    waiting.queue.pop_front();
                }
                waiting.queue.push_back(message);
            }
        }
    }

    /// What was put may leave now: one envelope for all that one input led to.
    pub(crate) fn flush(&self) {
        self.wake.notify_one();
    }

    /// Nothing else waits.
    pub(super) fn is_only_heartbeat(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.heartbeat.is_some() && waiting.report.is_none() && waiting.queue.is_empty()
    }

    /// All that waits; empty = nothing.
    pub(super) fn take(&self) -> Vec<PeerMessage> {
        let mut waiting = lock(&self.waiting);
        let mut messages: Vec<PeerMessage> = waiting.queue.drain(..).collect();
        messages.extend(waiting.report.take());
        messages.extend(waiting.heartbeat.take());
        messages
    }

    /// Whoever waits is to look again.
    pub(super) fn wake_all(&self) {
        self.wake.notify_waiters();
    }

    /// Until something may wait.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }
}

/// A poisoned lock means a thread panicked inside; these sections cannot.
fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raft(n: u8, class: RaftClass) -> PeerMessage {
        PeerMessage::Raft { bytes: vec![n], class }
    }

    #[test]
    fn only_the_latest_heartbeat_is_kept_and_order_holds() {
        let outbox = Outbox::default();
        for n in 0..3 {
            outbox.put(raft(n, RaftClass::Heartbeat));
            outbox.put(raft(n + 10, RaftClass::Other));
        }
        let other = |n| raft(n, RaftClass::Other);
        assert_eq!(
            outbox.take(),
            vec![other(10), other(11), other(12), raft(2, RaftClass::Heartbeat)]
        );
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn a_full_queue_drops_its_oldest() {
        let outbox = Outbox::default();
        for n in 0..=QUEUE_MAX {
            outbox.put(PeerMessage::Raft {
                bytes: n.to_be_bytes().to_vec(),
                class: RaftClass::Other,
            });
        }
        let messages = outbox.take();
        assert_eq!(messages.len(), QUEUE_MAX);
        assert_eq!(
            messages[0],
            PeerMessage::Raft { bytes: 1_usize.to_be_bytes().to_vec(), class: RaftClass::Other }
        );
    }
}
