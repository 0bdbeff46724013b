//! Restarts, snapshots, compaction.

use super::net::{Net, config};
use crate::*;

#[test]
fn a_restarted_node_rebuilds_the_same_state_machine() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        for i in 0..20 {
            net.propose(leader, &format!("x{i}"));
        }
        net.settle("x19,");
        net.run(100);
        let machine = net.host(leader).machine.clone();
        for id in 1..=3 {
            net.kill(id);
        }
        for id in 1..=3 {
            net.start(id);
            assert!(!net.host(id).disk.is_fresh());
        }
        net.elect();
        net.settle("x19,");
        assert_eq!(net.host(leader).machine, machine);
    }
}

#[test]
fn nothing_committed_is_lost_when_nodes_crash_at_random() {
    for seed in 0..40u64 {
        let mut net = Net::new(3, seed);
        let mut rng = crate::rng::Rng::new(seed, 5);
        for id in 1..=3 {
            net.host(id).write_delay = Span::from_millis(1 + rng.next() % 15);
        }
        for round in 0..25 {
            if let Some(leader) = net.leader() {
                let _ = net
                    .input(leader, |node, now| node.propose(now, format!("r{round}").into_bytes()));
            }
            net.run(rng.next() % 120);
            let victim = 1 + rng.next() % 3;
            match rng.next() % 4 {
                0 if net.host(victim).node.is_some() => net.kill(victim),
                1 => {
                    let applied = net.host(victim).applied;
                    let machine = net.host(victim).machine.clone();
                    if net.host(victim).node.is_some() {
                        net.input(victim, |node, _| node.compact(applied, machine.into_bytes()));
                    }
                }
                _ if net.host(victim).node.is_none() => net.start(victim),
                _ => {}
            }
        }
        for id in 1..=3 {
            if net.host(id).node.is_none() {
                net.start(id);
            }
        }
        let leader = net.elect();
        net.propose(leader, "end");
        // The network itself checks that no index ever held two entries.
        net.settle("end,");
    }
}

#[test]
fn a_lagging_follower_gets_the_snapshot_even_if_the_first_is_lost() {
    for lost in [0, 1, 2] {
        let mut net = Net::new(3, 11);
        let leader = net.elect();
        let away = net.others(leader)[0];
        net.isolate(away);
        net.run(50);
        for i in 0..3000 {
            net.propose(leader, &format!("{i}"));
            if i % 100 == 0 {
                net.run(20);
            }
        }
        net.run(200);
        let (applied, machine) = (net.host(leader).applied, net.host(leader).machine.clone());
        net.input(leader, |node, _| node.compact(applied, machine.into_bytes()));
        assert_eq!(net.node(leader).snapshot_index(), applied);
        let tail = net.node(leader).last_index() - net.node(leader).first_index() + 1;
        assert_eq!(tail, 1024, "the tail is bounded");
        let restores = net.host(away).restores;
        net.lost_snapshots = lost;
        net.heal();
        net.settle("2999,");
        assert_eq!(net.host(away).restores, restores + 1);
        net.propose(leader, "after");
        net.settle("after,");
        net.run(50);
        // And it starts again from what it received.
        net.kill(away);
        net.start(away);
        net.settle("after,");
    }
}

#[test]
fn an_election_does_not_begin_while_a_snapshot_is_on_its_way_to_the_disk() {
    let mut net = Net::new(3, 12);
    let leader = net.elect();
    let away = net.others(leader)[0];
    net.isolate(away);
    for i in 0..1500 {
        net.propose(leader, &format!("{i}"));
        if i % 100 == 0 {
            net.run(20);
        }
    }
    net.run(200);
    let (applied, machine) = (net.host(leader).applied, net.host(leader).machine.clone());
    net.input(leader, |node, _| node.compact(applied, machine.into_bytes()));
    net.host(away).write_delay = Span::from_secs(2);
    let restores = net.host(away).restores;
    net.heal();
    net.run_until(1500, |net| net.host(away).has_snapshot_in_flight());
    // raft-rs would panic in each of these.
    net.isolate(away);
    net.input(away, Consensus::leader_died);
    net.run(1000);
    assert_eq!(net.host(away).restores, restores);
    assert_eq!(net.node(away).role(), Role::Follower);
    net.heal();
    net.settle("1499,");
}

#[test]
fn a_compacted_node_restarts_with_the_tail_and_can_still_serve_it() {
    let mut net = Net::new(3, 13);
    let leader = net.elect();
    for i in 0..50 {
        net.propose(leader, &format!("{i}"));
    }
    net.settle("49,");
    for id in 1..=3 {
        let (applied, machine) = (net.host(id).applied, net.host(id).machine.clone());
        net.input(id, |node, _| node.compact(applied, machine.into_bytes()));
    }
    net.run(50);
    for id in 1..=3 {
        net.kill(id);
        net.start(id);
    }
    let leader = net.elect();
    net.propose(leader, "more");
    net.settle("49,more,");
}

#[test]
fn a_state_that_this_program_cannot_have_written_is_refused() {
    let mut net = Net::new(3, 1);
    let leader = net.elect();
    net.propose(leader, "x");
    net.run(200);
    let good = net.host(leader).disk.clone();
    let refused = |change: &dyn Fn(&mut Recovered)| {
        let mut bad = good.clone();
        change(&mut bad);
        match Consensus::new(config(leader, &[1, 2, 3], 1), bad, Mono(0)) {
            Err(ConfigError::Recovered(error)) => error,
            other => panic!("accepted: {other:?}"),
        }
    };
    assert!(matches!(
        refused(&|r| r.hard_state.commit = 99),
        RecoveredError::CommitBeyondLog { .. }
    ));
    assert!(matches!(refused(&|r| r.hard_state.term = 1), RecoveredError::TermBehindLog { .. }));
    assert!(matches!(refused(&|r| r.snapshot = None), RecoveredError::NoSnapshot { .. }));
    assert!(matches!(refused(&|r| r.entries[1].index = 9), RecoveredError::Gap { .. }));
    assert!(matches!(refused(&|r| drop(r.entries.remove(0))), RecoveredError::Gap { .. }));
    assert!(matches!(refused(&|r| r.entries[1].term = 1), RecoveredError::TermFell { .. }));
}

#[test]
fn a_wiped_node_is_told_so_and_nothing_panics() {
    let mut net = Net::new(3, 1);
    let leader = net.elect();
    net.propose(leader, "x");
    net.settle("x,");
    net.run(100);
    let wiped = net.others(leader)[0];
    let mut fresh = Consensus::new(config(wiped, &[1, 2, 3], 9), Recovered::default(), net.now)
        .expect("starts");
    let mut beat = raft::eraftpb::Message::default();
    beat.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
    (beat.from, beat.to) = (leader, wiped);
    beat.term = net.node(leader).term();
    beat.commit = net.node(leader).committed();
    let told = fresh.step(net.now, NodeId(leader), &message::encode(&beat));
    assert!(matches!(told, Err(StepError::CommitBeyondLog { commit: 3, last: 1 })), "{told:?}");
}
