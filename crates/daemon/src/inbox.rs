//! The one queue into the core.
//!
//! All that happens to this node passes here, in order of arrival. Two kinds are told apart: *perishable* inputs (peers'
//! messages, probe results), which are dropped and counted when the core is behind, since the next one says the same;
//! and *answers* (persisted, lock, action done), of which there is at most one for each effect the core gave out, so
//! they need no bound of their own and are never dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use redkeep_core::{GroupId, Input, RunId, Span};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::executor::lock::LockHint;

/// Perishable inputs that may wait.
const PERISHABLE_MAX: usize = 4_096;

/// What the driver takes: an input of the core, or a wish of the daemon itself.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every post is an input: a box would be an allocation for each"
)]
pub(crate) enum Post {
    Input(Input),
    /// For the lock, from those who watch this host.
    Lock(LockHint),
    /// A write of the log took so long.
    Stalled(Span),
    /// End the driver after the queue before it is worked off.
    Stop,
}

#[derive(Debug, Default)]
struct Depth {
    perishable: AtomicUsize,
    dropped: AtomicU64,
}

/// The sending side; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    posts: UnboundedSender<(bool, Post)>,
    depth: Arc<Depth>,
}

/// The driver's side.
#[derive(Debug)]
pub(crate) struct Outlet {
    posts: UnboundedReceiver<(bool, Post)>,
    depth: Arc<Depth>,
}

pub(crate) fn inbox() -> (Inbox, Outlet) {
    let (sender, receiver) = unbounded_channel();
    let depth = Arc::new(Depth::default());
    (Inbox { posts: sender, depth: Arc::clone(&depth) }, Outlet { posts: receiver, depth })
}

impl Inbox {
    /// Never dropped. After the driver has ended nobody is left to care.
    pub(crate) fn answer(&self, input: Input) {
        let _ = self.posts.send((false, Post::Input(input)));
    }

    /// Dropped and counted when too many wait.
    pub(crate) fn offer(&self, input: Input) {
        if self.depth.perishable.fetch_add(1, Ordering::Relaxed) >= PERISHABLE_MAX {
            self.depth.perishable.fetch_sub(1, Ordering::Relaxed);
            self.depth.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let _ = self.posts.send((true, Post::Input(input)));
    }

    pub(crate) fn redis_died(&self, group: GroupId, run_id: Option<RunId>) {
        self.answer(Input::RedisDied { group, run_id });
    }

    pub(crate) fn hint(&self, hint: LockHint) {
        let _ = self.posts.send((false, Post::Lock(hint)));
    }

    pub(crate) fn stalled(&self, took: Span) {
        let _ = self.posts.send((false, Post::Stalled(took)));
    }

    pub(crate) fn stop(&self) {
        let _ = self.posts.send((false, Post::Stop));
    }

    /// Perishable inputs lost since this was last asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.depth.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Outlet {
    /// The next post; [`Post::Stop`] when all senders are gone. Dropped while it waits, it loses nothing.
    pub(crate) async fn take(&mut self) -> Post {
        let Some((perishable, post)) = self.posts.recv().await else { return Post::Stop };
        if perishable {
            self.depth.perishable.fetch_sub(1, Ordering::Relaxed);
        }
        post
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use redkeep_core::NodeId;

    use super::*;

    #[test]
    fn perishable_inputs_are_bounded_and_answers_are_not_dropped() {
        let (inbox, mut outlet) = inbox();
        for _ in 0..PERISHABLE_MAX + 10 {
            inbox.offer(Input::PeerDied { peer: NodeId(1) });
        }
        assert_eq!(inbox.take_dropped(), 10);
        for number in 0..10 {
            inbox.answer(Input::Persisted { number });
        }
        let (mut perishable, mut answers) = (0, 0);
        while let Some(post) = outlet.take().now_or_never() {
            match post {
                Post::Input(Input::Persisted { number }) => {
                    assert_eq!(number, answers);
                    answers += 1;
                }
                Post::Input(_) => perishable += 1,
                Post::Lock(_) | Post::Stalled(_) | Post::Stop => unreachable!(),
            }
        }
        assert_eq!((perishable, answers), (PERISHABLE_MAX, 10));
        inbox.offer(Input::PeerDied { peer: NodeId(1) });
        assert!(outlet.take().now_or_never().is_some(), "room again");
    }
}
