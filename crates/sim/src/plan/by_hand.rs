//! Orders that are given to a Redis by hand, and failures before and after.

use super::{FAULTS_FROM, draft::Draft, ms};
use crate::fault::{FaultKind as F, Target};

impl Draft {
    pub(super) fn by_hand(&mut self) {
        let mut at = FAULTS_FROM + ms(self.rng.below(1_000));
        for _ in 0..self.rng.range(1, 4) {
            let group = self.group();
            let (master, replica) = (Target::Master(group), Target::Replica(group));
            let kind = *self.rng.pick(&[
                F::PromoteByHand,
                F::PromoteByHand,
                F::WritableByHand,
                F::StrayByHand,
                F::StrayByHand,
            ]);
            let lasts = self.length(kind);
            let strays = kind == F::StrayByHand;
            self.add(at, kind, if strays { master } else { replica }, lasts);
            if strays && self.rng.chance(500_000) {
                // Nobody is left who has the data.
                let before = ms(at.as_millis().saturating_sub(self.rng.range(5, 60)));
                let away = ms(self.rng.range(300, 1_500));
                self.add(before, F::KillRedis, replica, away);
            }
            if self.rng.chance(600_000) {
                let kinds = [
                    F::FreezeSupervisor,
                    F::FreezeMidStep,
                    F::KillSupervisor,
                    F::KillRedis,
                    F::FreezeRedis,
                    F::LockStall,
                    F::Isolate,
                    F::PowerOff,
                    F::Switchover,
                ];
                let kind = *self.rng.pick(&kinds);
                let target = if self.rng.chance(500_000) { replica } else { master };
                let when = ms((at.as_millis() + self.rng.below(700)).saturating_sub(300));
                let length = self.length(kind);
                self.add(when, kind, target, length);
            }
            at = at + lasts + ms(self.rng.range(2_000, 4_500));
        }
    }
}
