//! Linearizable reads.

use super::net::Net;
use crate::*;

#[test]
fn a_read_is_ready_after_one_round_and_not_before() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        net.run(100);
        let from = net.now;
        let proposed = net.propose(leader, "x");
        net.run_until(100, |net| net.node(leader).committed() >= proposed.index);
        let read = net.read(leader, 500);
        assert!(net.host(leader).ready.is_empty(), "ready without asking anybody");
        net.run_until(100, |net| net.host(leader).ready.contains_key(&read));
        let (index, at) = net.host(leader).ready[&read];
        assert!(index >= proposed.index && at > from);
    }
}

#[test]
fn each_read_ends_once_under_random_cuts() {
    for seed in 0..30u64 {
        let mut net = Net::new(3, seed);
        let mut rng = crate::rng::Rng::new(seed, 7);
        let mut begun = std::collections::BTreeSet::new();
        for _ in 0..30 {
            for id in 1..=3 {
                // That it has no majority any more is found with the next heartbeat, or when it is called.
                net.input(id, Consensus::advance);
                if net.node(id).role() == Role::Leader {
                    begun.insert((id, net.read(id, 1 + rng.next() % 400)));
                }
            }
            if rng.next().is_multiple_of(3) {
                net.isolate(1 + rng.next() % 3);
            } else {
                net.heal();
            }
            net.run(rng.next() % 200);
        }
        net.run(500);
        for (id, read) in &begun {
            let host = net.host(*id);
            let ends = [host.ready.contains_key(read), host.lost.contains(read)];
            assert_eq!(ends.iter().filter(|end| **end).count(), 1, "{read:?} on node {id}");
        }
    }
}

#[test]
fn a_deposed_leaders_read_never_becomes_ready() {
    for seed in 0..20 {
        let mut net = Net::new(3, seed);
        let old = net.elect();
        net.run(100);
        net.isolate(old);
        let read = net.read(old, 60_000);
        net.run_until(2000, |net| net.leader().is_some_and(|new| new != old));
        net.heal();
        net.run(2000);
        assert!(net.host(old).ready.is_empty());
        assert!(net.host(old).lost.contains(&read));
    }
}

#[test]
fn a_read_of_a_leader_that_is_replaced_by_force_is_lost_or_was_confirmed_first() {
    for seed in 0..20 {
        let mut net = Net::new(3, seed);
        let old = net.elect();
        net.run(100);
        let heir = net.others(old)[0];
        net.input(heir, Consensus::leader_died);
        let read = net.read(old, 60_000);
        net.run_until(500, |net| net.node(heir).role() == Role::Leader);
        let elected = net.now;
        net.run(500);
        let host = net.host(old);
        match host.ready.get(&read) {
            Some((_, at)) => assert!(*at <= elected, "confirmed after the election"),
            None => assert!(host.lost.contains(&read)),
        }
    }
}

#[test]
fn a_read_ends_at_its_deadline() {
    let mut net = Net::new(3, 1);
    let leader = net.elect();
    net.run(50);
    net.isolate(leader);
    let read = net.read(leader, 17);
    net.run(16);
    assert!(!net.host(leader).lost.contains(&read));
    net.run(1);
    assert!(net.host(leader).lost.contains(&read));
    let late = net.input(leader, |node, now| node.read_index(now, now));
    assert_eq!(late, Err(ReadError::DeadlinePassed));
}

#[test]
fn a_read_before_the_first_own_entry_waits_and_then_begins() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        net.run_until(3000, |net| net.hosts.values().any(|h| h.is_leader()));
        let leader = *net.hosts.iter().find(|(_, h)| h.is_leader()).expect("one leads").0;
        assert!(net.node(leader).committed() < net.node(leader).last_index());
        let read = net.read(leader, 1000);
        net.run_until(200, |net| net.host(leader).ready.contains_key(&read));
        let (index, _) = net.host(leader).ready[&read];
        assert!(index >= 2, "the read index is the leader's own entry or later");
    }
}

