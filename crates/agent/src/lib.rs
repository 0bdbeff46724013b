//! Hands on the host: what the supervisor of one node does to Redis, to the kernel and to the network.
//!
//! Everything here acts on this host alone and decides nothing. The kernel side (`lock`, `vip`,
//! `announce`, `sockdiag`, `watch`) is synchronous: each object belongs to one thread of the daemon.
//! Types of the netlink crates stay inside; the daemon sees the types of this crate only.

pub mod announce;
pub mod lock;
pub mod process;
pub mod quarantine;
pub mod redis;
pub mod sockdiag;
pub mod sys;
pub mod vip;
pub mod watch;

mod netlink;

pub use netlink::NetlinkError;
