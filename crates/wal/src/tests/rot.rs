//! Bytes that change by themselves: refused or harmless, never silent.

use super::faulty::{Disk, Rng, new_file, open_on};
use super::workload::{Workload, same};
use crate::OpenError;
use redkeep_consensus::Recovered;

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
#[derive(Default)]
struct Count {
    refused: usize,
    harmless: usize,
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
    for length in [1, 100, 4096, clean.len() / 2, clean.len() - 1] {
        let found = open_on(&Disk::holding(clean[..length].to_vec()));
        assert!(matches!(found, Err(OpenError::Damaged { .. })), "{length}: {found:?}");
    }
    let found = open_on(&Disk::holding(vec![0x41; 100_000]));
    assert!(matches!(found, Err(OpenError::Damaged { .. })), "{found:?}");
}
