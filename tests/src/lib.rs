//! Hosts as network namespaces, with real Redis, real supervisors and writers that keep count.
//!
//! A [`Lab`] owns everything that was started in it; its drop, a panic, Ctrl-C and even
//! `kill -9` (by the next run's sweep) leave nothing behind. All instants are CLOCK_MONOTONIC,
//! which all namespaces share. Absent on purpose: any knowledge of how the supervisor works; it
//! is driven as an operator would, by its file, its signals and `redkeepctl`.

mod address_watch;
pub mod bench;
mod binaries;
mod capture;
mod cleanup;
mod disk;
mod expect;
mod figure;
mod host;
mod lab;
pub mod nemesis;
mod netns;
mod pair;
mod process;
mod redis;
mod resp;
pub mod stress;
mod supervisor;
mod switch;
mod tail;
mod tempo;
mod time;
mod timeline;
mod units;
mod verdict;
mod writer;

pub use address_watch::AddressWatch;
pub use binaries::{redkeepctl, redkeepd};
pub use capture::{
    Advertisement, Arp, Capture, Frame, Segment, advertisements, arp_packets, tcp_segments,
};
pub use cleanup::{before_exit_by_signal, namespaces_with, sweep};
pub use expect::{Assignment, redis_at};
pub use figure::{Figure, repetitions};
pub use host::Host;
pub use lab::{Builder, Lab};
pub use pair::{GROUP, Pair, VIP, VIP_V6};
pub use process::{Process, Usage, wait_until};
pub use redis::{DataSet, PASSWORD, PORT, Redis, RedisOptions, debug_allowed, wait_stream};
pub use resp::{Connection, Reply};
pub use supervisor::{
    ADMIN_PORT, ClusterFile, CtlOutcome, GroupBlock, PEER_PORT, Supervisor, ctl, ctl_with, status,
    tls_dir, wait_status,
};
pub use tempo::slowed;
pub use time::{Mono, WallOffset, parse_rfc3339_utc};
pub use timeline::{EventWatch, Moment, Timeline};
pub use units::{boot_units, drop_in};
pub use verdict::{LostWrite, Outcome, TwoMasters, Verdict};
pub use writer::{
    Ack, Directory, Failure, Record, Refusal, Standpoint, Writer, WriterKind, WriterSpec,
};
