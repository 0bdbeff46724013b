//! Histories made by hand. A checker that cannot fail proves nothing, so most of these must.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::timeline::Moment;
use crate::writer::Ack;

const BOUNDS: Bounds = Bounds {
    lease: Duration::from_millis(300),
    max_lag: Duration::from_secs(3),
    heal: Duration::from_secs(10),
};

fn ms(count: u64) -> Mono {
    Mono(count * 1_000_000)
}

fn write(at: u64, server: &str) -> Write {
    let early = ms(at - 1);
    let ack = Ack {
        sequence: at,
        sent: early,
        absent_at: early,
        seen: ms(at),
        server: Arc::from(server),
        confirmed: false,
    };
    Write { writer: "t".to_owned(), ack, lost: false }
}

fn lost(at: u64, server: &str) -> Write {
    Write { lost: true, ..write(at, server) }
}

fn reign(server: &str, since: u64) -> Reign {
    Reign { server: server.to_owned(), since: ms(since) }
}

fn deed(fault: Fault, host: &str, from: u64, to: u64) -> Deed {
    let host = host.to_owned();
    Deed { fault, host, from: ms(from), to: ms(to), note: None, done: true }
}

/// `a` is master, is cut off at 5 s, and `b` follows at 5.36 s.
fn takeover() -> History {
    History {
        deeds: vec![deed(Fault::Cut, "a", 5_000, 7_000)],
        reigns: vec![reign("a:1#1", 0), reign("b:1#1", 5_360)],
        writes: vec![
            write(1_000, "a:1#1"),
            write(4_990, "a:1#1"),
            lost(5_100, "a:1#1"),
            write(5_370, "b:1#1"),
            write(8_000, "b:1#1"),
        ],
        healed: Some(Duration::from_secs(1)),
        ..History::default()
    }
}

/// The only violation contains this.
fn convicts(history: &History, of: &str) {
    let found = judge(history, &BOUNDS).violations;
    assert!(found.len() == 1 && found[0].contains(of), "{found:?}");
}

#[test]
fn a_takeover_that_loses_the_last_lease_is_good() {
    let found = judge(&takeover(), &BOUNDS);
    assert_eq!(found.violations, Vec::<String>::new());
    assert_eq!(found.two_masters, Duration::ZERO);
    assert_eq!(found.lost.get(&Class::LastLease), Some(&(1, Duration::ZERO)));
    assert_eq!((found.acknowledged, found.reigns), (5, 2));
    assert_eq!(found.silence, (Duration::from_millis(3_990), 1_000.0));
}

#[test]
fn two_masters_are_convicted() {
    let mut history = takeover();
    history.writes.push(lost(5_400, "a:1#1"));
    let found = judge(&history, &BOUNDS);
    assert_eq!(found.two_masters, Duration::from_millis(29));
    assert!(found.violations[0].starts_with("two masters for 29.0 ms"), "{:?}", found.violations);
}

#[test]
fn an_old_answer_read_late_is_no_second_master() {
    let mut history = takeover();
    let mut late = lost(5_400, "a:1#1");
    (late.ack.sent, late.ack.absent_at) = (ms(5_200), ms(5_250));
    history.writes.push(late);
    assert_eq!(judge(&history, &BOUNDS).two_masters, Duration::ZERO);
}

#[test]
fn a_master_that_was_promoted_again_is_legitimate() {
    let mut history = takeover();
    history.reigns.push(reign("a:1#1", 9_000));
    history.writes.push(write(9_010, "a:1#1"));
    assert_eq!(judge(&history, &BOUNDS).violations, Vec::<String>::new());
    // The master before it is not, from then on.
    history.writes.push(write(9_100, "b:1#1"));
    convicts(&history, "two masters");
}

/// `b` hands over to `a`, which is cut off before `b` follows it; the group names `b` again, and the same life of its
/// Redis goes on. It never was a replica, so its log knows no promotion (seed 51).
fn hand_back() -> History {
    History {
        deeds: vec![deed(Fault::Cut, "a", 6_000, 6_100)],
        reigns: vec![reign("b:1#1", 0), reign("a:1#1", 5_000)],
        writes: vec![
            write(1_000, "b:1#1"),
            write(4_900, "b:1#1"),
            write(5_100, "a:1#1"),
            lost(6_050, "a:1#1"),
            write(7_000, "b:1#1"),
            write(8_000, "b:1#1"),
        ],
        events: vec![
            // One node after the other, the first one late.
            assigned(9_000, 3, "b"),
            assigned(4_950, 2, "a"),
            assigned(6_500, 3, "b"),
            assigned(4_960, 2, "a"),
            assigned(6_510, 3, "b"),
        ],
        healed: Some(Duration::from_secs(1)),
        ..History::default()
    }
}

