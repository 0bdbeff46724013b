//! What was sent to each peer and not acknowledged, and what came from it and is not acknowledged yet.
//!
//! Most envelopes are answered within milliseconds by one of the other direction, so the acknowledgement rides on that one;
//! only what found no ride in time is told by a response of its own. Shared by a peer's client task and the server's reader
//! of that peer's stream. Invariant: a receipt counts only for the stream it names.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redkeep_core::NodeId;
use redkeep_proto::peer::v1 as wire;
use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

/// Both directions of every peer.
#[derive(Debug, Default)]
pub(crate) struct Receipts(Mutex<BTreeMap<NodeId, Arc<Receipt>>>);

impl Receipts {
    pub(super) fn of(&self, peer: NodeId) -> Arc<Receipt> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(peer).or_default())
    }
}

/// A name for a stream that no other stream has, not even one of an earlier life of this process.
pub(super) fn stream_name() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}

/// Both directions of one peer.
#[derive(Debug, Default)]
pub(super) struct Receipt {
    both: Mutex<Both>,
    silent: Notify,
    late: Notify,
}

#[derive(Debug, Default)]
struct Both {
    out: Flight,
    back: Arrived,
}

/// Envelopes that were sent and not acknowledged yet, oldest first.
#[derive(Debug, Default)]
struct Flight {
    stream: u64,
    waiting: VecDeque<(u64, Instant)>,
    /// One was not acknowledged in time.
    silent: bool,
}

/// Envelopes that arrived.
#[derive(Debug, Default)]
struct Arrived {
    stream: u64,
    seq: u64,
    /// Arrival of the oldest that was not acknowledged.
    untold: Option<Instant>,
    /// It found no ride in time, and the reader of the stream was told so.
    called: bool,
}

