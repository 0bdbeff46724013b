//! Foreign changes on this host, seen by the kernel's notifications and passed to whoever mends them.
//!
//! Two threads, of the agent. A hint leads to a look: the lock verifies its tables, the kernel thread compares
//! addresses, and the core hears what differs. Invariant: a lost notification leads to the same look.

use anyhow::Context as _;
use redkeep_agent::watch::{HostEvent as Seen, Source, Watch};
use redkeep_core::{HostEvent, Input};

use crate::{
    executor::{
        kernel::{KernelQueue, KernelWork},
        lock::{Lock, LockHint},
    },
    inbox::Inbox,
};

/// Both watches; they end with this value.
#[derive(Debug)]
pub(crate) struct Watching {
    _tables: Watch,
    _network: Watch,
}

/// # Errors
/// Notifications cannot be subscribed to (CAP_NET_ADMIN).
pub(crate) fn start(
    lock: &mut Lock,
    kernel: &KernelQueue,
    inbox: &Inbox,
) -> anyhow::Result<Watching> {
    let relay = Relay { kernel: kernel.clone(), inbox: inbox.clone() };
    let network = {
        let relay = relay.clone();
        Watch::network(kernel.port_id, move |event| relay.pass(event))
            .context("addresses cannot be watched")?
    };
    let tables = Watch::tables(lock.port_id(), move |event| relay.pass(event))
        .context("the lock's tables cannot be watched")?;
    // What changed before there was a watch.
    lock.follow(LockHint::ReadStarts);
    lock.follow(LockHint::Verify);
    Ok(Watching { _tables: tables, _network: network })
}

#[derive(Clone, Debug)]
struct Relay {
    kernel: KernelQueue,
    inbox: Inbox,
}

impl Relay {
    fn pass(&self, event: Seen) {
        match event {
            Seen::LockLost { table } | Seen::LockChanged { table } => {
                tracing::warn!(table, "somebody else changed the lock's tables");
                self.inbox.hint(LockHint::Verify);
            }
            // The start is admitted once its process is watched.
            Seen::StartNoticed => {
                tracing::info!("a starting Redis closed its port");
                self.inbox.hint(LockHint::ReadStarts);
            }
            Seen::AddressRemoved(held) => {
                self.kernel.put(KernelWork::AddressRemoved(held.vip.address));
            }
            Seen::AddressAdded(_) => self.kernel.put(KernelWork::Compare),
            Seen::LinkAppeared(link) => self.inbox.hint(LockHint::Link(link)),
            Seen::LinkUp(link) => {
                let interface = link.as_str().to_owned();
                self.inbox.answer(Input::Host(HostEvent::LinkUp { interface }));
            }
            Seen::LinkRemoved(link) | Seen::LinkDown(link) => {
                tracing::warn!(%link, "the link is down or gone");
                self.kernel.put(KernelWork::Compare);
            }
            Seen::Overrun(Source::Tables) => self.inbox.hint(LockHint::Verify),
            Seen::Overrun(Source::Network) => self.kernel.put(KernelWork::Compare),
            Seen::Ended(source) => {
                // Blind to a flush, an open port would stay open: better none than that.
                eprintln!(
                    "redkeepd: the watch of {source:?} ended; the process ends, its kernel fences this host"
                );
                std::process::abort();
            }
        }
    }
}
