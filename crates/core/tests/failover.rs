//! The failover path, whole, on a virtual clock.

mod world;

use redkeep_core::ids::node_id;
use redkeep_core::plan::{Exclusion, HoldReason};
use redkeep_core::*;
use world::World;

#[test]
fn a_running_pair_is_adopted_as_it_is() {
    let mut w = World::settled_pair();
    assert!(w.writable("a") && w.host("a").vip);
    assert!(!w.writable("b") && !w.host("b").vip);
    let follows = w.host("b").actions.iter().filter(|a| matches!(a, Action::Follow { .. })).count();
    assert_eq!(follows, 0, "the replica was repointed for nothing");
    assert_eq!(w.pair_status().unwrap().wait_replicas, 1);
}

#[test]
fn a_crash_moves_the_master_without_waiting_for_any_timer() {
    let mut w = World::settled_pair();
    w.kill_redis("a");
    let ms = w.until("b is writable", 100, |w| w.writable("b"));
    assert!(ms <= 3, "{ms} ms on a network without delay");
    assert!(!w.is_open("a") && w.host("b").vip);
    w.until("a's address is gone", 10, |w| !w.host("a").vip);
    w.run(10);
    let gone = |w: &mut World, name| {
        w.host(name).log.iter().filter(|e| e.kind == EventKind::VipGone).count()
    };
    assert_eq!((gone(&mut w, "a"), gone(&mut w, "b")), (1, 0), "told once, by whom had it");
}

