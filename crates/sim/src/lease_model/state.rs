//! What there is at one instant.
//!
//! A node's committed log is kept as what it says (group, voters, last term, length), as a snapshot would: what is behind it
//! is never asked for. That two nodes' snapshots of the same length say the same is Raft's doing; where they meet they are compared.

use super::{Setting, Start};

pub(crate) const A: u8 = 0;
pub(crate) const W: u8 = 2;
pub(crate) const D: u8 = 3;
pub(crate) const NODES: usize = 4;
/// a and b; the others have no Redis.
pub(crate) const HOSTS: usize = 2;
/// An arming of a host by its generation: `host * 2 + generation`.
pub(crate) const SLOTS: usize = 4;
/// No setting makes so many entries that a log is full.
pub(crate) const TAIL_MAX: usize = 6;
/// a, b and w.
pub(crate) const VOTERS: u8 = 0b0111;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A new leader's first entry.
    Nothing,
    Assign {
        master: u8,
        epoch: u8,
        life: u8,
    },
    /// Bits of the voters.
    Voters(u8),
}

/// A term below four and a [`What`] in one byte: millions of these wait to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Entry(u8);

impl Entry {
    const VOTERS: u8 = 0x10;
    const ASSIGN: u8 = 0x20;

    pub(crate) fn new(term: u8, what: What) -> Self {
        let what = match what {
            What::Nothing => 0,
            What::Voters(voters) => Self::VOTERS | voters,
            What::Assign { master, epoch, life } => Self::ASSIGN | life << 4 | master << 3 | epoch,
        };
        Self(term << 6 | what)
    }

    pub(crate) fn term(self) -> u8 {
        self.0 >> 6
    }

    pub(crate) fn what(self) -> What {
        if self.0 & Self::ASSIGN != 0 {
            What::Assign { master: self.0 >> 3 & 1, epoch: self.0 & 7, life: self.0 >> 4 & 1 }
        } else if self.0 & Self::VOTERS != 0 {
            What::Voters(self.0 & 15)
        } else {
            What::Nothing
        }
    }
}

/// What of a log is not known to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Tail {
    entries: [Entry; TAIL_MAX],
    pub(crate) len: u8,
}

impl Tail {
    /// Gives its place, from 1.
    pub(crate) fn push(&mut self, entry: Entry) -> u8 {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
        self.len
    }

    pub(crate) fn all(&self) -> &[Entry] {
        &self.entries[..usize::from(self.len)]
    }

    /// All but the first `n`.
    pub(crate) fn after(&self, n: u8) -> Self {
        let mut rest = Self::default();
        for entry in self.all().iter().skip(usize::from(n)) {
            rest.push(*entry);
        }
        rest
    }

    pub(crate) fn voters(&self) -> impl Iterator<Item = u8> + '_ {
        self.all().iter().filter_map(|e| match e.what() {
            What::Voters(voters) => Some(voters),
            What::Nothing | What::Assign { .. } => None,
        })
    }
}

/// How far the request of one arming is with its leader. Bits are nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Ask {
    pub(crate) taken: bool,
    pub(crate) confirmed: bool,
    /// Acknowledgements of the round that are under way.
    pub(crate) sent: u8,
    pub(crate) got: u8,
}

/// What only a leader has. Places in the log count from what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Lead {
    /// Ticks until another master may be named.
    pub(crate) not_before: u8,
    /// Place of a decision whose fate is not known; 0 = none.
    pub(crate) in_flight: u8,
    /// The epoch that its master reported as fenced.
    pub(crate) fenced: u8,
    /// Appends acknowledged, the answer under way.
    pub(crate) acked: [u8; NODES],
    /// Appends acknowledged, the answer here.
    pub(crate) matched: [u8; NODES],
    pub(crate) asks: [Ask; SLOTS],
}

/// The group as the committed log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Group {
    pub(crate) master: Option<u8>,
    pub(crate) epoch: u8,
    /// Which life of its Redis.
    pub(crate) life: u8,
}

/// One supervisor's part in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    pub(crate) term: u8,
    /// Entries committed, and the term of the last.
    pub(crate) commit: u8,
    pub(crate) commit_term: u8,
    pub(crate) group: Group,
    /// As raft-rs has it: a change counts when it is committed.
    pub(crate) voters: u8,
    pub(crate) tail: Tail,
    pub(crate) lead: Option<Lead>,
}

pub(crate) fn is_majority(nodes: u8, voters: u8) -> bool {
    (nodes & voters).count_ones() * 2 > voters.count_ones()
}

impl Node {
    /// As Raft compares logs before a vote.
    pub(crate) fn rank(&self) -> (u8, u8) {
        let last = self.tail.all().last().map_or(self.commit_term, |e| e.term());
        (last, self.commit + self.tail.len)
    }

