//! What the operators' server needs of the driver, and nothing more.
//!
//! The driver implements it; tests implement it over prepared views.

use std::{future::Future, sync::Arc, time::Duration};

use redkeep_agent::quarantine::{Entry, Settings};
use redkeep_core::{AdminReply, AdminRequest, Event, model::Record, status::StatusView};
use tokio::sync::{broadcast, watch};

/// The driver as the operators' server sees it.
pub(crate) trait AdminPort: Send + Sync + 'static {
    /// The present view and its changes.
    fn status(&self) -> watch::Receiver<Arc<StatusView>>;
    /// The replicated history as applied here, oldest first.
    fn history(&self) -> Arc<Vec<Record>>;
    /// Since this node last heard the leader; none = never since it started, or it leads itself.
    fn leader_heard_ago(&self) -> Option<Duration>;
    /// What is kept aside on this host. It reads a directory, so it may block.
    fn kept(&self) -> std::io::Result<Kept>;
    /// Give a request to the core and wait for its outcome; `AdminReply::Unknown` when `limit` passes first.
    fn submit(
        &self,
        request: AdminRequest,
        limit: Duration,
    ) -> impl Future<Output = AdminReply> + Send;
    /// Events from now on. A reader that falls too far behind is told so by the channel.
    fn events(&self) -> broadcast::Receiver<Arc<StampedEvent>>;
}

/// The quarantine directory of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) settings: Settings,
    /// Oldest first.
    pub(crate) entries: Vec<Entry>,
}

/// An event of this node with the instant it was taken from the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StampedEvent {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub(crate) mono_ns: u64,
    /// Wall clock, microseconds since 1970; for display only.
    pub(crate) unix_us: u64,
    pub(crate) event: Event,
}
