//! Acting needs a lease (invariant 6): which epoch each timer in a kernel was armed for, and who was named at which epoch.
//!
//! What the timers and gates hold is asked of the simulated kernel itself; what a supervisor believes counts for nothing.

use std::collections::BTreeMap;

use redkeep_core::{Epoch, Generation, NodeId};

use crate::check::Violation;

#[derive(Debug, Default)]
pub struct Permission {
    /// By host, group and generation.
    armed: BTreeMap<(usize, usize, Generation), Epoch>,
    /// By group and epoch: the master, as the first node that applied the decision told.
    named: BTreeMap<(usize, Epoch), NodeId>,
}

impl Permission {
    /// The kernel took an arming.
    pub fn armed(&mut self, host: usize, group: usize, generation: Generation, epoch: Epoch) {
        self.armed.insert((host, group, generation), epoch);
    }

    /// The epoch that this timer was armed for last, whether it still runs or not.
    #[must_use]
    pub fn armed_for(&self, host: usize, group: usize, generation: Generation) -> Option<Epoch> {
        self.armed.get(&(host, group, generation)).copied()
    }

    /// A node applied an assignment.
    pub fn named(&mut self, group: usize, epoch: Epoch, master: NodeId) {
        self.named.entry((group, epoch)).or_insert(master);
    }

    /// A gate of `host`, which is `node`, was opened by the arming in `generation`.
    ///
    /// # Errors
    /// Another was named at that epoch, or the timer was armed for another epoch.
    pub fn opened(
        &self,
        (host, node): (usize, NodeId),
        group: usize,
        generation: Generation,
        epoch: Epoch,
    ) -> Result<(), Violation> {
        let named = self.named.get(&(group, epoch)).is_none_or(|master| *master == node);
        if named && self.armed_for(host, group, generation) == Some(epoch) {
            return Ok(());
        }
        Err(Violation::ActedWithoutLease { group, host, what: "open", epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_opened_for_the_epoch_that_was_armed_and_by_who_was_named() {
        let mut p = Permission::default();
        let me = (0, NodeId(1));
        p.armed(0, 0, Generation::A, Epoch(2));
        assert!(p.opened(me, 0, Generation::A, Epoch(2)).is_ok(), "nobody told of epoch 2 yet");
        assert!(p.opened(me, 0, Generation::B, Epoch(2)).is_err(), "the other timer");
        assert!(p.opened(me, 0, Generation::A, Epoch(3)).is_err(), "a later epoch");
        p.named(0, Epoch(2), NodeId(9));
        assert!(p.opened(me, 0, Generation::A, Epoch(2)).is_err(), "another was named");
    }
}
