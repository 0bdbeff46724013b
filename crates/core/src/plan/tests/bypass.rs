//! A Redis that can be reached around the lock: what it holds back, and what it does not.

use super::*;

fn socket() -> Vec<Bypass> {
    vec![Bypass::Unix { path: "/run/redis.sock".into(), mode: 0o777, uid: 107 }]
}

fn reason(node: &str) -> HoldReason {
    HoldReason::Bypass { node: node.into(), open: socket() }
}

impl Case {
    /// The Redis of `node` has a socket for everybody, also as it was seen before.
    fn open_around(mut self, node: &'static str) -> Self {
        let (RedisView::Up(o) | RedisView::Doubtful(o, _)) = &mut self.report(node).redis else {
            panic!("not up");
        };
        o.bypass = socket();
        let seen = o.clone();
        self.seen_before.insert(node, seen);
        self
    }

    fn silent(mut self, node: &str) -> Self {
        self.reports.get_mut(node).unwrap().0 = Mono(0);
        self
    }

    fn order(mut self, to: &str) -> Self {
        self.forced =
            Some(Forced { request: RequestId(1), to: Some(node_id(to)), allow_data_loss: true });
        self
    }

    fn first_start(mut self) -> Self {
        self.group.assignment = None;
        self.group.eligible.clear();
        self
    }
}

#[test]
fn a_pair_with_a_member_open_around_the_lock_is_not_adopted() {
    for node in ["a", "b"] {
        let case = Case::well().first_start().open_around(node);
        assert_eq!(case.hold(), reason(node), "open at {node}");
        assert_eq!(case.order("a").hold(), reason(node), "no order skips it");
    }
    assert_eq!(Case::well().first_start().assigned(), ("a", Cause::Adopted), "mended");
}

#[test]
fn such_a_member_is_no_candidate_whatever_it_has() {
    let case = Case::well().open_around("c").fenced(FenceCause::RedisDead);
    assert_eq!(case.assigned(), ("b", Cause::MasterDown), "c has more");
    assert_eq!(case.order("c").assigned(), ("b", Cause::MasterDown), "no order skips it");
}

#[test]
fn the_last_candidate_that_is_open_around_the_lock_is_named_as_the_reason() {
    let mut case = Case::well().open_around("c").fenced(FenceCause::RedisDead);
    case.group.eligible.retain(|m| m.node == node_id("c"));
    assert_eq!(case.hold(), reason("c"), "dead master");
    let mut hung = Case::well().open_around("c");
    hung.group.eligible.retain(|m| m.node == node_id("c"));
    hung.report("a").redis = RedisView::Down(DownReason::Hung);
    assert_eq!(hung.hold(), reason("c"), "hung master");
    assert_eq!(hung.order("c").hold(), reason("c"), "an order");
}

/// Its data counts all the same: nobody with less is named instead.
#[test]
fn a_cold_start_waits_for_an_eligible_member_that_is_open_around_the_lock() {
    let mut case = Case::well().fenced(FenceCause::RedisDead);
    case.report("a").redis =
        RedisView::Up(RedisObservation { run_id: RunId::new("new"), ..redis("a", 500, true) });
    case.group.eligible.retain(|m| m.node == node_id("b"));
    assert_eq!(case.open_around("b").hold(), reason("b"));
}

#[test]
fn such_a_master_that_serves_is_left_alone() {
    assert_eq!(Case::well().open_around("a").plan(), Case::well().plan());
}

#[test]
fn such_a_master_is_never_replaced_on_silence_alone() {
    let mut case = Case::well().open_around("a").silent("a");
    assert!(matches!(case.hold(), HoldReason::OldLease { .. }));
    case.lease_left = Span(0);
    assert_eq!(case.hold(), reason("a"), "its lease says nothing about that socket");
    assert_eq!(case.order("b").hold(), reason("a"), "no order skips it");
}

#[test]
fn such_a_master_that_was_seen_mended_is_replaced_as_usual() {
    let mut case = Case::well().open_around("a").silent("a");
    case.lease_left = Span(0);
    case.seen_before.insert("a", redis("a", 1000, true));
    assert_eq!(case.assigned(), ("c", Cause::NodeSilent));
}

