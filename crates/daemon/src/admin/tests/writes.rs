//! Writes: decided by the leader, over at most one hop, and never called refused when they may have been done.

use redkeep_core::{
    AdminReply, AdminRequest, Epoch, GroupId, Refusal, Span,
    admin::Busy,
    ids::node_id,
    model::Rejection,
    observe::Bypass,
    plan::{Exclusion, HoldReason},
    spec::{Member, NodeSpec},
};
use redkeep_proto::{admin::v1 as pb, details::decode_refusal};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use super::{
    LONG, client,
    prepared::{Prepared, Running, pair},
};

fn switchover() -> pb::SwitchoverRequest {
    pb::SwitchoverRequest {
        group: "pair".to_owned(),
        to: "b".to_owned(),
        dry_run: false,
        forwarded: false,
    }
}

fn done() -> AdminReply {
    AdminReply::Done { index: 42, epoch: Epoch(4), text: "b is master".to_owned() }
}

fn elsewhere() -> AdminReply {
    AdminReply::NotLeader { leader: Some(node_id("a")) }
}

fn refusal(status: &Status) -> pb::Refusal {
    decode_refusal(status.details()).unwrap().unwrap()
}

#[tokio::test]
async fn the_leader_decides_by_itself() {
    let server = Running::start(Prepared::new(pair().leading()).will_reply(done())).await;
    let answer = client(&server).await.switchover(switchover()).await.unwrap().into_inner();
    let outcome = answer.outcome.unwrap();
    assert_eq!((outcome.answered_by.as_str(), outcome.index, outcome.epoch), ("a", 42, 4));
    let expected = AdminRequest::Switchover {
        group: GroupId::new("pair"),
        to: Some(node_id("b")),
        dry_run: false,
    };
    assert_eq!(server.port.requests(), [expected]);
}

#[tokio::test]
async fn every_write_reaches_the_leader_over_one_hop_with_all_it_says() {
    let mut leader = Prepared::new(pair().leading());
    for _ in 0..10 {
        leader = leader.will_reply(done());
    }
    let leader = Running::start(leader).await;
    let mut follower = Prepared::new(pair().following_at(leader.addr));
    for _ in 0..10 {
        follower = follower.will_reply(elsewhere());
    }
    let follower = Running::start(follower).await;
    let mut client = client(&follower).await;
    let failover = pb::FailoverRequest {
        group: "pair".to_owned(),
        to: "b".to_owned(),
        allow_data_loss: true,
        dry_run: true,
        forwarded: false,
    };
    let duration = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let pause = pb::PauseRequest { group: String::new(), duration, forwarded: false };
    let resume = pb::ResumeRequest { group: "pair".to_owned(), forwarded: false };
    let acknowledge =
        pb::AcknowledgeRequest { group: String::new(), dry_run: true, forwarded: false };
    let transfer = pb::TransferLeadershipRequest { to: "w".to_owned(), forwarded: false };
    let (add, remove, join, leave) = changes_of_membership();
    let outcomes = [
        client.switchover(switchover()).await.unwrap().into_inner().outcome,
        client.failover(failover).await.unwrap().into_inner().outcome,
        client.pause(pause).await.unwrap().into_inner().outcome,
        client.resume(resume).await.unwrap().into_inner().outcome,
        client.acknowledge(acknowledge).await.unwrap().into_inner().outcome,
        client.transfer_leadership(transfer).await.unwrap().into_inner().outcome,
        client.add_node(add).await.unwrap().into_inner().outcome,
        client.remove_node(remove).await.unwrap().into_inner().outcome,
        client.add_member(join).await.unwrap().into_inner().outcome,
        client.remove_member(leave).await.unwrap().into_inner().outcome,
    ];
    assert!(outcomes.iter().all(|o| o.as_ref().unwrap().answered_by == "a"));
    let group = GroupId::new("pair");
    let expected = [
        AdminRequest::Switchover { group: group.clone(), to: Some(node_id("b")), dry_run: false },
        AdminRequest::Failover {
            group: group.clone(),
            to: Some(node_id("b")),
            allow_data_loss: true,
            dry_run: true,
        },
        AdminRequest::Pause { group: None, duration: Span::from_secs(600) },
        AdminRequest::Resume { group: Some(group.clone()) },
        AdminRequest::Acknowledge { group: None, dry_run: true },
        AdminRequest::TransferLeadership { to: node_id("w") },
        AdminRequest::AddNode { node: newcomer(), dry_run: true },
        AdminRequest::RemoveNode { node: node_id("w"), dry_run: false },
        AdminRequest::AddMember {
            group: group.clone(),
            member: Member { node: node_id("w"), priority: 7 },
            dry_run: false,
        },
        AdminRequest::RemoveMember { group, node: node_id("b"), dry_run: true },
    ];
    assert_eq!(leader.port.requests(), expected);
}

