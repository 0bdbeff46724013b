//! What a run does to its world: drawn from a seed, printable, and cut down when a failure is made small.
//!
//! Everything that is not in the list of faults follows from seed, profile and layout again.

use std::{fmt, fmt::Write as _, str::FromStr};

use redkeep_core::Span;

use crate::{
    fault::{FaultKind, ParseError, Planned, Target},
    net::Weather,
    rng::Rng,
};

const fn ms(n: u64) -> Span {
    Span::from_millis(n)
}

/// Hosts and groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Two members and a witness, one group.
    Trio,
    /// The same hosts, three groups.
    TrioThreeGroups,
    /// Three members and two witnesses.
    Five,
}

impl Layout {
    pub const ALL: [Self; 3] = [Self::Trio, Self::TrioThreeGroups, Self::Five];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trio => "trio",
            Self::TrioThreeGroups => "trio-three-groups",
            Self::Five => "five",
        }
    }
    #[must_use]
    pub const fn members(self) -> usize {
        match self {
            Self::Trio | Self::TrioThreeGroups => 2,
            Self::Five => 3,
        }
    }
    #[must_use]
    pub const fn hosts(self) -> usize {
        match self {
            Self::Trio | Self::TrioThreeGroups => 3,
            Self::Five => 5,
        }
    }
    #[must_use]
    pub const fn groups(self) -> usize {
        match self {
            Self::Trio | Self::Five => 1,
            Self::TrioThreeGroups => 3,
        }
    }
}

/// What kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Faults that overlap at random.
    Swarm,
    /// One fault at a time, with time to recover.
    Single,
    /// Stops, cuts and late messages around the holder of a lease, clocks at their bounds.
    Duel,
    /// Messages that come very late, and what makes them harmful: cuts, splits, stops, restarts.
    Late,
    /// No faults at all.
    Calm,
    /// Stops at moments that chance seldom meets.
    Stall,
}

impl Profile {
    pub const ALL: [Self; 6] =
        [Self::Swarm, Self::Single, Self::Duel, Self::Late, Self::Calm, Self::Stall];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Swarm => "swarm",
            Self::Single => "single",
            Self::Duel => "duel",
            Self::Late => "late",
            Self::Calm => "calm",
            Self::Stall => "stall",
        }
    }
}

/// Properties of the world that stay the same through a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knobs {
    pub weather: Weather,
    pub lease_ttl: Span,
    pub max_lag: Span,
    pub failover_cooldown: Span,
    /// Greatest slew of CLOCK_BOOTTIME; chrony's bound is 83 333.
    pub skew_max_ppm: u64,
    /// Time of a synced write.
    pub disk_max: Span,
    /// The boot unit made the table: ports are closed before the first supervisor starts.
    pub closed_at_first: bool,
    /// Clients' writes are so far apart.
    pub write_interval: Span,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub seed: u64,
    pub layout: Layout,
    pub profile: Profile,
    pub faults: Vec<Planned>,
}

/// Faults begin after this.
const FAULTS_FROM: Span = ms(1_500);

impl Plan {
    /// The plan of `seed`: layout, profile and faults are drawn from it.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let layout = match rng.below(10) {
            0..=5 => Layout::Trio,
            6..=7 => Layout::TrioThreeGroups,
            _ => Layout::Five,
        };
        let profile = match rng.below(20) {
            0..=7 => Profile::Swarm,
            8..=11 => Profile::Single,
            12..=16 => Profile::Duel,
            17..=18 => Profile::Late,
            _ if rng.chance(700_000) => Profile::Stall,
            _ => Profile::Calm,
        };
        Self::draw(seed, layout, profile)
    }

    /// As [`Plan::of_seed`], with layout and profile given.
    #[must_use]
    pub fn draw(seed: u64, layout: Layout, profile: Profile) -> Self {
        let mut draft = Draft { rng: Rng::new(seed, 2), layout, faults: Vec::new() };
        match profile {
            Profile::Swarm => draft.swarm(),
            Profile::Single => draft.single(),
            Profile::Duel => draft.duel(),
            Profile::Late => draft.late(),
            Profile::Calm => {}
            Profile::Stall => draft.stall(),
        }
        let mut faults = draft.faults;
        faults.sort_by_key(|f| f.at);
        Self { seed, layout, profile, faults }
    }

    #[must_use]
    pub fn knobs(&self) -> Knobs {
        let mut rng = Rng::new(self.seed, 3);
        let rough = self.profile == Profile::Duel || rng.chance(300_000);
        let weather = Weather {
            loss_ppm: if rough { rng.below(20_000) } else { 200 },
            duplicate_ppm: if rough { rng.below(50_000) } else { 500 },
            straggler_ppm: if rough { rng.below(60_000) } else { 1_000 },
            straggler_max: if rough { ms(rng.range(20, 800)) } else { ms(20) },
            delay_min: Span::from_micros(60),
            delay_max: Span::from_micros(rng.range(150, 3_000)),
        };
        let late = self.profile == Profile::Late;
        let weather = if late {
            Weather {
                straggler_ppm: rng.range(50_000, 250_000),
                straggler_max: ms(rng.range(300, 700)),
                ..weather
            }
        } else {
            weather
        };
        Knobs {
            weather,
            lease_ttl: ms(if late { 300 } else { *rng.pick(&[300, 300, 300, 1_000]) }),
            max_lag: ms(*rng.pick(&[1_000, 3_000])),
            failover_cooldown: ms(*rng.pick(&[0, 0, 0, 3_000])),
            skew_max_ppm: *rng.pick(&[50, 10_000, 83_333]),
            disk_max: ms(rng.range(1, 8)),
            closed_at_first: rng.chance(300_000),
            write_interval: ms(rng.range(8, 20)),
        }
    }

    /// When everything is healed.
    #[must_use]
    pub fn heal_at(&self) -> Span {
        let last = self.faults.iter().map(|f| f.at + f.lasts).max().unwrap_or(ms(2_000));
        last.max(FAULTS_FROM) + ms(50)
    }
}

