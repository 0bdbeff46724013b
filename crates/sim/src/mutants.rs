//! The rules that can be switched off, by name. A checker that never caught the bug it is for proves nothing.

use redkeep_core::Mutations;

use crate::{
    lock::{LockRules, StartGuard},
    plan::{Layout, Plan, Profile},
    world::Switches,
};

/// How a rule that is off shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// In a run.
    Run,
    /// In the difference between two runs under different wall clocks.
    TwoWallClocks,
}

/// A rule that is off.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    pub name: &'static str,
    /// Lease rule of the design, or what else it stands for.
    pub rule: &'static str,
    pub switches: Switches,
    /// It breaks safety; else it only keeps service away.
    pub unsafe_without: bool,
    /// Where it shows soonest; none = in the plans of all seeds.
    pub hunted_in: Option<(Layout, Profile)>,
    pub shown_by: Shown,
}

impl Mutant {
    /// The plan of `seed` in which it is looked for.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        match self.hunted_in {
            Some((layout, profile)) => Plan::draw(seed, layout, profile),
            None => Plan::of_seed(seed),
        }
    }
}

fn mutant(name: &'static str, rule: &'static str, switches: Switches) -> Mutant {
    let (unsafe_without, hunted_in, shown_by) = (true, None, Shown::Run);
    Mutant { name, rule, switches, unsafe_without, hunted_in, shown_by }
}

fn core(name: &'static str, rule: &'static str, set: fn(&mut Mutations)) -> Mutant {
    let mut switches = Switches::default();
    set(&mut switches.core);
    mutant(name, rule, switches)
}

fn lock(name: &'static str, rule: &'static str, set: fn(&mut LockRules)) -> Mutant {
    let mut switches = Switches::default();
    set(&mut switches.lock);
    mutant(name, rule, switches)
}

fn world(name: &'static str, rule: &'static str, set: fn(&mut Switches)) -> Mutant {
    let mut switches = Switches::default();
    set(&mut switches);
    mutant(name, rule, switches)
}

/// Every one of them.
#[must_use]
pub fn all() -> Vec<Mutant> {
    let in_trio = |profile| Some((Layout::Trio, profile));
    let mut all = list();
    for mutant in &mut all {
        match mutant.name {
            // What costs service and nothing else: grants to one that never confirms, a gate closed by its own
            // holder, decisions without end.
            "no_grant_limit" | "one_generation" | "no_not_before" => {
                mutant.unsafe_without = false;
                mutant.hunted_in = in_trio(Profile::Single);
            }
            "arm_after_grant" | "ignore_in_flight" | "ignore_nonce" | "input_only" => {
                mutant.hunted_in = in_trio(Profile::Duel);
            }
            // Who takes over needs a majority without two that are in the way: with three nodes one seed in 2,000 has that.
            "in_flight_times_out" => mutant.hunted_in = Some((Layout::Five, Profile::Duel)),
            "no_arm_id_check" | "fence_not_burned" | "burn_forgotten" => {
                mutant.hunted_in = in_trio(Profile::Late);
            }
            "clock_before_input" | "admitted_by_probe" => {
                mutant.hunted_in = in_trio(Profile::Stall);
            }
            "wait_for_attached" => mutant.hunted_in = Some((Layout::Five, Profile::HandOver)),
            "skip_read_index" => mutant.hunted_in = Some((Layout::Five, Profile::Late)),
            // Power that goes while a commit index is not on the disk, and groups that moved just before.
            "act_on_old_model" => {
                mutant.hunted_in = Some((Layout::TrioThreeGroups, Profile::HandOver));
            }
            "writable_stays_open" | "promote_blindly" => {
                mutant.hunted_in = in_trio(Profile::ByHand);
            }
            "newcomers_vote" => mutant.hunted_in = in_trio(Profile::Membership),
            "unreached_at_once" => {
                mutant.unsafe_without = false;
                mutant.hunted_in = in_trio(Profile::Filtered);
            }
            "say_nothing" => mutant.unsafe_without = false,
            "wait_by_wall_clock" => mutant.shown_by = Shown::TwoWallClocks,
            _ => {}
        }
    }
    all
}