    pub(crate) fn has_committed_in_its_term(&self) -> bool {
        self.commit_term == self.term
    }

    /// The first `n` of the tail are committed, and so applied: an assignment counts only if its epoch is the next.
    pub(crate) fn apply(&mut self, n: u8) {
        for entry in self.tail.all().iter().take(usize::from(n)) {
            match entry.what() {
                What::Assign { master, epoch, life } if epoch == self.group.epoch + 1 => {
                    self.group = Group { master: Some(master), epoch, life };
                }
                What::Voters(voters) => self.voters = voters,
                What::Nothing | What::Assign { .. } => {}
            }
            self.commit += 1;
            self.commit_term = entry.term();
        }
        self.tail = self.tail.after(n);
    }
}

/// A timer that was armed, and what is said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Arming {
    pub(crate) epoch: u8,
    pub(crate) ttl: u8,
    /// Bits of the terms in which its host asked for it.
    pub(crate) asked: u8,
    /// A grant is under way, or was.
    pub(crate) granted: bool,
}

/// A host: the kernel's two generations, and what its supervisor remembers of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Host {
    /// Ticks left, by generation.
    pub(crate) timer: [u8; 2],
    pub(crate) gate: [bool; 2],
    pub(crate) armed: [Option<Arming>; 2],
    pub(crate) last_granted: Option<u8>,
    /// Armings so far.
    pub(crate) arms: u8,
    /// On disk.
    pub(crate) burned: u8,
    /// Of its Redis, and the one that its supervisor knows of.
    pub(crate) life: u8,
    pub(crate) seen: u8,
    /// Bits of the epochs of which it sent that it fenced.
    pub(crate) fences: u8,
    /// Forgotten rule: bits of the epochs of all grants that ever left for it.
    pub(crate) grants: u8,
}

impl Host {
    pub(crate) fn is_open(&self) -> bool {
        (0..2).any(|g| self.gate[g] && self.timer[g] > 0)
    }

    /// The kernel has nothing left of it, nor anything that a grant could open.
    pub(crate) fn close(&mut self) {
        self.timer = [0; 2];
        self.gate = [false; 2];
        self.armed = [None; 2];
    }
}

/// One instant. What is said is kept with what it is about, since it may arrive at any later moment, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) nodes: [Node; NODES],
    pub(crate) hosts: [Host; HOSTS],
    pub(crate) restarts: u8,
    pub(crate) assigns: u8,
    /// Nobody can be elected any more; found out where states are reduced.
    pub(crate) over: bool,
    /// Two nodes committed different entries: Raft would be broken.
    pub(crate) diverged: bool,
}

impl State {
    #[must_use]
    pub fn first(setting: &Setting) -> Self {
        let mut node =
            Node { term: 1, commit: 1, commit_term: 1, voters: VOTERS, ..Node::default() };
        if setting.start != Start::Cold {
            node.commit = 2;
            node.group = Group { master: Some(A), epoch: 1, life: 0 };
        }
        let mut nodes = [node, node, node, Node { voters: VOTERS, ..Node::default() }];
        let leader = if setting.start == Start::MasterLeads { A } else { W };
        nodes[usize::from(leader)].lead = Some(Lead::default());
        let hosts = <[Host; HOSTS]>::default();
        Self { nodes, hosts, restarts: 0, assigns: 0, over: false, diverged: false }
    }

    pub(crate) fn node(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    pub(crate) fn node_group(&self, node: u8) -> Group {
        self.nodes[usize::from(node)].group
    }

    pub(crate) fn armed(&self, slot: usize) -> Option<&Arming> {
        self.hosts[slot / 2].armed[slot % 2].as_ref()
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

pub(crate) fn bit(node: u8) -> u8 {
    1 << node
}

pub(crate) fn nodes() -> impl Iterator<Item = u8> + Clone {
    (0..).take(NODES)
}

/// Bits of the nodes for which it is true.
pub(crate) fn bits(is: impl Fn(u8) -> bool) -> u8 {
    nodes().filter(|n| is(*n)).map(bit).sum()
}

pub(crate) fn host_of(slot: usize) -> u8 {
    u8::from(slot >= 2)
}

#[cfg(test)]
mod tests {
    use super::{Entry, What};

    #[test]
    fn an_entry_is_read_as_it_was_made() {
        let whats = [
            What::Nothing,
            What::Assign { master: 0, epoch: 1, life: 1 },
            What::Assign { master: 1, epoch: 7, life: 0 },
            What::Voters(0b1011),
        ];
        for (term, what) in (0..4).flat_map(|term| whats.map(|what| (term, what))) {
            let entry = Entry::new(term, what);
            assert_eq!((entry.term(), entry.what()), (term, what));
        }
    }
}
