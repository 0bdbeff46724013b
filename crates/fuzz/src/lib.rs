//! What must hold of every byte that comes from outside or from the disk, as functions of bytes that panic where it does not.
//!
//! libFuzzer drives them from `fuzz/` (`cargo xtask fuzz`); the corpus that it found is replayed by an ordinary test. Most
//! targets read a first byte that picks one of their readers. Deliberately absent: a rule of the product, and a fuzzer.

mod config;
mod envelope;
mod log;
pub mod raft;
mod reply;

/// The reader that panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 4] = [
    ("wal_record", log::wal_record),
    ("peer_envelope", envelope::peer_envelope),
    ("redis_reply", reply::redis_reply),
    ("config", config::config),
];

/// Parts of `bytes`, each after its length in two bytes, little endian; the last may be cut short.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        bytes = rest;
        Some(part)
    })
}

/// What `parts` takes apart, for seeds.
#[must_use]
pub fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        all.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
        all.extend(part);
    }
    all
}
