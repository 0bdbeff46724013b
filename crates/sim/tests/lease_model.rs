//! The lease rules, searched exhaustively within small bounds; larger ones by `redkeep-sim lease` (docs/testing.md).

use redkeep_sim::lease_model::{Found, Report, Rule, Setting, Start, search};

/// Every state within the bounds, and none with two writers. The numbers keep the model from shrinking unseen.
fn holds(setting: &Setting, states_min: usize) {
    let Report { found, states, open, moved } = search(setting);
    assert_eq!(found, Found::Nothing, "{setting:?}");
    println!("{states} states, a host open in {open}, b in {moved}: {setting:?}");
    assert!(states >= states_min, "{states} states of {setting:?}");
    assert!(open > states / 100 && moved > states / 100, "hardly anybody is ever open");
}

#[test]
fn without_an_election_and_with_restarts_there_are_never_two_writers() {
    let setting = Setting { elections: 0, arms: 2, restarts: 1, ..Setting::small() };
    holds(&setting, 30_000);
    holds(&Setting { ttl: 2, ..setting }, 50_000);
    holds(&Setting { assigns: 2, restarts: 0, ..setting }, 30_000);
}

#[test]
fn with_an_election_there_are_never_two_writers() {
    holds(&Setting { arms: 1, ..Setting::small() }, 1_000_000);
}

#[test]
fn with_a_master_that_leads_and_is_deposed_there_are_never_two_writers() {
    let start = Start::MasterLeads;
    holds(&Setting { arms: 1, start, ..Setting::small() }, 1_000_000);
}

#[test]
fn from_a_cold_start_there_are_never_two_writers() {
    let start = Start::Cold;
    holds(&Setting { elections: 0, assigns: 2, start, ..Setting::small() }, 20_000);
    holds(&Setting { arms: 1, start, ..Setting::small() }, 50_000);
}

/// Bounds within which leaving out `rule` shows.
fn shows(rule: Rule) -> Setting {
    let still = Setting { elections: 0, forget: Some(rule), ..Setting::small() };
    match rule {
        Rule::ArmFirst
        | Rule::ArmId
        | Rule::Burn
        | Rule::InFlight
        | Rule::NoTimeOut
        | Rule::NotBefore
        | Rule::FullWait => still,
        Rule::GateOut => Setting { restarts: 1, ..still },
        Rule::ReadIndex | Rule::TermOfRequest | Rule::NewLeaderWaits => {
            Setting { elections: 1, arms: 1, ..still }
        }
        Rule::MajorityWithSender => {
            Setting { elections: 1, arms: 1, start: Start::MasterLeads, ..still }
        }
    }
}

/// A model in which a rule can be left out without harm says nothing about that rule.
#[test]
fn without_any_one_of_the_rules_there_are_two_writers() {
    for rule in Rule::ALL {
        let report = search(&shows(rule));
        let Found::TwoWriters(steps) = report.found else {
            panic!("{rule:?}: {:?} in {} states", report.found, report.states)
        };
        println!("without {rule:?}: {} steps, {} states", steps.len(), report.states);
        assert!(steps.last().is_some_and(|s| s.starts_with("Deliver(Grant")), "{steps:#?}");
    }
}
