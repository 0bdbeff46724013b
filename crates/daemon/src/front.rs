//! What the operators' side sees of the driver: the last published status and history, the stream of events, and a way
//! to put a request and get its reply. Nothing here reaches into the core.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redkeep_agent::quarantine::Store;
use redkeep_core::{
    AdminReply, AdminRequest, Event, Input, Mono, RequestId, model::Record, status::StatusView,
};
use tokio::sync::{broadcast, oneshot, watch};

use crate::{
    admin::port::{AdminPort, Kept, StampedEvent},
    clock,
    inbox::Inbox,
};

/// Events a slow subscriber may be behind.
const EVENTS_MAX: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Front {
    inbox: Inbox,
    status: watch::Sender<Arc<StatusView>>,
    history: Mutex<Arc<Vec<Record>>>,
    events: broadcast::Sender<Arc<StampedEvent>>,
    /// CLOCK_BOOTTIME at which the leader was last heard, nanoseconds; 0 = never, or this node leads.
    leader_heard: AtomicU64,
    requests: Mutex<BTreeMap<RequestId, oneshot::Sender<AdminReply>>>,
    next: AtomicU64,
    kept: Arc<Store>,
}

impl Front {
    pub(crate) fn new(inbox: Inbox, status: StatusView, kept: Arc<Store>) -> Self {
        Self {
            inbox,
            status: watch::Sender::new(Arc::new(status)),
            history: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            leader_heard: AtomicU64::new(0),
            requests: Mutex::default(),
            next: AtomicU64::new(1),
            kept,
        }
    }

    pub(crate) fn publish(&self, status: StatusView, leader_heard: Option<Mono>) {
        self.leader_heard.store(leader_heard.map_or(0, |at| at.0), Ordering::Relaxed);
        self.status.send_replace(Arc::new(status));
    }

    pub(crate) fn publish_history(&self, history: Vec<Record>) {
        *self.history.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(history);
    }

    pub(crate) fn tell(&self, event: Event) {
        let (mono_ns, unix_us) = (clock::monotonic_ns(), clock::unix_us());
        // Nobody subscribed is no error.
        let _ = self.events.send(Arc::new(StampedEvent { mono_ns, unix_us, event }));
    }

    pub(crate) fn reply(&self, id: RequestId, reply: AdminReply) {
        let waiting = self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(waiting) = waiting {
            // The asker may have gone.
            let _ = waiting.send(reply);
        }
    }

    /// The status as last published.
    pub(crate) fn status(&self) -> Arc<StatusView> {
        Arc::clone(&self.status.borrow())
    }

    /// Put a request to the core of this node and wait for the outcome, at most for `limit`.
    pub(crate) async fn ask(&self, request: AdminRequest, limit: Duration) -> AdminReply {
        let id = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, reply) = oneshot::channel();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.inbox.answer(Input::Admin { id, request });
        let outcome = tokio::time::timeout(limit, reply).await;
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        match outcome {
            Ok(Ok(reply)) => reply,
            Ok(Err(_gone)) => AdminReply::Unknown { text: "the supervisor is stopping".to_owned() },
            Err(_elapsed) => {
                AdminReply::Unknown { text: format!("no outcome within {} ms", limit.as_millis()) }
            }
        }
    }
}

impl AdminPort for Front {
    fn status(&self) -> watch::Receiver<Arc<StatusView>> {
        self.status.subscribe()
    }

    fn history(&self) -> Arc<Vec<Record>> {
        Arc::clone(&self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn leader_heard_ago(&self) -> Option<Duration> {
        let at = self.leader_heard.load(Ordering::Relaxed);
        (at != 0).then(|| Duration::from_nanos(clock::boot().0.saturating_sub(at)))
    }

    fn kept(&self) -> std::io::Result<Kept> {
        Ok(Kept { settings: self.kept.settings().clone(), entries: self.kept.entries()? })
    }

    async fn submit(&self, request: AdminRequest, limit: Duration) -> AdminReply {
        self.ask(request, limit).await
    }

    fn events(&self) -> broadcast::Receiver<Arc<StampedEvent>> {
        self.events.subscribe()
    }
}
