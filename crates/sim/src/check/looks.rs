//! A master is moved as unreached only where something but our own lock kept a majority from it.
//!
//! What each look met is known to the world, not to the one who looked. Reports are late, and a slow disk holds a fence up: what
//! was met within `RECENT` counts.

use std::collections::BTreeMap;

use redkeep_core::Span;

use crate::clock::Real;

/// Longer than a report that is held up, and a leader that comes to its decision, can take.
const RECENT: Span = Span::from_secs(5);

#[derive(Debug, Default)]
pub struct Looks {
    /// By group, who looked and at whom: when something else than the lock was last in the way.
    missed: BTreeMap<(usize, usize, usize), Real>,
}

impl Looks {
    /// A look got no answer, and not because of the lock; `seen`: group, who looked, and at whom.
    pub fn missed(&mut self, now: Real, seen: (usize, usize, usize)) {
        self.missed.insert(seen, now);
    }

    /// So many hosts were kept from the Redis of (`group`, host).
    #[must_use]
    pub fn missed_by(&self, now: Real, of: (usize, usize)) -> usize {
        let recent = |at: Real| now.since(at) <= RECENT;
        self.missed.iter().filter(|((g, _, to), at)| (*g, *to) == of && recent(**at)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_counts_once_and_for_a_while() {
        let mut looks = Looks::default();
        let at = |s: u64| Real(s * 1_000_000_000);
        looks.missed(at(1), (0, 1, 0));
        looks.missed(at(2), (0, 1, 0));
        looks.missed(at(4), (0, 2, 0));
        looks.missed(at(4), (1, 2, 0));
        assert_eq!(looks.missed_by(at(5), (0, 0)), 2);
        assert_eq!(looks.missed_by(at(5), (0, 1)), 0);
        assert_eq!(looks.missed_by(at(8), (0, 0)), 1);
    }
}
