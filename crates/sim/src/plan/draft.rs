//! Draws the faults of a profile.

use redkeep_core::Span;

use super::{FAULTS_FROM, Layout, Profile, ms};
use crate::{
    fault::{FaultKind, Planned, Target},
    rng::Rng,
};

/// A list of faults in the making.
pub(super) struct Draft {
    pub(super) rng: Rng,
    pub(super) layout: Layout,
    faults: Vec<Planned>,
}

impl Draft {
    pub(super) fn new(rng: Rng, layout: Layout) -> Self {
        Self { rng, layout, faults: Vec::new() }
    }

    /// What the profile draws.
    pub(super) fn faults(mut self, profile: Profile) -> Vec<Planned> {
        match profile {
            Profile::Swarm => self.swarm(),
            Profile::Single => self.single(),
            Profile::Duel => self.duel(),
            Profile::Late => self.late(),
            Profile::Calm => {}
            Profile::Stall => self.stall(),
            Profile::HandOver => self.hand_over(),
            Profile::Corner => self.corner(),
            Profile::FirstStart => self.first_start(),
            Profile::Standstill => self.standstill(),
            Profile::Membership => self.membership(),
            Profile::Filtered => self.filtered(),
            Profile::ByHand => self.by_hand(),
        }
        self.faults
    }

    pub(super) fn group(&mut self) -> usize {
        self.rng.index(self.layout.groups())
    }

    pub(super) fn target(&mut self) -> Target {
        let group = self.group();
        match self.rng.below(10) {
            0..=3 => Target::Master(group),
            4..=5 => Target::Replica(group),
            6..=7 => Target::Leader,
            _ => Target::Node(self.rng.index(self.layout.hosts())),
        }
    }

    pub(super) fn add(&mut self, at: Span, kind: FaultKind, target: Target, lasts: Span) {
        let pick = self.rng.next();
        self.faults.push(Planned { at, kind, target, lasts, pick });
    }

    /// The same with its details chosen.
    pub(super) fn add_picked(
        &mut self,
        (at, kind): (Span, FaultKind),
        target: Target,
        lasts: Span,
        pick: u64,
    ) {
        self.faults.push(Planned { at, kind, target, lasts, pick });
    }

    /// In three cases of ten something else beside what a profile is about.
    pub(super) fn maybe_another(&mut self, at: Span, within_ms: u64) {
        if self.rng.chance(300_000) {
            let kind = *self.rng.pick(FaultKind::drawn());
            let (when, target) = (at + ms(self.rng.below(within_ms)), self.target());
            let length = self.length(kind);
            self.add(when, kind, target, length);
        }
    }

    /// An order about the membership: of the cluster, or of `group`.
    pub(super) fn order(&mut self, at: Span, kind: FaultKind, host: usize, group: usize) {
        self.add_picked((at, kind), Target::Node(host), ms(1), group as u64);
    }

    pub(super) fn length(&mut self, kind: FaultKind) -> Span {
        use FaultKind as F;
        let long = self.rng.chance(300_000);
        match kind {
            F::KillRedis | F::KillRedisEmpty | F::KillRedisOld | F::RestartFromRdb => {
                ms(self.rng.range(20, if long { 3_000 } else { 200 }))
            }
            F::KillSupervisor | F::KillSupervisorLateBatches => {
                ms(self.rng.range(10, if long { 2_000 } else { 250 }))
            }
            F::LockFlush
            | F::VipDelete
            | F::Switchover
            | F::Failover
            | F::TransferLeadership
            | F::AddNode
            | F::RemoveNode
            | F::AddMember
            | F::RemoveMember
            | F::PromoteByHand
            | F::StrayByHand => ms(1),
            F::LockStall => ms(self.rng.range(5, 400)),
            F::PauseMachine => ms(self.rng.range(1, 24)),
            F::PowerOff | F::LogFlood => ms(self.rng.range(200, 3_000)),
            // It is found within some two seconds.
            F::PortFiltered | F::PortFilteredForNodes => {
                ms(self.rng.range(if long { 200 } else { 2_500 }, 6_000))
            }
            F::FreezeSupervisor
            | F::FreezeMidStep
            | F::FreezeRedis
            | F::CutOneWay
            | F::CutPair
            | F::Isolate
            | F::Deaf
            | F::Mute
            | F::Split
            | F::LoseGrants
            | F::HoldReports
            | F::LossyNet
            | F::DuplicatingNet
            | F::StragglingNet
            | F::DiskStall
            | F::ClockSlew
            | F::Pause
            | F::StalledElection
            | F::StalledLook
            | F::OpenAround
            | F::WritableByHand
            | F::DiskFails => ms(self.rng.range(50, if long { 4_000 } else { 1_200 })),
        }
    }

