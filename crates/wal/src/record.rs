//! One value in the file: a version byte, a CRC-32C, and the content.
//!
//! The checksum also covers the table and the key, so that a record that ended up elsewhere does
//! not pass. All numbers are little endian.

use redkeep_consensus::{Entry, EntryKind, HardState, NodeId, Snapshot};

/// Version of the record layout.
const VERSION: u8 = 1;
const HEADER: usize = 5;

/// Why a record cannot be read. The data directory is damaged, or written by a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    #[error("record has layout version {found}, this program reads version {VERSION}")]
    Version { found: u8 },
    #[error("record checksum is {found:08x}, its content has {computed:08x}")]
    Checksum { found: u32, computed: u32 },
    #[error("record ends before its content does")]
    Short,
    #[error("record has {bytes} bytes behind its content")]
    Excess { bytes: usize },
    #[error("record holds a value that does not exist")]
    Value,
    #[error("record is missing")]
    Missing,
}

/// Table and key, for the checksum.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'a str,
    pub(crate) key: &'a [u8],
}

pub(crate) fn seal(place: Place<'_>, content: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + content.len());
    record.push(VERSION);
    record.extend(checksum(place, content).to_le_bytes());
    record.extend(content);
    record
}

pub(crate) fn unseal<'a>(place: Place<'_>, record: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let (version, rest) = record.split_first().ok_or(RecordError::Short)?;
    if *version != VERSION {
        return Err(RecordError::Version { found: *version });
    }
    let (stored, content) = rest.split_first_chunk::<4>().ok_or(RecordError::Short)?;
    let (found, computed) = (u32::from_le_bytes(*stored), checksum(place, content));
    if found != computed {
        return Err(RecordError::Checksum { found, computed });
    }
    Ok(content)
}

fn checksum(place: Place<'_>, content: &[u8]) -> u32 {
    // A separator that cannot be part of a table name keeps table and key apart.
    let mut crc = crc32c(!0, &[VERSION]);
    for part in [place.table.as_bytes(), &[0xff], place.key, &[0xff], content] {
        crc = crc32c(crc, part);
    }
    !crc
}

/// CRC-32C (Castagnoli), RFC 3720 appendix B.4, without the final inversion.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| CRC_TABLE[((crc as u8) ^ byte) as usize] ^ (crc >> 8))
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// Writes content.
#[derive(Default)]
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(self, value: &[u8]) -> Self {
        let mut out = self.u64(value.len() as u64);
        out.0.extend(value);
        out
    }

    fn nodes(self, nodes: &[NodeId]) -> Self {
        nodes.iter().fold(self.u64(nodes.len() as u64), |out, node| out.u64(node.0))
    }
}

/// Reads content.
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    fn u8(&mut self) -> Result<u8, RecordError> {
        let (value, rest) = self.0.split_first().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RecordError> {
        let (value, rest) = self.0.split_first_chunk::<8>().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*value))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, RecordError> {
        let length = usize::try_from(self.u64()?).map_err(|_| RecordError::Short)?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(value.to_vec())
    }

    fn nodes(&mut self) -> Result<Vec<NodeId>, RecordError> {
        let count = self.u64()?;
        if count > (self.0.len() / 8) as u64 {
            return Err(RecordError::Short);
        }
        (0..count).map(|_| self.u64().map(NodeId)).collect()
    }

    pub(crate) fn end(self) -> Result<(), RecordError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(RecordError::Excess { bytes }),
        }
    }
}

pub(crate) fn encode_hard_state(state: HardState) -> Vec<u8> {
    Encoder::default().u64(state.term).u64(state.vote).u64(state.commit).0
}

pub(crate) fn decode_hard_state(content: &[u8]) -> Result<HardState, RecordError> {
    let mut from = Decoder(content);
    let state = HardState { term: from.u64()?, vote: from.u64()?, commit: from.u64()? };
    from.end()?;
    Ok(state)
}

pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::Membership => 1,
    };
    Encoder::default()
        .u64(entry.index)
        .u64(entry.term)
        .u8(kind)
        .bytes(&entry.context)
        .bytes(&entry.data)
        .0
}

pub(crate) fn decode_entry(content: &[u8]) -> Result<Entry, RecordError> {
    let mut from = Decoder(content);
    let (index, term) = (from.u64()?, from.u64()?);
    let kind = match from.u8()? {
        0 => EntryKind::Normal,
        1 => EntryKind::Membership,
        _ => return Err(RecordError::Value),
    };
    let entry = Entry { term, index, kind, context: from.bytes()?, data: from.bytes()? };
    from.end()?;
    Ok(entry)
}

pub(crate) fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    Encoder::default()
        .u64(snapshot.index)
        .u64(snapshot.term)
        .nodes(&snapshot.voters)
        .nodes(&snapshot.learners)
        .bytes(&snapshot.data)
        .0
}

pub(crate) fn decode_snapshot(content: &[u8]) -> Result<Snapshot, RecordError> {
    let mut from = Decoder(content);
    let snapshot = Snapshot {
        index: from.u64()?,
        term: from.u64()?,
        voters: from.nodes()?,
        learners: from.nodes()?,
        data: from.bytes()?,
    };
    from.end()?;
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { table: "log", key: &[1] };

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720 B.4 and the usual check value.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let record = seal(PLACE, b"some content");
        assert_eq!(unseal(PLACE, &record), Ok(&b"some content"[..]));
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(PLACE, &bad).is_err(), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(unseal(PLACE, &record[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_record_of_another_place_is_refused() {
        let record = seal(PLACE, b"x");
        for place in [Place { table: "log", key: &[2] }, Place { table: "meta", key: &[1] }] {
            assert!(matches!(unseal(place, &record), Err(RecordError::Checksum { .. })));
        }
    }

    #[test]
    fn contents_come_back_and_excess_is_refused() {
        let entry = Entry {
            term: 3,
            index: 9,
            kind: EntryKind::Membership,
            context: vec![1],
            data: vec![2, 3],
        };
        let mut bytes = encode_entry(&entry);
        assert_eq!(decode_entry(&bytes), Ok(entry));
        bytes.push(0);
        assert_eq!(decode_entry(&bytes), Err(RecordError::Excess { bytes: 1 }));
        let snapshot = Snapshot {
            index: 4,
            term: 2,
            voters: vec![NodeId(1), NodeId(2)],
            learners: vec![NodeId(3)],
            data: vec![7; 100],
        };
        assert_eq!(decode_snapshot(&encode_snapshot(&snapshot)), Ok(snapshot));
        let state = HardState { term: 1, vote: 2, commit: 3 };
        assert_eq!(decode_hard_state(&encode_hard_state(state)), Ok(state));
    }
}
