//! Faults that wait for their moment: a stop in the next step, a write that finds the disk stalled, a grant to be lost.
//!
//! Such a fault counts as done when the moment has come, and not when it was planned.

use redkeep_core::Span;

use crate::{clock::Real, fault::FaultKind, net::Endpoint, world::World};

/// A fault that is prepared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    kind: FaultKind,
    /// None: of the network as a whole.
    host: Option<Endpoint>,
    until: Real,
}

impl World {
    pub(super) fn awaits(&mut self, kind: FaultKind, host: Option<Endpoint>, lasts: Span) {
        let until = self.now.after(lasts);
        self.moments.push(Moment { kind, host, until });
    }

    /// It came.
    pub(super) fn moment(&mut self, kind: FaultKind, host: Option<Endpoint>) {
        let now = self.now;
        let due = |m: &Moment| m.kind == kind && m.host == host && now <= m.until;
        if let Some(at) = self.moments.iter().position(due) {
            self.moments.swap_remove(at);
            self.coverage.met(kind.as_str());
        }
    }
}
