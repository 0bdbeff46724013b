//! The lease rules, searched exhaustively within small bounds; larger ones by `redkeep-sim lease` (docs/testing.md).

use redkeep_sim::lease_model::{Found, Report, Rule, Setting, Start, search, sights};

/// Every state within the bounds, and none with two writers. The numbers keep the model from shrinking unseen.
fn holds(setting: &Setting, states_min: usize) {
    let Report { found, states, depth, open, moved, handed, back, diverged } = search(setting);
    assert_eq!(found, Found::Nothing, "{setting:?}");
    assert_eq!(diverged, 0, "two nodes committed different entries: {setting:?}");
    println!(
        "{states} states, depth {depth}, a host open in {open}, b in {moved}, handed over in {handed}, back in {back}: {setting:?}"
    );
    assert!(states >= states_min, "{states} states of {setting:?}");
    assert!(open > states / 100 && moved > states / 100, "hardly anybody is ever open");
    // Both ends of a switchover; at a cold start nobody is there to hand over before the first decision.
    if setting.start != Start::Cold || setting.assigns > 1 {
        assert!(handed > 0 && back > 0, "no switchover ends: {handed}, {back}");
    }
}

#[test]
fn without_an_election_and_with_restarts_there_are_never_two_writers() {
    let setting = Setting { elections: 0, arms: 2, restarts: 1, ..Setting::small() };
    holds(&setting, 1_000);
    holds(&Setting { ttl: 2, ..setting }, 2_000);
    holds(&Setting { assigns: 2, ..setting }, 2_000);
}

#[test]
fn with_an_election_there_are_never_two_writers() {
    holds(&Setting { arms: 2, restarts: 1, ..Setting::small() }, 20_000);
    holds(&Setting { arms: 1, assigns: 2, ..Setting::small() }, 50_000);
    holds(&Setting { arms: 1, elections: 2, ..Setting::small() }, 60_000);
}

#[test]
fn with_a_master_that_leads_and_is_deposed_there_are_never_two_writers() {
    let small = Setting { start: Start::MasterLeads, ..Setting::small() };
    holds(&Setting { arms: 2, restarts: 1, ..small }, 20_000);
    holds(&Setting { arms: 1, assigns: 2, ..small }, 40_000);
    holds(&Setting { arms: 1, elections: 2, ..small }, 60_000);
}

#[test]
fn from_a_cold_start_there_are_never_two_writers() {
    let start = Start::Cold;
    holds(&Setting { elections: 0, assigns: 2, start, ..Setting::small() }, 1_000);
    holds(&Setting { arms: 2, assigns: 2, start, ..Setting::small() }, 20_000);
}

/// A fence of a dead Redis burns nothing (ADR 0028), and its supervisor may notice the death late or only after its own restart.
#[test]
fn with_a_redis_that_dies_there_are_never_two_writers() {
    let small = Setting { deaths: 1, ..Setting::small() };
    holds(&Setting { elections: 0, assigns: 2, restarts: 1, ..small }, 10_000);
    holds(&Setting { arms: 1, ..small }, 10_000);
    holds(&Setting { arms: 2, start: Start::MasterLeads, ..small }, 10_000);
}

#[test]
fn with_holders_that_arm_less_than_the_lease_there_are_never_two_writers() {
    holds(&Setting { ttl: 2, armed: 1, arms: 2, ..Setting::small() }, 20_000);
}

#[test]
fn with_a_node_that_replaces_another_there_are_never_two_writers() {
    for (start, states_min) in
        [(Start::WitnessLeads, 270_000), (Start::MasterLeads, 260_000), (Start::Cold, 67_000)]
    {
        holds(&Setting { arms: 1, membership: true, start, ..Setting::small() }, states_min);
    }
}

/// What is left out of a search must not hide anything: both ways of searching see the same.
#[test]
fn the_reductions_hide_nothing_that_can_be_seen() {
    let small = Setting::small();
    let still = Setting { elections: 0, ..small };
    let settings = [
        Setting { arms: 1, ..small },
        Setting { arms: 1, start: Start::MasterLeads, ..small },
        Setting { start: Start::Cold, ..small },
        Setting { restarts: 1, assigns: 2, ..still },
        Setting { deaths: 1, restarts: 1, ..still },
        Setting { deaths: 1, arms: 1, ..small },
        Setting { arms: 3, ttl: 2, armed: 1, ..still },
        Setting { arms: 0, membership: true, assigns: 0, ..small },
        Setting { arms: 1, membership: true, assigns: 0, ..still },
        Setting { membership: true, assigns: 1, start: Start::Cold, ..still },
    ];
    for setting in settings {
        let (reduced, few, sum) = sights(&setting);
        let (plain, many, plain_sum) = sights(&Setting { plain: true, ..setting });
        println!("{} states show what {} do: {few} sights", reduced.states, plain.states);
        assert_eq!((few, sum), (many, plain_sum), "{setting:?}");
        assert_eq!((reduced.found, plain.found), (Found::Nothing, Found::Nothing));
        assert!(plain.states > reduced.states * 3 && few > 20, "nothing is compared");
    }
}

/// Bounds within which leaving out `rule` shows.
fn shows(rule: Rule) -> Setting {
    let still = Setting { elections: 0, forget: Some(rule), ..Setting::small() };
    let elects = Setting { elections: 1, arms: 1, ..still };
    match rule {
        Rule::ArmFirst
        | Rule::ArmId
        | Rule::Burn
        | Rule::InFlight
        | Rule::NoTimeOut
        | Rule::NotBefore
        | Rule::FullWait => still,
        Rule::OneLife => Setting { deaths: 1, ..still },
        Rule::GateOut => Setting { restarts: 1, ..still },
        Rule::AsArmed => Setting { ttl: 2, ..still },
        Rule::WholeLease => Setting { ttl: 2, ..elects },
        Rule::ReadIndex | Rule::TermOfRequest | Rule::NewLeaderWaits => elects,
        Rule::MajorityWithSender | Rule::FreshId => Setting { start: Start::MasterLeads, ..elects },
        Rule::OneChange => Setting { membership: true, start: Start::MasterLeads, ..elects },
        Rule::VotersOnly => Setting { membership: true, ..elects },
    }
}

fn steps_to_two_writers(setting: &Setting) -> usize {
    let report = search(setting);
    let Found::TwoWriters(steps) = report.found else {
        panic!("{setting:?}: {:?} in {} states", report.found, report.states)
    };
    println!("{} steps, {} states: {setting:?}", steps.len(), report.states);
    assert!(steps.last().is_some_and(|s| s.starts_with("Open")), "{steps:#?}");
    steps.len()
}

/// A model in which a rule can be left out without harm says nothing about that rule.
#[test]
fn without_any_one_of_the_rules_there_are_two_writers() {
    for rule in Rule::ALL {
        steps_to_two_writers(&shows(rule));
    }
}

/// The steps that reduced states take at once count as well here.
#[test]
fn without_the_reductions_each_rule_is_caught_too() {
    for rule in Rule::ALL.into_iter().filter(|rule| !shows(*rule).membership) {
        let reduced = steps_to_two_writers(&shows(rule));
        let plain = steps_to_two_writers(&Setting { plain: true, ..shows(rule) });
        assert!(reduced < plain && (13..=19).contains(&plain), "{rule:?}: {reduced}, {plain}");
    }
}
