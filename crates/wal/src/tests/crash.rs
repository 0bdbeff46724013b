//! Power loss at every write, full disks.

use super::faulty::{Disk, Rng, new_file, open_on};
use super::workload::{Workload, same};
use crate::{PersistError, State, Wal, Write};
use redkeep_consensus::Recovered;

const GROUP: &str = "cache";

/// What a run acknowledged and when, in operations of the disk.
struct Run {
    disk: Disk,
    /// Operations done when the write began and when it was acknowledged; the state with it.
    writes: Vec<(usize, usize, Recovered)>,
    burns: Vec<(usize, usize, u64)>,
}

fn run(seed: u64, writes: usize) -> Run {
    let disk = Disk::holding(new_file());
    let (mut wal, state) = open_on(&disk).expect("opens");
    assert!(state.fresh);
    let mut workload = Workload::new(seed);
    let mut run = Run { disk: disk.clone(), writes: vec![], burns: vec![] };
    for number in 0..writes {
        let before = disk.operations();
        let write = workload.next();
        wal.persist(&write).expect("acknowledged");
        if write.must_sync {
            run.writes.push((before, disk.operations(), workload.image.clone()));
        }
        if number % 5 == 4 {
            let before = disk.operations();
            wal.burn(GROUP, number as u64).expect("acknowledged");
            run.burns.push((before, disk.operations(), number as u64));
        }
    }
    run
}

impl Run {
    fn check(&self, cut: usize, state: &State) {
        let acknowledged = self.writes.iter().filter(|write| write.1 <= cut).count();
        let begun = self.writes.iter().filter(|write| write.0 < cut).count();
        let possible = &self.writes[acknowledged.saturating_sub(1)..begun.max(acknowledged)];
        let is_start = acknowledged == 0 && state.recovered.is_fresh();
        assert!(
            is_start || possible.iter().any(|(_, _, image)| same(&state.recovered, image)),
            "cut {cut}: {acknowledged} acknowledged, {begun} begun, found another state"
        );
        let burned = state.burned.get(GROUP).copied().unwrap_or(0);
        let low = self.burns.iter().rfind(|burn| burn.1 <= cut).map_or(0, |burn| burn.2);
        let high = self.burns.iter().rfind(|burn| burn.0 < cut).map_or(0, |burn| burn.2);
        assert!((low..=high.max(low)).contains(&burned), "cut {cut}: burned {burned}, not {low}");
    }
}

#[test]
fn power_loss_at_any_write_loses_nothing_acknowledged() {
    let mut images = 0;
    for seed in 0..6 {
        let run = run(seed, 40);
        let mut rng = Rng(seed + 1000);
        for cut in 0..=run.disk.operations() {
            let image = run.disk.after_power_loss(cut, &mut rng);
            let disk = Disk::holding(image);
            let (wal, state) = open_on(&disk).unwrap_or_else(|e| panic!("cut {cut}: {e:?}"));
            run.check(cut, &state);
            drop(wal);
            images += 1;
        }
    }
    assert!(images > 1500, "only {images} images");
}

/// Writes that waited for the disk together are there together or not at all.
#[test]
fn power_loss_in_a_batch_leaves_all_of_it_or_nothing() {
    for seed in 40..44 {
        let disk = Disk::holding(new_file());
        let (mut wal, _) = open_on(&disk).expect("opens");
        let mut workload = Workload::new(seed);
        let mut states = vec![(0, workload.image.clone(), 0)];
        for round in 1..=8 {
            let batch: Vec<_> = (0..5).map(|_| workload.next()).collect();
            let mut writes: Vec<Write<'_>> = batch.iter().map(Write::Persist).collect();
            // In disorder: the lower one must not undo the higher.
            writes.insert(2, Write::Burn { group: GROUP, epoch: round * 10 });
            writes.push(Write::Burn { group: GROUP, epoch: round * 10 - 5 });
            wal.commit(&writes).expect("acknowledged");
            if batch.iter().any(|write| write.must_sync) {
                states.push((disk.operations(), workload.image.clone(), round * 10));
            }
        }
        assert!(states.len() > 5, "a workload without syncs proves nothing");
        let mut rng = Rng(seed);
        for cut in 0..=disk.operations() {
            let (_, found) =
                open_on(&Disk::holding(disk.after_power_loss(cut, &mut rng))).expect("opens");
            let burned = found.burned.get(GROUP).copied().unwrap_or(0);
            let known = states.iter().rfind(|(_, image, epoch)| {
                *epoch == burned && (same(&found.recovered, image) || found.recovered.is_fresh())
            });
            let (acknowledged_at, ..) =
                known.unwrap_or_else(|| panic!("cut {cut}: half a batch, burned {burned}"));
            let newest = states.iter().rfind(|(at, ..)| *at <= cut).map_or(0, |(at, ..)| *at);
            assert!(*acknowledged_at >= newest, "cut {cut}: an acknowledged batch is gone");
        }
    }
}

