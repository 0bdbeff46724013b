//! How a starting Redis finds its port closed, whatever state the supervisor is in.
//!
//! The drop-in of the Redis unit (`ExecStartPre=+`) calls [`close_ports`] before each start. It cannot
//! write to the main table, which a supervisor may own, even one that is frozen. So a second table that
//! nobody owns, `inet redkeep_start`, stands before the main one: a port in its set `closed` is
//! rejected, and its answers dropped, whatever leases say. Only the supervisor's own connections pass.
//!
//! The supervisor lifts this with [`KernelLock::admit_start`] once it watches the new process: one
//! transaction closes the port in the main table and redeems the start's token. So a port opens again by
//! an arming and a grant made after that, never by what an earlier process was granted. A token of an
//! earlier start lifts nothing.
//!
//! A foreign flush removes this table, since it is plain, until [`KernelLock::mend_start`]; meanwhile the
//! main table alone counts, and a lease that was live before the restart counts to its end.

use std::time::Duration;

use netlink_packet_netfilter::nftables::TableFlags;
use rustix::time::{ClockId, clock_gettime};

use super::error::refused;
use super::layout::{TableSpec, parse_token_key, port_key, start_set, start_table, token_key};
use super::{GuardedPort, KernelLock, LockConfig, LockError, read};
use crate::netlink::NetlinkError;
use crate::netlink::nft::{Add, Batch, Lifetime, Tables};
use crate::vip::Vip;

/// A start that closed its port and waits for the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StartNotice {
    /// The closed port.
    pub port: u16,
    /// CLOCK_BOOTTIME of the closing, in nanoseconds; also the token. The process that it is about was
    /// started after it (`/proc/PID/stat`, field 22).
    pub closed_at_ns: u64,
}

/// How often a drop-in tries again when two of them write the same port at once.
const ATTEMPTS: usize = 8;

/// Closes ports before their Redis starts. Needs no supervisor and waits for none.
///
/// # Errors
/// When the kernel refuses. Then Redis must not be started.
pub fn close_ports(config: &LockConfig, ports: &[u16]) -> Result<(), LockError> {
    let mut tables = Tables::open().map_err(LockError::Socket)?;
    let table = start_table(config);
    let mut ensure = Batch::default();
    table.ensure(&mut ensure, TableFlags::empty());
    tables.commit(&ensure).map_err(refused(LockError::Install))?;
    let mut last = LockError::Missing;
    for _ in 0..ATTEMPTS {
        match put_starts(&mut tables, &table, ports) {
            Ok(()) => return Ok(()),
            // Another start, or the supervisor, took an old token away in between.
            Err(error) if error.errno() == Some(libc::ENOENT) => last = LockError::Close(error),
            Err(error) => return Err(LockError::Close(error)),
        }
    }
    Err(last)
}

/// Puts new tokens in the place of the ports' old ones, and the ports into `closed`.
fn put_starts(tables: &mut Tables, table: &TableSpec, ports: &[u16]) -> Result<(), NetlinkError> {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let now = Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default());
    let token = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let starts = table.set(start_set::STARTS);
    let old: Vec<_> = read::elements(tables, starts)?
        .into_iter()
        .filter(|element| {
            parse_token_key(&element.key).is_some_and(|(port, _)| ports.contains(&port))
        })
        .map(|element| element.key)
        .collect();
    let fresh: Vec<_> = ports.iter().map(|port| token_key(*port, token)).collect();
    let keys: Vec<_> = ports.iter().map(|port| port_key(*port)).collect();
    let mut batch = Batch::default();
    batch.delete(starts, &old);
    batch.add(starts, &fresh, Add::Keep);
    batch.add(table.set(start_set::CLOSED), &keys, Add::Keep);
    tables.commit(&batch)
}

impl KernelLock {
    /// The starts that wait for [`KernelLock::admit_start`].
    ///
    /// # Errors
    /// When the kernel cannot list them.
    pub fn starts(&mut self) -> Result<Vec<StartNotice>, LockError> {
        let starts = self.start.set(start_set::STARTS);
        let found = read::elements(&mut self.tables, starts).map_err(refused(LockError::Read))?;
        let notice = |key: &[u8]| {
            parse_token_key(key).map(|(port, closed_at_ns)| StartNotice { port, closed_at_ns })
        };
        self.pending_starts = found.iter().filter_map(|element| notice(&element.key)).collect();
        Ok(self.pending_starts.clone())
    }

    /// Puts the starts that were last read into an empty start table.
    pub(super) fn add_starts(&self, batch: &mut Batch) {
        let tokens: Vec<_> = self
            .pending_starts
            .iter()
            .map(|start| token_key(start.port, start.closed_at_ns))
            .collect();
        let ports: Vec<_> = self.pending_starts.iter().map(|start| port_key(start.port)).collect();
        batch.add(self.start.set(start_set::STARTS), &tokens, Add::Keep);
        batch.add(self.start.set(start_set::CLOSED), &ports, Add::Keep);
    }

    /// Lifts a start's closing: the port is closed in the main table instead, until armed and granted.
    ///
    /// Call it only when the process that started is being watched, so that a lease cannot be about the
    /// one before.
    ///
    /// # Errors
    /// [`LockError::StartSuperseded`] when a newer start closed the port; nothing was changed then.
    pub fn admit_start(&mut self, start: StartNotice, vip: Option<&Vip>) -> Result<(), LockError> {
        let item = GuardedPort { port: start.port, vip: vip.cloned() };
        let mut batch = Batch::default();
        let token = token_key(start.port, start.closed_at_ns);
        batch.delete(self.start.set(start_set::STARTS), &[token]);
        let closed = self.start.set(start_set::CLOSED);
        batch.take_out(closed, &[port_key(start.port)], Lifetime::Lasting);
        self.add_guarded(&mut batch, &[(start.port, vip)])?;
        self.add_closing_ports(&mut batch, std::slice::from_ref(&item));
        self.add_closing_vips(&mut batch, std::slice::from_ref(&item));
        self.tables.commit(&batch).map_err(|error| {
            match (error.errno(), error.refused_index()) {
                (Some(libc::ENOENT), Some(0)) => LockError::StartSuperseded,
                _ => refused(LockError::Close)(error),
            }
        })?;
        self.remember_guarded(&[(start.port, vip)]);
        self.pending_starts.retain(|pending| *pending != start);
        Ok(())
    }
}
