//! What a run does to its world: drawn from a seed, printable, and cut down when a failure is made small.
//!
//! Everything that is not in the list of faults follows from seed, profile and layout again.

mod by_hand;
mod corner;
mod draft;
mod filter;
mod membership;

use std::{fmt, fmt::Write as _, str::FromStr};

use redkeep_core::{Span, spec::Durability};

use crate::{
    fault::{ParseError, Planned},
    net::Weather,
    rng::Rng,
};
use draft::Draft;

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
    /// Switchovers after which one of the two masters fails at once.
    HandOver,
    /// Situations that chance seldom meets.
    Corner,
    /// Failures while the first master is named; the pair may be found without a master, or with two.
    FirstStart,
    /// Machines paused whole, for less than the margin.
    Standstill,
    /// Nodes and members that join and leave, beside other failures.
    Membership,
    /// Masters that are well and that others do not reach.
    Filtered,
    /// Orders that somebody gives to a replica's Redis, beside other failures.
    ByHand,
}

impl Profile {
    pub const ALL: [Self; 13] = [
        Self::Swarm,
        Self::Single,
        Self::Duel,
        Self::Late,
        Self::Calm,
        Self::Stall,
        Self::HandOver,
        Self::Corner,
        Self::FirstStart,
        Self::Standstill,
        Self::Membership,
        Self::Filtered,
        Self::ByHand,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Swarm => "swarm",
            Self::Single => "single",
            Self::Duel => "duel",
            Self::Late => "late",
            Self::Calm => "calm",
            Self::Stall => "stall",
            Self::HandOver => "hand-over",
            Self::Corner => "corner",
            Self::FirstStart => "first-start",
            Self::Standstill => "standstill",
            Self::Membership => "membership",
            Self::Filtered => "filtered",
            Self::ByHand => "by-hand",
        }
    }
}

/// How the Redis of each group are found by the first supervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The first member is master, the others follow it.
    Pair,
    /// The second member is a master too.
    TwoMasters,
    /// The first member follows the second, all others the first.
    NoMaster,
}

/// Properties of the world that stay the same through a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knobs {
    pub weather: Weather,
    pub lease_ttl: Span,
    pub max_lag: Span,
    pub max_lag_bytes: u64,
    pub durability: Durability,
    pub failover_cooldown: Span,
    /// Of three groups; else there is nothing to count.
    pub mass_failure_limit: u32,
    /// Greatest slew of CLOCK_BOOTTIME; chrony's bound is 83 333.
    pub skew_max_ppm: u64,
    /// Time of a synced write.
    pub disk_max: Span,
    /// The boot unit made the table: ports are closed before the first supervisor starts.
    pub closed_at_first: bool,
    /// Clients' writes are so far apart.
    pub write_interval: Span,
    pub found: Found,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub seed: u64,
    pub layout: Layout,
    pub profile: Profile,
    pub faults: Vec<Planned>,
}

/// Hosts that may join, where nodes join at all.
const SPARES: usize = 2;

/// So many of a million seeds have the profile `Filtered`.
const FILTERED_PPM: u64 = 50_000;

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
            0..=4 => Profile::Swarm,
            5 => Profile::Membership,
            6..=8 => Profile::Single,
            9..=12 => Profile::Duel,
            13 => Profile::Late,
            14..=16 => Profile::Corner,
            17 => Profile::FirstStart,
            18 => Profile::Standstill,
            _ => match rng.below(10) {
                0..=4 => Profile::Stall,
                5..=8 => Profile::HandOver,
                _ => Profile::Calm,
            },
        };
        // Streams of their own, so that all other seeds are as they were.
        let filtered = Rng::new(seed, 33).chance(FILTERED_PPM);
        let by_hand = Rng::new(seed, 47).below(20) == 0;
        let profile = match (filtered, by_hand) {
            (true, _) => Profile::Filtered,
            (false, true) => Profile::ByHand,
            (false, false) => profile,
        };
        Self::draw(seed, layout, profile)
    }

    /// As [`Plan::of_seed`], with layout and profile given.
    #[must_use]
    pub fn draw(seed: u64, layout: Layout, profile: Profile) -> Self {
        let mut faults = Draft::new(Rng::new(seed, 2), layout).faults(profile);
        faults.sort_by_key(|f| f.at);
        Self { seed, layout, profile, faults }
    }

    #[must_use]
    pub fn knobs(&self) -> Knobs {
        let mut rng = Rng::new(self.seed, 3);
        // A stream of its own, so that all else of a seed is as it was; the other profiles are about one thing each.
        let mut variety = Rng::new(self.seed, 30);
        let varied = matches!(
            self.profile,
            Profile::Swarm | Profile::Single | Profile::Duel | Profile::Membership
        );
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
            // A writer's second is some 64 writes of 64 bytes.
            max_lag_bytes: if varied { *variety.pick(&[0, 0, 0, 2_048, 16_384]) } else { 0 },
            durability: match variety.below(3) {
                0 if varied => Durability::Strict,
                _ => Durability::Async,
            },
            failover_cooldown: ms(*rng.pick(&[0, 0, 0, 3_000])),
            mass_failure_limit: match self.layout {
                Layout::TrioThreeGroups if varied => *variety.pick(&[0, 0, 1, 2]),
                Layout::Trio | Layout::TrioThreeGroups | Layout::Five => 0,
            },
            skew_max_ppm: self.skew_max(&mut rng),
            disk_max: ms(rng.range(1, 8)),
            closed_at_first: rng.chance(300_000),
            write_interval: ms(rng.range(8, 20)),
            found: self.found(),
        }
    }

    /// The margin is for ticks and pauses; a pause as long as it leaves nothing for a rate at its bound.
    fn skew_max(&self, rng: &mut Rng) -> u64 {
        let drawn = *rng.pick(&[50, 10_000, 83_333]);
        if self.profile == Profile::Standstill { 50 } else { drawn }
    }

    fn found(&self) -> Found {
        let mut rng = Rng::new(self.seed, 4);
        match rng.below(10) {
            0..=2 if self.profile == Profile::FirstStart => Found::TwoMasters,
            3..=5 if self.profile == Profile::FirstStart => Found::NoMaster,
            _ => Found::Pair,
        }
    }

    /// Hosts that are no part of the first spec.
    #[must_use]
    pub fn spares(&self) -> usize {
        if self.profile == Profile::Membership { SPARES } else { 0 }
    }

    /// When everything is healed.
    #[must_use]
    pub fn heal_at(&self) -> Span {
        let last = self.faults.iter().map(|f| f.at + f.lasts).max().unwrap_or(ms(2_000));
        last.max(FAULTS_FROM) + ms(50)
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
    use crate::fault::FaultKind;

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
