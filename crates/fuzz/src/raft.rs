//! Raft messages from an authenticated peer that lies: refused or harmless, in every role.

use redkeep_consensus::{
    Config, Consensus, Effect, Entry, EntryKind, HardState, Mono, NodeId, Recovered, Role,
    Snapshot, Span, StepError,
};

/// The nodes; the first is the one that `script` speaks to.
pub const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// A node with a short log, at term 3.
fn recovered() -> Recovered {
    let entry = |index, term| Entry {
        term,
        index,
        kind: EntryKind::Normal,
        context: Vec::new(),
        data: vec![7; 3],
    };
    Recovered {
        hard_state: HardState { term: 3, vote: 0, commit: 5 },
        snapshot: Some(Snapshot {
            index: 3,
            term: 1,
            voters: VOTERS.to_vec(),
            learners: Vec::new(),
            data: Vec::new(),
        }),
        entries: vec![entry(4, 2), entry(5, 2), entry(6, 3)],
    }
}

/// One of three nodes, all with the same log.
#[derive(Debug)]
pub struct Node {
    pub consensus: Consensus,
    pub now: Mono,
    /// What it sent since this was last taken.
    pub sent: Vec<(NodeId, Vec<u8>)>,
    /// Index that was handed out last.
    applied: u64,
}

impl Node {
    /// # Panics
    /// Never: the state fits together.
    #[must_use]
    pub fn start(id: NodeId) -> Self {
        let config = Config {
            id,
            voters: VOTERS.to_vec(),
            learners: Vec::new(),
            heartbeat: Span::from_millis(30),
            election_min: Span::from_millis(150),
            election_max: Span::from_millis(300),
            seed: 1,
        };
        let now = Mono(1_000_000_000);
        let consensus =
            Consensus::new(config, recovered(), now).expect("a state that fits together");
        let mut node = Self { consensus, now, sent: Vec::new(), applied: 0 };
        node.drain();
        node
    }

    /// A disk that is done at once; what is handed out is held to the order that was promised.
    ///
    /// # Panics
    /// It was not.
    pub fn drain(&mut self) {
        while let Some(effect) = self.consensus.next_effect() {
            match effect {
                Effect::Persist(write) => self.consensus.persisted(self.now, write.number),
                Effect::Apply { index, .. } => {
                    assert!(index > self.applied, "{index} after {}", self.applied);
                    self.applied = index;
                }
                // A restored snapshot is followed by its membership.
                Effect::Restore { index, .. } | Effect::Membership { index, .. } => {
                    assert!(index >= self.applied, "{index} after {}", self.applied);
                    self.applied = index;
                }
                Effect::Send { to, bytes, .. } => self.sent.push((to, bytes)),
                Effect::ReadReady { .. } | Effect::ReadLost { .. } | Effect::RoleChanged { .. } => {
                }
            }
        }
    }

    /// Time passes without a message, and the node is woken often: a stall would not count.
    pub fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.now = (self.now + Span::from_millis(40)).min(end);
            self.consensus.advance(self.now);
            self.drain();
        }
    }

    /// False when the node must stop.
    ///
    /// # Panics
    /// What only rises fell.
    pub fn step(&mut self, from: NodeId, bytes: &[u8]) -> bool {
        let (term, committed) = (self.consensus.term(), self.consensus.committed());
        let result = self.consensus.step(self.now, from, bytes);
        let stop = matches!(result, Err(StepError::CommitBeyondLog { .. }));
        self.drain();
        assert!(self.consensus.term() >= term, "the term fell");
        assert!(self.consensus.committed() >= committed, "the commit index fell");
        !stop
    }
}

/// A script: parts whose first byte says who speaks and how much time passes before; the rest is a message.
pub(crate) fn script(bytes: &[u8]) {
    let mut node = Node::start(VOTERS[0]);
    for part in crate::parts(bytes).take(64) {
        node.sent.clear();
        let Some((how, message)) = part.split_first() else { continue };
        match how >> 4 {
            0 => {}
            // Long enough to stand for election.
            1 => node.pass(Span::from_millis(400)),
            2 => {
                let _ = node.consensus.propose(node.now, vec![1]);
                node.drain();
            }
            3 => {
                let deadline = node.now + Span::from_millis(100);
                let _ = node.consensus.read_index(node.now, deadline);
                node.drain();
            }
            4 => {
                node.consensus.leader_died(node.now);
                node.drain();
            }
            5 => node.consensus.report_unreachable(VOTERS[1]),
            6 => node.consensus.report_snapshot(VOTERS[1], false),
            7 => node.consensus.compact(node.consensus.applied_index(), vec![1]),
            many => node.pass(Span::from_millis(u64::from(many) * 5)),
        }
        if !node.step(NodeId(u64::from(how % 16)), message) {
            return;
        }
    }
    let leads = node.consensus.role() == Role::Leader;
    assert!(!leads || node.consensus.leader() == Some(VOTERS[0]));
}