struct Draft {
    rng: Rng,
    layout: Layout,
    faults: Vec<Planned>,
}

impl Draft {
    fn group(&mut self) -> usize {
        self.rng.index(self.layout.groups())
    }

    fn target(&mut self) -> Target {
        let group = self.group();
        match self.rng.below(10) {
            0..=3 => Target::Master(group),
            4..=5 => Target::Replica(group),
            6..=7 => Target::Leader,
            _ => Target::Node(self.rng.index(self.layout.hosts())),
        }
    }

    fn add(&mut self, at: Span, kind: FaultKind, target: Target, lasts: Span) {
        let pick = self.rng.next();
        self.faults.push(Planned { at, kind, target, lasts, pick });
    }

    fn length(&mut self, kind: FaultKind) -> Span {
        use FaultKind as F;
        let long = self.rng.chance(300_000);
        match kind {
            F::KillRedis | F::KillRedisEmpty | F::KillRedisOld => {
                ms(self.rng.range(20, if long { 3_000 } else { 200 }))
            }
            F::KillSupervisor | F::KillSupervisorLateBatches => {
                ms(self.rng.range(10, if long { 2_000 } else { 250 }))
            }
            F::LockFlush | F::VipDelete | F::Switchover | F::Failover | F::TransferLeadership => {
                ms(1)
            }
            F::LockStall => ms(self.rng.range(5, 400)),
            F::PowerOff => ms(self.rng.range(200, 3_000)),
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
            | F::StalledLook => ms(self.rng.range(50, if long { 4_000 } else { 1_200 })),
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

/// Why a plan's text could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    #[error("line {line}")]
    Fault { line: usize, source: ParseError },
    #[error("line {line}: a plan has lines of `seed`, `layout`, `profile` and `fault`")]
    Line { line: usize },
    #[error("no line of `{0}`")]
    Missing(&'static str),
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        writeln!(text, "seed {}", self.seed)?;
        writeln!(text, "layout {}", self.layout.as_str())?;
        writeln!(text, "profile {}", self.profile.as_str())?;
        for fault in &self.faults {
            writeln!(text, "fault {fault}")?;
        }
        f.write_str(&text)
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let (mut seed, mut layout, mut profile, mut faults) = (None, None, None, Vec::new());
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let bad = PlanError::Line { line: n + 1 };
            let (key, value) = line.split_once(' ').ok_or(bad.clone())?;
            match key {
                "seed" => seed = Some(value.parse().map_err(|_| bad)?),
                "layout" => {
                    layout =
                        Some(Layout::ALL.into_iter().find(|l| l.as_str() == value).ok_or(bad)?);
                }
                "profile" => {
                    profile =
                        Some(Profile::ALL.into_iter().find(|p| p.as_str() == value).ok_or(bad)?);
                }
                "fault" => {
                    let fault = value.parse();
                    faults.push(fault.map_err(|source| PlanError::Fault { line: n + 1, source })?);
                }
                _ => return Err(bad),
            }
        }
        Ok(Self {
            seed: seed.ok_or(PlanError::Missing("seed"))?,
            layout: layout.ok_or(PlanError::Missing("layout"))?,
            profile: profile.ok_or(PlanError::Missing("profile"))?,
            faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        for seed in 0..200 {
            let plan = Plan::of_seed(seed);
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
    }

    #[test]
    fn the_first_three_thousand_seeds_plan_every_fault_in_every_layout() {
        let plans: Vec<Plan> = (0..3000).map(Plan::of_seed).collect();
        for layout in Layout::ALL {
            for kind in FaultKind::ALL {
                let planned =
                    |p: &Plan| p.layout == layout && p.faults.iter().any(|f| f.kind == *kind);
                assert!(plans.iter().any(planned), "{layout:?} {kind:?}");
            }
        }
    }

    #[test]
    fn a_plan_without_a_seed_is_refused() {
        assert_eq!("layout trio\nprofile calm".parse::<Plan>(), Err(PlanError::Missing("seed")));
    }
}
