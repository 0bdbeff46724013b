//! Settings of one node, checked before anything runs.

use crate::durable::RecoveredError;
use crate::time::Span;
use crate::{NodeId, ticker};
use std::collections::BTreeSet;

/// Settings of one node. All nodes of a cluster should have the same spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub id: NodeId,
    /// The first voters, the same on all nodes of a new cluster. Read only when nothing was
    /// recovered. A node that is in neither list has no membership of its own: it waits for the
    /// leader's snapshot (it joins an existing cluster).
    pub voters: Vec<NodeId>,
    /// The first learners: they follow the log and do not vote.
    pub learners: Vec<NodeId>,
    /// A leader sends a heartbeat this often.
    pub heartbeat: Span,
    /// A follower that hears nothing stands for election after at least this. Also the time in
    /// which a leader must hear a quorum.
    pub election_min: Span,
    /// And before this.
    pub election_max: Span,
    /// Seeds election timeouts and read contexts. Different in each process life.
    pub seed: u64,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("node id 0 is not allowed")]
    ZeroNode,
    #[error("node {0} is listed twice among voters and learners")]
    DuplicateNode(NodeId),
    #[error("{name} is {value}, must be whole milliseconds and not zero")]
    NotMillis { name: &'static str, value: Span },
    #[error(
        "election_min is {election_min}, must be at least twice heartbeat ({heartbeat}), so that \
         one lost heartbeat costs no election"
    )]
    ElectionTooShort { election_min: Span, heartbeat: Span },
    #[error("election_max is {election_max}, must be above election_min ({election_min})")]
    ElectionRange { election_min: Span, election_max: Span },
    #[error("election_max is {0}, must be at most 60s")]
    ElectionTooLong(Span),
    #[error("recovered state is not usable")]
    Recovered(#[from] RecoveredError),
    #[error("raft refuses the configuration")]
    Raft(#[from] RaftRefused),
}

/// raft-rs' own words for a refusal that the checks above should have made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RaftRefused(pub(crate) String);

impl Config {
    /// Checks ids and spans against each other.
    ///
    /// # Errors
    /// The first rule that does not hold, with its numbers.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for node in self.voters.iter().chain(&self.learners) {
            if !seen.insert(*node) {
                return Err(ConfigError::DuplicateNode(*node));
            }
        }
        if self.id.0 == 0 || seen.contains(&NodeId(0)) {
            return Err(ConfigError::ZeroNode);
        }
        let spans = [
            ("heartbeat", self.heartbeat),
            ("election_min", self.election_min),
            ("election_max", self.election_max),
        ];
        for (name, value) in spans {
            if value.is_zero() || !value.0.is_multiple_of(Span::from_millis(1).0) {
                return Err(ConfigError::NotMillis { name, value });
            }
        }
        if self.election_min < self.heartbeat * 2 {
            return Err(ConfigError::ElectionTooShort {
                election_min: self.election_min,
                heartbeat: self.heartbeat,
            });
        }
        if self.election_max <= self.election_min {
            return Err(ConfigError::ElectionRange {
                election_min: self.election_min,
                election_max: self.election_max,
            });
        }
        if self.election_max > Span::from_secs(60) {
            return Err(ConfigError::ElectionTooLong(self.election_max));
        }
        Ok(())
    }

    /// Length of one raft-rs tick.
    pub(crate) fn tick(&self) -> Span {
        ticker::tick_for([self.heartbeat, self.election_min, self.election_max])
    }

    pub(crate) fn ticks(&self, span: Span) -> usize {
        (span.0 / self.tick().0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            id: NodeId(1),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: vec![],
            heartbeat: Span::from_millis(30),
            election_min: Span::from_millis(150),
            election_max: Span::from_millis(300),
            seed: 1,
        }
    }

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = config();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn each_broken_rule_is_named_with_its_numbers() {
        assert_eq!(config().validate(), Ok(()));
        assert_eq!(refused(|c| c.id = NodeId(0)), "node id 0 is not allowed");
        assert_eq!(
            refused(|c| c.learners = vec![NodeId(2)]),
            "node 2 is listed twice among voters and learners"
        );
        assert!(refused(|c| c.heartbeat = Span(1)).contains("heartbeat is 1ns"));
        assert!(refused(|c| c.election_min = Span::from_millis(59)).contains("59ms"));
        assert!(refused(|c| c.election_max = Span::from_millis(150)).contains("150ms"));
        assert!(refused(|c| c.election_max = Span::from_secs(61)).contains("61s"));
    }
}