#[test]
fn such_a_master_is_not_asked_to_fence_while_its_redis_lives() {
    let mut case = Case::well().open_around("a");
    case.report("a").redis = RedisView::Down(DownReason::Hung);
    assert_eq!(case.hold(), reason("a"), "hung");
    let case = Case::well().open_around("a").order("b");
    assert_eq!(case.hold(), reason("a"), "an order");
    let mut case = Case::well().open_around("a");
    let assignment = case.group.assignment.as_mut().unwrap();
    (assignment.serving, assignment.cause) = (false, Cause::MasterDown);
    assert!(matches!(case.hold(), HoldReason::TakeoverRunning { .. }), "late in its takeover");
}

#[test]
fn a_dead_redis_accepts_nothing_by_any_way() {
    let case = Case::well().open_around("a").fenced(FenceCause::RedisDead);
    assert_eq!(case.assigned(), ("c", Cause::MasterDown));
    let mut case = Case::well().open_around("a");
    case.report("a").redis = RedisView::Down(DownReason::Dead);
    assert!(matches!(case.plan(), Plan::AskFence(_)));
    case.lease_left = Span(0);
    assert_eq!(case.assigned(), ("c", Cause::NodeSilent));
}

#[test]
fn fenced_and_alive_such_a_master_alone_may_go_on() {
    let case = Case::well().open_around("a").fenced(FenceCause::LeaderAsked);
    assert_eq!(case.assigned(), ("a", Cause::MasterDown));
    let mut hung = Case::well().open_around("a").fenced(FenceCause::LeaderAsked);
    hung.report("a").redis = RedisView::Down(DownReason::Hung);
    assert_eq!(hung.hold(), reason("a"));
    assert_eq!(hung.order("b").hold(), reason("a"), "no order skips it");
    let mut planned = Case::well().open_around("a").fenced(FenceCause::Switchover);
    planned.group.switchover = Some(node_id("b"));
    planned.report("a").fenced.as_mut().unwrap().confirmed_by_target = true;
    assert_eq!(planned.assigned(), ("a", Cause::SwitchoverBack), "opened on the way");
}

/// It restarted as a master by its own file, and others write to it by the socket.
#[test]
fn a_new_life_of_the_master_that_is_open_around_the_lock_holds_the_group() {
    let mut case = Case::well().fenced(FenceCause::RunIdChanged);
    let new = RedisObservation { run_id: RunId::new("new"), ..redis("a", 0, true) };
    case.report("a").redis = RedisView::Up(new);
    let case = case.open_around("a");
    assert_eq!(case.hold(), reason("a"));
    let mut case = Case::well().fenced(FenceCause::RunIdChanged);
    let new = RedisObservation { run_id: RunId::new("new"), ..redis("a", 0, false) };
    case.report("a").redis = RedisView::Up(new);
    assert_eq!(case.open_around("a").assigned(), ("c", Cause::MasterDown), "a replica takes none");
}

#[test]
fn the_reason_names_node_and_way_and_each_way_has_its_mend() {
    assert_eq!(
        reason("a").to_string(),
        "Redis at a can be reached around the lock: others may open its unix socket \
         /run/redis.sock (mode 777, owner 107)"
    );
    let open = vec![
        Bypass::Tcp(([10, 0, 0, 1], 6380).into()),
        Bypass::Unix { path: "/s".into(), mode: 0o700, uid: 33 },
        Bypass::Unix { path: "/t".into(), mode: 0o770, uid: 0 },
    ];
    assert_eq!(
        Bypass::mends(&open),
        "CONFIG SET tls-port 0 (or port back to the group's), the same in redis.conf; \
         chown it to the user of Redis: /s; chmod 700 /t, and unixsocketperm 700 in redis.conf"
    );
    assert_eq!(
        Exclusion::Bypass { open }.to_string(),
        "its Redis can be reached around the lock: it listens on 10.0.0.1:6380 besides the \
         group's port; others may open its unix socket /s (mode 700, owner 33); others may open \
         its unix socket /t (mode 770, owner 0)"
    );
}
