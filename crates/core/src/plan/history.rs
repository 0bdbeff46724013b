//! How much of one Redis's writes another has, by replication ids and offsets.
//!
//! An offset means something only within a history. A promotion begins a new one and keeps the old id with the first offset
//! that is no longer of it (`master_replid2`, `second_repl_offset`), so two data sets can be compared up to where they parted.

use core::cmp::min;

use redkeep_consensus::{NodeId, Span};

use crate::{
    observe::{PreviousHistory, RedisObservation},
    plan::candidate::Candidates,
};

/// Up to which offset `other` has what `master` wrote; none where no history is known to be common.
#[must_use]
pub fn shared_offset(other: &RedisObservation, master: &RedisObservation) -> Option<u64> {
    if other.replication_id == master.replication_id {
        return Some(other.offset);
    }
    let until = |before: &Option<PreviousHistory>, id: &str| {
        let before = before.as_ref().filter(|p| p.replication_id == id)?;
        Some(before.until_offset.saturating_sub(1))
    };
    // One of the two went its own way from there.
    let parted = until(&other.previous, &master.replication_id)
        .or_else(|| until(&master.previous, &other.replication_id))?;
    Some(min(other.offset, parted))
}

/// What a promotion would lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// That the master had and the other does not have, as far as known.
    pub bytes: u64,
    /// Age of that knowledge: of the older of the two looks.
    pub known_ago: Span,
}

impl Candidates<'_> {
    /// What would be lost if `node` were promoted now; none where it is the master, or where the two cannot be compared.
    #[must_use]
    pub fn loss(&self, node: NodeId) -> Option<Loss> {
        let master = self.group.master().filter(|m| *m != node)?;
        let (seen, of_master) = self.last_look_at_master()?;
        let (at, of_other) = self.nodes.get(&node)?.last_look(&self.spec.id)?;
        let has = shared_offset(of_other, of_master)?;
        // The fence knows the end better than the last probe.
        let fence = self.fenced(master).filter(|f| f.epoch == self.group.epoch());
        let had = fence.map_or(of_master.offset, |f| f.offset.max(of_master.offset));
        let known_ago = self.now_boot.since(min(seen, at));
        Some(Loss { bytes: had.saturating_sub(has), known_ago })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::master;

    fn redis(id: &str, offset: u64, previous: Option<(&str, u64)>) -> RedisObservation {
        let previous = previous
            .map(|(id, until_offset)| PreviousHistory { replication_id: id.into(), until_offset });
        RedisObservation { replication_id: id.into(), previous, offset, ..master("r") }
    }

    #[test]
    fn offsets_compare_within_a_history_and_up_to_where_two_parted() {
        let master = redis("new", 1000, Some(("old", 901)));
        for (other, shared) in [
            (redis("new", 950, Some(("old", 901))), Some(950)),
            (redis("new", 950, None), Some(950)),
            // It has not followed since the promotion.
            (redis("old", 850, None), Some(850)),
            // It has what the master never had.
            (redis("old", 960, None), Some(900)),
            // It was promoted by hand, and wrote on.
            (redis("own", 2000, Some(("new", 941))), Some(940)),
            (redis("own", 930, Some(("new", 941))), Some(930)),
            (redis("other", 2000, None), None),
            (redis("own", 2000, Some(("other", 5))), None),
            // Brothers: nothing says where they parted from each other.
            (redis("own", 2000, Some(("old", 901))), None),
        ] {
            assert_eq!(shared_offset(&other, &master), shared, "{other:?}");
        }
    }
}
