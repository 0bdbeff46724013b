//! Creating and adopting the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_netfilter::nftables::{
    NfTablesMessage, TableAttribute, TableFlags, TableMessage,
};

use super::error::refused;
use super::layout::{
    IpVersion, TableSpec, link_table, main_set, main_table, port_key, start_table,
};
use super::mend::Structure;
use super::read::{self, FoundTable};
use super::{KernelLock, LockConfig, LockError, Ownership};
use crate::netlink::NetlinkError;
use crate::netlink::nft::{Add, Batch, Family, Tables};
use crate::vip::LinkName;

impl Ownership {
    fn flags(self) -> TableFlags {
        match self {
            // Owner alone would remove the table with the process: fail open.
            Self::Owned => TableFlags::Owner | TableFlags::Persisent,
            Self::Plain => TableFlags::empty(),
        }
    }

    /// Whether a table can become ours as it is: a plain one never becomes owned, nor the reverse.
    ///
    /// The kernel lists a table whose owner is gone with persist alone.
    fn can_adopt(self, table: &FoundTable) -> bool {
        match self {
            Self::Owned => table.flags.contains(TableFlags::Persisent),
            Self::Plain => table.flags.is_empty(),
        }
    }
}

impl KernelLock {
    /// Opens the lock: adopts the tables that are there, creates those that are missing, closed.
    ///
    /// Adopting keeps timers, gates and what is guarded, puts the present rules in place of the old ones
    /// in one transaction, and voids all nonces: a predecessor that wakes up opens nothing. A link that
    /// is absent is left out; see [`KernelLock::ensure_link`].
    ///
    /// # Errors
    /// [`LockError::OwnedByAnother`] while another process owns the tables; else when the kernel refuses.
    pub fn open(config: LockConfig) -> Result<Self, LockError> {
        let mut tables = Tables::open().map_err(LockError::Socket)?;
        let ownership = probe_ownership(&mut tables)?;
        Self::take(tables, ownership, config)
    }

    /// As [`KernelLock::open`], with tables that anybody may change: what kernels before 6.9 have.
    ///
    /// For hosts whose own tools have to flush or edit all tables, and to test the mending.
    ///
    /// # Errors
    /// As [`KernelLock::open`].
    pub fn open_plain(config: LockConfig) -> Result<Self, LockError> {
        let tables = Tables::open().map_err(LockError::Socket)?;
        Self::take(tables, Ownership::Plain, config)
    }

    fn take(tables: Tables, ownership: Ownership, config: LockConfig) -> Result<Self, LockError> {
        if config.mark == 0 {
            return Err(LockError::UnmarkedSupervisor);
        }
        let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
        let tick = Duration::new(
            u64::try_from(tick.tv_sec).unwrap_or_default(),
            u32::try_from(tick.tv_nsec).unwrap_or_default(),
        );
        let mut lock = Self {
            tables,
            ownership,
            adopted: false,
            tick,
            main: main_table(&config),
            start: start_table(&config),
            config,
            links: BTreeMap::new(),
            guarded: BTreeSet::new(),
            guarded_vips: BTreeMap::new(),
            asked: Vec::new(),
            pending_starts: Vec::new(),
            installed: Structure::default(),
        };
        lock.take_main()?;
        lock.ensure_start()?;
        for link in lock.config.links.clone() {
            lock.take_link(&link).or_else(without_link)?;
        }
        lock.guarded = lock.read_guarded()?;
        lock.read_vips()?;
        // Should somebody remove that table: they are put back.
        lock.starts()?;
        lock.note_installed()?;
        Ok(lock)
    }

    /// Covers a link that appeared, or was created anew: the kernel drops a link's hook with the link.
    ///
    /// What was guarded on it is guarded again. Timers and gates stay where the table outlived the link;
    /// else its VIPs are closed until the next arming and grant.
    ///
    /// # Errors
    /// [`LockError::LinkAbsent`], [`LockError::EgressUnsupported`], or when the kernel refuses.
    pub fn ensure_link(&mut self, link: &LinkName) -> Result<(), LockError> {
        if !self.config.links.contains(link) {
            self.config.links.push(link.clone());
        }
        self.take_link(link)?;
        self.read_vips()?;
        let table = link_table(link);
        let mut batch = Batch::default();
        add_vips(&mut batch, &table, self.guarded_vips.get(link));
        self.tables.commit(&batch).map_err(refused(LockError::Guard))?;
        self.note_installed()
    }

