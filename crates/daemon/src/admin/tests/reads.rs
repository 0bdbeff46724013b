//! Reads: from the leader where it can be had, else from the own view, and always said which.

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use redkeep_agent::quarantine::{Entry, Name, Settings};
use redkeep_core::{
    Epoch,
    ids::node_id,
    observe::{FenceCause, Fenced, RedisView},
    plan::{Exclusion, HoldReason},
};
use redkeep_proto::admin::v1 as pb;
use tokio::net::TcpListener;
use tonic::Code;

use super::{
    LONG, client,
    prepared::{Prepared, Running, pair},
};
use crate::admin::port::Kept;

async fn status(server: &Running, local_only: bool) -> pb::Status {
    let request = pb::GetStatusRequest { local_only, group: String::new() };
    client(server).await.get_status(request).await.unwrap().into_inner().status.unwrap()
}

#[tokio::test]
async fn the_leader_answers_with_everything_it_knows() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let status = status(&server, false).await;
    assert_eq!((status.cluster.as_str(), status.leader.as_str()), ("demo", "a"));
    assert_eq!((status.role(), status.term, status.applied), (pb::RaftRole::Leader, 2, 41));
    let freshness = status.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Leader);
    assert_eq!((freshness.leader_heard_ago, freshness.note.as_str()), (None, ""));
    let witness: Vec<_> = status.nodes.iter().map(|n| (n.name.as_str(), n.witness)).collect();
    assert_eq!(witness, [("a", false), ("b", false), ("w", true)]);
    assert!(status.nodes.iter().all(|n| n.observed && n.heard && n.applied == 41));
    let group = &status.groups[0];
    assert_eq!((group.master.as_str(), group.epoch, group.serving), ("a", 3, true));
    assert_eq!((group.vip.as_str(), group.port), ("10.99.0.100/32", 16_465));
    assert_eq!((group.cause(), group.wait_replicas), (pb::Cause::MasterDown, 1));
    let at = group.assigned_time.unwrap();
    assert_eq!((at.seconds, at.nanos), (1_700_000_000, 123_000_000));
    assert_eq!(group.lease_left.unwrap().nanos, 212_000_000);
    let replica = &group.members[1];
    assert!(replica.eligible && replica.known);
    assert_eq!(replica.address, "10.99.0.2:16465");
    let redis = replica.redis.as_ref().unwrap();
    assert_eq!(
        (redis.role(), redis.offset, redis.lag_bytes),
        (pb::RedisRole::Replica, 990, Some(10))
    );
    assert_eq!(redis.follows, "10.99.0.1:16465");
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    assert_eq!(status.spec.unwrap().timing.unwrap().lease_ttl.unwrap().nanos, 300_000_000);
}

#[tokio::test]
async fn a_follower_answers_from_its_leader() {
    let leader = Running::start(Prepared::new(pair().leading())).await;
    let follower = Running::start(Prepared::new(pair().following_at(leader.addr))).await;
    let status = status(&follower, false).await;
    let freshness = status.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Leader);
    assert_eq!((status.answered_by.as_str(), freshness.node.as_str()), ("w", "a"));
    assert!(status.groups[0].members[0].known);
}

#[tokio::test]
async fn a_follower_without_its_leader_says_how_old_its_view_is() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let follower = Running::start(Prepared::new(pair().following_at(gone))).await;
    let status = status(&follower, false).await;
    let freshness = status.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Local);
    assert_eq!(freshness.node, "w");
    let ago = freshness.leader_heard_ago.unwrap();
    assert_eq!((ago.seconds, ago.nanos), (1, 250_000_000));
    assert!(freshness.note.starts_with("the leader a cannot be reached"), "{}", freshness.note);
    assert!(!status.nodes[0].observed);
}

#[tokio::test]
async fn a_leader_that_accepts_and_is_silent_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let follower = Running::start(Prepared::new(pair().following_at(addr))).await;
    let begun = Instant::now();
    let status = tokio::time::timeout(LONG, status(&follower, false)).await.unwrap();
    let freshness = status.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Local);
    assert_eq!(freshness.note, "the leader a did not answer within 300 ms");
    assert!(begun.elapsed().as_secs() < 5);
}

#[tokio::test]
async fn local_only_does_not_ask_the_leader() {
    let leader = Running::start(Prepared::new(pair().leading())).await;
    let follower = Running::start(Prepared::new(pair().following_at(leader.addr))).await;
    let status = status(&follower, true).await;
    let freshness = status.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Local);
    assert_eq!(freshness.note, "");
}

/// Two nodes that take each other for the leader: the question goes over one hop and ends.
#[tokio::test]
async fn a_leader_that_stepped_down_is_not_taken_for_fresh() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let former = Running::start(Prepared::new(pair().following_at(nobody))).await;
    let follower = Running::start(Prepared::new(pair().following_at(former.addr))).await;
    let freshness = status(&follower, false).await.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Local);
    assert_eq!(freshness.note, "the leader stepped down just now");
}

#[tokio::test]
async fn history_is_the_newest_lines_oldest_first() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let ask = async |limit| {
        let request = pb::GetHistoryRequest { local_only: true, group: "pair".to_owned(), limit };
        client(&server).await.get_history(request).await.unwrap().into_inner().records
    };
    let all = ask(0).await;
    let kinds: Vec<_> = all.iter().map(pb::HistoryRecord::kind).collect();
    use pb::HistoryKind::{Assigned, Bootstrapped, Serving};
    assert_eq!(kinds, [Bootstrapped, Assigned, Serving]);
    assert_eq!((all[1].node.as_str(), all[1].from.as_str()), ("a", "b"));
    assert_eq!((all[1].cause(), all[1].estimated_loss_bytes), (pb::Cause::MasterDown, Some(14)));
    assert_eq!(ask(1).await, all[2..]);
}

