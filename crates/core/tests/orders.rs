//! Orders that the log decides are answered when it has, and not before.

mod world;

use redkeep_core::{
    admin::Busy,
    ids::node_id,
    model::{NodeRejection, RecordKind, Rejection},
    *,
};
use world::{World, node};

const MINUTE: Span = Span::from_secs(60);

/// Asks `leader`, and says what it answers at once.
fn ask(w: &mut World, leader: &'static str, request: AdminRequest) -> Vec<AdminReply> {
    w.host(leader).replies.clear();
    w.feed(leader, Input::Admin { id: RequestId(9), request });
    w.host(leader).replies.clone()
}

fn paused(w: &mut World, name: &str) -> Option<u64> {
    let history = w.host(name).core.history();
    history.iter().find(|r| matches!(r.kind, RecordKind::Paused { .. })).map(|r| r.index)
}

/// Found by reading: the answer "done" went out with the proposal. The leader was cut off, the entry never got a majority, and
/// whoever paused the group for maintenance had no pause.
#[test]
fn a_leader_that_is_cut_off_does_not_call_an_order_done() {
    let mut w = World::settled_pair();
    w.isolate("w");
    let pause = AdminRequest::Pause { group: None, duration: MINUTE };
    assert_eq!(ask(&mut w, "w", pause), []);
    w.until("w answers", 400, |w| !w.host("w").replies.is_empty());
    let answers = w.host("w").replies.clone();
    assert!(matches!(answers.as_slice(), [AdminReply::Unknown { .. }]), "{answers:?}");
    w.heal();
    w.until("the witness leads again", 20_000, |w| w.leader() == Some("w"));
    w.run(200);
    for name in ["a", "b", "w"] {
        assert_eq!(paused(&mut w, name), None, "{name}");
    }
    assert_eq!(w.host("w").replies.len(), 1, "answered once");
}

#[test]
fn an_order_is_done_when_a_majority_has_it() {
    let mut w = World::settled_pair();
    let pause = AdminRequest::Pause { group: Some(GroupId::new("pair")), duration: MINUTE };
    assert_eq!(ask(&mut w, "w", pause), [], "nobody else has it yet");
    w.until("w answers", 100, |w| !w.host("w").replies.is_empty());
    let answers = w.host("w").replies.clone();
    let [AdminReply::Done { index, .. }] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(paused(&mut w, "w"), Some(*index));
    w.stop_supervisor("w");
    w.until("a survivor leads", 2000, |w| w.leader().is_some());
    let leader = w.leader().expect("a leader");
    assert_eq!(paused(&mut w, leader), Some(*index), "the next leader has it too");
}

#[test]
fn an_order_that_is_void_when_it_is_committed_is_refused() {
    let mut w = World::settled_pair();
    let add = |n| AdminRequest::AddNode { node: node("x", n), dry_run: false };
    assert_eq!(ask(&mut w, "w", add(4)), []);
    // Fine as long as the first is not applied.
    w.feed("w", Input::Admin { id: RequestId(10), request: add(5) });
    w.until("w answers both", 100, |w| w.host("w").replies.len() == 2);
    let answers = w.host("w").replies.clone();
    assert!(matches!(answers[0], AdminReply::Done { .. }), "{answers:?}");
    let why = Rejection::Node(NodeRejection::InUse("x".into()));
    assert_eq!(answers[1], AdminReply::Refused(Refusal::Overtaken(why)));
}

#[test]
fn a_switchover_that_is_void_when_it_is_committed_is_refused_at_once() {
    let mut w = World::settled_pair();
    let (group, to) = (GroupId::new("pair"), node_id("b"));
    let remove = AdminRequest::RemoveMember { group: group.clone(), node: to, dry_run: false };
    assert_eq!(ask(&mut w, "w", remove), []);
    let switchover = AdminRequest::Switchover { group, to: Some(to), dry_run: false };
    w.feed("w", Input::Admin { id: RequestId(10), request: switchover });
    w.until("w answers both", 100, |w| w.host("w").replies.len() == 2);
    let answers = w.host("w").replies.clone();
    assert!(matches!(answers[0], AdminReply::Done { .. }), "{answers:?}");
    assert_eq!(answers[1], AdminReply::Refused(Refusal::Overtaken(Rejection::NotAMember)));
}

#[test]
fn a_second_order_is_told_what_is_in_flight_and_when_it_ends() {
    let mut w = World::settled_pair();
    w.switch_to("b");
    let (group, to) = (GroupId::new("pair"), Some(node_id("b")));
    let again = AdminRequest::Switchover { group, to, dry_run: false };
    let answers = ask(&mut w, "w", again);
    let [AdminReply::Refused(Refusal::Busy(busy))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    let Busy::Order { to, since_ms: 0, left_ms } = busy else { panic!("{busy}") };
    assert!(to == "b" && *left_ms > 1000, "{busy}");
}
