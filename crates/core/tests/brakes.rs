//! What holds automatic failovers back, and how an operator lets them go on.

mod world;

use redkeep_core::*;
use world::World;

fn acknowledge(w: &mut World, group: Option<GroupId>, dry_run: bool) -> String {
    match w.order(AdminRequest::Acknowledge { group, dry_run }) {
        AdminReply::Done { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_that_fails_again_within_the_cooldown_waits_until_somebody_has_looked() {
    let mut w = World::cooling_down();
    w.kill_redis("b");
    w.until("it is held", 1000, World::is_cooling);
    w.run(2000);
    assert!(w.is_cooling() && !w.writable("a"));
    let dry = acknowledge(&mut w, None, true);
    assert!(dry.starts_with("the cooldown of pair ends 5"), "{dry}");
    w.run(100);
    assert!(w.is_cooling(), "a dry run changes nothing");
    let text = acknowledge(&mut w, Some(GroupId::new("pair")), false);
    assert!(text.starts_with("the cooldown of pair ends 5"), "{text}");
    w.until("a serves", 100, |w| w.serving() == Some("a"));
    for name in ["a", "b", "w"] {
        let host = w.host(name);
        let told = host.log.iter().filter(|e| e.kind == EventKind::Acknowledged).count();
        assert_eq!(told, 1, "{name}");
        let kept = host.core.history();
        assert!(kept.iter().any(|r| r.kind == model::RecordKind::Acknowledged), "{name}");
    }
    assert_eq!(acknowledge(&mut w, None, true), "the cooldown of pair ends 60s early");
}

/// Found by reading: the time of the last failover was the leader's alone, and a new leader began without a brake.
#[test]
fn the_next_leader_knows_of_the_cooldown() {
    let mut w = World::cooling_down();
    let first = w.leader().unwrap();
    w.stop_supervisor(first);
    w.until("another leads", 5000, |w| w.leader().is_some_and(|l| l != first));
    w.run(1000);
    w.kill_redis("b");
    w.until("it is held", 2000, World::is_cooling);
    acknowledge(&mut w, None, false);
    w.until("a serves", 1000, |w| w.serving() == Some("a"));
}

#[test]
fn an_acknowledgement_of_a_group_that_is_not_there_is_refused() {
    let mut w = World::settled_pair();
    let request = AdminRequest::Acknowledge { group: Some(GroupId::new("x")), dry_run: false };
    let refused = AdminReply::Refused(Refusal::NoSuchGroup(GroupId::new("x")));
    assert_eq!(w.ask(request), [refused]);
    assert_eq!(
        acknowledge(&mut w, None, true),
        "nothing of all groups waits for an acknowledgement"
    );
}
