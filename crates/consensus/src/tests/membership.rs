//! Membership changes, one node at a time.

use super::net::{Net, config};
use crate::*;

fn change(net: &mut Net, leader: u64, change: MembershipChange) -> Proposed {
    net.input(leader, |node, now| node.propose_membership(now, change)).expect("accepted")
}

#[test]
fn a_new_node_joins_as_learner_and_is_promoted() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        net.propose(leader, "before");
        // Whatever its file lists, a node that joins has no membership before the leader's snapshot.
        let mut joining = config(4, &[], seed);
        joining.learners = vec![];
        net.add(joining);
        change(&mut net, leader, MembershipChange::AddLearner(NodeId(4)));
        net.settle("before,");
        net.run(100);
        assert_eq!(net.host(4).members.1, vec![NodeId(4)]);
        net.run(2000);
        assert_eq!(net.node(4).role(), Role::Follower, "a learner does not campaign");
        change(&mut net, leader, MembershipChange::Promote(NodeId(4)));
        net.run(200);
        for id in 1..=4 {
            assert_eq!(net.node(id).voters().len(), 4);
            assert!(net.node(id).learners().is_empty());
        }
        net.input(leader, |node, now| node.transfer_leader(now, NodeId(4)));
        net.run_until(200, |net| net.node(4).role() == Role::Leader);
        net.propose(4, "after");
        net.settle("before,after,");
        // The membership survives a restart, from log and from snapshot.
        net.kill(4);
        net.start(4);
        net.settle("before,after,");
        assert_eq!(net.node(4).voters().len(), 4);
        let (applied, machine) = (net.host(4).applied, net.host(4).machine.clone());
        net.input(4, |node, _| node.compact(applied, machine.into_bytes()));
        net.run(50);
        net.kill(4);
        net.start(4);
        assert_eq!(net.node(4).voters().len(), 4);
    }
}

#[test]
fn a_removed_node_does_not_disturb_the_rest() {
    let mut net = Net::new(4, 2);
    let leader = net.elect();
    let gone = net.others(leader)[0];
    change(&mut net, leader, MembershipChange::Remove(NodeId(gone)));
    net.run(3000);
    assert_eq!(net.node(leader).role(), Role::Leader);
    assert_eq!(net.node(leader).voters().len(), 3);
    net.kill(gone);
    net.propose(leader, "x");
    net.settle("x,");
}

#[test]
fn changes_that_do_nothing_or_harm_are_refused() {
    let mut net = Net::new(3, 2);
    let leader = net.elect();
    let other = NodeId(net.others(leader)[0]);
    let mut refused = |change| {
        net.input(leader, |node, now| node.propose_membership(now, change)).expect_err("refused")
    };
    use MembershipChange::*;
    assert_eq!(refused(AddVoter(NodeId(0))), ProposeError::ZeroNode);
    assert_eq!(refused(AddLearner(other)), ProposeError::AlreadyMember(other));
    assert_eq!(refused(AddVoter(other)), ProposeError::AlreadyMember(other));
    assert_eq!(refused(Promote(other)), ProposeError::NotLearner(other));
    assert_eq!(refused(Promote(NodeId(9))), ProposeError::NotMember(NodeId(9)));
    assert_eq!(refused(Remove(NodeId(9))), ProposeError::NotMember(NodeId(9)));
    let own = NodeId(leader);
    assert_eq!(refused(Remove(own)), ProposeError::RemovesLeader(own));
    change(&mut net, leader, AddLearner(NodeId(7)));
    let second = net.input(leader, |node, now| node.propose_membership(now, AddLearner(NodeId(8))));
    assert_eq!(second, Err(ProposeError::ChangePending));
}

#[test]
fn a_leader_that_inherits_its_own_removal_steps_down_and_does_not_panic() {
    let mut net = Net::new(4, 3);
    let old = net.elect();
    net.run(100);
    let heir = net.others(old)[0];
    // The heir gets the entry that removes it; its acknowledgement is lost, and it is made leader.
    net.cut(heir, old);
    let bystanders: Vec<u64> = net.others(old).into_iter().filter(|id| *id != heir).collect();
    for other in &bystanders {
        net.cut(*other, old);
        net.cut(old, *other);
    }
    change(&mut net, old, MembershipChange::Remove(NodeId(heir)));
    net.run(20);
    net.isolate(old);
    let log = net.node(heir).last_index();
    net.input(heir, Consensus::leader_died);
    net.run_until(500, |net| net.node(heir).role() == Role::Leader);
    net.run_until(500, |net| net.node(heir).committed() > log);
    net.run_until(500, |net| net.node(heir).role() != Role::Leader);
    net.heal();
    net.kill(heir);
    net.run_until(3000, |net| {
        bystanders.iter().chain([&old]).any(|id| {
            let node = net.node(*id);
            node.role() == Role::Leader && node.voters().len() == 3
        })
    });
}
