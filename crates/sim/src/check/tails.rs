//! What only an old master holds: never overwritten without being kept first, where it can be known.
//!
//! True writes are compared, not offsets or ids. Excused is what the rule gives up: a Redis that started anew from a snapshot, which is
//! older than its tail; and a data set that could not be kept after all attempts.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_core::Epoch;

use crate::redis::WriteId;

/// The attempts that are made at one epoch.
const ATTEMPTS: u32 = 3;

#[derive(Debug, Default)]
pub struct Tails {
    /// Writes whose acknowledgement reached a client.
    answered: BTreeSet<WriteId>,
    /// By host and group: the life that last opened its gate, and at which epoch.
    opened: BTreeMap<(usize, usize), (u64, Epoch)>,
    /// By host and group: everything that was ever kept.
    kept: BTreeMap<(usize, usize), BTreeSet<WriteId>>,
    /// By host, group and epoch.
    attempts: BTreeMap<(usize, usize, Epoch), u32>,
}

/// A Redis that is about to be overwritten.
#[derive(Clone, Copy, Debug)]
pub struct Doomed<'a> {
    pub host: usize,
    pub group: usize,
    pub life: u64,
    pub log: &'a [WriteId],
    /// The epoch that it follows at, and what its master holds.
    pub epoch: Epoch,
    pub master: &'a [WriteId],
    /// What a life starts with is all that the one before had on its disk at its end.
    pub append_only: bool,
}

impl Tails {
    pub fn answered(&mut self, write: WriteId) {
        self.answered.insert(write);
    }

    pub fn opened(&mut self, host: usize, group: usize, life: (u64, Epoch)) {
        self.opened.insert((host, group), life);
    }

    pub fn attempted(&mut self, host: usize, group: usize, epoch: Epoch) {
        *self.attempts.entry((host, group, epoch)).or_default() += 1;
    }

    /// No further attempt is worth making.
    pub fn given_up(&mut self, host: usize, group: usize, epoch: Epoch) {
        self.attempts.insert((host, group, epoch), ATTEMPTS);
    }

    pub fn kept(&mut self, host: usize, group: usize, log: &[WriteId]) {
        self.kept.entry((host, group)).or_default().extend(log);
    }

    /// Acknowledged writes that would be gone for good and should not be.
    #[must_use]
    pub fn dropped(&self, d: Doomed<'_>) -> usize {
        let Some((life, opened_at)) = self.opened.get(&(d.host, d.group)) else { return 0 };
        let excused =
            if *life == d.life { false } else { !(d.append_only && opened_at.next() == d.epoch) };
        let attempts = self.attempts.get(&(d.host, d.group, d.epoch)).copied().unwrap_or(0);
        if excused || attempts >= ATTEMPTS {
            return 0;
        }
        let elsewhere: BTreeSet<WriteId> = d.master.iter().copied().collect();
        let kept = self.kept.get(&(d.host, d.group));
        let is_kept = |w: &WriteId| kept.is_some_and(|kept| kept.contains(w));
        let only_here = d.log.iter().filter(|w| self.answered.contains(w));
        only_here.filter(|w| !elsewhere.contains(w) && !is_kept(w)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Life 7 opened at epoch 1 and has written 0 to 3; the master of epoch 2 has 0 and 1. Write 3 was not acknowledged.
    fn tails() -> (Tails, Doomed<'static>) {
        let mut tails = Tails::default();
        (0..3).for_each(|w| tails.answered(w));
        tails.opened(0, 0, (7, Epoch(1)));
        let doomed = Doomed {
            host: 0,
            group: 0,
            life: 7,
            log: &[0, 1, 2, 3],
            epoch: Epoch(2),
            master: &[0, 1],
            append_only: false,
        };
        (tails, doomed)
    }

    #[test]
    fn an_acknowledged_write_that_is_nowhere_else_is_dropped() {
        let (tails, doomed) = tails();
        assert_eq!(tails.dropped(doomed), 1);
        assert_eq!(tails.dropped(Doomed { master: &[0, 1, 2], ..doomed }), 0);
    }

    #[test]
    fn what_was_kept_or_could_not_be_is_excused() {
        let (mut t, doomed) = tails();
        t.kept(0, 0, &[1, 2]);
        assert_eq!(t.dropped(doomed), 0);
        let (mut t, doomed) = tails();
        t.attempted(0, 0, Epoch(2));
        assert_eq!(t.dropped(doomed), 1);
        t.given_up(0, 0, Epoch(2));
        assert_eq!(t.dropped(doomed), 0);
        assert_eq!(t.dropped(Doomed { epoch: Epoch(3), ..doomed }), 1, "of that epoch alone");
    }

    #[test]
    fn a_restart_excuses_but_from_an_append_only_file_of_the_last_master() {
        let (tails, doomed) = tails();
        let restarted = Doomed { life: 8, ..doomed };
        assert_eq!(tails.dropped(restarted), 0);
        let replayed = Doomed { append_only: true, ..restarted };
        assert_eq!(tails.dropped(replayed), 1);
        assert_eq!(tails.dropped(Doomed { epoch: Epoch(3), ..replayed }), 0);
    }
}
