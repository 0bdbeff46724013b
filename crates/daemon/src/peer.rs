//! Supervisor to supervisor, over tonic.
//!
//! Each node opens one stream to each other one and writes its messages there; what comes back is acknowledgements, and
//! those only where no envelope of the other direction could carry them in time ([`receipt`]). So a cut, one-way or both,
//! shows on the streams that cross it. Tasks: one [`client`] per peer, which connects again for ever, and
//! the [`server`]. Both run on the driver's thread; the core meets them through [`outbox`] and the inbox only.
//!
//! Invariants: a healed path is used again within one lease (an unacknowledged envelope abandons its connection, and
//! each attempt is a fresh socket, so TCP's back-off never counts); `PeerDied` is said only when a stream ended by
//! itself and a fresh connection was then refused; the newest stream of a peer wins. Deliberately absent: names to look
//! up, delivery guarantees, and any meaning of a message.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use redkeep_core::{NodeId, Span, message::PeerMessage, spec::NodeSpec};
use tokio::{runtime::Handle, time::Instant};

use crate::{inbox::Inbox, tls::TlsFiles};

mod client;
pub(crate) mod codec;
pub(crate) mod identity;
mod outbox;
mod receipt;
pub(crate) mod server;

pub(crate) use outbox::Outbox;
use receipt::Receipt;
pub(crate) use receipt::Receipts;

/// Version of the envelope; a peer that speaks another is refused.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// What both sides must know of this node.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    /// None = plain text.
    pub(crate) tls: Option<Arc<TlsFiles>>,
    pub(crate) lease_ttl: Span,
    /// Shared by the streams of both directions.
    pub(crate) receipts: Arc<Receipts>,
}

/// How long an envelope may stay unacknowledged, and a connection attempt may take: a third of the lease, so that
/// finding a dead connection and replacing it fits into one.
pub(crate) fn patience(lease_ttl: Span) -> std::time::Duration {
    std::time::Duration::from_nanos((lease_ttl.0 / 3).max(60_000_000))
}

/// How long a heartbeat may wait for a grant to the same peer: a round trip between hosts and their work on it.
const HOLD: std::time::Duration = std::time::Duration::from_millis(2);

/// The links to all peers.
#[derive(Debug)]
pub(crate) struct Links {
    local: Local,
    runtime: Handle,
    inbox: Inbox,
    links: BTreeMap<NodeId, Link>,
}

#[derive(Debug)]
struct Link {
    peer: SocketAddr,
    outbox: Arc<Outbox>,
    receipt: Arc<Receipt>,
    /// Something was put that has not left.
    waiting: bool,
    /// The peer asked for a renewal and was not sent anything since.
    asked: bool,
    /// Until when what waits may wait for the grant.
    held: Option<Instant>,
    task: tokio::task::JoinHandle<()>,
}

impl Link {
    /// The round that a renewal began goes to its asker with the grant, in one envelope: the others confirm the round
    /// meanwhile. Where they do not, the asker must, and is sent it after [`HOLD`].
    fn flush(&mut self) {
        if self.asked && self.outbox.is_only_heartbeat() {
            self.held.get_or_insert_with(|| Instant::now() + HOLD);
        } else {
            self.leave();
        }
    }

    fn leave(&mut self) {
        (self.waiting, self.asked, self.held) = (false, false, None);
        self.outbox.flush();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    pub(crate) fn new(local: Local, runtime: Handle, inbox: Inbox) -> Self {
        Self { local, runtime, inbox, links: BTreeMap::new() }
    }

    /// Make the links those to `nodes`, this one left out. Links that stay are not disturbed.
    pub(crate) fn set_peers(&mut self, nodes: &[NodeSpec]) {
        let local = self.local.node;
        let wanted = |id: NodeId| nodes.iter().find(|n| n.id == id && id != local);
        self.links.retain(|id, link| wanted(*id).is_some_and(|n| n.peer == link.peer));
        for node in nodes.iter().filter(|n| n.id != local) {
            if !self.links.contains_key(&node.id) {
                let outbox = Arc::new(Outbox::default());
                let run = client::run(
                    self.local.clone(),
                    node.clone(),
                    Arc::clone(&outbox),
                    self.inbox.clone(),
                );
                let receipt = self.local.receipts.of(node.id);
                let task = self.runtime.spawn(run);
                let link = Link {
                    peer: node.peer,
                    outbox,
                    receipt,
                    waiting: false,
                    asked: false,
                    held: None,
                    task,
                };
                self.links.insert(node.id, link);
            }
        }
    }

    /// Never waits; leaves with [`Self::flush`]. A message to a node that is no peer (any more) is dropped.
    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage) {
        if let Some(link) = self.links.get_mut(&to) {
            link.outbox.put(message);
            link.waiting = true;
        }
    }

    /// A renewal came from `peer`.
    pub(crate) fn asked(&mut self, peer: NodeId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.asked = true;
        }
    }

    /// Let everything that was sent leave, one envelope a peer.
    pub(crate) fn flush(&mut self) {
        for link in self.links.values_mut().filter(|l| l.waiting) {
            link.flush();
        }
    }

    /// Let leave what waited too long for a grant, and give up the streams whose envelopes stayed unacknowledged for too
    /// long. How long until the next look.
    ///
    /// The driver looks whenever it is awake: a timer at each stream would wake this node for little else.
    pub(crate) fn look(&mut self) -> Option<Span> {
        let (now, patience) = (Instant::now(), patience(self.local.lease_ttl));
        let left = |link: &mut Link| {
            if link.held.is_some_and(|until| until <= now) {
                link.leave();
            }
            let due = [link.receipt.look(patience, now), link.held].into_iter().flatten().min()?;
            u64::try_from(due.saturating_duration_since(now).as_nanos()).ok()
        };
        self.links.values_mut().filter_map(left).min().map(Span)
    }
}

#[cfg(test)]
mod tests;