    fn swarm(&mut self) {
        let span = self.rng.range(4_000, 9_000);
        let count = self.rng.range(3, 16);
        for _ in 0..count {
            let at = FAULTS_FROM + ms(self.rng.below(span));
            let kind = *self.rng.pick(FaultKind::drawn());
            let target = self.target();
            let lasts = self.length(kind);
            self.add(at, kind, target, lasts);
            if self.rng.chance(250_000) {
                self.pair_up(at, target);
            }
        }
    }

    fn single(&mut self) {
        let mut at = FAULTS_FROM;
        for _ in 0..self.rng.range(2, 3) {
            let kind = *self.rng.pick(FaultKind::drawn());
            let target = self.target();
            let longest = if self.rng.chance(300_000) { 6_000 } else { 1_500 };
            let lasts = match kind {
                FaultKind::Deaf | FaultKind::Isolate | FaultKind::Mute | FaultKind::LoseGrants
                    if longest > 1_500 =>
                {
                    ms(longest)
                }
                _ => self.length(kind).min(ms(longest)),
            };
            self.add(at, kind, target, lasts);
            at = at + lasts + ms(self.rng.range(3_000, 4_500));
        }
    }

    fn duel(&mut self) {
        let mut at = FAULTS_FROM;
        for _ in 0..self.rng.range(2, 6) {
            let master = Target::Master(self.group());
            at += ms(self.rng.range(0, 700));
            self.pair_up(at, master);
            if self.rng.chance(500_000) {
                let later = at + Span::from_micros(self.rng.below(600_000));
                let target = if self.rng.chance(500_000) { Target::Leader } else { master };
                self.pair_up(later, target);
            }
            at += ms(self.rng.range(600, 2_500));
        }
    }

    fn late(&mut self) {
        use FaultKind as F;
        let mut at = FAULTS_FROM;
        for _ in 0..self.rng.range(2, 4) {
            let master = Target::Master(self.group());
            let some = ms(self.rng.range(400, 1_500));
            match self.rng.below(6) {
                0 => {
                    let kind = *self.rng.pick(&[F::Isolate, F::Mute, F::Deaf]);
                    self.add(at, kind, master, some);
                }
                1 | 2 => self.add(at, F::Split, master, some),
                3 => {
                    self.add(at, F::TransferLeadership, master, ms(1));
                    let stop = at + ms(self.rng.range(20, 300));
                    let stopped = ms(self.rng.range(300, 900));
                    self.add(stop, F::FreezeSupervisor, master, stopped);
                    let cut = stop + Span::from_micros(self.rng.below(100_000));
                    self.add(cut, F::Isolate, master, stopped + some);
                }
                4 => {
                    // A fence whose report is late, and a process that forgets it.
                    let held = ms(self.rng.range(150, 450));
                    self.add(at, F::HoldReports, master, held);
                    self.add(at, F::Switchover, master, ms(1));
                    let kill = at + ms(self.rng.range(8, 80));
                    let away = ms(self.rng.range(1, 10));
                    self.add(kill, F::KillSupervisor, master, away);
                }
                _ => self.add(at, F::LoseGrants, master, some + some),
            }
            at += some + ms(self.rng.range(600, 2_500));
        }
    }

