//! What a range of seeds has to have met before it proves anything: every kind of fault, done and not only planned; every
//! reason to wait, stated by a leader; and deeds that only a world with all its parts can show.

use redkeep_core::plan::HoldReason;

use crate::{fault::FaultKind, trace::Coverage};

macro_rules! holds {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// Every reason that a leader of this world may state, by the name under which it is counted.
        pub const HOLDS: &[&str] = &[$($text),*];

        /// The name under which a reason is counted.
        #[must_use]
        pub const fn hold_name(hold: &HoldReason) -> &'static str {
            match hold {
                $(HoldReason::$name { .. } => $text),*
            }
        }
    };
}

holds! {
    Paused = "hold: paused",
    OldLease = "hold: old lease",
    AwaitingFence = "hold: awaiting fence",
    OldMasterDoubtful = "hold: old master doubtful",
    NoCandidate = "hold: no candidate",
    AdoptionIncomplete = "hold: adoption incomplete",
    AdoptionAmbiguous = "hold: adoption ambiguous",
    AdoptionNoMaster = "hold: adoption without master",
    AdoptedNotGuarded = "hold: adopted, not guarded",
    ColdStart = "hold: cold start",
    EmptyDataSet = "hold: empty data set",
    OlderDataSet = "hold: older data set",
    UnrelatedDataSets = "hold: unrelated data sets",
    Cooldown = "hold: cooldown",
    MassFailure = "hold: mass failure",
    InFlight = "hold: in flight",
    LeadershipTransfer = "hold: leadership transfer",
    TakeoverRunning = "hold: takeover running",
    Bypass = "hold: reached around the lock",
    FencingUnreached = "hold: fencing an unreached master",
    Unreached = "hold: unreached master",
    OtherHistory = "hold: other history",
}

/// A node that was away comes back by the leader's snapshot.
pub const BY_SNAPSHOT: &str = "node back by a snapshot";
/// A log was compacted.
pub const COMPACTED: &str = "log compacted";

/// A node that joined is a voter.
pub const NEWCOMER_VOTES: &str = "newcomer votes";
/// A node that left is out of Raft's membership.
pub const TAKEN_OUT: &str = "voter taken out";
/// A member that joined is master.
pub const NEWCOMER_SERVES: &str = "newcomer serves";
/// A master that no majority reached was replaced by another.
pub const UNREACHED_MOVED: &str = "unreached master moved";

/// Besides faults and reasons.
const DEEDS: [&str; 6] =
    [COMPACTED, BY_SNAPSHOT, NEWCOMER_VOTES, TAKEN_OUT, NEWCOMER_SERVES, UNREACHED_MOVED];

/// All that is claimed.
pub fn all() -> impl Iterator<Item = &'static str> {
    let faults = FaultKind::ALL.iter().map(|k| k.as_str());
    faults.chain(HOLDS.iter().copied()).chain(DEEDS)
}

/// What was met less than `n` times, and how often.
#[must_use]
pub fn rarer_than(coverage: &Coverage, n: u64) -> Vec<(&'static str, u64)> {
    all().map(|what| (what, coverage.count(what))).filter(|(_, seen)| *seen < n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_met_is_told_and_what_was_met_often_enough_is_not() {
        let mut coverage = Coverage::default();
        for what in all().filter(|what| *what != HOLDS[3]) {
            coverage.met(what);
        }
        assert_eq!(rarer_than(&coverage, 1), [(HOLDS[3], 0)]);
        assert_eq!(rarer_than(&coverage, 2).len(), all().count());
        assert_eq!(rarer_than(&coverage, 0), []);
    }

    #[test]
    fn every_name_is_counted_by_itself() {
        let names: std::collections::BTreeSet<&str> = all().collect();
        assert_eq!(names.len(), all().count());
    }
}
