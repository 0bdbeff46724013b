//! Elections, replication, transfer.

use super::net::{MS, Net, config};
use crate::*;

#[test]
fn one_leader_is_elected_and_entries_reach_all() {
    for seed in 0..20 {
        for size in [3, 5] {
            let mut net = Net::new(size, seed);
            let leader = net.elect();
            for i in 0..10 {
                net.propose(leader, &format!("x{i}"));
            }
            net.settle("x9,");
            assert_eq!(net.host(leader).machine, "x0,x1,x2,x3,x4,x5,x6,x7,x8,x9,");
        }
    }
}

/// Found on hosts that shared a disk with other writers: candidates began again and again before a vote had left.
#[test]
fn disks_slower_than_an_election_timeout_do_not_prevent_a_leader() {
    let mut split = 0;
    for seed in 0..40 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        net.run(100);
        for id in net.others(leader) {
            net.host(id).write_delay = Span::from_millis(400);
        }
        let lost_at = net.now;
        net.kill(leader);
        net.run_until(5000, |net| net.leader().is_some());
        // An election timeout, then two syncs: the own vote and the other's. Both may stand within one round trip; then
        // each has voted for itself, and once more.
        let took = net.now.since(lost_at);
        let (timeout, sync, rest) = (300, 400, 100);
        assert!(took < Span::from_millis(2 * timeout + 3 * sync + rest), "seed {seed}: {took}");
        split += usize::from(took >= Span::from_millis(timeout + 2 * sync + rest));
    }
    // Letters take up to 8 ms each way, timeouts lie in a range of 150 ms: about one in ten.
    assert!(split <= 8, "{split} of 40 elections were split");
}

#[test]
fn a_lone_voter_elects_itself_and_commits() {
    let mut net = Net::new(1, 3);
    let leader = net.elect();
    net.host(leader).write_delay = Span::from_millis(20);
    let proposed = net.propose(leader, "a");
    assert!(net.node(leader).committed() < proposed.index, "committed before durable");
    let read = net.read(leader, 100);
    net.settle("a,");
    assert!(net.host(leader).ready.contains_key(&read));
}

#[test]
fn only_the_leader_takes_proposals_and_names_itself_to_others() {
    let mut net = Net::new(3, 1);
    let leader = net.elect();
    net.run(100);
    for other in net.others(leader) {
        let refused = net.input(other, |node, now| node.propose(now, b"x".to_vec()));
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(NodeId(leader)) }));
    }
    let empty = net.input(leader, |node, now| node.propose(now, vec![]));
    assert_eq!(empty, Err(ProposeError::Empty));
    let large = net.input(leader, |node, now| node.propose(now, vec![b'x'; 1024 * 1024 + 1]));
    assert!(matches!(large, Err(ProposeError::TooLarge { bytes: 1_048_577, .. })));
}

#[test]
fn proposals_beyond_the_bound_are_refused_until_the_cluster_catches_up() {
    let mut net = Net::new(3, 1);
    let leader = net.elect();
    let big = vec![b'x'; 1024 * 1024];
    let mut accepted = 0;
    let refused = loop {
        match net.input(leader, |node, now| node.propose(now, big.clone())) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted <= 17, "nothing bounds what waits");
    };
    assert_eq!(refused, ProposeError::TooMuchInFlight);
    net.run(1000);
    net.propose(leader, "y");
    net.settle("y,");
}

#[test]
fn a_follower_that_was_cut_off_does_not_disturb_the_leader_when_it_returns() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        let term = net.node(leader).term();
        let away = net.others(leader)[0];
        net.isolate(away);
        net.run(3000);
        assert_eq!(net.node(away).role(), Role::PreCandidate);
        assert_eq!(net.node(away).term(), term, "pre-vote keeps the term");
        net.heal();
        net.propose(leader, "after");
        net.settle("after,");
        assert_eq!((net.leader(), net.node(leader).term()), (Some(leader), term));
    }
}

#[test]
fn a_follower_that_hears_nothing_but_is_heard_does_not_disturb_the_leader() {
    let mut net = Net::new(3, 5);
    let leader = net.elect();
    let term = net.node(leader).term();
    let deaf = net.others(leader)[0];
    for other in net.others(deaf) {
        net.cut(other, deaf);
    }
    net.run(3000);
    assert_eq!((net.node(leader).role(), net.node(leader).term()), (Role::Leader, term));
}

