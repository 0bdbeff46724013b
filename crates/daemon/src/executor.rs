//! Those who carry out what the core wants, each on its own thread or task, so that none waits for another; only the lock
//! works on the driver's.
//!
//! - [`disk`]: the log and burned epochs, in order; a failure ends the process.
//! - [`lock`]: the kernel's lease, strictly in order.
//! - [`kernel`]: addresses, announcements and sockets of this host, in order per host.
//! - [`look`]: the masters of other hosts, over the network, each look by itself.
//! - [`redis`]: per group, a probe task and a control task.
//!
//! The others take their work from a queue that the driver never waits for, and answer through the inbox.

pub(crate) mod disk;
pub(crate) mod kernel;
pub(crate) mod lock;
pub(crate) mod look;
pub(crate) mod redis;

use std::net::Ipv4Addr;

/// `SO_MARK` of the supervisor's own connections to Redis ("redk"): the lock lets them pass.
pub(crate) const MARK: u32 = 0x7265_646b;

/// Their source address; nobody else may use it.
pub(crate) const OWN_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 114, 107, 1);