    /// Adopts or creates the main table.
    fn take_main(&mut self) -> Result<(), LockError> {
        let found = read::tables(&mut self.tables).map_err(LockError::Read)?;
        let flags = self.ownership.flags();
        let present = found.iter().find(|table| table.is(&self.main));
        if let Some(table) = present
            && self.ownership.can_adopt(table)
        {
            match self.adopt_main(flags) {
                Ok(()) => {
                    self.adopted = true;
                    return Ok(());
                }
                Err(LockError::Install(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a foreign table is replaced"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        let mut ports: BTreeSet<u16> = self.config.closed_ports.iter().copied().collect();
        if present.is_some() {
            // A table of that name without our sets has nothing to take over.
            ports.extend(self.read_guarded().unwrap_or_default());
        }
        let batch = self.fresh_main(&found, ports.into_iter());
        self.tables.commit(&batch).map_err(refused(LockError::Install))
    }

    fn adopt_main(&mut self, flags: TableFlags) -> Result<(), LockError> {
        let mut batch = Batch::default();
        self.main.ensure(&mut batch, flags);
        batch.flush(self.main.set(main_set::ASK));
        self.tables.commit(&batch).map_err(|error| match error.errno() {
            Some(libc::EPERM) => LockError::OwnedByAnother,
            _ => LockError::Install(error),
        })
    }

    /// The batch that makes the main table anew with these ports closed.
    pub(super) fn fresh_main(
        &self,
        found: &[FoundTable],
        ports: impl Iterator<Item = u16>,
    ) -> Batch {
        let mut batch = Batch::default();
        let present = found.iter().any(|table| table.is(&self.main));
        self.main.replace(&mut batch, present, self.ownership.flags());
        let ports: Vec<_> = ports.map(port_key).collect();
        batch.add(self.main.set(main_set::GUARDED), &ports, Add::Keep);
        batch
    }

    /// The start table belongs to nobody, so that a starting Redis can close itself.
    fn ensure_start(&mut self) -> Result<(), LockError> {
        let mut batch = Batch::default();
        self.start.ensure(&mut batch, TableFlags::empty());
        self.tables.commit(&batch).map_err(refused(LockError::Install))
    }

    /// Adopts or creates a link's table.
    fn take_link(&mut self, link: &LinkName) -> Result<(), LockError> {
        let found = read::tables(&mut self.tables).map_err(LockError::Read)?;
        let table = link_table(link);
        let flags = self.ownership.flags();
        if found.iter().any(|found| found.is(&table) && self.ownership.can_adopt(found)) {
            let mut batch = Batch::default();
            table.ensure(&mut batch, flags);
            match self.tables.commit(&batch) {
                Ok(()) => {
                    self.links.insert(link.clone(), table);
                    return Ok(());
                }
                Err(error) => match link_refused(link, error) {
                    LockError::LinkAbsent(link) => {
                        self.links.remove(&link);
                        return Err(LockError::LinkAbsent(link));
                    }
                    LockError::Install(error) => {
                        tracing::warn!(%link, error = &error as &dyn std::error::Error, "a foreign table is replaced");
                    }
                    other => return Err(other),
                },
            }
        }
        self.replace_link(link, &found)
    }

    pub(super) fn replace_link(
        &mut self,
        link: &LinkName,
        found: &[FoundTable],
    ) -> Result<(), LockError> {
        let table = link_table(link);
        let mut batch = Batch::default();
        let present = found.iter().any(|found| found.is(&table));
        table.replace(&mut batch, present, self.ownership.flags());
        add_vips(&mut batch, &table, self.guarded_vips.get(link));
        self.links.remove(link);
        self.tables.commit(&batch).map_err(|error| link_refused(link, error))?;
        self.links.insert(link.clone(), table);
        Ok(())
    }

    /// Learns from the kernel which VIPs are guarded, beside those that are known to be.
    fn read_vips(&mut self) -> Result<(), LockError> {
        for (link, table) in &self.links {
            let addresses = self.guarded_vips.entry(link.clone()).or_default();
            for version in IpVersion::BOTH {
                let keys = read::elements(&mut self.tables, table.set(version.guarded()))
                    .map_err(refused(LockError::Read))?;
                addresses.extend(keys.iter().filter_map(|element| read::address(&element.key)));
            }
        }
        Ok(())
    }

    pub(super) fn read_guarded(&mut self) -> Result<BTreeSet<u16>, LockError> {
        let guarded = self.main.set(main_set::GUARDED);
        read::ports(&mut self.tables, guarded).map_err(refused(LockError::Read))
    }
}

fn add_vips(batch: &mut Batch, table: &TableSpec, vips: Option<&BTreeSet<IpAddr>>) {
    for address in vips.into_iter().flatten() {
        let (version, key) = match address {
            IpAddr::V4(address) => (IpVersion::V4, address.octets().to_vec()),
            IpAddr::V6(address) => (IpVersion::V6, address.octets().to_vec()),
        };
        batch.add(table.set(version.guarded()), &[key], Add::Keep);
    }
}

/// An absent link is waited for; the ports are locked without it.
pub(super) fn without_link(error: LockError) -> Result<(), LockError> {
    match error {
        LockError::LinkAbsent(link) => {
            tracing::info!(%link, "the lock waits for a link");
            Ok(())
        }
        error => Err(error),
    }
}

/// Sorts the refusal of a link's table.
fn link_refused(link: &LinkName, error: NetlinkError) -> LockError {
    match error.errno() {
        Some(libc::EPERM) => LockError::OwnedByAnother,
        Some(libc::ENOENT | libc::ENODEV) => LockError::LinkAbsent(link.clone()),
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => LockError::EgressUnsupported(link.clone()),
        _ => LockError::Install(error),
    }
}

/// Makes and removes an owned table in one transaction: kernels without the flags refuse it.
fn probe_ownership(tables: &mut Tables) -> Result<Ownership, LockError> {
    let name = || TableAttribute::Name(format!("redkeep_probe_{}", tables.port_id()));
    let flags = TableAttribute::Flags(Ownership::Owned.flags());
    let mut batch = Batch::default();
    batch.new_table(Family::Inet, TableMessage { attributes: vec![name(), flags] });
    let delete = NfTablesMessage::DeleteTable(TableMessage { attributes: vec![name()] });
    batch.push(Family::Inet, delete, 0);
    match tables.commit(&batch) {
        Ok(()) => Ok(Ownership::Owned),
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(Ownership::Plain)
        }
        Err(error) => Err(LockError::Install(error)),
    }
}