#[test]
fn a_leader_without_a_quorum_steps_down_within_two_election_timeouts() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        let cut_at = net.now;
        net.isolate(leader);
        net.run_until(1000, |net| net.node(leader).role() != Role::Leader);
        let took = net.now - cut_at;
        assert!(took <= Span::from_millis(2 * 150 + 5), "took {took}");
        net.run_until(2000, |net| net.leader().is_some_and(|new| new != leader));
    }
}

#[test]
fn an_entry_that_a_slow_disk_holds_back_is_committed_by_the_others() {
    let mut net = Net::new(3, 2);
    let leader = net.elect();
    net.run(50);
    // The leader's own disk is the slow one: its followers alone make the quorum.
    net.host(leader).write_delay = Span::from_millis(500);
    let proposed = net.propose(leader, "x");
    net.run(40);
    assert!(net.node(leader).committed() >= proposed.index, "followers are a quorum");
    assert!(net.node(leader).applied_index() < proposed.index, "not durable here yet");
    net.settle("x,");
}

#[test]
fn nothing_commits_while_the_followers_disks_hang_and_the_leader_stays() {
    let mut net = Net::new(3, 2);
    let leader = net.elect();
    net.run(50);
    for other in net.others(leader) {
        net.host(other).write_delay = Span::from_millis(100);
    }
    let proposed = net.propose(leader, "x");
    net.run(80);
    assert!(net.node(leader).committed() < proposed.index);
    net.settle("x,");
    assert_eq!(net.leader(), Some(leader));
}

#[test]
fn leadership_moves_to_the_named_node_at_once() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        let target = net.others(leader)[1];
        net.run(100);
        net.input(leader, |node, now| node.transfer_leader(now, NodeId(target)));
        let refused = net.input(leader, |node, now| node.propose(now, b"x".to_vec()));
        assert_eq!(refused, Err(ProposeError::TransferInProgress));
        assert_eq!(net.node(leader).transferee(), Some(NodeId(target)));
        let from = net.now;
        net.run_until(100, |net| net.node(target).role() == Role::Leader);
        assert!(net.now - from <= Span(20 * MS));
    }
}

#[test]
fn a_transfer_to_a_dead_node_is_given_up_and_proposals_go_on() {
    let mut net = Net::new(3, 4);
    let leader = net.elect();
    let target = net.others(leader)[0];
    net.isolate(target);
    net.run(50);
    net.input(leader, |node, now| node.transfer_leader(now, NodeId(target)));
    net.run_until(400, |net| net.node(leader).transferee().is_none());
    net.propose(leader, "on");
    let proposed = net.node(leader).last_index();
    net.run_until(200, |net| net.node(leader).committed() >= proposed);
}

#[test]
fn proof_of_the_leaders_death_elects_in_one_round_trip() {
    for seed in 0..20 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        net.run(100);
        net.kill(leader);
        let heir = net.others(leader)[0];
        let from = net.now;
        net.input(heir, Consensus::leader_died);
        net.run_until(200, |net| net.node(heir).role() == Role::Leader);
        // One own write, one message each way of at most 3 ms, one write there.
        assert!(net.now - from <= Span(8 * MS), "took {}", net.now - from);
    }
}

#[test]
fn a_false_proof_of_death_is_acted_on_once_per_election_timeout() {
    let mut net = Net::new(3, 8);
    let leader = net.elect();
    net.run(100);
    let heir = net.others(leader)[0];
    let term = net.node(leader).term();
    net.isolate(heir);
    for _ in 0..14 {
        net.input(heir, Consensus::leader_died);
        net.run(10);
    }
    assert_eq!(net.node(heir).term(), term + 1, "one forced election in 140 ms");
}

#[test]
fn a_stalled_process_does_not_campaign_before_it_reads_what_waited() {
    let mut net = Net::new(3, 6);
    let leader = net.elect();
    net.run(100);
    let stalled = net.others(leader)[0];
    let term = net.node(leader).term();
    // The heartbeat that waited in the queue is stepped 10 s later, before `advance`.
    let mut beat = raft::eraftpb::Message::default();
    beat.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
    (beat.from, beat.to, beat.term) = (leader, stalled, term);
    let later = net.now + Span::from_secs(10);
    let bytes = message::encode(&beat);
    let node = net.node(stalled);
    node.step(later, NodeId(leader), &bytes).expect("taken");
    node.advance(later);
    assert_eq!(node.role(), Role::Follower);
    assert!(node.deadline() > later, "the timer starts anew");
}