#[test]
fn followers_refuse_reads_and_name_the_leader() {
    let mut net = Net::new(3, 1);
    let leader = net.elect();
    net.run(50);
    let other = net.others(leader)[0];
    let refused = net.input(other, |node, now| node.read_index(now, Mono::MAX));
    assert_eq!(refused, Err(ReadError::NotLeader { leader: Some(NodeId(leader)) }));
}

#[test]
fn a_read_waits_for_the_state_machine() {
    let mut net = Net::new(3, 3);
    let leader = net.elect();
    net.run(50);
    net.host(leader).write_delay = Span::from_millis(200);
    let proposed = net.propose(leader, "x");
    net.run_until(100, |net| net.node(leader).committed() >= proposed.index);
    let read = net.read(leader, 1000);
    net.run(50);
    assert!(!net.host(leader).ready.contains_key(&read), "not applied yet");
    net.run(300);
    assert!(net.host(leader).ready[&read].0 >= proposed.index);
}

#[test]
fn reads_beyond_the_bound_are_refused() {
    let mut net = Net::new(3, 3);
    let leader = net.elect();
    net.isolate(leader);
    for _ in 0..4096 {
        net.read(leader, 100);
    }
    let refused = net.input(leader, |node, now| node.read_index(now, now + Span::from_millis(100)));
    assert_eq!(refused, Err(ReadError::TooMany { pending: 4096 }));
}

/// A leader, and a follower that knows it.
fn leader_and_asker(net: &mut Net) -> (u64, Asker) {
    let leader = net.elect();
    net.run(100);
    let node = net.others(leader)[0];
    let term = net.node(node).term();
    (leader, Asker { node: NodeId(node), term })
}

#[test]
fn one_of_three_that_asks_in_the_leaders_term_is_answered_without_a_round() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let (leader, asker) = leader_and_asker(&mut net);
        let committed = net.node(leader).committed();
        // Nobody could confirm a round.
        net.isolate(leader);
        let read = net.read_for(leader, asker);
        assert_eq!(net.host(leader).ready[&read].0, committed);
    }
}

#[test]
fn an_asker_of_another_term_or_without_a_vote_or_one_of_five_confirms_nothing() {
    let mut net = Net::new(3, 1);
    let (leader, asker) = leader_and_asker(&mut net);
    net.isolate(leader);
    for term in [0, asker.term - 1, asker.term + 1] {
        let read = net.read_for(leader, Asker { term, ..asker });
        assert!(!net.host(leader).ready.contains_key(&read), "term {term}");
    }
    let read = net.read_for(leader, Asker { node: NodeId(9), ..asker });
    assert!(!net.host(leader).ready.contains_key(&read), "not a voter");
    let read = net.read_for(leader, Asker { node: NodeId(leader), ..asker });
    assert!(!net.host(leader).ready.contains_key(&read), "the leader alone is no majority");

    let mut net = Net::new(5, 1);
    let (leader, asker) = leader_and_asker(&mut net);
    let read = net.read_for(leader, asker);
    assert!(!net.host(leader).ready.contains_key(&read), "two of five");
    net.run_until(100, |net| net.host(leader).ready.contains_key(&read));
}

#[test]
fn an_asker_confirms_nothing_before_the_first_own_entry() {
    let mut net = Net::new(3, 2);
    net.run_until(3000, |net| net.hosts.values().any(|h| h.is_leader()));
    let leader = *net.hosts.iter().find(|(_, h)| h.is_leader()).expect("one leads").0;
    assert!(net.node(leader).committed() < net.node(leader).last_index());
    let (node, term) = (NodeId(net.others(leader)[0]), net.node(leader).term());
    let read = net.read_for(leader, Asker { node, term });
    assert!(!net.host(leader).ready.contains_key(&read));
    net.run_until(200, |net| net.host(leader).ready.contains_key(&read));
}