fn assigned(at: u64, epoch: u64, host: &str) -> (Mono, Value) {
    (ms(at), json!({ "kind": "assigned", "about": host, "epoch": epoch }))
}

#[test]
fn a_master_that_is_named_again_is_legitimate() {
    let found = judge(&hand_back(), &BOUNDS);
    assert_eq!(found.violations, Vec::<String>::new());
    assert_eq!(found.two_masters, Duration::ZERO);
    assert_eq!(found.lost.get(&Class::LastLease), Some(&(1, Duration::ZERO)));
}

#[test]
fn a_master_that_goes_on_and_is_not_named_again_is_convicted() {
    let mut history = hand_back();
    history.events.retain(|(_, event)| event["about"] == "a");
    convicts(&history, "two masters for 2899.0 ms: b:1#1 (master since 0 ms)");
    // What a supervisor tells again when it starts again names nobody anew.
    history.events.insert(0, assigned(10, 1, "b"));
    history.events.push(assigned(6_500, 1, "b"));
    convicts(&history, "two masters for 2899.0 ms");
    // Nor does it help b that a is named.
    history.events.push(assigned(6_500, 3, "a"));
    convicts(&history, "two masters for 2899.0 ms");
}

#[test]
fn the_old_master_is_convicted_of_what_came_before_it_was_named_again() {
    let mut history = hand_back();
    history.writes.push(write(6_300, "b:1#1"));
    convicts(
        &history,
        "two masters for 1199.0 ms: b:1#1 (master since 0 ms) acknowledged 1 writes",
    );
}

#[test]
fn the_other_is_convicted_once_the_old_master_serves_again() {
    let mut history = hand_back();
    history.writes.push(lost(7_100, "a:1#1"));
    convicts(&history, "two masters for 99.0 ms: a:1#1 (master since 5000 ms)");
}

#[test]
fn an_old_answer_read_late_begins_no_reign() {
    let mut history = hand_back();
    let mut late = write(6_510, "b:1#1");
    (late.ack.sent, late.ack.absent_at) = (ms(4_890), ms(4_900));
    history.writes.push(late);
    // It has its lease yet.
    history.deeds[0] = deed(Fault::Cut, "a", 6_400, 6_800);
    history.writes.push(lost(6_520, "a:1#1"));
    assert_eq!(judge(&history, &BOUNDS).violations, Vec::<String>::new());
}

/// The data of a life that goes on is one, however often it is named, and whoever served meanwhile.
#[test]
fn being_named_again_excuses_no_loss() {
    let mut again = takeover();
    again.events = vec![assigned(3_000, 2, "a"), assigned(4_995, 3, "a"), assigned(5_200, 4, "b")];
    assert_eq!(judge(&again, &BOUNDS).violations, Vec::<String>::new());
    again.writes[0].lost = true;
    convicts(&again, "although a later write");
    again.writes[1].lost = true;
    convicts(&again, "further than lease + max_lag");
    let mut back = hand_back();
    back.deeds.push(deed(Fault::FreezeRedis, "a", 4_000, 4_899));
    back.writes[1].lost = true;
    convicts(&back, "although a later write");
}

#[test]
fn an_acknowledgement_of_one_who_was_never_promoted_is_convicted() {
    let mut history = takeover();
    history.writes.push(write(7_000, "a:1#2"));
    convicts(&history, "was never a master");
}

#[test]
fn a_lost_confirmed_write_is_convicted_whatever_the_fault() {
    let mut history = takeover();
    history.writes[2].ack.confirmed = true;
    convicts(&history, "1 writes confirmed by WAIT are lost");
}

#[test]
fn a_loss_without_a_fault_is_convicted() {
    let mut history = takeover();
    history.deeds.clear();
    convicts(&history, "without a fault");
    // A switchover promises to lose nothing, so it explains nothing; nor does a fault that was not done.
    history.deeds.push(deed(Fault::Switchover, "a", 5_050, 5_050));
    convicts(&history, "without a fault");
    history.deeds.push(Deed { done: false, ..deed(Fault::KillRedis, "a", 5_110, 6_000) });
    convicts(&history, "without a fault");
}

#[test]
fn a_hole_in_what_survived_is_convicted() {
    let mut history = takeover();
    history.writes[0].lost = true;
    convicts(&history, "although a later write");
}

