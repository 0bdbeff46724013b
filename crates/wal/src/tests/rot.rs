//! Bytes that change by themselves: refused or harmless, never silent.

use super::faulty::{DIR_ID, Disk, Rng, new_file, open_on};
use super::workload::{Workload, same};
use crate::open;
use crate::{Damage, OpenError, RecordError};
use redb::{ReadableTable as _, TableDefinition};
use redkeep_consensus::Recovered;
use std::path::Path;

/// The file after `writes` writes, as a clean shutdown and as a power loss leave it, and the last
/// two states written.
fn written(seed: u64, writes: usize) -> (Vec<u8>, Vec<u8>, [Recovered; 2]) {
    let disk = Disk::holding(new_file());
    let (mut wal, _) = open_on(&disk).expect("opens");
    let mut workload = Workload::new(seed);
    let mut last = [Recovered::default(), Recovered::default()];
    for _ in 0..writes {
        let write = workload.next();
        wal.persist(&write).expect("written");
        if write.must_sync {
            last = [last[1].clone(), workload.image.clone()];
        }
    }
    wal.burn("cache", 7).expect("written");
    let crashed = disk.content();
    wal.close().expect("closed");
    (disk.content(), crashed, last)
}

/// How a flip showed.
#[derive(Debug, Default)]
struct Count {
    refused: usize,
    harmless: usize,
    /// Of the refused: by redb's page checksums, and by the record's own.
    pages: usize,
    records: usize,
}

#[test]
fn a_flipped_bit_after_a_clean_shutdown_is_refused_or_harmless() {
    let mut count = Count::default();
    for seed in 0..4 {
        let (clean, _, [_, last]) = written(seed, 60);
        let mut rng = Rng(seed);
        for _ in 0..250 {
            let mut image = clean.clone();
            let byte = rng.below(image.len() as u64) as usize;
            image[byte] ^= 1 << rng.below(8);
            match open_on(&Disk::holding(image)) {
                Err(OpenError::Damaged { .. }) => count.refused += 1,
                Err(other) => panic!("byte {byte}: {other:?}"),
                Ok((_, state)) => {
                    assert!(same(&state.recovered, &last), "byte {byte} went unseen");
                    assert_eq!(state.burned.get("cache"), Some(&7), "byte {byte} went unseen");
                    count.harmless += 1;
                }
            }
        }
    }
    assert!(count.refused > 100, "{} refused, {} harmless", count.refused, count.harmless);
}

/// Every byte that is not zero, and the zero ones beside it: the rest of the file is room that nobody reads.
#[test]
fn a_flip_anywhere_in_what_is_used_is_refused_or_harmless() {
    let (clean, _, [_, last]) = written(21, 14);
    let used = |at: usize| {
        let page = at / 64 * 64;
        clean[page..clean.len().min(page + 64)].iter().any(|byte| *byte != 0)
    };
    let mut count = Count::default();
    // Odd, so that each place within a page comes up in some page.
    for at in (0..clean.len()).filter(|at| used(*at)).step_by(5) {
        let mut image = clean.clone();
        image[at] ^= 1 << (at % 8);
        match open_on(&Disk::holding(image)) {
            Err(OpenError::Damaged { source, .. }) => {
                count.refused += 1;
                count.pages += usize::from(matches!(source, Damage::Database(_)));
                count.records += usize::from(matches!(source, Damage::Record { .. }));
            }
            Err(other) => panic!("byte {at}: {other:?}"),
            Ok((_, state)) => {
                assert!(same(&state.recovered, &last), "byte {at} went unseen");
                assert_eq!(state.burned.get("cache"), Some(&7), "byte {at} went unseen");
                assert_eq!((state.incarnation, state.dir_id), (2, DIR_ID), "byte {at}");
                count.harmless += 1;
            }
        }
    }
    println!("{count:?}");
    assert!(count.refused > 1000 && count.pages > 1000, "{count:?}");
}

