//! What the lock can refuse or fail at.

use crate::netlink::NetlinkError;
use crate::vip::LinkName;

/// Why an operation on the lock did not happen. Nothing of the operation was carried out.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// No netlink socket.
    #[error("cannot reach nf_tables")]
    Socket(#[source] NetlinkError),
    /// Another live process owns the tables (`NFT_TABLE_F_OWNER`).
    #[error("another process owns the lock's tables")]
    OwnedByAnother,
    /// The configured mark is 0, which the sockets of everybody have.
    #[error("the supervisor's mark must not be 0")]
    UnmarkedSupervisor,
    /// The grant's nonce is wrong, used, superseded or expired: this arming opens nothing any more.
    #[error("the grant names no arming that waits for it")]
    NotArmed,
    /// A newer start of the Redis closed its port again.
    #[error("a newer start of the Redis closed the port")]
    StartSuperseded,
    /// The lifetime leaves too little after the two ticks that the kernel's timer is set short.
    #[error("{ttl_ms} ms is too short for a lease on this kernel, at least {least_ms} ms it takes")]
    TtlTooShort {
        /// What was asked for.
        ttl_ms: u128,
        /// The shortest that is accepted.
        least_ms: u128,
    },
    /// The link of a VIP has no table, since the link was absent or the kernel lacks the egress hook.
    #[error("the lock does not cover link {0}")]
    LinkNotCovered(LinkName),
    /// The link does not exist now.
    #[error("link {0} does not exist")]
    LinkAbsent(LinkName),
    /// The kernel has no egress hook for link tables (before 5.16, or `CONFIG_NETFILTER_EGRESS=n`).
    #[error("the kernel has no egress hook for link {0}")]
    EgressUnsupported(LinkName),
    /// The lock's tables are gone or not as installed; see `KernelLock::mend`.
    #[error("the lock's tables are not there")]
    Missing,
    /// Tables could not be created.
    #[error("cannot install the lock's tables")]
    Install(#[source] NetlinkError),
    /// A change of the guarded set was refused.
    #[error("cannot change what the lock guards")]
    Guard(#[source] NetlinkError),
    /// An arming was refused.
    #[error("cannot arm the lock")]
    Arm(#[source] NetlinkError),
    /// An opening was refused for another reason than its nonce.
    #[error("cannot open the lock")]
    Open(#[source] NetlinkError),
    /// A closing was refused: the lease has to run out.
    #[error("cannot close the lock")]
    Close(#[source] NetlinkError),
    /// A replica's element was refused.
    #[error("cannot change a replica's permission")]
    Replica(#[source] NetlinkError),
    /// The sets could not be read.
    #[error("cannot read the lock")]
    Read(#[source] NetlinkError),
}

/// Sorts a refusal: lost ownership and lost tables have names of their own.
pub(super) fn refused(wrap: fn(NetlinkError) -> LockError) -> impl Fn(NetlinkError) -> LockError {
    move |error| match error.errno() {
        Some(libc::EPERM) => LockError::OwnedByAnother,
        Some(libc::ENOENT) => LockError::Missing,
        _ => wrap(error),
    }
}
