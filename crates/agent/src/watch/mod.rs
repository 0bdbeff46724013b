//! What others do to this host's tables, addresses and links, as events.
//!
//! Two sources, a thread each: nf_tables notifications and rtnetlink. An event is a hint to look, not a
//! state: after [`HostEvent::Overrun`], and at start, list and compare. The own changes of the lock and
//! of the VIP table are left out where the kernel names their author; it does not for IPv6 addresses,
//! where additions carrying our `IFA_PROTO` are taken as own. Absent on purpose: mending; the owner of
//! the lock and of the VIPs does it.

mod network;
mod tables;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::netlink::{NetlinkError, Reading, Wire};
use crate::vip::{HeldAddress, LinkName};

/// Something that happened on this host, not by the own lock or VIP table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// A table of the lock was deleted: its ports may be open. Mend at once.
    LockLost {
        /// The table's name.
        table: String,
    },
    /// A rule, chain, set, element or flag of the lock was changed.
    LockChanged {
        /// The table's name.
        table: String,
    },
    /// A starting Redis closed its port; see `KernelLock::starts`.
    StartNoticed,
    /// An address came up.
    AddressAdded(HeldAddress),
    /// An address went: deleted by somebody, or expired.
    AddressRemoved(HeldAddress),
    /// A link was created, or created anew, or renamed: the lock has to cover it again.
    LinkAppeared(LinkName),
    /// A link is gone, with its addresses.
    LinkRemoved(LinkName),
    /// A link is up and has a carrier.
    LinkUp(LinkName),
    /// A link is down or lost its carrier. The kernel may have dropped its IPv6 addresses.
    LinkDown(LinkName),
    /// Notifications of this source were lost: list and compare everything.
    Overrun(Source),
    /// The source cannot be read any more and its thread ends.
    Ended(Source),
}

/// Where events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// nf_tables.
    Tables,
    /// Addresses and links.
    Network,
}

/// Why a watch could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The notifications could not be subscribed to.
    #[error("cannot subscribe to kernel notifications")]
    Subscribe(#[source] NetlinkError),
    /// The links could not be listed.
    #[error("cannot list links")]
    List(#[source] NetlinkError),
    /// No thread, or nothing to stop it by.
    #[error("cannot start a watching thread")]
    Start(#[source] io::Error),
}

/// A watching thread. It ends with this value.
#[derive(Debug)]
pub struct Watch {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// Renewals notify too, some hundred bytes each: this holds about a minute of them for a slow reader.
const RECEIVE_BUFFER: usize = 1 << 20;

impl Watch {
    /// Watches nf_tables. `own` is `KernelLock::port_id`. The sink is called on the watch's thread.
    ///
    /// # Errors
    /// When notifications cannot be subscribed to (`CAP_NET_ADMIN`).
    pub fn tables(
        own: u32,
        sink: impl FnMut(HostEvent) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let (wire, reader) = tables::subscribe(own)?;
        Self::spawn("watch-tables", wire, reader, sink)
    }

    /// Watches addresses and links. `own` is `VipTable::port_id`.
    ///
    /// The links that are there when it begins give no event.
    ///
    /// # Errors
    /// When notifications cannot be subscribed to, or links cannot be listed.
    pub fn network(
        own: u32,
        sink: impl FnMut(HostEvent) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let (wire, reader) = network::subscribe(own)?;
        Self::spawn("watch-network", wire, reader, sink)
    }

    fn spawn(
        name: &str,
        wire: Wire,
        reader: impl Reader,
        sink: impl FnMut(HostEvent) + Send + 'static,
    ) -> Result<Self, WatchError> {
        wire.grow_receive_buffer(RECEIVE_BUFFER);
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| WatchError::Start(error.into()))?;
        let stopped = stop.try_clone().map_err(WatchError::Start)?;
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(wire, &stopped, reader, sink))
            .map_err(WatchError::Start)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An eventfd takes the number 1 unless it is full, which stops the thread as well.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Turns one source's notifications into events.
trait Reader: Send + 'static {
    const SOURCE: Source;
    /// Reads what is waiting; false when nothing was.
    fn read(
        &mut self,
        wire: &mut Wire,
        sink: &mut dyn FnMut(HostEvent),
    ) -> Result<bool, NetlinkError>;
}

fn run<R: Reader>(
    mut wire: Wire,
    stopped: &OwnedFd,
    mut reader: R,
    mut sink: impl FnMut(HostEvent),
) {
    loop {
        let ready = {
            let mut fds = [
                PollFd::from_borrowed_fd(wire.as_fd(), PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => !fds[1].revents().contains(PollFlags::IN),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
            }
        };
        if !ready {
            return;
        }
        loop {
            match reader.read(&mut wire, &mut sink) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a watch ended");
                    sink(HostEvent::Ended(R::SOURCE));
                    return;
                }
            }
        }
    }
    sink(HostEvent::Ended(R::SOURCE));
}

/// Hands events on, without one that repeats the one before: a flush names a table many times.
fn deliver(events: Vec<HostEvent>, sink: &mut dyn FnMut(HostEvent)) {
    let mut last = None;
    for event in events {
        if last.as_ref() != Some(&event) {
            sink(event.clone());
            last = Some(event);
        }
    }
}
