//! A node's life with its data directory, over several starts, and what of it was acknowledged when.

use super::faulty::{DIR_ID, Disk, open_on};
use super::workload::{Workload, same};
use crate::{OpenError, PersistError, State, Wal, Write};
use redkeep_consensus::Recovered;
use std::collections::BTreeMap;

/// What the directory holds, or would.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    recovered: Recovered,
    burned: BTreeMap<String, u64>,
    bootstrapped: bool,
    incarnation: u64,
}

impl Known {
    /// Whether a start that found `state` found this.
    fn is(&self, state: &State) -> bool {
        same(&state.recovered, &self.recovered)
            && state.burned == self.burned
            && state.bootstrapped == self.bootstrapped
            && state.incarnation == self.incarnation + 1
            && state.fresh == (!self.bootstrapped && self.recovered.is_fresh())
            && state.dir_id == DIR_ID
    }
}

/// One thing that was written.
#[derive(Debug)]
struct Step {
    /// Operations of the disk when it was begun, and when it was acknowledged, if it was.
    begun: usize,
    acknowledged: Option<usize>,
    after: Known,
}

/// How a history ended before its time.
#[derive(Debug)]
pub(super) enum Refused {
    /// Not even opened.
    Open(OpenError),
    /// The log that gave up, and why.
    Write(Box<Wal>, PersistError),
    /// Closing failed, so there is no log left.
    Close(PersistError),
}

pub(super) struct History {
    pub(super) disk: Disk,
    steps: Vec<Step>,
    now: Known,
    workload: Workload,
    epoch: u64,
}

impl History {
    /// On a disk with a new directory's file.
    pub(super) fn new(disk: Disk, seed: u64) -> History {
        let first = Step { begun: 0, acknowledged: Some(0), after: Known::default() };
        let (now, workload) = (Known::default(), Workload::new(seed));
        History { disk, steps: vec![first], now, workload, epoch: 0 }
    }

    fn begin(&mut self, after: Known) {
        let begun = self.disk.operations();
        self.steps.push(Step { begun, acknowledged: None, after });
    }

    fn acknowledged(&mut self) {
        let operations = self.disk.operations();
        let step = self.steps.last_mut().expect("begun");
        step.acknowledged = Some(operations);
        self.now = step.after.clone();
    }

    /// `lives` starts with `length` writes each; the ones in between end in turn by a close and by a crash of the process.
    pub(super) fn run(&mut self, lives: usize, length: usize) -> Result<(), Refused> {
        for life in 0..lives {
            let mut after = self.now.clone();
            after.incarnation += 1;
            self.begin(after);
            let (mut wal, state) = open_on(&self.disk).map_err(Refused::Open)?;
            assert!(self.now.is(&state), "a start found another state than was left");
            self.acknowledged();
            // As the node does: it goes on from what it found, an older commit index included.
            self.now.recovered = state.recovered.clone();
            self.workload.image = state.recovered;
            for number in 0..length {
                if let Err(error) = self.write(&mut wal, life * length + number) {
                    return Err(Refused::Write(Box::new(wal), error));
                }
            }
            if life % 2 == 0 {
                // A waiting commit index goes along; it is no news for `same`.
                self.begin(self.now.clone());
                wal.close().map_err(Refused::Close)?;
                self.acknowledged();
            }
        }
        Ok(())
    }

    fn write(&mut self, wal: &mut Wal, number: usize) -> Result<(), PersistError> {
        let mut after = self.now.clone();
        match number % 6 {
            2 => {
                self.epoch += 1;
                after.burned.insert("cache".to_owned(), self.epoch);
                self.begin(after);
                wal.burn("cache", self.epoch)?;
            }
            4 => {
                // Several in one transaction, as they wait for a busy disk.
                let batch: Vec<_> = (0..3).map(|_| self.workload.next()).collect();
                self.epoch += 1;
                after.recovered = self.workload.image.clone();
                after.burned.insert("queue".to_owned(), self.epoch);
                self.begin(after);
                let mut writes: Vec<Write<'_>> = batch.iter().map(Write::Persist).collect();
                writes.insert(1, Write::Burn { group: "queue", epoch: self.epoch });
                wal.commit(&writes)?;
            }
            5 if !after.bootstrapped => {
                after.bootstrapped = true;
                self.begin(after);
                wal.mark_bootstrapped()?;
            }
            _ => {
                let write = self.workload.next();
                after.recovered = self.workload.image.clone();
                self.begin(after);
                wal.persist(&write)?;
            }
        }
        self.acknowledged();
        Ok(())
    }

    /// A start after the disk lost power at operation `cut` found `state`: it is one that was acknowledged by then and not
    /// written over by an acknowledged one, or one that was under way.
    pub(super) fn check(&self, cut: usize, state: &State) {
        let done = |step: &Step| step.acknowledged.is_some_and(|at| at <= cut);
        let oldest = self.steps.iter().rposition(done).expect("the first");
        let possible = self.steps[oldest..].iter().filter(|step| step.begun <= cut);
        let known = possible.map(|step| &step.after);
        assert!(
            known.clone().any(|known| known.is(state)),
            "cut {cut}: found {state:#?}\npossible {:#?}",
            known.collect::<Vec<_>>()
        );
    }
}
