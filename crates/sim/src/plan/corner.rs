//! Situations that chance seldom meets, each made by what would make it in the field.

use redkeep_core::Span;

use super::{FAULTS_FROM, draft::Draft, ms};
use crate::fault::{FaultKind as F, Target};

impl Draft {
    /// One to three of the situations below, and now and then something else besides.
    pub(super) fn corner(&mut self) {
        let mut at = FAULTS_FROM + ms(self.rng.below(1_000));
        for _ in 0..self.rng.range(1, 3) {
            let group = self.group();
            let lasts = match self.rng.below(10) {
                0 => self.leader_that_hands_on(at, group),
                1..=3 => self.unconfirmed_switchover(at, group),
                4 | 5 => self.around_the_lock(at, group),
                6 | 7 => self.doubtful_data(at, group),
                8 => self.full_disk(at),
                _ => self.long_away(at),
            };
            self.maybe_another(at, 2_000);
            at = at + lasts + ms(self.rng.range(1_500, 4_000));
        }
    }

    /// Leadership is asked to move to a node that is stopped, and meanwhile a master dies: nothing can be proposed.
    fn leader_that_hands_on(&mut self, at: Span, group: usize) -> Span {
        let (master, replica) = (Target::Master(group), Target::Replica(group));
        let stopped = ms(self.rng.range(300, 900));
        self.add(at, F::FreezeSupervisor, replica, stopped);
        self.add(at + ms(5), F::TransferLeadership, replica, ms(1));
        let dies = at + ms(self.rng.range(6, 60));
        let away = ms(self.rng.range(500, 1_500));
        self.add(dies, F::KillRedis, master, away);
        stopped + away
    }

    /// The target dies while the old master's fence is on its way to the disk, and the old master's Redis hangs.
    fn unconfirmed_switchover(&mut self, at: Span, group: usize) -> Span {
        let (master, replica) = (Target::Master(group), Target::Replica(group));
        self.add(at, F::Switchover, master, ms(1));
        let slow = ms(self.rng.range(1, 10));
        let stalled = ms(self.rng.range(200, 600));
        self.add(at + slow, F::DiskStall, master, stalled);
        let hangs = slow + ms(self.rng.range(1, 12));
        let hung = ms(self.rng.range(400, 1_500));
        self.add(at + hangs, F::FreezeRedis, master, hung);
        let dies = slow + ms(self.rng.range(1, 12));
        let away = ms(self.rng.range(300, 2_000));
        self.add(at + dies, F::KillRedis, replica, away);
        hung + away
    }

    /// Somebody opens a second port of a Redis; then a master fails.
    fn around_the_lock(&mut self, at: Span, group: usize) -> Span {
        let master = Target::Master(group);
        let open = if self.rng.chance(600_000) { master } else { Target::Replica(group) };
        let lasts = ms(self.rng.range(2_500, 7_000));
        self.add(at, F::OpenAround, open, lasts);
        let fails = at + ms(self.rng.range(200, 4_500));
        let failures = [F::FreezeRedis, F::Isolate, F::PowerOff, F::KillRedis, F::Switchover];
        let kind = *self.rng.pick(&failures);
        let length = ms(self.rng.range(500, 2_500));
        self.add(fails, kind, master, length);
        lasts
    }

    /// The set empties while the replica is away, and the master comes back with less than it had, or nothing.
    fn doubtful_data(&mut self, at: Span, group: usize) -> Span {
        let (master, replica) = (Target::Master(group), Target::Replica(group));
        let away = ms(self.rng.range(4_000, 8_000));
        let kind = *self.rng.pick(&[F::Isolate, F::KillRedis, F::CutPair]);
        self.add(at, kind, replica, away);
        let dies = at + ms(self.rng.range(100, 5_000));
        let kinds = [F::KillRedisEmpty, F::RestartFromRdb, F::RestartFromRdb];
        let kind = *self.rng.pick(&kinds);
        let back = ms(self.rng.range(20, 400));
        self.add(dies, kind, master, back);
        away
    }

    /// A supervisor whose disk is full, beside another failure.
    fn full_disk(&mut self, at: Span) -> Span {
        let (one, other) = (self.target(), self.target());
        let lasts = ms(self.rng.range(50, 3_000));
        self.add(at, F::DiskFails, one, lasts);
        let kinds = [F::KillRedis, F::Isolate, F::Switchover, F::PowerOff, F::TransferLeadership];
        let kind = *self.rng.pick(&kinds);
        let when = at + ms(self.rng.below(1_000));
        let length = self.length(kind);
        self.add(when, kind, other, length);
        lasts.max(length)
    }

    /// A node is away while the log grows by more than is kept of it.
    fn long_away(&mut self, at: Span) -> Span {
        let node = self.target();
        let away = ms(self.rng.range(4_500, 5_500));
        let kind = *self.rng.pick(&[F::PowerOff, F::KillSupervisor, F::Isolate]);
        self.add(at, kind, node, away);
        let grows = ms(self.rng.range(3_300, 3_900));
        let begins = at + ms(self.rng.range(100, 500));
        self.add(begins, F::LogFlood, Target::Leader, grows);
        away
    }

    /// Failures while a pair is found, and its first master named.
    pub(super) fn first_start(&mut self) {
        let master = Target::Node(0);
        match self.rng.below(5) {
            0..=2 => {
                let lasts = ms(self.rng.range(800, 3_000));
                self.add(ms(0), F::LoseGrants, master, lasts);
            }
            3 => {
                let member = Target::Node(self.rng.index(self.layout.members()));
                let (at, lasts) = (ms(self.rng.below(400)), ms(self.rng.range(1_000, 4_000)));
                self.add(at, F::OpenAround, member, lasts);
            }
            _ => {}
        }
        let kinds = [
            F::KillSupervisor,
            F::FreezeSupervisor,
            F::FreezeMidStep,
            F::PowerOff,
            F::Isolate,
            F::Deaf,
            F::Mute,
            F::CutPair,
            F::KillRedis,
            F::KillRedisEmpty,
            F::FreezeRedis,
            F::DiskStall,
            F::DiskFails,
            F::LockStall,
        ];
        for _ in 0..self.rng.range(1, 4) {
            let kind = *self.rng.pick(&kinds);
            let some = Target::Node(self.rng.index(self.layout.hosts()));
            let target = if self.rng.chance(500_000) { master } else { some };
            let at = ms(self.rng.below(1_800));
            let lasts = self.length(kind);
            self.add(at, kind, target, lasts);
        }
    }

    /// Machines that are paused for less than the margin, beside failures that make a lease count.
    pub(super) fn standstill(&mut self) {
        let mut at = FAULTS_FROM;
        for _ in 0..self.rng.range(3, 8) {
            let target = self.target();
            let lasts = ms(self.rng.range(1, 24));
            self.add(at, F::PauseMachine, target, lasts);
            if self.rng.chance(700_000) {
                let kinds = [
                    F::Isolate,
                    F::Mute,
                    F::Deaf,
                    F::KillSupervisor,
                    F::FreezeSupervisor,
                    F::FreezeMidStep,
                    F::KillRedis,
                    F::Switchover,
                    F::LockStall,
                ];
                let kind = *self.rng.pick(&kinds);
                let when = at + ms(self.rng.below(500));
                let master = Target::Master(self.group());
                let length = self.length(kind).min(ms(1_500));
                self.add(when, kind, master, length);
            }
            at += ms(self.rng.range(1_200, 3_000));
        }
    }
}
