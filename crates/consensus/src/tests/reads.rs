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