fn newcomer() -> NodeSpec {
    NodeSpec {
        id: node_id("x"),
        name: "x".to_owned(),
        peer: ([10, 99, 0, 4], 7600).into(),
        admin: ([10, 99, 0, 4], 7601).into(),
        added: true,
    }
}

fn changes_of_membership()
-> (pb::AddNodeRequest, pb::RemoveNodeRequest, pb::AddMemberRequest, pb::RemoveMemberRequest) {
    let forwarded = false;
    let NodeSpec { name, peer, admin, .. } = newcomer();
    let (peer, admin) = (peer.to_string(), admin.to_string());
    let (w, pair) = ("w".to_owned(), "pair".to_owned());
    (
        pb::AddNodeRequest { name, peer, admin, dry_run: true, forwarded },
        pb::RemoveNodeRequest { name: w.clone(), dry_run: false, forwarded },
        pb::AddMemberRequest {
            group: pair.clone(),
            node: w,
            priority: 7,
            dry_run: false,
            forwarded,
        },
        pb::RemoveMemberRequest { group: pair, node: "b".to_owned(), dry_run: true, forwarded },
    )
}

/// A wrong name or address is told before anybody is asked.
#[tokio::test]
async fn a_newcomer_without_a_usable_name_or_address_is_refused_with_the_value_and_the_rule() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let mut client = client(&server).await;
    let (add, ..) = changes_of_membership();
    let cases = [
        (pb::AddNodeRequest { name: "a b".to_owned(), ..add.clone() }, "\"a b\" is no name"),
        (pb::AddNodeRequest { peer: "host:1".to_owned(), ..add.clone() }, "peer is \"host:1\""),
        (pb::AddNodeRequest { admin: "0.0.0.0:1".to_owned(), ..add }, "admin is \"0.0.0.0:1\""),
    ];
    for (request, told) in cases {
        let error = client.add_node(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(told), "{error}");
    }
    assert!(server.port.requests().is_empty());
}

#[tokio::test]
async fn a_refusal_keeps_its_reason_over_the_hop() {
    let why = Refusal::Excluded { node: "b".to_owned(), why: Exclusion::LinkDown };
    let leader = Prepared::new(pair().leading()).will_reply(AdminReply::Refused(why));
    let leader = Running::start(leader).await;
    let follower = Prepared::new(pair().following_at(leader.addr)).will_reply(elsewhere());
    let follower = Running::start(follower).await;
    let error = client(&follower).await.switchover(switchover()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let refusal = refusal(&error);
    assert_eq!(refusal.reason(), pb::RefusalReason::Excluded);
    assert_eq!(refusal.text, "b cannot be promoted: its link to the master is down");
    assert_eq!(refusal.help, "redkeepctl explain pair");
    assert_eq!(refusal.excluded.unwrap().reason(), pb::ExclusionReason::LinkDown);
}

#[tokio::test]
async fn a_refusal_for_a_way_around_the_lock_says_what_closes_it() {
    let open = vec![Bypass::Unix { path: "/run/r".to_owned(), mode: 0o777, uid: 0 }];
    let held = Refusal::Held(HoldReason::Bypass { node: "a".to_owned(), open: open.clone() });
    let excluded = Refusal::Excluded { node: "b".to_owned(), why: Exclusion::Bypass { open } };
    for why in [held, excluded] {
        let leader = Prepared::new(pair().leading()).will_reply(AdminReply::Refused(why));
        let server = Running::start(leader).await;
        let error = client(&server).await.switchover(switchover()).await.unwrap_err();
        let help = "chmod 700 /run/r, and unixsocketperm 700 in redis.conf (on that node)";
        assert_eq!((error.code(), refusal(&error).help.as_str()), (Code::FailedPrecondition, help));
    }
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let table = [
        (Refusal::NoSuchGroup(GroupId::new("x")), Code::NotFound),
        (Refusal::NotAMember("w".to_owned()), Code::FailedPrecondition),
        (Refusal::AlreadyMaster("a".to_owned()), Code::FailedPrecondition),
        (Refusal::LossUnnamed, Code::InvalidArgument),
        (Refusal::Overtaken(Rejection::StaleEpoch), Code::FailedPrecondition),
        (Refusal::NoCandidate, Code::FailedPrecondition),
        (Refusal::Held(HoldReason::OldLease { left: Span(7) }), Code::FailedPrecondition),
        (Refusal::Busy(Busy::Removal), Code::FailedPrecondition),
        (Refusal::Aborted("late".to_owned()), Code::FailedPrecondition),
        (Refusal::PauseLength(Span(0)), Code::InvalidArgument),
    ];
    for (why, code) in table {
        let text = why.to_string();
        let leader = Prepared::new(pair().leading()).will_reply(AdminReply::Refused(why));
        let server = Running::start(leader).await;
        let error = client(&server).await.switchover(switchover()).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (code, text.as_str()));
        let refusal = refusal(&error);
        let is_held = refusal.reason() == pb::RefusalReason::Held;
        assert_eq!(refusal.hold.is_some_and(|h| h.left.unwrap().nanos == 7), is_held);
    }
}