    fn stall(&mut self) {
        use FaultKind as F;
        let mut at = FAULTS_FROM;
        for _ in 0..self.rng.range(1, 3) {
            let group = self.group();
            if self.rng.chance(500_000) {
                let lasts = ms(self.rng.range(150, 600));
                self.add(at, F::StalledElection, Target::Replica(group), lasts);
                at += lasts;
            } else {
                // The first node's Redis is the master by its file: it has to be a replica by order.
                self.add(at, F::Switchover, Target::Node(0), ms(1));
                at += ms(self.rng.range(500, 1_500));
                let lasts = ms(self.rng.range(100, 300));
                self.add(at, F::StalledLook, Target::Node(0), lasts);
                at += lasts;
            }
            at += ms(self.rng.range(2_500, 4_000));
        }
    }

    fn hand_over(&mut self) {
        use FaultKind as F;
        let mut at = FAULTS_FROM + ms(self.rng.range(0, 1_000));
        for _ in 0..self.rng.range(1, 4) {
            let master = Target::Master(self.group());
            self.add(at, F::Switchover, master, ms(1));
            // With three members one of two replicas is to be attached again, and the other not yet.
            let three = self.layout.members() > 2;
            let soon = if three { 250_000 } else { 50_000 };
            let soon = if self.rng.chance(700_000) { soon } else { 800_000 };
            let fails = at + Span::from_micros(self.rng.below(soon));
            let deaths = [F::KillRedis, F::KillRedis, F::KillRedisEmpty, F::KillRedisOld];
            let others = [F::FreezeRedis, F::PowerOff, F::Isolate, F::KillSupervisor];
            let kind = *if self.rng.chance(700_000) {
                self.rng.pick(&deaths)
            } else {
                self.rng.pick(&others)
            };
            let lasts = self.length(kind);
            self.add(fails, kind, master, lasts);
            if self.rng.chance(300_000) {
                let besides = [F::CutPair, F::StragglingNet, F::TransferLeadership, F::DiskStall];
                let besides = *self.rng.pick(&besides);
                let (when, target) = (at + ms(self.rng.below(100)), self.target());
                let lasts = self.length(besides);
                self.add(when, besides, target, lasts);
            }
            // Of three members two may fail: what `WAIT` confirmed is on the third.
            if three && self.rng.chance(700_000) {
                let member = Target::Node(self.rng.index(self.layout.members()));
                let kind = *self.rng.pick(&[F::KillRedis, F::FreezeRedis, F::Isolate]);
                let (when, lasts) = (fails + ms(self.rng.below(10)), self.length(kind));
                self.add(when, kind, member, lasts);
            }
            at = fails + lasts.min(ms(1_500)) + ms(self.rng.range(1_000, 3_500));
        }
    }

    /// Faults that are dangerous together, some hundred milliseconds apart at most.
    fn pair_up(&mut self, at: Span, target: Target) {
        use FaultKind as F;
        let stops = [
            F::FreezeSupervisor,
            F::FreezeMidStep,
            F::KillSupervisor,
            F::KillSupervisorLateBatches,
        ];
        let cuts = [F::Isolate, F::Deaf, F::Mute, F::CutPair, F::CutOneWay];
        let deaths = [F::KillRedis, F::KillRedisEmpty, F::KillRedisOld, F::FreezeRedis];
        let slows = [F::StragglingNet, F::LossyNet, F::LockStall, F::DiskStall];
        let orders = [F::Switchover, F::Failover, F::TransferLeadership];
        let sets: [&[F]; 5] = [&stops, &cuts, &deaths, &slows, &orders];
        let mut when = at;
        for _ in 0..self.rng.range(2, 3) {
            let set = *self.rng.pick(&sets);
            let kind = *self.rng.pick(set);
            let lasts = self.length(kind);
            self.add(when, kind, target, lasts);
            when += Span::from_micros(self.rng.below(400_000));
        }
    }
}
