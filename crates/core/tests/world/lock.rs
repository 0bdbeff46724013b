//! The kernel lock: what it should do, and nothing that can fail.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_core::{Generation, LockEvent, LockOp};

#[derive(Default, Debug)]
pub(crate) struct Lock {
    pub timer: BTreeMap<(Generation, u16), u64>,
    pub gate: BTreeSet<(Generation, u16)>,
    pub ask: BTreeSet<(u16, u64)>,
    pub replica: BTreeMap<u16, u64>,
    pub guarded: BTreeSet<u16>,
}

impl Lock {
    pub(super) fn run(&mut self, t: u64, op: LockOp) -> LockEvent {
        match op {
            LockOp::Arm { arm, generation, ttl, items } => {
                self.gate.retain(|(g, _)| *g != generation);
                self.timer.retain(|(g, _), _| *g != generation);
                self.ask.clear();
                for i in items {
                    self.timer.insert((generation, i.port), t + ttl.0);
                    self.ask.insert((i.port, i.nonce));
                }
                LockEvent::Armed { arm, ok: true }
            }
            LockOp::Open { arm, generation, items } => {
                let ok = items.iter().all(|i| self.ask.contains(&(i.port, i.nonce)));
                let groups = items.iter().map(|i| i.group.clone()).collect();
                for i in items.iter().filter(|_| ok) {
                    self.ask.remove(&(i.port, i.nonce));
                    self.gate.insert((generation, i.port));
                    self.guarded.insert(i.port);
                }
                LockEvent::Opened { arm, groups, ok }
            }
            LockOp::Close { item } => {
                self.gate.retain(|(_, p)| *p != item.port);
                LockEvent::Closed { group: item.group, ok: true }
            }
            LockOp::Guard { item } => {
                self.guarded.insert(item.port);
                LockEvent::Guarded { group: item.group, ok: true }
            }
            LockOp::PermitReplica { item, ttl } => {
                self.replica.insert(item.port, t + ttl.0);
                self.guarded.insert(item.port);
                LockEvent::ReplicaPermitted { group: item.group, ok: true }
            }
            LockOp::ForbidReplica { item } => {
                self.replica.remove(&item.port);
                LockEvent::ReplicaForbidden { group: item.group, ok: true }
            }
            LockOp::Restore => {
                let guarded = std::mem::take(&mut self.guarded);
                *self = Self { guarded, ..Self::default() };
                LockEvent::Restored { ok: true }
            }
            // No Redis unit here that closes a port before a start.
            LockOp::Admit { item, run_id } => {
                LockEvent::Admitted { group: item.group, run_id, ok: true }
            }
        }
    }
}