/// What the answer to a question promises: it is as new as anything that was committed when the question was asked, however
/// late the question arrives and whoever led meanwhile.
#[test]
fn a_read_for_an_asker_sees_all_that_was_committed_before_it_asked() {
    let (mut at_once, mut by_round) = (0, 0);
    for seed in 0..200u64 {
        let mut net = Net::new(3, seed);
        let mut rng = crate::rng::Rng::new(seed, 11);
        // To, who asks, the highest commit index at that moment.
        let mut asked: Vec<(u64, Asker, u64)> = vec![];
        let mut reads = vec![];
        for _ in 0..60 {
            match rng.next() % 8 {
                0 => net.isolate(1 + rng.next() % 3),
                1 => net.cut(1 + rng.next() % 3, 1 + rng.next() % 3),
                2 => net.heal(),
                3 => net.input(1 + rng.next() % 3, Consensus::leader_died),
                _ => {}
            }
            if let Some(leader) = net.leader() {
                let _ = net.input(leader, |node, now| node.propose(now, "x".into()));
            }
            let node = 1 + rng.next() % 3;
            let committed = (1..=3).map(|id| net.node(id).committed()).max().expect("three");
            let term = net.node(node).term();
            // Also of one that is deposed and does not know.
            for to in net.others(node) {
                asked.push((to, Asker { node: NodeId(node), term }, committed));
            }
            net.run(rng.next() % 60);
            if asked.len() > 2 || rng.next().is_multiple_of(2) {
                for (to, asker, committed) in std::mem::take(&mut asked) {
                    net.input(to, Consensus::advance);
                    if net.node(to).role() == Role::Leader {
                        let read = net.read_for(to, asker);
                        at_once += usize::from(net.host(to).ready.contains_key(&read));
                        reads.push((to, read, committed));
                    }
                }
            }
        }
        net.heal();
        net.run(1000);
        for (to, read, committed) in reads {
            if let Some((index, _)) = net.host(to).ready.get(&read) {
                assert!(*index >= committed, "seed {seed}: read at {index}, {committed} committed");
                by_round += 1;
            }
        }
    }
    by_round -= at_once;
    assert!(at_once > 500 && by_round > 50, "{at_once} at once, {by_round} by a round");
}

/// The heartbeat that goes with the answer to an asker is not answered; the asker's questions show that it is there.
#[test]
fn an_asker_need_not_answer_and_keeps_its_leader() {
    let mut net = Net::new(3, 6);
    let (leader, asker) = leader_and_asker(&mut net);
    let third = *net.others(leader).iter().find(|id| **id != asker.node.0).expect("three");
    net.cut(third, leader);
    let (roles, before) = (net.host(leader).roles.len(), net.sent[&SendClass::Heartbeat]);
    for _ in 0..40 {
        net.read_for(leader, asker);
        net.run(45);
    }
    assert_eq!(net.host(leader).roles.len(), roles, "it leads on with the asker alone");
    // Two beats in 45 ms, each to two; the third answers both, the asker one.
    let beats = net.sent[&SendClass::Heartbeat] - before;
    assert!((270..=285).contains(&beats), "{beats} heartbeats and answers, 280 expected");
}

/// An entry that the asker lacks is sent again with the answer to a heartbeat, so that one must be answered.
#[test]
fn an_asker_that_lacks_an_entry_answers() {
    let mut net = Net::new(3, 6);
    let (leader, asker) = leader_and_asker(&mut net);
    net.cut(leader, asker.node.0);
    let proposed = net.propose(leader, "x");
    net.run(20);
    net.heal();
    // So often that no heartbeat goes without a question.
    for _ in 0..4 {
        net.read_for(leader, asker);
        net.run(16);
    }
    assert_eq!(net.node(asker.node.0).last_index(), proposed.index);
}