#[tokio::test]
async fn explain_says_what_holds_and_who_is_excluded() {
    let mut view = pair().leading();
    let group = &mut view.groups[0];
    group.hold = Some(HoldReason::NoCandidate);
    group.members[0].redis = RedisView::Down(redkeep_core::observe::DownReason::Dead);
    group.members[0].excluded = Some(Exclusion::RedisDown);
    group.members[0].fenced = Some(Fenced {
        epoch: Epoch(3),
        offset: 1_000,
        confirmed_by_target: false,
        cause: FenceCause::RedisDead,
    });
    group.members[1].excluded = Some(Exclusion::LinkDown);
    let server = Running::start(Prepared::new(view)).await;
    let request = pb::ExplainRequest { local_only: false, group: "pair".to_owned() };
    let answer = client(&server).await.explain(request).await.unwrap().into_inner();
    assert_eq!(answer.summary, "the group waits: no eligible replica is up");
    let group = answer.group.unwrap();
    assert_eq!(group.hold.unwrap().reason(), pb::HoldReason::NoCandidate);
    assert_eq!(group.members[0].trouble, "its process died");
    assert_eq!(group.members[0].fenced.unwrap().cause(), pb::FenceCause::RedisDead);
    let rules: Vec<_> = answer
        .candidates
        .iter()
        .map(|c| (c.node.as_str(), c.excluded.as_ref().unwrap().reason()))
        .collect();
    assert_eq!(
        rules,
        [("b", pb::ExclusionReason::LinkDown), ("a", pb::ExclusionReason::RedisDown)]
    );
    assert!(!answer.problems.is_empty());
}

/// "nothing waits" would be wrong: nobody is there who could know.
#[tokio::test]
async fn explain_without_a_leader_begins_with_that() {
    let server = Running::start(Prepared::new(pair().leaderless())).await;
    let request = pb::ExplainRequest { local_only: false, group: "pair".to_owned() };
    let answer = client(&server).await.explain(request).await.unwrap().into_inner();
    assert_eq!(
        answer.summary,
        "no leader is known, so nothing moves and no lease is renewed; by the log a is master at epoch 3"
    );
}

#[tokio::test]
async fn an_unknown_group_is_not_found_and_the_known_ones_are_named() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let mut client = client(&server).await;
    let group = "pear".to_owned();
    let asked = pb::GetStatusRequest { local_only: false, group: group.clone() };
    let errors = [
        client.get_status(asked).await.unwrap_err(),
        client
            .explain(pb::ExplainRequest { local_only: false, group: group.clone() })
            .await
            .unwrap_err(),
        client
            .get_history(pb::GetHistoryRequest {
                local_only: false,
                group: group.clone(),
                limit: 0,
            })
            .await
            .unwrap_err(),
        client.watch_events(pb::WatchEventsRequest { group }).await.err().unwrap(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(error.message(), "no group is named pear; there are pair");
    }
}

#[tokio::test]
async fn a_node_without_the_spec_says_so() {
    let mut view = pair().leading();
    let known = Prepared::new(view.clone());
    view.cluster = None;
    view.groups.clear();
    view.leader = None;
    view.role = redkeep_consensus::Role::Follower;
    assert_eq!(view.node, node_id("a"));
    known.publish(view);
    let server = Running::start(known).await;
    let status = status(&server, false).await;
    assert_eq!(status.problems.len(), 1);
    assert_eq!(status.problems[0].severity(), pb::Severity::Critical);
    let explain = pb::ExplainRequest { local_only: false, group: "pair".to_owned() };
    let error = client(&server).await.explain(explain).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn what_is_kept_aside_is_listed_by_the_node_that_was_asked() {
    let entry = |group: &str, epoch, gap| {
        let name = Name { group: group.to_owned(), epoch, gap, log: 7 };
        let path = PathBuf::from(format!("/kept/{group}-{epoch}.rdb"));
        Entry { name, size: 4_096, unix_s: 1_700_000_000, path }
    };
    let directory = PathBuf::from("/kept");
    let settings = Settings { directory, max_files: 4, max_bytes: 1 << 30, leave_free: 0, log: 7 };
    let entries =
        vec![entry("pair", 3, None), entry("other", 2, Some(1)), entry("pair", 4, Some(38))];
    let port = Prepared::new(pair().leading()).keeping(Kept { settings, entries });
    let server = Running::start(port).await;
    let ask = |group: &str| pb::ListQuarantineRequest { group: group.to_owned() };
    let mut client = client(&server).await;
    let all = client.list_quarantine(ask("")).await.unwrap().into_inner();
    assert_eq!((all.node.as_str(), all.directory.as_str()), ("a", "/kept"));
    assert_eq!((all.max_bytes, all.max_files, all.entries.len()), (1 << 30, 4, 3));
    let of_pair = client.list_quarantine(ask("pair")).await.unwrap().into_inner();
    let known: Vec<_> = of_pair.entries.iter().map(|e| (e.epoch, e.gap_bytes)).collect();
    assert_eq!(known, [(3, None), (4, Some(38))]);
    let last = &of_pair.entries[1];
    assert_eq!((last.size_bytes, last.path.as_str()), (4_096, "/kept/pair-4.rdb"));
    assert_eq!(last.time.unwrap().seconds, 1_700_000_000);
    let unknown = client.list_quarantine(ask("none")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn a_quarantine_directory_that_cannot_be_read_is_an_error_and_not_empty() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let ask = pb::ListQuarantineRequest::default();
    let error = client(&server).await.list_quarantine(ask).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("no disk"), "{}", error.message());
}
