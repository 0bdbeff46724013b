//! Entrances for the fuzzers (`crates/fuzz`): what reads records. Not part of the product.

use crate::record::{self, Decoder, Encoder, Place, RecordError};
use redkeep_consensus::{Entry, HardState, Snapshot};

/// Kinds of [`content`].
pub const KINDS: u8 = 4;

const PLACE: Place<'static> = Place { table: "log", key: b"key" };

/// One record's content of any kind: refused, or exactly what its value is written as. So no two byte strings mean the
/// same, and nothing behind the content is overlooked.
///
/// # Panics
/// Neither of the two.
pub fn content(kind: u8, bytes: &[u8]) {
    let again = match kind % KINDS {
        0 => record::decode_hard_state(bytes).map(record::encode_hard_state),
        1 => record::decode_entry(bytes).map(|entry| record::encode_entry(&entry)),
        2 => record::decode_snapshot(bytes).map(|snapshot| record::encode_snapshot(&snapshot)),
        _ => number(bytes).map(|number| Encoder::default().u64(number).0),
    };
    if let Ok(again) = again {
        assert_eq!(again, bytes, "kind {kind}");
    }
}

/// A whole record with its checksum: refused, or exactly what its content is sealed as.
///
/// # Panics
/// Neither of the two.
pub fn sealed(bytes: &[u8]) {
    if let Ok(content) = record::unseal(PLACE, bytes) {
        assert_eq!(record::seal(PLACE, content), bytes);
        // The checksum is no secret: what it covers is no better than any bytes.
        (0..KINDS).for_each(|kind| self::content(kind, content));
    }
}

/// Contents and a whole record, written from values.
#[must_use]
pub fn written(state: HardState, entry: &Entry, snapshot: &Snapshot) -> [Vec<u8>; 5] {
    let entry = record::encode_entry(entry);
    let whole = record::seal(PLACE, &entry);
    let (state, snapshot) = (record::encode_hard_state(state), record::encode_snapshot(snapshot));
    [state, entry, snapshot, Encoder::default().u64(7).0, whole]
}

fn number(bytes: &[u8]) -> Result<u64, RecordError> {
    let mut from = Decoder(bytes);
    let number = from.u64()?;
    from.end()?;
    Ok(number)
}
