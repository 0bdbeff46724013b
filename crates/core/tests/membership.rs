//! Nodes that join and leave a running cluster.

mod world;

use redkeep_core::{
    admin::{Busy, NodeRefusal},
    ids::node_id,
    model::NodeRejection,
    spec::ClusterSpec,
    *,
};
use world::{NAMES, World, node, spec};

fn order(w: &mut World, request: AdminRequest) -> AdminReply {
    w.order(request)
}

fn add(w: &mut World, name: &str) -> AdminReply {
    order(w, AdminRequest::AddNode { node: node(name, number(name)), dry_run: false })
}

/// Of its address.
fn number(name: &str) -> u8 {
    name.as_bytes()[0]
}

fn remove(w: &mut World, name: &str) -> AdminReply {
    order(w, AdminRequest::RemoveNode { node: node_id(name), dry_run: false })
}

/// Voters as `at` knows them, by name.
fn voters(w: &mut World, at: &str) -> Vec<&'static str> {
    let now = w.now();
    let voters = w.host(at).core.status(now).voters;
    NAMES.into_iter().filter(|n| voters.contains(&node_id(n))).collect()
}

/// What the file of the newcomer says: the cluster as it is to be.
fn file_of(name: &str) -> ClusterSpec {
    let mut file = spec();
    file.nodes = vec![file.nodes[0].clone(), file.nodes[1].clone(), node(name, number(name))];
    file
}

fn done(reply: &AdminReply) -> bool {
    matches!(reply, AdminReply::Done { .. })
}

