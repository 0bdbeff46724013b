//! What there is at one instant.

use super::{Setting, Start};

pub(crate) const A: u8 = 0;
pub(crate) const W: u8 = 2;
pub(crate) const D: u8 = 3;
pub(crate) const NODES: usize = 4;
/// a and b; the others have no Redis.
pub(crate) const HOSTS: usize = 2;
const LOG_MAX: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) enum What {
    /// A new leader's first entry.
    #[default]
    Nothing,
    Assign {
        master: u8,
        epoch: u8,
    },
    /// Bits of the voters.
    Voters(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Entry {
    pub(crate) term: u8,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Log {
    entries: [Entry; LOG_MAX],
    pub(crate) len: u8,
}

impl Log {
    pub(crate) fn is_full(&self) -> bool {
        usize::from(self.len) == LOG_MAX
    }

    /// Gives its index, from 1.
    pub(crate) fn push(&mut self, entry: Entry) -> u8 {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
        self.len
    }

    pub(crate) fn upto(&self, index: u8) -> &[Entry] {
        &self.entries[..usize::from(index)]
    }

    pub(crate) fn all(&self) -> &[Entry] {
        self.upto(self.len)
    }

    /// As Raft compares logs before a vote.
    pub(crate) fn rank(&self) -> (u8, u8) {
        (self.all().last().map_or(0, |e| e.term), self.len)
    }
}

/// How far a request is with its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// Bits of those who acknowledged the round.
    Round(u8),
    Confirmed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Waiting {
    pub(crate) from: u8,
    pub(crate) arm: u8,
    pub(crate) epoch: u8,
    pub(crate) stage: Stage,
}

/// What only a leader has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Lead {
    /// Ticks until another master may be named.
    pub(crate) not_before: u8,
    /// Index of a decision whose fate is not known; 0 = none.
    pub(crate) in_flight: u8,
    /// The epoch that its master reported as fenced.
    pub(crate) fenced: u8,
    pub(crate) matched: [u8; NODES],
    pub(crate) waiting: Vec<Waiting>,
}

/// One supervisor's part in Raft.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    pub(crate) term: u8,
    pub(crate) log: Log,
    pub(crate) commit: u8,
    pub(crate) lead: Option<Lead>,
}

/// The group as the committed log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) master: Option<u8>,
    pub(crate) epoch: u8,
}

impl Node {
    /// Applied: an assignment counts only if its epoch is the next.
    pub(crate) fn group(&self) -> Group {
        let mut group = Group { master: None, epoch: 0 };
        for entry in self.log.upto(self.commit) {
            if let What::Assign { master, epoch } = entry.what
                && epoch == group.epoch + 1
            {
                group = Group { master: Some(master), epoch };
            }
        }
        group
    }

    pub(crate) fn voters(&self) -> u8 {
        let change = |e: &Entry| match e.what {
            What::Voters(voters) => Some(voters),
            What::Nothing | What::Assign { .. } => None,
        };
        self.log.upto(self.commit).iter().rev().find_map(change).unwrap_or(0b0111)
    }

    pub(crate) fn has_committed_in_its_term(&self) -> bool {
        self.log.upto(self.commit).last().is_some_and(|e| e.term == self.term)
    }

    /// Whether `nodes` are a majority of the voters that this node knows.
    pub(crate) fn is_majority(&self, nodes: u8) -> bool {
        (nodes & self.voters()).count_ones() * 2 > self.voters().count_ones()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Arming {
    pub(crate) arm: u8,
    pub(crate) epoch: u8,
}

/// A host: the kernel's two generations, and what its supervisor remembers of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Host {
    /// Ticks left, by generation.
    pub(crate) timer: [u8; 2],
    pub(crate) gate: [bool; 2],
    pub(crate) armed: [Option<Arming>; 2],
    pub(crate) last_granted: Option<u8>,
    /// Ids given so far; never used again, over restarts too.
    pub(crate) arms: u8,
    /// On disk.
    pub(crate) burned: u8,
}

impl Host {
    pub(crate) fn is_open(&self) -> bool {
        (0..2).any(|g| self.gate[g] && self.timer[g] > 0)
    }
}

/// A message that may arrive at any later moment, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    Request { from: u8, to: u8, term: u8, arm: u8, epoch: u8 },
    RoundAck { from: u8, to: u8, term: u8, asker: u8, arm: u8 },
    Grant { to: u8, arm: u8, epoch: u8 },
    AppendAck { from: u8, to: u8, term: u8, len: u8 },
    Fenced { from: u8, epoch: u8 },
}

/// One instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) nodes: [Node; NODES],
    pub(crate) hosts: [Host; HOSTS],
    /// Sorted.
    pub(crate) sent: Vec<Message>,
    pub(crate) restarts: u8,
    pub(crate) assigns: u8,
}

impl State {
    #[must_use]
    pub fn first(setting: &Setting) -> Self {
        let mut log = Log::default();
        log.push(Entry { term: 1, what: What::Nothing });
        if setting.start != Start::Cold {
            log.push(Entry { term: 1, what: What::Assign { master: A, epoch: 1 } });
        }
        let node = Node { term: 1, log, commit: log.len, lead: None };
        let mut nodes = [node.clone(), node.clone(), node, Node::default()];
        let leader = if setting.start == Start::MasterLeads { A } else { W };
        nodes[usize::from(leader)].lead =
            Some(Lead { matched: [log.len; NODES], ..Lead::default() });
        Self { nodes, hosts: Default::default(), sent: Vec::new(), restarts: 0, assigns: 0 }
    }

    pub(crate) fn node(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    pub(crate) fn send(&mut self, message: Message) {
        if let Err(at) = self.sent.binary_search(&message) {
            self.sent.insert(at, message);
        }
    }

    /// More than one host takes writes.
    #[must_use]
    pub fn has_two_writers(&self) -> bool {
        self.hosts.iter().filter(|h| h.is_open()).count() > 1
    }

    #[must_use]
    pub fn is_anybody_open(&self) -> bool {
        self.hosts.iter().any(Host::is_open)
    }
}
