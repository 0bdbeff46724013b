//! Filters before the port of a master that its own node finds well, and ports that only our own lock closed.

use redkeep_core::Span;

use super::{FAULTS_FROM, draft::Draft, ms};
use crate::fault::{FaultKind as F, Target};

impl Draft {
    /// One or two of the situations below, and now and then something else besides.
    pub(super) fn filtered(&mut self) {
        let mut at = FAULTS_FROM + ms(self.rng.below(1_000));
        for _ in 0..self.rng.range(1, 2) {
            let group = self.group();
            let lasts = match self.rng.below(10) {
                0..=2 => self.filter(at, Target::Master(group)),
                3 => self.filtered_both(at, group),
                4 => self.fence_of_a_filtered(at, group),
                5 => self.filtered_twice(at, group),
                6 | 7 => self.filtered_and_failing(at, group),
                _ if self.layout.hosts() == 3 => self.closed_by_the_lock(at, group),
                _ => self.filter(at, Target::Master(group)),
            };
            self.maybe_another(at, 3_000);
            at = at + lasts + ms(self.rng.range(1_500, 4_000));
        }
    }

    /// Longer than it takes to be found, most of the time.
    fn filter(&mut self, at: Span, target: Target) -> Span {
        let kind = *self.rng.pick(&[F::PortFiltered, F::PortFilteredForNodes]);
        let lasts = self.length(kind);
        self.add(at, kind, target, lasts);
        lasts
    }

    /// Nobody reaches the one who could take over either.
    fn filtered_both(&mut self, at: Span, group: usize) -> Span {
        let soon = at + ms(self.rng.below(300));
        let lasts = self.filter(at, Target::Replica(group));
        lasts.max(self.filter(soon, Target::Master(group)))
    }

    /// The disk that the fence is burned on is slow.
    fn fence_of_a_filtered(&mut self, at: Span, group: usize) -> Span {
        let lasts = self.filter(at, Target::Master(group));
        let slow = at + ms(self.rng.range(900, 2_000));
        let stalled = ms(self.rng.range(300, 1_200));
        self.add(slow, F::DiskStall, Target::Master(group), stalled);
        lasts
    }

    /// The next master is filtered too, before or after the first one is free.
    fn filtered_twice(&mut self, at: Span, group: usize) -> Span {
        let lasts = self.filter(at, Target::Master(group));
        let later = ms(self.rng.range(2_000, 5_000));
        lasts.max(later + self.filter(at + later, Target::Master(group)))
    }

    /// About when the master is to be moved, something fails or is ordered.
    fn filtered_and_failing(&mut self, at: Span, group: usize) -> Span {
        let lasts = self.filter(at, Target::Master(group));
        let kinds = [
            F::KillRedis,
            F::KillRedisEmpty,
            F::FreezeRedis,
            F::KillSupervisor,
            F::FreezeSupervisor,
            F::FreezeMidStep,
            F::PowerOff,
            F::Isolate,
            F::CutPair,
            F::Switchover,
            F::Failover,
            F::Pause,
            F::TransferLeadership,
            F::LoseGrants,
            F::HoldReports,
            F::LockFlush,
        ];
        let kind = *self.rng.pick(&kinds);
        let targets = [Target::Master(group), Target::Replica(group), Target::Leader];
        let target = *self.rng.pick(&targets);
        let when = at + ms(self.rng.range(800, 2_600));
        let length = self.length(kind);
        self.add(when, kind, target, length);
        lasts
    }

    /// The master's supervisor stops, and the two other nodes do not hear each other: nobody leads, the lock closes the port by
    /// itself, and both are refused for as long as it takes to lose a master. Then all are back, at the same epoch.
    fn closed_by_the_lock(&mut self, at: Span, group: usize) -> Span {
        /// Of the three others that a replica's host has, the witness is the second.
        const WITNESS: u64 = 1;
        let lasts = ms(self.rng.range(3_000, 4_500));
        self.add(at, F::FreezeSupervisor, Target::Master(group), lasts);
        let cut = Span(lasts.0 - 100_000_000) + ms(self.rng.below(200));
        self.add_picked((at, F::CutPair), Target::Replica(group), cut, WITNESS);
        lasts
    }
}
