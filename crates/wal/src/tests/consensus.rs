//! Consensus on top of the file: what was committed is there after power was lost at any write.

use super::faulty::{Disk, Rng, new_file, open_on};
use crate::Wal;
use redkeep_consensus::{Config, Consensus, Effect, Mono, NodeId, Recovered, Role, Span};

/// A cluster of one, so that its own disk alone decides.
struct Lone {
    node: Consensus,
    wal: Wal,
    now: Mono,
    machine: Vec<String>,
}

impl Lone {
    fn start(wal: Wal, recovered: Recovered, seed: u64) -> Lone {
        let config = Config {
            id: NodeId(1),
            voters: vec![NodeId(1)],
            learners: vec![],
            heartbeat: Span::from_millis(30),
            election_min: Span::from_millis(150),
            election_max: Span::from_millis(300),
            seed,
        };
        let now = Mono(1);
        let node = Consensus::new(config, recovered, now).expect("starts from what was written");
        let mut lone = Lone { node, wal, now, machine: vec![] };
        lone.drain();
        while lone.node.role() != Role::Leader || lone.node.committed() < lone.node.last_index() {
            lone.now = lone.node.deadline();
            lone.node.advance(lone.now);
            lone.drain();
        }
        lone
    }

    fn drain(&mut self) {
        while let Some(effect) = self.node.next_effect() {
            match effect {
                Effect::Persist(write) => {
                    self.wal.persist(&write).expect("written");
                    self.node.persisted(self.now, write.number);
                }
                Effect::Apply { data, .. } if !data.is_empty() => {
                    self.machine.push(String::from_utf8(data).expect("text"));
                }
                Effect::Restore { data, .. } => {
                    let text = String::from_utf8(data).expect("text");
                    self.machine = text.split_terminator(',').map(str::to_owned).collect();
                }
                Effect::Send { .. }
                | Effect::Apply { .. }
                | Effect::Membership { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadLost { .. }
                | Effect::RoleChanged { .. } => {}
            }
        }
    }

    fn propose(&mut self, text: &str) {
        self.node.propose(self.now, text.as_bytes().to_vec()).expect("leads");
        self.drain();
    }

    fn compact(&mut self) {
        let data: String = self.machine.iter().map(|item| format!("{item},")).collect();
        self.node.compact(self.node.applied_index(), data.into_bytes());
        self.drain();
    }
}

#[test]
fn committed_entries_survive_power_loss_at_any_write() {
    for seed in 0..3 {
        let disk = Disk::holding(new_file());
        let (wal, state) = open_on(&disk).expect("opens");
        let mut lone = Lone::start(wal, state.recovered, seed);
        // Operations of the disk when each item was known to be committed.
        let mut committed = vec![];
        for item in 0..30 {
            lone.propose(&item.to_string());
            if item % 7 == 6 {
                lone.compact();
            }
            assert_eq!(lone.machine.len(), item + 1);
            committed.push(disk.operations());
        }
        let machine = lone.machine.clone();
        let mut rng = Rng(seed);
        for cut in (0..=disk.operations()).step_by(3) {
            let least = committed.iter().filter(|operations| **operations <= cut).count();
            let again = Disk::holding(disk.after_power_loss(cut, &mut rng));
            let (wal, state) = open_on(&again).expect("opens");
            let found = Lone::start(wal, state.recovered, seed + 100).machine;
            assert!(found.len() >= least, "cut {cut}: {} of {least} left", found.len());
            assert_eq!(found[..], machine[..found.len()], "cut {cut}");
        }
    }
}
