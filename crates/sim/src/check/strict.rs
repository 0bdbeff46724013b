//! Durability strict: no write is acknowledged while fewer replicas are attached than the eligible set has members, by what
//! the master's own supervisor has applied.

use std::collections::BTreeMap;

use redkeep_core::Span;

use crate::clock::Real;

/// Redis is told of a larger set within this: one command, maybe behind another.
const RAISED_WITHIN: Span = Span::from_millis(2_500);

#[derive(Clone, Copy, Debug)]
struct Seen {
    members: u64,
    /// Demanded while Redis is being told.
    before: u64,
    since: Real,
}

/// By host and group.
#[derive(Debug, Default)]
pub struct Strict(BTreeMap<(usize, usize), Seen>);

impl Strict {
    /// How many replicas must be attached at the master `host`, whose supervisor has applied a set of so many `members`.
    pub fn demands(&mut self, host: usize, group: usize, members: u64, now: Real) -> u64 {
        let new = Seen { members, before: 0, since: now };
        let seen = self.0.entry((host, group)).or_insert(new);
        let demanded = if now.since(seen.since) < RAISED_WITHIN {
            seen.before.min(seen.members)
        } else {
            seen.members
        };
        if seen.members == members {
            return demanded;
        }
        *seen = Seen { members, before: demanded, since: now };
        demanded.min(members)
    }

    /// The host's supervisor is no longer master there, or not heard.
    pub fn forget(&mut self, host: usize, group: usize) {
        self.0.remove(&(host, group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_set_counts_after_redis_was_told_and_a_smaller_one_at_once() {
        let mut strict = Strict::default();
        let mut at = |ms: u64, members| strict.demands(0, 0, members, Real(ms * 1_000_000));
        assert_eq!([at(0, 0), at(100, 1), at(2_599, 1), at(2_600, 1)], [0, 0, 0, 1]);
        assert_eq!([at(2_700, 2), at(5_100, 2), at(5_200, 2)], [1, 1, 2]);
        assert_eq!([at(5_300, 0), at(5_400, 1), at(8_000, 1)], [0, 0, 1]);
    }
}