#[test]
fn a_loss_long_before_the_end_is_convicted() {
    let mut history = takeover();
    history.writes[0].lost = true;
    history.writes[1].lost = true;
    convicts(&history, "further than lease + max_lag");
}

#[test]
fn a_loss_of_a_cut_off_master_after_its_lease_is_convicted() {
    let mut history = takeover();
    // No other has served yet, so these are no two masters; but who let it acknowledge?
    history.reigns[1] = reign("b:1#1", 6_000);
    history.writes[3] = write(6_010, "b:1#1");
    history.writes.push(lost(5_400, "a:1#1"));
    convicts(&history, "without a fault");
    history.deeds[0].fault = Fault::Deaf;
    assert_eq!(judge(&history, &BOUNDS).violations, Vec::<String>::new());
}

#[test]
fn the_tail_of_a_crash_is_bounded() {
    let mut history = takeover();
    history.deeds = vec![
        deed(Fault::CutLink(crate::nemesis::Role::Replica), "a", 2_500, 5_000),
        deed(Fault::KillRedis, "a", 5_101, 6_000),
    ];
    history.writes[1].lost = true;
    let found = judge(&history, &BOUNDS);
    assert_eq!(found.violations, Vec::<String>::new());
    let tail = (2, Duration::from_millis(110));
    assert_eq!(found.lost.get(&Class::Tail), Some(&tail));
}

/// Neither the witness nor the supervisor of the replica has a part in replication.
#[test]
fn a_tail_needs_a_fault_at_the_master_or_in_the_way_to_its_replica() {
    let mut history = takeover();
    let explains = |history: &mut History, fault, host| {
        history.deeds = vec![deed(fault, host, 4_000, 5_000)];
        judge(history, &BOUNDS).violations.is_empty()
    };
    assert!(!explains(&mut history, Fault::Cut, "w"));
    assert!(!explains(&mut history, Fault::FreezeSupervisor, "b"));
    assert!(explains(&mut history, Fault::FreezeRedis, "b"));
    assert!(explains(&mut history, Fault::FilterPort, "a"));
}

#[test]
fn a_run_without_faults_or_confirmed_writes_proves_nothing() {
    let mut history = takeover();
    let mut found = judge(&history, &BOUNDS);
    found.demand_substance(&history);
    assert_eq!(found.violations, ["no write was confirmed: the run proves nothing of WAIT"]);
    history.writes[0].ack.confirmed = true;
    history.deeds[0].done = false;
    history.writes[2].lost = false;
    let mut found = judge(&history, &BOUNDS);
    found.demand_substance(&history);
    assert_eq!(found.violations, ["no fault was done: the run proves nothing"]);
}

#[test]
fn a_whole_lost_reign_hands_its_gap_on() {
    let mut history = takeover();
    // b is killed before a followed it, and a, which never had b's writes, serves again.
    history.deeds =
        vec![deed(Fault::Cut, "a", 5_000, 7_000), deed(Fault::KillRedis, "b", 8_001, 9_000)];
    history.reigns.push(reign("a:1#1", 8_100));
    history.writes[3].lost = true;
    history.writes[4].lost = true;
    history.writes.push(write(8_200, "a:1#1"));
    let found = judge(&history, &BOUNDS);
    assert_eq!(found.violations, Vec::<String>::new());
    assert_eq!(found.lost.get(&Class::Tail).map(|(count, _)| *count), Some(2));
}

#[test]
fn slow_and_absent_healing_and_silence_are_convicted() {
    let slow = History { healed: Some(Duration::from_millis(10_001)), ..takeover() };
    convicts(&slow, "healthy only 10.0 s");
    let never = History { healed: None, ailment: Some("b lags".to_owned()), ..takeover() };
    convicts(&never, "not healthy after the last fault: b lags");
    let silent = History { writes: Vec::new(), ..takeover() };
    convicts(&silent, "nothing was acknowledged");
}

#[test]
fn vip_at_two_hosts_is_measured_and_power_off_ends_it() {
    let told = |at, host: &str, what: &str| Moment {
        at: ms(at),
        witness: format!("kernel {host}"),
        what: format!("{what} 10.0.0.1"),
    };
    let mut history = takeover();
    history.addresses =
        vec![told(0, "a", "has"), told(5_340, "b", "has"), told(5_350, "a", "lost")];
    assert_eq!(judge(&history, &BOUNDS).two_holders, Duration::from_millis(10));
    history.addresses.pop();
    history.deeds.push(deed(Fault::Power, "a", 5_000, 6_000));
    assert_eq!(judge(&history, &BOUNDS).two_holders, Duration::ZERO);
}
