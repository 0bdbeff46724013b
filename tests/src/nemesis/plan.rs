//! What will go wrong and when, from the seed alone.
//!
//! Targets are roles: who has one is found out when the fault is due, so the plan is the same in each run of a seed
//! although the runs are not. At most two faults overlap, and between them there is time to heal, sometimes too little.

use std::fmt;
use std::time::Duration;

/// Before the first fault all writers have acknowledgements.
const FIRST: Duration = Duration::from_secs(2);

/// Who is meant; a role is looked up when the fault is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica,
    Witness,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed, started again at the end with what its disk has.
    KillRedis,
    /// Killed and at once started again without its data.
    EmptyRedis,
    FreezeRedis,
    /// Killed, started again at the end.
    KillSupervisor,
    FreezeSupervisor,
    /// Redis and supervisor of a host frozen together.
    FreezeHost,
    Cut,
    Deaf,
    Mute,
    /// The link between the target and another host, neighbours not meant.
    CutLink(Role),
    /// Nothing comes to the port of the host's Redis from elsewhere, while its supervisor is heard.
    FilterPort,
    DeleteVip,
    FlushRules,
    /// The same while the supervisor is dead: no system survives that, and no plan has it. It shows that the
    /// checker convicts a real run.
    Sabotage,
    /// Off, and on again at the end.
    Power,
    Switchover,
    /// All supervisors killed, and started again at the end.
    KillAllSupervisors,
    /// stress-ng on all cores of the machine, which all hosts share.
    Starve,
    /// No byte is left on the disk of the supervisor's log.
    FullDisk,
    /// A fourth node joins, and is removed again at the end.
    Join,
}

impl Fault {
    /// Whether it strikes all hosts, whatever the target.
    pub(super) fn is_everywhere(self) -> bool {
        matches!(self, Fault::Starve | Fault::KillAllSupervisors)
    }
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From the plan's beginning.
    pub at: Duration,
    pub fault: Fault,
    pub target: Role,
    /// Zero for what has no end.
    pub length: Duration,
}

/// All faults of a run, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub steps: Vec<Step>,
}

impl Plan {
    /// Faults until `length`; the last one has ended by then.
    pub fn new(seed: u64, length: Duration) -> Self {
        let mut random = Random(seed);
        let mut steps = Vec::new();
        let mut at = FIRST;
        loop {
            let first = random.step(at);
            let mut end = first.end();
            let mut group = vec![first];
            if random.below(100) < 35 {
                let reach = u64::try_from(first.length.as_millis()).unwrap_or(0) + 300;
                let later = Duration::from_millis(random.below(reach));
                let second = random.step(at + later);
                end = end.max(second.end());
                group.push(second);
            }
            if end > length {
                return Plan { seed, steps };
            }
            steps.extend(group);
            at = end + random.pause();
        }
    }
}

impl Step {
    pub fn end(&self) -> Duration {
        self.at + self.length
    }
}