#[test]
fn an_empty_restart_becomes_a_replica_and_empties_nobody() {
    let mut w = World::settled_pair();
    w.kill_redis("a");
    w.step();
    w.start_redis("a", true);
    w.until("b serves", 100, |w| w.serving() == Some("b"));
    w.until("a follows b", 1000, |w| w.redis("a").master.is_some());
    w.run(500);
    assert_eq!(w.redis("b").keys, 10);
    assert_eq!(w.redis("a").keys, 10, "a was filled from b");
    w.until("a is eligible", 2000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
}

#[test]
fn a_silent_holder_is_replaced_after_its_lease_and_never_before() {
    let mut w = World::settled_pair();
    w.isolate("a");
    let ms = w.until("b is writable", 1000, |w| {
        assert!(!(w.writable("a") && w.writable("b")), "two writers");
        w.writable("b")
    });
    assert!((290..=365).contains(&ms), "{ms} ms");
    w.heal();
    w.until("a follows", 3000, |w| w.redis("a").master.is_some());
    assert!(!w.host("a").vip);
}

#[test]
fn leadership_does_not_move_while_a_master_is_silent() {
    let mut spec = world::spec();
    spec.timing.lease_ttl = Span::from_millis(1000);
    let mut w = World::settled(World::pair_of(&spec));
    // Before the second is over after which leadership would go back to the witness.
    w.lead_by("b");
    w.isolate("a");
    let ms = w.until("b is writable", 5000, |w| w.writable("b"));
    assert!(ms <= 1200, "{ms} ms: a lease begun anew by a new leader was waited for");
    w.until("the witness leads", 5000, |w| w.leader() == Some("w"));
}

#[test]
fn a_replica_that_leads_and_does_not_hear_the_master_lets_the_witness_lead() {
    let mut w = World::settled_pair();
    w.lead_by("b");
    let epoch = w.pair_status().unwrap().epoch;
    w.cut_between("a", "b");
    w.until("the witness leads", 150, |w| w.leader() == Some("w"));
    for _ in 0..2000 {
        assert!(w.is_open("a"), "the lease lapsed");
        w.step();
    }
    assert_eq!(w.pair_status().unwrap().epoch, epoch, "a needless failover");
}

#[test]
fn leadership_is_not_handed_to_a_witness_that_does_not_hear_the_master() {
    let mut w = World::settled_pair();
    let epoch = w.pair_status().unwrap().epoch;
    w.cut_between("a", "w");
    w.until("b leads", 150, |w| w.leader() == Some("b"));
    for _ in 0..5000 {
        assert!(w.is_open("a"), "the lease lapsed");
        assert_ne!(w.leader(), Some("w"), "a leader that does not hear the master");
        w.step();
    }
    assert_eq!(w.pair_status().unwrap().epoch, epoch, "a needless failover");
    w.heal();
    w.until("the witness leads", 3000, |w| w.leader() == Some("w"));
}

/// Found by nemesis: the witness led, heard the master and not the replica, and then the master's Redis died.
#[test]
fn a_witness_that_does_not_hear_the_only_candidate_lets_the_master_s_node_lead() {
    let mut w = World::settled_pair();
    w.run(1000);
    let epoch = w.pair_status().unwrap().epoch;
    w.cut_between("b", "w");
    w.until("a leads", 400, |w| w.leader() == Some("a"));
    for _ in 0..5000 {
        assert!(w.is_open("a"), "the lease lapsed");
        assert_ne!(w.leader(), Some("w"), "a leader that hears no candidate");
        w.step();
    }
    assert_eq!(w.pair_status().unwrap().epoch, epoch, "a needless failover");
    w.kill_redis("a");
    let ms = w.until("b is writable", 100, |w| w.writable("b"));
    assert!(ms <= 5, "{ms} ms");
    w.heal();
    w.until("the witness leads", 3000, |w| w.leader() == Some("w"));
    w.run(3000);
    assert_eq!(w.leader(), Some("w"), "and stays");
}

#[test]
fn leadership_moves_to_the_candidate_s_side_also_after_the_master_s_redis_died() {
    let mut w = World::settled_pair();
    w.run(1000);
    w.cut_between("b", "w");
    w.kill_redis("a");
    let ms = w.until("b is writable", 1000, |w| w.writable("b"));
    assert!(ms <= 400, "{ms} ms: a lease of silence, a question and an election");
}

#[test]
fn leadership_stays_at_the_witness_when_nobody_hears_the_candidate() {
    let mut w = World::settled_pair();
    w.run(1000);
    w.isolate("b");
    for _ in 0..5000 {
        assert_eq!(w.leader(), Some("w"));
        assert!(w.is_open("a"), "the lease lapsed");
        w.step();
    }
}

/// One way is enough: the master hears no grant, and others still hear both.
#[test]
fn a_master_that_does_not_hear_its_leader_is_led_by_another() {
    let mut w = World::settled_pair();
    let epoch = w.pair_status().unwrap().epoch;
    w.cut.insert(("w", "a"));
    w.until("b leads", 300, |w| w.leader() == Some("b"));
    w.run(2000);
    assert!(w.is_open("a"));
    assert_eq!(w.pair_status().unwrap().epoch, epoch, "a needless failover");
}

#[test]
fn a_hung_redis_is_fenced_on_the_leaders_request() {
    let mut w = World::settled_pair();
    w.redis("a").hung = true;
    let ms = w.until("b is writable", 1000, |w| w.writable("b"));
    assert!(ms <= 120, "{ms} ms with two probes 50 ms apart");
    assert!(!w.is_open("a"));
    w.redis("a").hung = false;
    w.until("a follows", 2000, |w| w.redis("a").master.is_some());
}

#[test]
fn a_hung_master_without_a_candidate_keeps_its_lease() {
    let mut w = World::settled_pair();
    w.kill_redis("b");
    w.until("b left the eligible set", 5000, |w| {
        w.pair_status().is_some_and(|g| g.eligible.is_empty())
    });
    w.redis("a").hung = true;
    w.run(500);
    assert_eq!(w.pair_status().unwrap().hold, Some(HoldReason::NoCandidate));
    w.redis("a").hung = false;
    w.run(100);
    assert!(w.writable("a"));
}

#[test]
fn a_switchover_moves_the_master_and_back() {
    let mut w = World::settled_pair();
    for (to, from) in [("b", "a"), ("a", "b"), ("b", "a")] {
        let leader = w.switch_to(to);
        let ms = w.until("the target is writable", 100, |w| w.writable(to));
        assert!(ms <= 5, "{ms} ms");
        assert!(!w.writable(from));
        w.until("eligible again", 3000, |w| {
            w.serving() == Some(to) && w.pair_status().is_some_and(|g| g.eligible.len() == 1)
        });
        let replies = &w.host(leader).replies;
        assert!(matches!(replies.as_slice(), [AdminReply::Done { .. }]), "{replies:?}");
        w.run(2000);
    }
}

/// Found by nemesis: the new master was alone until the old one had followed it, and nobody was promoted.
#[test]
fn the_old_master_goes_on_when_the_new_one_dies_right_after_a_switchover() {
    for delay_ms in [0, 1, 2, 5, 20, 60, 200] {
        let mut w = World::settled_pair();
        w.switch_to("b");
        w.until("b is assigned", 100, |w| {
            w.pair_status().is_some_and(|g| g.master == Some(node_id("b")))
        });
        assert_eq!(w.pair_status().unwrap().wait_replicas, 1, "n counts it from the first write");
        w.run(delay_ms);
        w.kill_redis("b");
        let ms = w.until("a is writable", 100, |w| w.writable("a"));
        assert!(ms <= 5, "{ms} ms, {delay_ms} ms after the assignment");
        assert_eq!((w.redis("a").run, w.redis("a").keys), (1, 10), "the same life, all its data");
        w.start_redis("b", true);
        w.until("b follows", 3000, |w| w.redis("b").master.is_some() && w.redis("b").keys == 10);
    }
}

#[test]
fn an_old_master_that_does_not_follow_leaves_the_set_and_the_lease_goes_on() {
    let mut w = World::settled_pair();
    w.switch_to("b");
    w.until("b is writable", 100, |w| w.writable("b"));
    assert_eq!(w.pair_status().unwrap().eligible.len(), 1);
    // It is heard and well, and its link to the new master does not come up.
    w.no_replication = true;
    let start = w.t;
    while w.pair_status().is_none_or(|g| !g.eligible.is_empty()) {
        assert!(w.is_open("b"), "the lease lapsed");
        assert!(w.t - start < 4_000 * world::MS, "longer than max_lag and a renewal");
        w.step();
    }
    w.run(1000);
    assert!(w.is_open("b"));
    w.no_replication = false;
    w.until("a is eligible", 3000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
}

/// A planned stop of the old master, as for maintenance.
#[test]
fn an_old_master_that_is_stopped_leaves_the_set_at_once() {
    let mut w = World::settled_pair();
    w.switch_to("b");
    w.until("b serves", 100, |w| w.serving() == Some("b"));
    w.kill_redis("a");
    let ms = w.until("nobody is eligible", 1000, |w| {
        assert!(w.is_open("b"), "the lease lapsed");
        w.pair_status().is_some_and(|g| g.eligible.is_empty())
    });
    assert!(ms <= 10, "{ms} ms");
}

/// The time of a switchover was that of the leader which committed it alone. Under another it stood for ever, and kept the
/// eligible set and every other order from moving.
#[test]
fn a_switchover_that_outlives_its_leader_is_taken_back_by_the_next() {
    let mut w = World::settled_pair();
    w.redis("a").target_lags = true;
    w.switch_to("b");
    w.until("it stands", 100, |w| w.pair_status().is_some_and(|g| g.switchover_to.is_some()));
    w.kill_redis("b");
    w.stop_supervisor("w");
    w.until("another leads", 2000, |w| w.leader().is_some_and(|l| l != "w"));
    w.until("it is taken back", 3000, |w| {
        w.pair_status().is_some_and(|g| g.switchover_to.is_none() && g.serving)
    });
    assert!(w.writable("a"));
    w.start_redis("b", true);
    w.redis("a").target_lags = false;
    w.until("b is eligible", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
    w.switch_to("b");
    w.until("b is writable", 1000, |w| w.writable("b"));
}

#[test]
fn a_switchover_to_a_replica_that_is_not_eligible_is_refused_with_the_rule() {
    let mut w = World::without_b();
    let leader = w.switch_to("b");
    let want = Refusal::Excluded { node: "b".into(), why: Exclusion::RedisDown };
    assert_eq!(w.host(leader).replies, [AdminReply::Refused(want)]);
}

/// The end of one pause leaves the other, and says so.
#[test]
fn a_resume_says_what_is_still_paused() {
    let mut w = World::settled_pair();
    let leader = w.leader().unwrap();
    let group = Some(GroupId::new("pair"));
    let duration = Span::from_secs(60);
    let mut ask = |request| {
        w.host(leader).replies.clear();
        w.feed(leader, Input::Admin { id: RequestId(1), request });
        w.run(200);
        match w.host(leader).replies.as_slice() {
            [AdminReply::Done { text, .. }] => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    ask(AdminRequest::Pause { group: group.clone(), duration });
    assert_eq!(
        ask(AdminRequest::Resume { group: None }),
        "the pause of all groups is over; pair is still paused by itself: redkeepctl resume pair"
    );
    ask(AdminRequest::Pause { group: None, duration });
    assert_eq!(
        ask(AdminRequest::Resume { group: group.clone() }),
        "the pause of pair is over; pair is still paused with all groups: redkeepctl resume"
    );
    assert_eq!(ask(AdminRequest::Resume { group: None }), "automatic failover of all groups is on");
}

#[test]
fn a_lost_lock_is_opened_again_by_a_new_grant_only() {
    let mut w = World::settled_pair();
    w.host("a").lock = world::Lock::default();
    w.feed("a", Input::Host(HostEvent::LockLost));
    let ms = w.until("open again", 100, |w| w.writable("a"));
    assert!(ms <= 2, "{ms} ms");
    let told = w.host("a").log.iter().map(|e| &e.kind);
    let told: Vec<_> = told
        .filter(|k| matches!(k, EventKind::LockLost | EventKind::LockRestored))
        .cloned()
        .collect();
    assert_eq!(told, [EventKind::LockLost, EventKind::LockRestored]);
    assert_eq!(w.serving(), Some("a"));
}

#[test]
fn an_address_that_was_taken_away_is_back_at_once() {
    let mut w = World::settled_pair();
    w.host("a").vip = false;
    w.feed("a", Input::Host(HostEvent::VipRemoved { group: GroupId::new("pair") }));
    w.step();
    assert!(w.host("a").vip);
}

#[test]
fn losing_the_leader_costs_no_lease() {
    let mut w = World::settled_pair();
    let leader = w.leader().unwrap();
    w.host(leader).up = false;
    for _ in 0..2000 {
        w.step();
        assert!(w.writable("a"), "a lost its lease {}", w.describe());
    }
    assert!(w.leader().is_some_and(|l| l != leader));
}

#[test]
fn when_all_redis_died_the_last_master_comes_back_with_its_data() {
    let mut w = World::without_b();
    w.kill_redis("a");
    w.run(300);
    w.start_redis("a", false);
    w.start_redis("b", true);
    w.until("a serves again", 3000, |w| w.writable("a"));
    w.until("b follows", 3000, |w| w.redis("b").keys == 10);
}

/// Found by the simulator: it was refused as the master that it no longer was.
#[test]
fn an_operator_may_name_the_fenced_master_again_at_the_price_of_data() {
    let mut w = World::without_b();
    w.kill_redis("a");
    w.run(300);
    w.start_redis("a", true);
    w.start_redis("b", true);
    w.run(300);
    assert_eq!(w.pair_status().unwrap().hold, Some(HoldReason::EmptyDataSet));
    w.force("a");
    w.until("a serves", 1000, |w| w.writable("a"));
}

#[test]
fn an_adopted_master_that_dies_before_its_first_grant_is_guarded_when_it_reports_its_fence() {
    let mut w = World::pair();
    w.host("a").deny_open = true;
    w.until("a is assigned", 5000, |w| {
        w.pair_status().is_some_and(|g| g.master == Some(node_id("a")))
    });
    w.kill_redis("a");
    w.until("a fenced", 1000, |w| {
        let leader = w.leader();
        let now = w.now();
        let status = leader.map(|l| w.host(l).core.status(now));
        status.is_some_and(|s| s.groups[0].members.iter().any(|m| m.fenced.is_some()))
    });
    assert!(w.host("a").lock.guarded.contains(&16465));
}

#[test]
fn without_a_majority_every_port_closes_and_opens_by_itself_when_there_is_one_again() {
    let mut w = World::settled_pair();
    let epoch = w.pair_status().unwrap().epoch;
    for name in ["b", "w"] {
        w.stop_supervisor(name);
    }
    let ms = w.until("a is closed", 1000, |w| !w.is_open("a"));
    assert!(ms <= 300, "{ms} ms: longer than its lease");
    for _ in 0..5000 {
        assert!(!w.is_open("a") && !w.is_open("b"));
        w.step();
    }
    for name in ["b", "w"] {
        w.start_supervisor(name, &world::spec());
    }
    w.until("a is open", 3000, |w| w.writable("a"));
    w.until("a serves", 3000, |w| w.serving() == Some("a"));
    assert!(w.pair_status().unwrap().epoch <= Epoch(epoch.0 + 1), "it went on at its own node");
}

#[test]
fn a_leader_that_hears_nobody_is_replaced_while_the_lease_runs() {
    let mut w = World::settled_pair();
    let epoch = w.pair_status().unwrap().epoch;
    w.cut.extend([("a", "w"), ("b", "w")]);
    w.until("another leads", 400, |w| {
        let now = w.now();
        ["a", "b"].iter().any(|n| w.host(n).core.status(now).leader == Some(node_id(n)))
    });
    for _ in 0..2000 {
        assert!(w.is_open("a"), "the lease lapsed");
        w.step();
    }
    let now = w.now();
    assert_eq!(w.host("a").core.status(now).groups[0].epoch, epoch, "a needless failover");
}
