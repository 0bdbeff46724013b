//! Where a data set stands in the history of its writes, and how far two of them part. By what `INFO replication` says.
//!
//! A promotion gives a history a new name and keeps the old one with the offset up to which it was shared; offsets go on. So two
//! data sets share everything up to the smaller of the two ends that they have under one name.

use crate::{ids::RunId, observe::PreviousHistory};

/// One data set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// `master_replid`.
    pub replication_id: String,
    /// `master_replid2` and `second_repl_offset`.
    pub previous: Option<PreviousHistory>,
    /// Where it ends; bytes.
    pub offset: u64,
}

/// The local data set and the master's, before the former is overwritten by the latter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// The life of the local Redis that was asked.
    pub run_id: RunId,
    pub own: Lineage,
    pub master: Lineage,
    /// Keys in the local one.
    pub keys: u64,
    /// The local one is kept in an append-only file (`aof_enabled`).
    pub append_only: bool,
}

impl Lineage {
    /// Bytes beyond the point where this one and `other` part; none = they have no history in common.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Option<u64> {
        let mut parted_at = None;
        for (id, end) in self.names() {
            for (_, their_end) in other.names().filter(|(name, _)| *name == id) {
                parted_at = parted_at.max(Some(end.min(their_end)));
            }
        }
        Some(self.offset.saturating_sub(parted_at?))
    }

    /// Its names.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.names().map(|(id, _)| id)
    }

    /// Each name that it goes by, and where it ends under it.
    fn names(&self) -> impl Iterator<Item = (&str, u64)> {
        let before = self.previous.as_ref();
        let before = before.map(|p| (p.replication_id.as_str(), p.until_offset.saturating_sub(1)));
        [(self.replication_id.as_str(), self.offset)].into_iter().chain(before)
    }

    /// Of a Redis that nobody has written to since it started: what it read from its file. From Redis 7 on the file names
    /// its history. None = it does not.
    #[must_use]
    pub fn as_loaded(&self) -> Option<Self> {
        let read = self.previous.as_ref()?;
        Some(Self {
            replication_id: read.replication_id.clone(),
            previous: None,
            offset: read.until_offset.saturating_sub(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, offset: u64, previous: Option<(&str, u64)>) -> Lineage {
        let previous = previous
            .map(|(id, until_offset)| PreviousHistory { replication_id: id.into(), until_offset });
        Lineage { replication_id: id.into(), previous, offset }
    }

    /// (own, master's) -> bytes that the own one has beyond.
    #[test]
    fn what_is_beyond_the_parting_is_counted() {
        let master = of("new", 900, Some(("old", 501)));
        let table = [
            // The master was promoted at 500.
            (of("old", 500, None), Some(0)),
            (of("old", 480, None), Some(0)),
            (of("old", 530, None), Some(30)),
            // It follows the master already, or did.
            (of("new", 850, Some(("old", 501))), Some(0)),
            // Promoted by itself at 520, and written to since.
            (of("third", 560, Some(("old", 521))), Some(60)),
            // Promoted by itself before the master was.
            (of("third", 560, Some(("old", 401))), Some(160)),
            (of("third", 560, Some(("fourth", 401))), None),
            (of("third", 560, None), None),
        ];
        for (own, beyond) in table {
            assert_eq!(own.beyond(&master), beyond, "{own:?}");
        }
        // The master was promoted twice since: the name that they shared is forgotten.
        assert_eq!(of("old", 530, None).beyond(&of("newer", 950, Some(("new", 901)))), None);
    }

    #[test]
    fn of_a_restarted_redis_its_file_alone_counts() {
        let restarted = of("fresh", 470, Some(("old", 451)));
        assert_eq!(restarted.as_loaded(), Some(of("old", 450, None)));
        assert_eq!(of("fresh", 470, None).as_loaded(), None, "before Redis 7, or from an AOF");
    }
}