/// splitmix64 (Steele, Lea, Flood 2014), as elsewhere in this repository.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The bias of a remainder does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    /// Mostly enough to heal, sometimes not.
    fn pause(&mut self) -> Duration {
        if self.below(4) == 0 { self.millis(100, 800) } else { self.millis(1500, 5000) }
    }

    fn role(&mut self) -> Role {
        match self.below(10) {
            0..=5 => Role::Master,
            6..=7 => Role::Replica,
            _ => Role::Witness,
        }
    }

    /// A host that has a Redis.
    fn member(&mut self) -> Role {
        if self.below(10) < 7 { Role::Master } else { Role::Replica }
    }

    fn step(&mut self, at: Duration) -> Step {
        let span = if self.below(3) == 0 { self.millis(20, 400) } else { self.millis(400, 5000) };
        // After a cut TCP is silent for about as long again: only a long one shows who waits for it.
        let cut = if self.below(4) == 0 { self.millis(8_000, 20_000) } else { span };
        let (fault, target, length) = match self.below(35) {
            0..=3 => (Fault::KillRedis, self.member(), span),
            4..=5 => (Fault::EmptyRedis, self.member(), Duration::ZERO),
            6..=7 => (Fault::FreezeRedis, self.member(), span),
            8..=9 => (Fault::KillSupervisor, self.role(), span),
            10..=11 => (Fault::FreezeSupervisor, self.role(), span),
            12..=13 => (Fault::FreezeHost, self.member(), span),
            14..=15 => (Fault::Cut, self.role(), cut),
            // The majority needs some 1.5 s to be sure of it.
            16 => (Fault::FilterPort, self.member(), self.millis(500, 6_000)),
            17 => (Fault::Deaf, self.role(), cut),
            18 => (Fault::Mute, self.role(), cut),
            19..=20 => self.link(cut),
            21 => (Fault::DeleteVip, Role::Master, Duration::ZERO),
            22 => (Fault::FlushRules, self.member(), Duration::ZERO),
            23..=25 => (Fault::Power, self.role(), span),
            26..=27 => (Fault::Switchover, Role::Master, Duration::ZERO),
            28 => (Fault::KillAllSupervisors, Role::Witness, span),
            29..=30 => (Fault::Starve, Role::Witness, span),
            31..=32 => (Fault::FullDisk, self.role(), span),
            // Long enough to vote, mostly.
            _ => (Fault::Join, Role::Witness, self.millis(1_000, 12_000)),
        };
        Step { at, fault, target, length }
    }

    fn link(&mut self, span: Duration) -> (Fault, Role, Duration) {
        match self.below(3) {
            0 => (Fault::CutLink(Role::Replica), Role::Master, span),
            1 => (Fault::CutLink(Role::Witness), Role::Master, span),
            _ => (Fault::CutLink(Role::Witness), Role::Replica, span),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Master => "master",
            Role::Replica => "replica",
            Role::Witness => "witness",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Fault::KillRedis => "kill Redis",
            Fault::EmptyRedis => "restart Redis empty",
            Fault::FreezeRedis => "freeze Redis",
            Fault::KillSupervisor => "kill supervisor",
            Fault::FreezeSupervisor => "freeze supervisor",
            Fault::FreezeHost => "freeze Redis and supervisor",
            Fault::Cut => "cut host off",
            Fault::Deaf => "make host deaf",
            Fault::Mute => "make host mute",
            Fault::CutLink(to) => return write!(f, "cut link to {to}"),
            Fault::FilterPort => "filter the port of Redis",
            Fault::DeleteVip => "delete VIP",
            Fault::FlushRules => "flush nft ruleset",
            Fault::Sabotage => "remove the lock",
            Fault::Power => "power off",
            Fault::Switchover => "switchover",
            Fault::KillAllSupervisors => "kill all supervisors",
            Fault::Starve => "starve all cores",
            Fault::FullDisk => "fill the log's disk",
            Fault::Join => "add a node",
        };
        f.write_str(text)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan of seed {}: {} faults", self.seed, self.steps.len())?;
        for step in &self.steps {
            let (at, length) = (step.at.as_secs_f64(), step.length.as_secs_f64());
            let fault = step.fault.to_string();
            let target =
                if step.fault.is_everywhere() { "all".to_owned() } else { step.target.to_string() };
            writeln!(f, "{at:>9.3} s  {fault:<28} {target:<8} {length:.3} s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_is_a_plan() {
        let plan = Plan::new(7, MINUTE);
        assert_eq!(plan, Plan::new(7, MINUTE));
        assert_ne!(plan.steps, Plan::new(8, MINUTE).steps);
        // So that a seed of a report means the same in a year.
        let told: Vec<String> = plan.to_string().lines().take(3).map(str::to_owned).collect();
        assert_eq!(told, EXPECTED_OF_SEED_7);
    }

    const EXPECTED_OF_SEED_7: [&str; 3] = [
        "plan of seed 7: 19 faults",
        "    2.000 s  kill Redis                   master   0.224 s",
        "    2.266 s  freeze Redis and supervisor  master   0.345 s",
    ];

    #[test]
    fn a_longer_plan_begins_like_a_shorter_one() {
        let (short, long) = (Plan::new(3, MINUTE), Plan::new(3, MINUTE * 2));
        assert_eq!(long.steps[..short.steps.len()], short.steps);
        assert!(long.steps.len() > short.steps.len());
    }

    #[test]
    fn at_most_two_faults_overlap_and_all_end_in_time() {
        for seed in 0..200 {
            let plan = Plan::new(seed, MINUTE);
            assert!(!plan.steps.is_empty(), "seed {seed}");
            for step in &plan.steps {
                assert!(step.at >= FIRST && step.end() <= MINUTE, "seed {seed}: {step:?}");
                let others = plan.steps.iter().filter(|other| *other != step);
                let over = |other: &&Step| other.at <= step.at && other.end() > step.at;
                assert!(others.filter(over).count() <= 1, "seed {seed}: {step:?}");
            }
        }
    }

    #[test]
    fn some_cuts_of_each_kind_are_long_and_most_are_not() {
        let steps: Vec<Step> = (0..200).flat_map(|seed| Plan::new(seed, MINUTE).steps).collect();
        for kind in [Fault::Cut, Fault::Deaf, Fault::Mute, Fault::CutLink(Role::Replica)] {
            let cuts: Vec<_> = steps.iter().filter(|step| step.fault == kind).collect();
            let long = cuts.iter().filter(|step| step.length >= Duration::from_secs(8)).count();
            assert!(long > 0 && long * 2 < cuts.len(), "{kind}: {long} of {}", cuts.len());
        }
    }

    #[test]
    fn every_fault_but_sabotage_is_planned_by_some_seed() {
        let steps = (0..100).flat_map(|seed| Plan::new(seed, MINUTE).steps);
        let kinds: std::collections::BTreeSet<String> =
            steps.map(|step| step.fault.to_string()).collect();
        // The links count for each other end.
        assert_eq!(kinds.len(), 20, "{kinds:?}");
        assert!(!kinds.contains(&Fault::Sabotage.to_string()));
    }
}