#[tokio::test]
async fn a_forwarded_request_is_not_forwarded_again() {
    let other = Running::start(Prepared::new(pair().leading())).await;
    let follower = Prepared::new(pair().following_at(other.addr)).will_reply(elsewhere());
    let follower = Running::start(follower).await;
    let request = pb::SwitchoverRequest { forwarded: true, ..switchover() };
    let error = client(&follower).await.switchover(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(refusal(&error).reason(), pb::RefusalReason::NotLeader);
    assert!(other.port.requests().is_empty());
}

#[tokio::test]
async fn without_a_leader_nothing_is_done_and_that_is_said() {
    let none = AdminReply::NotLeader { leader: None };
    let server = Running::start(Prepared::new(pair().leaderless()).will_reply(none)).await;
    let error = client(&server).await.switchover(switchover()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "no leader is known; nothing was done");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let follower = Prepared::new(pair().following_at(gone)).will_reply(elsewhere());
    let follower = Running::start(follower).await;
    let error = client(&follower).await.switchover(switchover()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("nothing was done"), "{}", error.message());
}

#[tokio::test]
async fn an_unknown_outcome_is_aborted_and_never_refused() {
    let text = "leadership changed".to_owned();
    let leader = Prepared::new(pair().leading()).will_reply(AdminReply::Unknown { text });
    let server = Running::start(leader).await;
    let error = client(&server).await.switchover(switchover()).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert_eq!(error.message(), "the outcome is not known: leadership changed");
}

/// The leader takes the request and is gone before it answers.
#[tokio::test]
async fn a_leader_lost_on_the_way_leaves_the_outcome_unknown() {
    let leader = Running::start(Prepared::new(pair().leading())).await;
    let follower = Prepared::new(pair().following_at(leader.addr)).will_reply(elsewhere());
    let follower = Running::start(follower).await;
    let mut client = client(&follower).await;
    let asked = tokio::spawn(async move { client.switchover(switchover()).await.unwrap_err() });
    tokio::time::timeout(LONG, leader.port.asked.notified()).await.unwrap();
    leader.kill();
    let error = tokio::time::timeout(LONG, asked).await.unwrap().unwrap();
    assert_eq!(error.code(), Code::Aborted, "{error:?}");
}

#[tokio::test]
async fn names_are_checked_before_anything_is_asked() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let mut client = client(&server).await;
    let node = pb::SwitchoverRequest { to: "z".to_owned(), ..switchover() };
    let error = client.switchover(node).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "no node is named z; there are a, b, w")
    );
    let group = pb::SwitchoverRequest { group: String::new(), ..switchover() };
    assert_eq!(client.switchover(group).await.unwrap_err().code(), Code::NotFound);
    assert!(server.port.requests().is_empty());
}

/// Leadership is handed on all the time; an operator's request that meets the gap is not turned away.
#[tokio::test]
async fn a_request_waits_for_a_leader_while_leadership_moves() {
    let leader = Running::start(Prepared::new(pair().leading()).will_reply(done())).await;
    let none = AdminReply::NotLeader { leader: None };
    let follower = Prepared::new(pair().leaderless()).will_reply(none).will_reply(elsewhere());
    let follower = Running::start(follower).await;
    let mut client = client(&follower).await;
    let asked = tokio::spawn(async move { client.switchover(switchover()).await });
    tokio::time::timeout(LONG, follower.port.asked.notified()).await.unwrap();
    follower.port.publish(pair().following_at(leader.addr));
    let answer = tokio::time::timeout(LONG, asked).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.into_inner().outcome.unwrap().answered_by, "a");
    assert_eq!(follower.port.requests().len(), 2);
}

/// The node it was sent to does not lead any more: it goes to the next leader, once.
#[tokio::test]
async fn a_request_follows_leadership_that_was_handed_on() {
    let next = Running::start(Prepared::new(pair().leading()).will_reply(done())).await;
    let past = AdminReply::NotLeader { leader: None };
    let past = Running::start(Prepared::new(pair().leaderless()).will_reply(past)).await;
    let follower = Prepared::new(pair().following_at(past.addr));
    let follower = Running::start(follower.will_reply(elsewhere()).will_reply(elsewhere())).await;
    let mut client = client(&follower).await;
    let asked = tokio::spawn(async move { client.switchover(switchover()).await });
    tokio::time::timeout(LONG, past.port.asked.notified()).await.unwrap();
    let mut later = pair().following_at(next.addr);
    later.term += 1;
    follower.port.publish(later);
    tokio::time::timeout(LONG, asked).await.unwrap().unwrap().unwrap();
    assert_eq!((past.port.requests().len(), next.port.requests().len()), (1, 1));
}