impl Receipt {
    fn lock(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream to the peer: what was sent on the one before is nobody's any more.
    pub(super) fn begin(&self, stream: u64) {
        self.lock().out = Flight { stream, ..Flight::default() };
    }

    /// A stream that was replaced meanwhile changes nothing.
    pub(super) fn sent(&self, stream: u64, seq: u64, now: Instant) {
        let out = &mut self.lock().out;
        if out.stream == stream && !out.silent {
            out.waiting.push_back((seq, now));
        }
    }

    /// The peer has `seq` and all before it.
    pub(super) fn acknowledged(&self, stream: u64, seq: u64) {
        let out = &mut self.lock().out;
        if out.stream == stream {
            while out.waiting.front().is_some_and(|(s, _)| *s <= seq) {
                out.waiting.pop_front();
            }
        }
    }

    /// When the oldest envelope left that is not acknowledged.
    #[cfg(test)]
    fn oldest(&self) -> Option<Instant> {
        self.lock().out.waiting.front().map(|(_, at)| *at)
    }

    /// Tell whoever waits in [`Self::silence`] when the oldest envelope is older than `patience` (once a stream), and whoever
    /// waits in [`Self::overdue`] when something arrived longer ago than [`delay`]. When to look again.
    pub(super) fn look(&self, patience: Duration, now: Instant) -> Option<Instant> {
        let Both { out, back } = &mut *self.lock();
        let mut oldest = out.waiting.front().map(|(_, at)| *at + patience);
        if oldest.is_some_and(|at| at <= now) {
            out.waiting.clear();
            out.silent = true;
            self.silent.notify_one();
            oldest = None;
        }
        let mut due = back.untold.filter(|_| !back.called).map(|at| at + delay(patience));
        if due.is_some_and(|at| at <= now) {
            back.called = true;
            self.late.notify_one();
            due = None;
        }
        [oldest, due].into_iter().flatten().min()
    }

    /// Until an envelope of `stream` was not acknowledged in time.
    pub(super) async fn silence(&self, stream: u64) {
        loop {
            {
                let out = &self.lock().out;
                if out.silent || out.stream != stream {
                    return;
                }
            }
            self.silent.notified().await;
        }
    }

    /// An envelope of the peer arrived.
    pub(super) fn arrived(&self, stream: u64, seq: u64, now: Instant) {
        let back = &mut self.lock().back;
        if back.stream != stream {
            *back = Arrived { stream, seq, ..Arrived::default() };
        }
        back.seq = seq;
        back.untold.get_or_insert(now);
    }

    /// What an envelope to the peer should acknowledge.
    pub(super) fn ride(&self) -> Option<wire::Receipt> {
        let back = &mut self.lock().back;
        back.take()?;
        Some(wire::Receipt { stream: back.stream, seq: back.seq })
    }

    /// What arrived on `stream` and was acknowledged by nothing yet.
    pub(super) fn untold(&self, stream: u64) -> Option<u64> {
        let back = &mut self.lock().back;
        (back.stream == stream).then(|| back.take())??;
        Some(back.seq)
    }

    /// Until something that arrived on `stream` found no ride in time; what is to be acknowledged.
    pub(super) async fn overdue(&self, stream: u64) -> u64 {
        loop {
            {
                let back = &mut self.lock().back;
                if back.stream == stream && back.called && back.take().is_some() {
                    return back.seq;
                }
            }
            self.late.notified().await;
        }
    }
}

impl Arrived {
    fn take(&mut self) -> Option<Instant> {
        self.called = false;
        self.untold.take()
    }
}

/// How long what arrived waits for a ride: longer than two heartbeats are apart; a third of the patience is left for the way back.
fn delay(patience: Duration) -> Duration {
    patience * 2 / 3
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(60);
    const DELAY: Duration = Duration::from_millis(40);

    #[test]
    fn what_rode_on_an_envelope_is_not_told_again() {
        let (receipt, start) = (Receipt::default(), Instant::now());
        receipt.arrived(7, 1, start);
        receipt.arrived(7, 2, start);
        assert_eq!(receipt.ride(), Some(wire::Receipt { stream: 7, seq: 2 }));
        assert_eq!((receipt.ride(), receipt.untold(7)), (None, None));
        assert_eq!(receipt.look(PATIENCE, start + DELAY), None);
        assert_eq!(receipt.overdue(7).now_or_never(), None);
    }

    #[test]
    fn what_found_no_ride_is_told_when_it_is_due() {
        let (receipt, start) = (Receipt::default(), Instant::now());
        receipt.arrived(7, 1, start);
        receipt.arrived(7, 2, start + DELAY / 2);
        let again = receipt.look(PATIENCE, start + DELAY / 2);
        assert_eq!(again, Some(start + DELAY), "the oldest counts");
        assert_eq!(receipt.overdue(7).now_or_never(), None);
        assert_eq!(receipt.look(PATIENCE, start + DELAY), None, "told once");
        assert_eq!(receipt.overdue(8).now_or_never(), None, "another stream");
        assert_eq!(receipt.overdue(7).now_or_never(), Some(2));
        assert_eq!(receipt.overdue(7).now_or_never(), None);
    }

    #[test]
    fn a_ride_that_comes_late_is_taken_all_the_same() {
        let (receipt, start) = (Receipt::default(), Instant::now());
        receipt.arrived(7, 1, start);
        receipt.look(PATIENCE, start + DELAY);
        assert_eq!(receipt.ride(), Some(wire::Receipt { stream: 7, seq: 1 }));
        assert_eq!(receipt.overdue(7).now_or_never(), None);
        receipt.arrived(7, 2, start + DELAY);
        assert_eq!(receipt.overdue(7).now_or_never(), None, "it is not due yet");
    }

    #[test]
    fn a_receipt_for_an_earlier_stream_acknowledges_nothing() {
        let (receipt, start) = (Receipt::default(), Instant::now());
        receipt.begin(1);
        receipt.sent(1, 1, start);
        receipt.begin(2);
        assert_eq!(receipt.oldest(), None);
        receipt.sent(1, 2, start);
        assert_eq!(receipt.oldest(), None, "the stream was replaced");
        receipt.sent(2, 1, start);
        receipt.acknowledged(1, 9);
        assert_eq!(receipt.oldest(), Some(start));
        receipt.acknowledged(2, 1);
        assert_eq!(receipt.oldest(), None);
    }

    #[test]
    fn silence_is_told_once_and_of_its_own_stream() {
        let (receipt, start) = (Receipt::default(), Instant::now());
        receipt.begin(1);
        receipt.sent(1, 1, start);
        receipt.look(PATIENCE, start + PATIENCE / 2);
        assert_eq!(receipt.silence(1).now_or_never(), None);
        receipt.look(PATIENCE, start + PATIENCE);
        assert_eq!(receipt.silence(1).now_or_never(), Some(()));
        receipt.sent(1, 2, start);
        assert_eq!(receipt.oldest(), None, "nobody waits for more of a stream that is given up");
        receipt.begin(2);
        assert_eq!(receipt.silence(2).now_or_never(), None, "another stream");
    }

    #[test]
    fn each_stream_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<u64> = (0..1000).map(|_| stream_name()).collect();
        assert_eq!((names.len(), names.contains(&0)), (1000, false));
    }
}
