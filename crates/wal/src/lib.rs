//! The durable side of a node: Raft log, hard state, snapshot, and the epochs its fences burned.
//!
//! One redb file per data directory, one process per directory, one thread that owns the [`Wal`].
//! Whatever waits when the disk is free is one transaction with one fsync.
//!
//! Invariants:
//! - What was acknowledged (`Ok` from [`Wal::commit`]) survives a crash of the
//!   process and of the host, as far as the disk keeps what it has synced.
//! - After a failed write the [`Wal`] is poisoned: it acknowledges nothing any more. The process
//!   must end and recover from the file, because memory may be ahead of it.
//! - Damage is reported, never read: every record carries a version and a CRC-32C over its table,
//!   key and content; redb verifies the checksum of every page at each open.
//! - A data directory belongs to one node of one cluster, for ever. It has a random id of its own,
//!   so that peers can tell a node that came back from one that lost its directory.
//! - Burned epochs only rise.
//!
//! Limit, by design of a one-fsync commit: if the host loses power *and* a byte of the very last
//! transaction rots, that transaction looks like one that was never finished and is rolled back.
//!
//! Deliberately absent: reading entries at run time (consensus keeps its log in memory),
//! encryption, and more than one group of tables per file.

mod disk;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod open;
mod record;
mod tables;
mod wal;

pub use disk::Disk;
pub use open::{Damage, Identity, OpenError, State};
pub use record::RecordError;
pub use wal::{PersistError, Wal, Write};

#[cfg(test)]
mod tests;