fn why(reply: &AdminReply) -> &NodeRefusal {
    match reply {
        AdminReply::Refused(Refusal::Node { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_witness_that_is_lost_for_good_is_replaced() {
    let mut w = World::settled_pair();
    w.stop_supervisor("w");
    w.until("a survivor leads", 2000, |w| w.leader().is_some());
    assert!(done(&add(&mut w, "x")));
    w.run(1000);
    assert_eq!(voters(&mut w, "a"), ["a", "b", "w"], "it was not there yet");
    w.join("x", &file_of("x"));
    w.until("x votes", 2000, |w| voters(w, "x") == ["a", "b", "w", "x"]);
    assert!(done(&remove(&mut w, "w")));
    w.until("w is out", 2000, |w| voters(w, "x") == ["a", "b", "x"]);
    w.until("the new witness leads", 20_000, |w| w.leader() == Some("x"));
    assert_eq!(w.serving(), Some("a"), "no master moved");
    w.run(200);
    w.host("a").redis.as_mut().expect("a Redis").alive = false;
    w.until("b serves", 1000, |w| w.serving() == Some("b"));
}

#[test]
fn a_leader_that_leaves_hands_on_first_and_no_lease_lapses() {
    let mut w = World::settled_pair();
    assert!(done(&add(&mut w, "x")));
    w.join("x", &file_of("x"));
    w.until("x votes", 2000, |w| voters(w, "w") == ["a", "b", "w", "x"]);
    assert_eq!(w.leader(), Some("w"));
    let epoch = w.pair_status().expect("a status").epoch;
    assert!(done(&remove(&mut w, "w")));
    w.until("w is out", 5000, |w| voters(w, "a") == ["a", "b", "x"]);
    w.run(2000);
    let status = w.pair_status().expect("a status");
    assert_eq!((status.epoch, status.serving), (epoch, true));
    assert_ne!(w.leader(), Some("w"));
}

#[test]
fn what_would_harm_the_cluster_is_refused() {
    let mut w = World::settled_pair();
    let too_few = remove(&mut w, "w");
    assert_eq!(why(&too_few), &NodeRefusal::TooFew { left: 2 });
    let member = remove(&mut w, "b");
    let group = GroupId::new("pair");
    assert_eq!(why(&member), &NodeRefusal::Rejected(NodeRejection::Member(group)));
    let known = add(&mut w, "w");
    assert_eq!(why(&known), &NodeRefusal::Rejected(NodeRejection::InUse("w".into())));
    assert!(done(&add(&mut w, "x")));
    w.join("x", &file_of("x"));
    w.until("x votes", 2000, |w| voters(w, "w") == ["a", "b", "w", "x"]);
    assert!(done(&add(&mut w, "y")));
    w.join("y", &file_of("y"));
    w.until("y votes", 2000, |w| voters(w, "w").len() == 5);
    w.isolate("b");
    w.isolate("y");
    w.run(400);
    let vain = remove(&mut w, "x");
    assert_eq!(why(&vain), &NodeRefusal::NoMajority { heard: 2, of: 5 });
}

/// Found by the simulator: a member and the witness were removed while both newcomers were learners. Two voters were left, of which
/// one was cut off, and the cluster stood still for ever.
#[test]
fn a_node_stays_until_its_replacement_votes() {
    let mut w = World::settled_pair();
    assert!(done(&add(&mut w, "x")));
    assert!(done(&add(&mut w, "y")));
    w.run(500);
    assert_eq!(why(&remove(&mut w, "w")), &NodeRefusal::TooFew { left: 2 });
    w.join("x", &file_of("x"));
    w.until("x votes", 2000, |w| voters(w, "w") == ["a", "b", "w", "x"]);
    assert!(done(&remove(&mut w, "y")), "it never had a vote");
    w.run(200);
    assert!(done(&remove(&mut w, "w")));
    w.until("w is out", 5000, |w| voters(w, "a") == ["a", "b", "x"]);
}

/// The node that leaves is cut off before it is taken out: three of the four have to be there.
#[test]
fn who_stays_is_a_majority_of_all_that_vote_now() {
    let mut w = World::settled_pair();
    assert!(done(&add(&mut w, "x")));
    w.join("x", &file_of("x"));
    w.until("x votes", 2000, |w| voters(w, "w") == ["a", "b", "w", "x"]);
    w.isolate("b");
    w.run(400);
    assert_eq!(why(&remove(&mut w, "x")), &NodeRefusal::NoMajority { heard: 2, of: 4 });
}

#[test]
fn a_second_removal_waits_until_the_first_is_in_the_spec() {
    let mut w = World::settled_pair();
    for name in ["x", "y"] {
        assert!(done(&add(&mut w, name)));
        w.join(name, &file_of(name));
    }
    w.until("both vote", 5000, |w| voters(w, "w").len() == 5);
    let leader = w.leader().expect("a leader");
    w.host(leader).replies.clear();
    for (id, name) in [(1, "x"), (2, "y")] {
        let request = AdminRequest::RemoveNode { node: node_id(name), dry_run: false };
        w.feed(leader, Input::Admin { id: RequestId(id), request });
    }
    assert_eq!(
        w.host(leader).replies,
        [AdminReply::Refused(Refusal::Busy(Busy::Removal))],
        "to the second"
    );
    w.until("x is out", 5000, |w| voters(w, "w").len() == 4);
    assert!(done(&remove(&mut w, "y")));
    w.until("y is out", 5000, |w| voters(w, "w") == ["a", "b", "w"]);
}

/// A node that was away while another was added does not know that one, and refuses its messages. Here the way between the two
/// is cut instead, which is the same to both.
#[test]
fn a_leader_that_a_voter_does_not_know_hands_on_to_one_that_it_knows() {
    let mut w = World::settled_pair();
    w.isolate("b");
    w.redis("b").stuck_since = Some(w.t);
    w.until("b is no candidate", 10_000, |w| {
        w.pair_status().is_some_and(|g| g.eligible.is_empty())
    });
    w.heal();
    w.cut_between("b", "w");
    w.until("a leads, which b knows", 8000, |w| w.leader() == Some("a"));
    w.until("b is eligible", 2000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
    for _ in 0..20 {
        w.run(1000);
        assert_eq!(w.leader(), Some("a"), "leadership does not wander while the two do not meet");
    }
    assert_eq!(w.serving(), Some("a"));
    w.heal();
    w.until("the witness leads again", 5000, |w| w.leader() == Some("w"));
}

/// Found by a test with real Redis: a supervisor that was started again was heard by the master's node a moment before the leader
/// heard it, so leadership moved there, and the next failure cost an election.
#[test]
fn a_voter_that_comes_back_to_others_first_moves_no_leader() {
    let mut w = World::settled_pair();
    w.isolate("b");
    w.redis("b").stuck_since = Some(w.t);
    w.run(6000);
    assert!(w.pair_status().is_some_and(|g| g.eligible.is_empty()), "b is no candidate");
    w.heal();
    w.cut_between("b", "w");
    w.run(1500);
    w.heal();
    for _ in 0..50 {
        w.run(100);
        assert_eq!(w.leader(), Some("w"));
    }
}

#[test]
fn a_voter_that_nobody_hears_moves_no_leader() {
    let mut w = World::settled_pair();
    w.isolate("b");
    for _ in 0..20 {
        w.run(1000);
        assert_eq!(w.leader(), Some("w"));
    }
}
