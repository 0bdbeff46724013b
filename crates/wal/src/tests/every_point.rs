//! The same history, cut off or failed at every single point of its disk.

use super::faulty::{Disk, Fault, Rng, new_file, open_on};
use super::history::{History, Refused};
use crate::{OpenError, PersistError, Write};
use redkeep_consensus::Persist;
use std::error::Error;
use std::io;

/// A disk that died of a power loss, started twice: the second start finds what the first one did.
fn start_twice(history: &History, cut: usize, image: Vec<u8>) {
    let disk = Disk::holding(image);
    let (wal, state) = open_on(&disk).unwrap_or_else(|e| panic!("cut {cut}: {e:?}"));
    history.check(cut, &state);
    drop(wal);
    let (_, again) = open_on(&disk).unwrap_or_else(|e| panic!("cut {cut}, again: {e:?}"));
    assert_eq!(again.incarnation, state.incarnation + 1, "cut {cut}");
    assert_eq!((again.recovered, again.burned), (state.recovered, state.burned), "cut {cut}");
}

#[test]
fn power_loss_at_every_point_of_several_lives_keeps_what_was_acknowledged() {
    let mut points = 0;
    for seed in 0..3 {
        let mut history = History::new(Disk::holding(new_file()), seed);
        history.run(4, 18).expect("nothing fails");
        let mut rng = Rng(seed);
        for cut in 0..=history.disk.operations() {
            for _ in 0..2 {
                start_twice(&history, cut, history.disk.after_power_loss(cut, &mut rng));
                points += 1;
            }
        }
    }
    println!("{points} power losses");
    assert!(points > 2_000, "only {points}");
}

/// Every error says what and where, down to what the kernel said.
fn tells(error: &(dyn Error + 'static), kind: io::ErrorKind) {
    assert!(error.to_string().contains("raft.redb"), "{error}");
    let mut texts = vec![];
    let mut next = Some(error);
    while let Some(each) = next {
        texts.push(each.to_string());
        next = each.source();
    }
    let kernel = io::Error::from(kind).to_string();
    assert!(texts.iter().any(|text| text.contains(&kernel)), "{kernel} is not in {texts:?}");
}

fn judge(refused: Refused, kind: io::ErrorKind) {
    match refused {
        // Damage would send the operator to throw the directory away.
        Refused::Open(error) => {
            let passing = matches!(error, OpenError::File { .. } | OpenError::Write { .. });
            assert!(passing, "{error:?}");
            tells(&error, kind);
        }
        Refused::Write(mut wal, error) => {
            assert!(matches!(error, PersistError::Write { .. }), "{error:?}");
            tells(&error, kind);
            assert!(error.to_string().contains("start"), "says how to mend it: {error}");
            let write = Persist { must_sync: true, ..Persist::default() };
            for _ in 0..3 {
                let burn = Write::Burn { group: "cache", epoch: 1 << 40 };
                let later = wal.commit(&[Write::Persist(&write), burn]);
                assert!(matches!(later, Err(PersistError::Poisoned { .. })), "{later:?}");
            }
            assert!(wal.is_poisoned() && wal.burned("cache") != Some(1 << 40));
        }
        Refused::Close(error) => tells(&error, kind),
    }
}

/// Runs a history into `fault`, mends the disk, and starts from what is in the page cache and from what a power loss leaves.
/// False if the history never met the fault.
fn fail_at(fault: Fault) -> bool {
    let mut history = History::new(Disk::holding(new_file()), 11);
    history.disk.set_fault(Some(fault));
    let refused = history.run(2, 9);
    let disk = history.disk.clone();
    if disk.faults() == 0 {
        assert!(refused.is_ok());
        return false;
    }
    if let Err(refused) = refused {
        judge(refused, fault.kind);
    }
    disk.set_fault(None);
    let cut = disk.operations();
    let mut rng = Rng(fault.at as u64);
    start_twice(&history, cut, disk.content());
    for _ in 0..2 {
        start_twice(&history, cut, disk.after_power_loss(cut, &mut rng));
    }
    true
}

fn fail_at_every(reads: bool) -> usize {
    let mut points = 0;
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for forever in [false, true] {
            let fault = |at| Fault { at, reads, kind, forever };
            points += (0..).take_while(|at| fail_at(fault(*at))).count();
        }
    }
    points
}

#[test]
fn a_disk_that_refuses_any_write_once_or_for_ever_costs_nothing_acknowledged() {
    let points = fail_at_every(false);
    println!("{points} failed writes, syncs and changes of length");
    assert!(points > 4 * 100, "only {points}");
}

#[test]
fn a_disk_that_cannot_be_read_at_any_point_is_not_taken_for_damage() {
    let points = fail_at_every(true);
    println!("{points} failed reads");
    assert!(points > 4 * 10, "only {points}");
}
