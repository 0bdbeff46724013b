//! The supervisor's disk on one host: what is durable, and what a loss of power takes away.
//!
//! A write that asked for no sync is acknowledged before it is durable, as the driver is allowed to do; it survives
//! the death of the process, but not that of the host.

use std::collections::BTreeMap;

use redkeep_consensus::{Persist, Recovered};
use redkeep_core::{Epoch, GroupId};

#[derive(Clone, Debug)]
pub enum DiskWrite {
    Persist(Persist),
    Burn { group: GroupId, epoch: Epoch },
}

/// What a supervisor finds at its start.
#[derive(Clone, Debug, Default)]
pub struct DiskImage {
    pub recovered: Recovered,
    pub burned: BTreeMap<GroupId, Epoch>,
    pub incarnation: u64,
}

impl DiskImage {
    fn write(&mut self, write: &DiskWrite) {
        match write {
            DiskWrite::Persist(persist) => persist.apply_to(&mut self.recovered),
            DiskWrite::Burn { group, epoch } => {
                let burned = self.burned.entry(group.clone()).or_default();
                *burned = (*burned).max(*epoch);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: DiskImage,
    unsynced: Vec<DiskWrite>,
}

impl Disk {
    /// The write reached the disk; what needs a sync takes all earlier writes with it.
    pub fn write(&mut self, write: DiskWrite) {
        let must_sync = match &write {
            DiskWrite::Persist(persist) => persist.must_sync,
            DiskWrite::Burn { .. } => true,
        };
        self.unsynced.push(write);
        if must_sync {
            self.sync();
        }
    }

    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            self.durable.write(&write);
        }
    }

    /// A supervisor starts: its incarnation is raised durably first.
    pub fn open(&mut self) -> DiskImage {
        self.sync();
        self.durable.incarnation += 1;
        self.durable.clone()
    }

    /// The term that it will never go back behind.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.durable.recovered.hard_state.term
    }

    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The host lost power: of what was not synced, the first `kept` writes survive.
    pub fn power_lost(&mut self, kept: usize) {
        self.unsynced.truncate(kept);
        self.sync();
    }
}

#[cfg(test)]
mod tests {
    use redkeep_consensus::HardState;

    use super::*;

    fn commit(number: u64, must_sync: bool) -> DiskWrite {
        let hard_state = HardState { term: 1, vote: 0, commit: number };
        DiskWrite::Persist(Persist {
            number,
            hard_state: Some(hard_state),
            must_sync,
            ..Persist::default()
        })
    }

    #[test]
    fn power_loss_takes_only_what_was_not_synced() {
        let mut disk = Disk::default();
        disk.write(commit(1, true));
        disk.write(commit(2, false));
        disk.write(commit(3, false));
        disk.power_lost(1);
        assert_eq!(disk.open().recovered.hard_state.commit, 2);
    }

    #[test]
    fn a_burned_epoch_never_falls_and_every_start_has_its_own_incarnation() {
        let mut disk = Disk::default();
        let group = GroupId::new("pair");
        disk.write(DiskWrite::Burn { group: group.clone(), epoch: Epoch(5) });
        disk.write(DiskWrite::Burn { group: group.clone(), epoch: Epoch(3) });
        disk.power_lost(0);
        let (first, second) = (disk.open(), disk.open());
        assert_eq!(second.burned[&group], Epoch(5));
        assert!(second.incarnation > first.incarnation);
    }
}
