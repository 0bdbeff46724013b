//! Looks at the kernels where a supervisor acts: is there a lease (invariant 6), and is every open port a lease holder's or a
//! true replica's (invariant 9)?

use redkeep_core::{Action, Epoch, Generation, LockOp};

use crate::{
    check::Violation,
    lock::KernelTime,
    net::Endpoint,
    world::{
        World,
        event::Group,
        host::{Host, LockJob},
    },
};

/// A timer ends this much earlier than asked, at most: it is set two ticks short.
const TICKS_NS: u64 = 8_000_000;

impl World {
    /// A promotion is ordered under an armed timer, an address under an open gate, of the order's epoch. Judged at the time that
    /// the core was told: a stop between that and the order is nobody's fault.
    pub(super) fn check_permission(
        &mut self,
        host: Endpoint,
        group: Group,
        action: &Action,
        epoch: Epoch,
    ) {
        let (what, needs_gate) = match action {
            Action::Promote { .. } => ("promote", false),
            Action::EnsureVip { .. } => ("address", true),
            _ => return,
        };
        let (h, port) = (&self.hosts[host], self.port(group));
        // Somebody took the table away, and the news of it is still on its way.
        let Some(p) = h.process.as_ref().filter(|_| h.flushes_untold == 0) else { return };
        let at = KernelTime(p.told.boot.0.saturating_sub(TICKS_NS));
        let held = |generation: &Generation| {
            self.checks.permission.armed_for(host, group, *generation) == Some(epoch)
                && h.lock.timer_runs(*generation, port, at)
                && (!needs_gate || h.lock.gate_is_open(*generation, port))
        };
        if ![Generation::A, Generation::B].iter().any(held) {
            self.fail(Violation::ActedWithoutLease { group, host, what, epoch });
        }
    }

    /// A batch of this host was carried out.
    pub(super) fn note_permission(&mut self, host: Endpoint, job: &LockJob, op: &LockOp) {
        let (LockOp::Arm { generation, items, .. } | LockOp::Open { generation, items, .. }) = op
        else {
            return;
        };
        for item in items {
            let Some(group) = self.group_index(&item.group) else { continue };
            let epoch = Self::view_of(&job.views, group).epoch;
            if matches!(op, LockOp::Arm { .. }) {
                self.checks.permission.armed(host, group, *generation, epoch);
                continue;
            }
            let life = self.hosts[host].redis[group].as_ref().map_or(0, |r| r.life);
            self.hosts[host].opened_life[group] = life;
            let who = (host, self.hosts[host].node);
            if let Err(violation) = self.checks.permission.opened(who, group, *generation, epoch) {
                self.fail(violation);
            }
        }
    }

    /// Invariant 9, at every instant.
    pub(super) fn check_open_ports(&mut self) {
        for group in 0..self.spec.groups.len() {
            let (now, port) = (self.now, self.port(group));
            let open = |(n, h): &(usize, &Host)| {
                h.lock.is_guarded(port) && h.passes(port, now) && !self.is_by_hand(*n, group)
            };
            let wrong = self.hosts.iter().enumerate().filter(open).find_map(|(_, h)| {
                let redis = h.redis[group].as_ref().filter(|r| r.is_up())?;
                let (node, leased) = (h.node, h.leased(port, now));
                if leased && redis.life != h.opened_life[group] {
                    return Some(Violation::OpenToAnotherLife { group, host: node });
                }
                (!leased && redis.takes_writes())
                    .then_some(Violation::OpenAtMaster { group, host: node })
            });
            if let Some(violation) = wrong {
                return self.fail(violation);
            }
        }
    }
}