#[test]
fn idle_nodes_wake_rarely() {
    let mut net = Net::new(3, 6);
    let leader = net.elect();
    net.run(300);
    let follower = net.others(leader)[0];
    let (now, node) = (net.now, net.node(follower));
    assert!(node.deadline() - now >= Span::from_millis(100), "a follower sleeps to its timeout");
    let before = net.sent.clone();
    net.run(3000);
    let beats = net.sent[&SendClass::Heartbeat] - before[&SendClass::Heartbeat];
    assert!((380..=420).contains(&beats), "{beats} heartbeats and answers in 3 s, 400 expected");
    assert_eq!(net.sent[&SendClass::Append], before[&SendClass::Append], "idle is silent");
}

/// A round for a read every 45 ms, and one plain heartbeat 30 ms after each: never two within less, and no silence longer
/// than the interval.
#[test]
fn a_read_round_counts_as_a_heartbeat() {
    let mut net = Net::new(3, 6);
    let leader = net.elect();
    net.run(300);
    let follower = net.others(leader)[0];
    let before = net.sent[&SendClass::Heartbeat];
    for _ in 0..40 {
        net.read(leader, 40);
        for _ in 0..45 {
            net.run(1);
            let left = net.node(follower).deadline() - net.now;
            assert!(left >= Span::from_millis(150 - 40), "silent for too long: {left} left");
        }
    }
    let beats = net.sent[&SendClass::Heartbeat] - before;
    assert!(
        (315..=330).contains(&beats),
        "{beats} heartbeats and answers in 40 rounds, 320 expected"
    );
}

#[test]
fn two_runs_of_one_seed_are_the_same_byte_for_byte() {
    let run = |seed| {
        let mut net = Net::new(5, seed);
        for round in 0..6u64 {
            let leader = net.elect();
            net.propose(leader, &format!("r{round}"));
            net.isolate(leader);
            net.run(700);
            net.heal();
            net.run(300);
        }
        net.hash
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2), "the seed matters");
}

/// Found by the nemesis (seed 203): a leader that was deaf stepped down just when it was heard again, and the others waited
/// for an election timeout, during which a lease ran out.
#[test]
fn a_deaf_leader_that_steps_down_lets_another_stand_at_once() {
    for seed in 0..30 {
        let mut net = Net::new(3, seed);
        let deaf = net.elect();
        net.settle("");
        for other in net.others(deaf) {
            net.cut(other, deaf);
        }
        net.run_until(1000, |net| !net.host(deaf).is_leader());
        let gave_up = net.now;
        net.run_until(1000, |net| net.others(deaf).into_iter().any(|id| net.host(id).is_leader()));
        let took = net.now.since(gave_up);
        assert!(took < Span::from_millis(60), "seed {seed}: {took:?}");
    }
}

/// Found in a namespace test: after the leader's host was lost both others stood within half a millisecond, the votes were
/// split, and the lease ran out during the second election timeout.
#[test]
fn two_that_stand_at_once_need_one_election() {
    for seed in 0..30 {
        let mut net = Net::new(0, seed);
        net.fifo = true;
        for id in 1..=3 {
            // One value only: both timers end together.
            let election_max = Span::from_millis(155);
            net.add(Config { election_max, ..config(id, &[1, 2, 3], seed) });
        }
        let leader = net.elect();
        net.settle("");
        net.kill(leader);
        let [one, other] = net.others(leader)[..] else { unreachable!() };
        let term = net.node(one).term();
        net.run_until(200, |net| {
            [one, other].into_iter().all(|id| net.node(id).role() == Role::PreCandidate)
        });
        net.run_until(20, |net| net.host(one).is_leader());
        assert_eq!(net.node(one).term(), term + 1, "seed {seed}: a second election");
    }
}

#[test]
fn nobody_stands_for_a_leader_of_an_earlier_term() {
    let mut net = Net::new(3, 4);
    let old = net.elect();
    net.isolate(old);
    net.run_until(2000, |net| net.others(old).into_iter().any(|id| net.host(id).is_leader()));
    net.heal();
    net.run(1000);
    let new = net.leader().unwrap();
    let term = net.node(new).term();
    assert!(new != old);
    // As the old leader would have written it when it gave up.
    let heir = net.others(new).into_iter().find(|id| *id != old).unwrap();
    let mut message = raft::eraftpb::Message::default();
    message.set_msg_type(raft::eraftpb::MessageType::MsgTimeoutNow);
    (message.from, message.to, message.term) = (old, heir, term - 1);
    let bytes = crate::message::encode(&message);
    net.input(heir, |node, now| node.step(now, NodeId(old), &bytes)).unwrap();
    net.run(500);
    assert_eq!((net.leader(), net.node(new).term()), (Some(new), term));
}
