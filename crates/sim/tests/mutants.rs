//! Each rule of the lease, switched off, is caught by some seed; with it on, the same seed is well.

use redkeep_sim::{
    mutants::{self, PROOFS},
    runner::{hunt, hunt_for},
};

/// Seeds looked at before a rule counts as not missed by the checkers.
const SEEDS: u64 = 2_000;

fn assert_caught(names: &[&str]) {
    let missed: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| {
            let mutant = mutants::named(name).expect("listed");
            let caught = hunt(&mutant, 0..SEEDS);
            if let Some((seed, violation)) = &caught {
                println!("{name} ({}): seed {seed}: {violation}", mutant.rule);
            }
            caught.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn a_gate_without_its_own_arming_is_caught() {
    assert_caught(&["arm_after_grant", "no_arm_id_check", "ignore_nonce", "keep_gate"]);
}

#[test]
fn a_grant_without_a_read_round_is_caught() {
    assert_caught(&["skip_read_index"]);
}

#[test]
fn a_grant_beside_a_decision_is_caught() {
    assert_caught(&["ignore_in_flight", "in_flight_times_out"]);
}

#[test]
fn a_wait_that_is_too_short_is_caught() {
    assert_caught(&["no_not_before", "new_leader_does_not_wait", "no_margin", "no_expiry"]);
}

#[test]
fn a_fence_that_is_forgotten_is_caught() {
    assert_caught(&["fence_not_burned", "burn_forgotten"]);
}

#[test]
fn grants_without_end_and_a_single_generation_are_caught() {
    assert_caught(&["no_grant_limit", "one_generation"]);
}

#[test]
fn a_broken_order_of_takeover_is_caught() {
    assert_caught(&["skip_serving", "keep_replica_element", "ignore_eligible", "ignore_run_id"]);
}

#[test]
fn a_replica_made_writable_that_stays_open_is_caught() {
    assert_caught(&["writable_stays_open"]);
}

#[test]
fn a_life_that_served_and_is_promoted_whatever_it_became_is_caught() {
    assert_caught(&["promote_blindly"]);
}

#[test]
fn a_tail_that_is_overwritten_without_being_kept_is_caught() {
    assert_caught(&["follow_at_once"]);
}

/// A member that handed over and has not attached yet has to count.
#[test]
fn an_n_of_wait_that_counts_attached_replicas_alone_is_caught() {
    assert_caught(&["wait_for_attached"]);
}

#[test]
fn a_strict_master_that_goes_on_alone_before_the_commit_is_caught() {
    assert_caught(&["lower_before_commit"]);
}

#[test]
fn a_clock_that_is_read_before_the_input_is_taken_is_caught() {
    assert_caught(&["clock_before_input"]);
}

#[test]
fn a_lock_of_one_direction_or_without_start_guard_is_caught() {
    assert_caught(&["input_only", "no_start_guard"]);
}

/// The order that the daemon once had.
#[test]
fn a_start_that_the_probe_admits_by_itself_is_caught() {
    assert_caught(&["admitted_by_probe"]);
}

#[test]
fn each_invariant_has_checkers_and_each_of_them_was_seen_to_fire() {
    for invariant in 1..=9 {
        assert!(PROOFS.iter().any(|p| p.invariant == invariant), "invariant {invariant}");
    }
    let silent = PROOFS.iter().filter(|proof| {
        let mutant = mutants::named(proof.mutant).expect("listed");
        let fired = hunt_for(&mutant, 0..SEEDS, |v| v.name() == proof.checker);
        if let Some((seed, violation)) = &fired {
            println!("{} {}: seed {seed}: {violation}", proof.invariant, proof.mutant);
        }
        fired.is_none()
    });
    let silent: Vec<String> = silent.map(|p| format!("{} by {}", p.checker, p.mutant)).collect();
    assert!(silent.is_empty(), "never fired: {silent:?}");
}

#[test]
fn a_master_that_our_own_lock_hid_and_that_is_moved_is_caught() {
    let mutant = mutants::named("unreached_at_once").expect("listed");
    let fired = hunt_for(&mutant, 0..SEEDS, |v| v.name() == "NeedlessMove");
    println!("{fired:?}");
    assert!(fired.is_some(), "never fired");
}

#[test]
fn a_newcomer_with_a_membership_of_its_own_is_caught() {
    assert_caught(&["newcomers_vote"]);
}

#[test]
fn a_decision_by_role_or_by_the_wall_clock_and_a_silent_leader_are_caught() {
    assert_caught(&["act_by_role", "say_nothing", "wait_by_wall_clock"]);
}

#[test]
fn every_rule_of_the_lease_can_be_switched_off() {
    let all = mutants::all();
    for rule in ["L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8"] {
        assert!(all.iter().any(|m| m.rule == rule), "{rule}");
    }
}
