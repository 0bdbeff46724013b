//! Looking whether the tables are as installed, and mending them as gently as can be.
//!
//! Whatever could have let a packet through that should not have is mended closed: nothing of a lease is
//! put back from memory, which would lengthen it. The start table and a link's table are mended beside an
//! undisturbed main table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableFlags};

use super::adopt::without_link;
use super::error::refused;
use super::layout::IpVersion;
use super::{GuardedPort, KernelLock, LockError, LockHealth, read};
use crate::netlink::nft::Batch;
use crate::vip::LinkName;

/// The tables as the kernel lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Structure {
    main: Vec<NfTablesMessage>,
    links: BTreeMap<LinkName, Vec<NfTablesMessage>>,
    start: Vec<NfTablesMessage>,
}

/// How often a reinstallation is tried again when tables come and go meanwhile.
const ATTEMPTS: usize = 3;

impl KernelLock {
    /// Compares the tables with what was installed. The worst finding is named.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn verify(&mut self) -> Result<LockHealth, LockError> {
        let found = self.list_structure()?;
        if found.main.is_empty() {
            return Ok(LockHealth::Missing);
        }
        if found.main != self.installed.main || self.read_guarded()? != self.guarded {
            return Ok(LockHealth::Altered);
        }
        if found.links != self.installed.links || !self.vips_are_guarded()? {
            return Ok(LockHealth::LinkAltered);
        }
        if found.start != self.installed.start {
            return Ok(LockHealth::StartAltered);
        }
        Ok(LockHealth::Intact)
    }

    /// Looks, and mends what is found; what it was is returned.
    ///
    /// Only [`LockHealth::Missing`] and [`LockHealth::Altered`] close ports, those of `items`, as
    /// [`KernelLock::reinstall`] does. For the others leases go on as they were.
    ///
    /// # Errors
    /// When the tables cannot be listed or mended.
    pub fn mend(&mut self, items: &[GuardedPort]) -> Result<LockHealth, LockError> {
        let health = self.verify()?;
        match health {
            LockHealth::Intact => {}
            LockHealth::Missing | LockHealth::Altered => self.reinstall(items)?,
            LockHealth::LinkAltered => {
                for link in self.config.links.clone() {
                    self.ensure_link(&link).or_else(without_link)?;
                }
                self.mend_start()?;
            }
            LockHealth::StartAltered => self.mend_start()?,
        }
        Ok(health)
    }

    /// Puts the start table back without touching any lease, with the starts that were last read.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mend_start(&mut self) -> Result<(), LockError> {
        let found = read::tables(&mut self.tables).map_err(LockError::Read)?;
        let mut batch = Batch::default();
        let present = found.iter().any(|table| table.is(&self.start));
        // Where its sets are there, they know better than this memory which starts there were.
        if present && self.starts().is_ok() {
            self.start.ensure(&mut batch, TableFlags::empty());
        } else {
            self.start.replace(&mut batch, present, TableFlags::empty());
            self.add_starts(&mut batch);
        }
        self.tables.commit(&batch).map_err(refused(LockError::Install))?;
        self.note_installed()
    }

    /// Makes all tables anew, closed for `items` and for all that was guarded before, by this process or by whoever
    /// made the tables that it adopted: nothing of a lease is put back from memory.
    ///
    /// # Errors
    /// As [`KernelLock::open`].
    pub fn reinstall(&mut self, items: &[GuardedPort]) -> Result<(), LockError> {
        let pairs: Vec<_> = items.iter().map(|item| (item.port, item.vip.as_ref())).collect();
        self.remember_guarded(&pairs);
        self.asked.clear();
        self.replace_main()?;
        self.mend_start()?;
        for link in self.config.links.clone() {
            let found = read::tables(&mut self.tables).map_err(LockError::Read)?;
            self.replace_link(&link, &found).or_else(without_link)?;
        }
        self.note_installed()
    }

    /// Replaces the main table. Somebody may remove it between the look and the transaction.
    fn replace_main(&mut self) -> Result<(), LockError> {
        let mut last = LockError::Missing;
        for _ in 0..ATTEMPTS {
            let found = read::tables(&mut self.tables).map_err(LockError::Read)?;
            let batch = self.fresh_main(&found, self.guarded.iter().copied());
            match self.tables.commit(&batch).map_err(refused(LockError::Install)) {
                Err(LockError::Missing) => last = LockError::Missing,
                done => return done,
            }
        }
        Err(last)
    }

    pub(super) fn note_installed(&mut self) -> Result<(), LockError> {
        self.installed = self.list_structure()?;
        Ok(())
    }

    fn list_structure(&mut self) -> Result<Structure, LockError> {
        let mut found = Structure {
            main: read::structure(&mut self.tables, &self.main).map_err(LockError::Read)?,
            links: BTreeMap::new(),
            start: read::structure(&mut self.tables, &self.start).map_err(LockError::Read)?,
        };
        for (link, table) in &self.links {
            let listed = read::structure(&mut self.tables, table).map_err(LockError::Read)?;
            found.links.insert(link.clone(), listed);
        }
        Ok(found)
    }

    /// Whether the kernel guards all VIPs that it was told to.
    fn vips_are_guarded(&mut self) -> Result<bool, LockError> {
        for (link, table) in &self.links {
            let mut guarded = BTreeSet::<IpAddr>::new();
            for version in IpVersion::BOTH {
                let found = read::elements(&mut self.tables, table.set(version.guarded()))
                    .map_err(refused(LockError::Read))?;
                guarded.extend(found.iter().filter_map(|element| read::address(&element.key)));
            }
            if self.guarded_vips.get(link).is_some_and(|wanted| !wanted.is_subset(&guarded)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
