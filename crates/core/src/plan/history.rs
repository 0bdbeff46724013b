//! How much of one Redis's writes another has, by replication ids and offsets.
//!
//! An offset means something only within a history. A promotion begins a new one and keeps the old id with the first offset
//! that is no longer of it (`master_replid2`, `second_repl_offset`), so two data sets can be compared up to where they parted.

use core::cmp::min;
use std::collections::BTreeSet;

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    lineage::Lineage,
    observe::{PreviousHistory, RedisObservation},
    plan::candidate::Candidates,
};

/// Up to which offset `other` has what `master` wrote; none where no history is known to be common.
#[must_use]
pub fn shared_offset(other: &Lineage, master: &Lineage) -> Option<u64> {
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

/// A Redis that led still has all that it had then. One that copied another does not, nor does one whose copy is under way.
pub(crate) fn continues(o: &RedisObservation, led: &Lineage) -> bool {
    let now = o.lineage();
    if o.is_master() { goes_on(&now, led) } else { has_all(&now, led) }
}

/// The same of one that is a master still.
pub(crate) fn goes_on(now: &Lineage, led: &Lineage) -> bool {
    // An hour without a replica: Redis frees its backlog, takes another id and forgets the old one (`repl-backlog-ttl`). Whom
    // somebody made a replica and then a master has the id of what it copied as its previous one.
    let renamed = now.previous.is_none() && now.offset >= led.offset;
    renamed || has_all(now, led)
}

fn has_all(now: &Lineage, led: &Lineage) -> bool {
    shared_offset(now, led).is_some_and(|shared| shared >= led.offset)
}

impl Candidates<'_> {
    /// The last that is known of the master's data set, and when it was told. What its Redis has after a restart is another one,
    /// and so is what the same life copied from somebody else.
    pub(super) fn last_look_at_master(&self) -> Option<(Mono, Lineage)> {
        let a = self.group.assignment.as_ref()?;
        let node = self.nodes.get(&a.master)?;
        let newest = node.last_look_at(&self.spec.id, &a.run_id);
        match (newest, self.led()) {
            (Some((_, seen)), Some((at, led))) if !continues(seen, led) => Some((at, led.clone())),
            // It served, and what it is now it was not then.
            (Some((_, seen)), None) if a.serving && !seen.is_master() => None,
            (Some((at, seen)), _) => Some((at, seen.lineage())),
            (None, led) => led.map(|(at, led)| (at, led.clone())),
        }
    }

    /// Where the master's data stood while it served at the present epoch, as its own node told it.
    fn led(&self) -> Option<(Mono, &Lineage)> {
        let a = self.group.assignment.as_ref()?;
        let (at, led) = self.nodes.get(&a.master)?.led(&self.spec.id)?;
        (led.epoch >= a.since).then_some((at, &led.data))
    }

    /// The life of Redis there that was master, or is in the eligible set, has other data than it had as that: somebody made it copy
    /// another Redis. Nobody may get those data in place of the group's.
    #[must_use]
    pub fn is_stray(&self, node: NodeId) -> bool {
        let look = |life| self.nodes.get(&node)?.last_look_at(&self.spec.id, life);
        match self.group.assignment.as_ref().filter(|a| a.master == node) {
            Some(a) => look(&a.run_id).is_some_and(|(at, seen)| match self.led() {
                // A look from before it served says nothing of what came after (found by the simulator).
                Some((told, led)) => at >= told && !continues(seen, led),
                // It served, and nobody who is left saw with what.
                None => a.was_master() && !seen.is_master(),
            }),
            None => {
                let member = self.group.eligible.iter().find(|m| m.node == node);
                let seen = member.and_then(|m| Some(look(&m.run_id)?.1));
                let master = self.last_look_at_master();
                seen.zip(master).is_some_and(|(seen, (_, master))| !self.is_kin(seen, &master))
            }
        }
    }

    /// The data go back to the master's history, as far as the masters that were heard can tell: after two promotions a name is
    /// forgotten by Redis, but not by whoever led in between.
    fn is_kin(&self, seen: &RedisObservation, master: &Lineage) -> bool {
        let tenures = self.nodes.values().filter_map(|n| Some(&n.led(&self.spec.id)?.1.data));
        let tenures: Vec<&Lineage> = tenures.collect();
        let mut known: BTreeSet<&str> = master.ids().collect();
        loop {
            let before = known.len();
            for tenure in &tenures {
                if tenure.ids().any(|id| known.contains(id)) {
                    known.extend(tenure.ids());
                }
            }
            if known.len() == before {
                return seen.lineage().ids().any(|id| known.contains(id));
            }
        }
    }

    /// A copy that failed left nothing there: Redis begins to count anew before it fills an empty data set.
    pub(super) fn is_emptied(&self, seen: &RedisObservation) -> bool {
        let none = seen.keys == 0 && seen.offset <= 1 && !seen.is_master();
        none && self.last_look_at_master().is_some_and(|(_, master)| master.offset > 1)
    }
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
        let has = shared_offset(&of_other.lineage(), &of_master)?;
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

    fn redis(id: &str, offset: u64, previous: Option<(&str, u64)>) -> Lineage {
        let previous = previous
            .map(|(id, until_offset)| PreviousHistory { replication_id: id.into(), until_offset });
        Lineage { replication_id: id.into(), previous, offset }
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

    #[test]
    fn a_master_goes_on_from_what_it_had_or_has_other_data() {
        let led = redis("h", 1000, Some(("before", 401)));
        for (now, goes) in [
            (redis("h", 1000, Some(("before", 401))), true),
            (redis("h", 1200, None), true),
            // Somebody made it a replica, and a master again: of itself, of another Redis, of an older copy of itself.
            (redis("own", 1040, Some(("h", 1021))), true),
            (redis("own", 1040, Some(("x", 1021))), false),
            (redis("own", 1040, Some(("h", 901))), false),
            // Nobody followed it for an hour.
            (redis("own", 1040, None), true),
            (redis("own", 0, None), false),
            // A copy is under way.
            (redis("h", 1, None), false),
        ] {
            assert_eq!(goes_on(&now, &led), goes, "{now:?}");
        }
        assert!(!has_all(&redis("x", 1040, None), &led), "a replica takes its master's id");
    }
}