// `lead_unheard` beside a rule: a leader that hands on to a node which hears the master would seldom meet the case.
fn list() -> Vec<Mutant> {
    vec![
        core("arm_after_grant", "L1", |m| m.arm_after_grant = true),
        core("no_arm_id_check", "L1", |m| m.no_arm_id_check = true),
        core("skip_read_index", "L2", |m| m.skip_read_index = true),
        core("ignore_in_flight", "L3", |m| {
            (m.ignore_in_flight, m.lead_unheard) = (true, true);
        }),
        core("in_flight_times_out", "L3", |m| {
            (m.in_flight_times_out, m.lead_unheard) = (true, true);
        }),
        core("no_not_before", "L4", |m| m.no_not_before = true),
        core("new_leader_does_not_wait", "L4", |m| m.new_leader_does_not_wait = true),
        core("no_margin", "L4", |m| m.no_margin = true),
        core("fence_not_burned", "L5", |m| m.fence_not_burned = true),
        core("no_grant_limit", "L6", |m| {
            (m.no_grant_limit, m.lead_unheard) = (true, true);
        }),
        core("one_generation", "L7", |m| m.one_generation = true),
        core("skip_serving", "VIP first", |m| m.skip_serving = true),
        core("keep_replica_element", "takeover order", |m| m.keep_replica_element = true),
        core("writable_stays_open", "closed unless granted", |m| m.writable_stays_open = true),
        core("promote_blindly", "no older data set", |m| m.promote_blindly = true),
        core("follow_at_once", "quarantine", |m| m.follow_at_once = true),
        core("ignore_eligible", "eligible set", |m| m.ignore_eligible = true),
        core("wait_for_attached", "n of WAIT", |m| m.wait_for_attached = true),
        core("lower_before_commit", "durability strict", |m| m.lower_before_commit = true),
        core("ignore_run_id", "eligible set", |m| m.ignore_run_id = true),
        core("act_by_role", "a lease, not a role", |m| m.act_by_role = true),
        // The comparison before a return takes as long as catching up does, and hides it.
        core("act_on_old_model", "epochs only rise", |m| {
            (m.act_on_old_model, m.follow_at_once) = (true, true);
        }),
        core("unreached_at_once", "what our own lock closed is no filter", |m| {
            m.unreached_at_once = true;
        }),
        core("say_nothing", "every wait has a reason", |m| m.say_nothing = true),
        core("wait_by_wall_clock", "the wall clock decides nothing", |m| {
            m.wait_by_wall_clock = true;
        }),
        lock("ignore_nonce", "L1 in the kernel", |r| r.ignore_nonce = true),
        lock("keep_gate", "L1 in the kernel", |r| r.keep_gate = true),
        lock("input_only", "both directions", |r| r.input_only = true),
        lock("no_expiry", "the kernel's timer", |r| r.no_expiry = true),
        lock("no_start_guard", "drop-in of the Redis unit", |r| {
            r.start_guard = StartGuard::Missing;
        }),
        lock("admitted_by_probe", "who admits a start", |r| {
            r.start_guard = StartGuard::UntilProbed;
        }),
        world("burn_forgotten", "L5", |s| s.burn_forgotten = true),
        world("newcomers_vote", "a newcomer has no membership of its own", |s| {
            s.newcomers_vote = true;
        }),
        world("clock_before_input", "L8", |s| s.clock_before_input = true),
    ]
}

/// An invariant, the checkers that look at it, and rules without which each of them was seen to fire.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    /// Its number in ARCHITECTURE.md.
    pub invariant: u8,
    /// [`crate::check::Violation::name`].
    pub checker: &'static str,
    pub mutant: &'static str,
}

/// Docs/testing.md shows them as a table.
pub const PROOFS: [Proof; 14] = [
    proof(1, "TwoWriters", "no_start_guard"),
    proof(1, "TwoLeases", "no_expiry"),
    proof(1, "StaleAcknowledgement", "input_only"),
    proof(1, "TwoMajorities", "newcomers_vote"),
    proof(2, "EpochFell", "act_on_old_model"),
    proof(3, "FollowedTooEarly", "skip_serving"),
    proof(4, "ConfirmedLost", "wait_for_attached"),
    proof(4, "LostTooOld", "ignore_eligible"),
    proof(5, "EmptyReplaced", "ignore_run_id"),
    proof(6, "ActedWithoutLease", "act_by_role"),
    proof(7, "WallClockDecides", "wait_by_wall_clock"),
    proof(8, "SilentWait", "say_nothing"),
    proof(9, "OpenAtMaster", "keep_replica_element"),
    proof(9, "OpenToAnotherLife", "no_start_guard"),
];

const fn proof(invariant: u8, checker: &'static str, mutant: &'static str) -> Proof {
    Proof { invariant, checker, mutant }
}

/// The one of that name.
#[must_use]
pub fn named(name: &str) -> Option<Mutant> {
    all().into_iter().find(|m| m.name == name)
}
