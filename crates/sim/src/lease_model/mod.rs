//! The lease argument (L1 to L5, ADR 0003, 0018, 0022, 0025 and 0028) as a small model, searched exhaustively.
//!
//! Two hosts, a and b, of one group, a witness w, and where the membership changes a fourth node d. Time is a tick for all at
//! once: what drift there may be is in the leader's wait, which is here exactly as long as a timer. Nothing else is timed:
//! every message is delivered at any later moment, any number of times, or never; every node may stop between any two steps.
//!
//! A holder arms the lease or, as ADR 0025 has it, less (`Setting::armed`), each time as it likes: so supervisors of both kinds
//! may stand beside each other. Who granted waits for what was armed, a new leader for the whole lease.
//!
//! A switchover is, for leases, a fence by order and an `Assign` to the target or back. Hosts fence here whenever they like,
//! ordered or not, and the leader then names whom it likes: every moment of a switchover, of its abort and of its leader's loss
//! is among those. `Report::handed` and `Report::back` count the states behind both ends.
//!
//! Abstractions: votes are given at the instant of the election (the earliest that a leader can begin to wait), and an append
//! carries the whole log. A newcomer votes at once and not only when it has caught up, and a leader that leaves may lead on:
//! both are more than the product does. Redis, VIPs and the eligible set are absent: the question here is only whether two
//! hosts can ever be open at once. Other than the simulator it knows nothing of the code of `core`: it checks the rules, not
//! their wording.

mod act;
mod reduce;
mod search;
mod state;
mod steps;

pub use search::{Found, Report, search, sights};
pub use state::{Host, State};

/// What the model may do, and which rule it forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Ticks of a lease.
    pub ttl: u8,
    /// Ticks that a holder may arm instead, at most those of the lease.
    pub armed: u8,
    /// Elections after the first.
    pub elections: u8,
    /// Armings of each host.
    pub arms: u8,
    /// Decisions (`Assign`) besides the first.
    pub assigns: u8,
    /// Restarts of supervisors beside a Redis.
    pub restarts: u8,
    /// Deaths of each Redis, at most one. Another life follows at once, behind a closed port; its supervisor notices later.
    pub deaths: u8,
    /// The fourth node may be added to the voters and the witness removed.
    pub membership: bool,
    pub start: Start,
    pub forget: Option<Rule>,
    /// Without the reductions.
    pub plain: bool,
    /// The search stops after so many states and says so.
    pub states_max: usize,
}

/// Where the search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// a is master, and w leads.
    WitnessLeads,
    /// a is master and leads.
    MasterLeads,
    /// Nobody is master: the whole cluster has just started, w leads.
    Cold,
}

/// A rule that the model can leave out; without each of them it finds two writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// L1: the timer is armed before the request leaves.
    ArmFirst,
    /// L1: a grant opens only the arming that it names.
    ArmId,
    /// L1: arming takes the gate of its generation out.
    GateOut,
    /// L2: a majority was in the leader's term after the arming.
    ReadIndex,
    /// ADR 0018: a request confirms only a leader of the sender's term.
    TermOfRequest,
    /// ADR 0018: only a leader that makes a majority with the sender.
    MajorityWithSender,
    /// L3: no grant while a decision is in flight.
    InFlight,
    /// L3: in flight does not end by time-out.
    NoTimeOut,
    /// L4: nobody else is named before the lease is over.
    NotBefore,
    /// L4: a new leader waits for the leases of its predecessor.
    NewLeaderWaits,
    /// L4: the wait is not one tick shorter than the timer.
    FullWait,
    /// L5: a fence burns its epoch.
    Burn,
    /// ADR 0028: an assignment is for one life of Redis, so the fence of a dead one need not burn.
    OneLife,
    /// ADR 0025: who grants waits for what was armed, were it more than others arm.
    AsArmed,
    /// ADR 0025: a new leader waits for the whole lease, though a holder may arm less.
    WholeLease,
    /// ADR 0022: the next change of the voters is proposed when the last one is committed.
    OneChange,
    /// ADR 0022: who does not vote any more confirms nothing.
    VotersOnly,
    /// ADR 0022: a node that lost its disk does not come back under its id.
    FreshId,
}

impl Rule {
    pub const ALL: [Self; 18] = [
        Self::ArmFirst,
        Self::ArmId,
        Self::GateOut,
        Self::ReadIndex,
        Self::TermOfRequest,
        Self::MajorityWithSender,
        Self::InFlight,
        Self::NoTimeOut,
        Self::NotBefore,
        Self::NewLeaderWaits,
        Self::FullWait,
        Self::Burn,
        Self::OneLife,
        Self::AsArmed,
        Self::WholeLease,
        Self::OneChange,
        Self::VotersOnly,
        Self::FreshId,
    ];
}

impl Setting {
    /// Small enough for every test run.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            ttl: 1,
            armed: 1,
            elections: 1,
            arms: 2,
            assigns: 1,
            restarts: 0,
            deaths: 0,
            membership: false,
            start: Start::WitnessLeads,
            forget: None,
            plain: false,
            states_max: 50_000_000,
        }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.forget != Some(rule)
    }

    /// Ticks that a leader waits for a timer of so many.
    pub(crate) fn wait(&self, armed: u8) -> u8 {
        if self.keeps(Rule::FullWait) { armed } else { armed - 1 }
    }
}