/// What redb cannot see: a value that changed before it reached a page, in memory or in the program. The page's checksum
/// fits it, the record's does not.
#[test]
fn a_record_that_changed_under_a_fitting_page_is_refused_by_its_own_checksum() {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    const BURNED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("burned");
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    let (clean, _, [_, last]) = written(6, 60);
    let flip = |value: &[u8]| {
        let mut value = value.to_vec();
        let at = value.len() - 1;
        value[at] ^= 1;
        value
    };
    let log_index = last.entries.first().map(|entry| entry.index).expect("a log");
    let meta = ["format", "cluster", "node", "dir_id", "incarnation", "bootstrapped"];
    let places = meta.into_iter().chain(["hard_state", "snapshot", "(burned)", "(log)"]);
    for place in places {
        let disk = Disk::holding(clean.clone());
        let database = open::open_database(Path::new("raft.redb"), disk.clone()).expect("opens");
        let transaction = database.begin_write().expect("begins");
        if place == "(log)" {
            let mut table = transaction.open_table(LOG).expect("there");
            let bad = flip(table.get(log_index).expect("read").expect("there").value());
            table.insert(log_index, &bad[..]).expect("written");
        } else {
            let (table, key) = if place == "(burned)" { (BURNED, "cache") } else { (META, place) };
            let mut table = transaction.open_table(table).expect("there");
            let bad = flip(table.get(key).expect("read").expect("there").value());
            table.insert(key, &bad[..]).expect("written");
        }
        transaction.commit().expect("written");
        database.close().expect("closed");
        let refused = open_on(&disk).expect_err(place);
        let OpenError::Damaged { source: Damage::Record { source, .. }, .. } = refused else {
            panic!("{place}: {refused:?}");
        };
        assert!(matches!(source, RecordError::Checksum { .. }), "{place}: {source:?}");
    }
}

#[test]
fn every_flipped_byte_of_the_header_is_refused_or_harmless() {
    let (clean, _, [_, last]) = written(9, 30);
    for byte in 0..512 {
        let mut image = clean.clone();
        image[byte] ^= 0x10;
        if let Ok((_, state)) = open_on(&Disk::holding(image)) {
            assert!(same(&state.recovered, &last), "byte {byte} went unseen");
            assert_eq!(state.burned.get("cache"), Some(&7), "byte {byte} went unseen");
        }
    }
}

/// The limit named in the crate's documentation: after a power loss the last transaction, if
/// rotten, looks unfinished. Nothing older may go, and nothing may be mixed.
#[test]
fn a_flipped_bit_after_a_power_loss_takes_at_most_the_last_transaction() {
    let mut rolled_back = 0;
    for seed in 0..4 {
        let (_, crashed, [before, last]) = written(seed, 60);
        let mut rng = Rng(seed);
        for _ in 0..250 {
            let mut image = crashed.clone();
            let byte = rng.below(image.len() as u64) as usize;
            image[byte] ^= 1 << rng.below(8);
            let Ok((_, state)) = open_on(&Disk::holding(image)) else { continue };
            // The burn was the last transaction.
            assert!(same(&state.recovered, &last), "byte {byte} took more than that");
            assert!(!same(&state.recovered, &before) || same(&before, &last));
            rolled_back += usize::from(state.burned.is_empty());
        }
    }
    assert!(rolled_back < 100, "{rolled_back} of 1000");
}

#[test]
fn a_truncated_or_foreign_file_is_refused() {
    let (clean, _, _) = written(3, 30);
    let tails = (1..=64).map(|sectors| clean.len() - sectors * 512);
    let lengths = [1, 100, 4096, clean.len() / 2, clean.len() - 1];
    for length in lengths.into_iter().chain(tails) {
        let found = open_on(&Disk::holding(clean[..length].to_vec()));
        assert!(matches!(found, Err(OpenError::Damaged { .. })), "{length}: {found:?}");
    }
    let found = open_on(&Disk::holding(vec![0x41; 100_000]));
    assert!(matches!(found, Err(OpenError::Damaged { .. })), "{found:?}");
}