#[test]
fn power_loss_during_recovery_loses_nothing_either() {
    for seed in 20..24 {
        let run = run(seed, 25);
        let mut rng = Rng(seed);
        for _ in 0..12 {
            let cut = rng.below(run.disk.operations() as u64 + 1) as usize;
            let disk = Disk::holding(run.disk.after_power_loss(cut, &mut rng));
            let (wal, state) = open_on(&disk).expect("opens");
            drop(wal);
            for second in 0..=disk.operations() {
                let again = Disk::holding(disk.after_power_loss(second, &mut rng));
                let (_, found) = open_on(&again).expect("opens");
                assert_eq!(found.recovered, state.recovered);
                assert_eq!(found.burned, state.burned);
            }
        }
    }
}

#[test]
fn each_opening_has_a_higher_incarnation_even_across_power_loss() {
    let disk = Disk::holding(new_file());
    let mut rng = Rng(5);
    let mut image = disk.content();
    for expected in 1..20 {
        let disk = Disk::holding(image);
        let (wal, state) = open_on(&disk).expect("opens");
        assert_eq!(state.incarnation, expected);
        // No clean shutdown: everything after the opening may be lost.
        image = disk.after_power_loss(disk.operations(), &mut rng);
        drop(wal);
    }
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_acknowledged_afterwards() {
    let mut failures = 0;
    for seed in 0..40 {
        let disk = Disk::holding(new_file());
        let (mut wal, _) = open_on(&disk).expect("opens");
        let mut workload = Workload::new(seed);
        let mut acknowledged = Recovered::default();
        for _ in 0..10 {
            wal.persist(&workload.next()).expect("room");
            acknowledged = workload.image.clone();
        }
        let length = disk.content().len();
        disk.set_room(Some(length * (50 + seed as usize * 2) / 100));
        let mut attempted = None;
        for _ in 0..200 {
            let write = workload.next();
            match wal.persist(&write) {
                Ok(()) => acknowledged = workload.image.clone(),
                Err(PersistError::Write { .. }) => {
                    attempted = Some(workload.image.clone());
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let Some(attempted) = attempted else { continue };
        failures += 1;
        assert!(disk.ran_full() && wal.is_poisoned());
        disk.set_room(None);
        poisoned_stays_silent(&mut wal, &mut workload);
        drop(wal);
        let (_, state) = open_on(&disk).expect("opens");
        assert!(same(&state.recovered, &acknowledged) || same(&state.recovered, &attempted));
    }
    assert!(failures > 20, "the disk ran full only {failures} times");
}

fn poisoned_stays_silent(wal: &mut Wal, workload: &mut Workload) {
    for _ in 0..5 {
        assert!(matches!(wal.persist(&workload.next()), Err(PersistError::Poisoned { .. })));
    }
    assert!(matches!(wal.burn(GROUP, 9), Err(PersistError::Poisoned { .. })));
    assert!(matches!(wal.mark_bootstrapped(), Err(PersistError::Poisoned { .. })));
    assert_eq!(wal.burned(GROUP), None);
}

#[test]
fn one_write_costs_one_fsync_and_a_commit_index_costs_none() {
    let disk = Disk::holding(new_file());
    let (mut wal, _) = open_on(&disk).expect("opens");
    let mut workload = Workload::new(3);
    for _ in 0..100 {
        let (before, length) = (disk.syncs(), disk.content().len());
        let write = workload.next();
        wal.persist(&write).expect("written");
        let syncs = disk.syncs() - before;
        // redb takes a second one when it makes the file longer.
        let most = if disk.content().len() > length { 2 } else { 1 };
        let expected = if write.must_sync { 1..=most } else { 0..=0 };
        assert!(expected.contains(&syncs), "{syncs} for {write:?}");
    }
}

#[test]
fn the_file_does_not_grow_over_many_compactions() {
    let disk = Disk::holding(new_file());
    let (mut wal, _) = open_on(&disk).expect("opens");
    let mut workload = Workload::new(7);
    let mut lengths = vec![];
    for _ in 0..10 {
        for _ in 0..500 {
            wal.persist(&workload.next()).expect("written");
        }
        lengths.push(disk.content().len());
    }
    assert!(workload.image.last_index() > 1000);
    let most = lengths.iter().max().expect("some");
    assert!(*most <= 2 * 1024 * 1024, "{lengths:?}");
    assert!(lengths[9] <= lengths[1] * 2, "{lengths:?}");
}
