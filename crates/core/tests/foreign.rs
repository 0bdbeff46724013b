//! What a peer says that no honest node would.

mod world;

use redkeep_core::command::{Assign, Body, Cause, Command};
use redkeep_core::ids::node_id;
use redkeep_core::message::{PeerMessage, Renew, RenewGroup};
use redkeep_core::model::{Applied, Model, Rejection};
use redkeep_core::*;
use world::{World, spec};

/// Grants that the witness, which leads, gives to a request of a, the master, for `ttl`.
fn grants_for(ttl: Span) -> usize {
    let mut w = World::settled_pair();
    let arm = ArmId { incarnation: 99, counter: 1 };
    let group = RenewGroup { group: GroupId::new("pair"), epoch: Epoch(1), lagging: Vec::new() };
    let renew = Renew { arm, last_grant: None, ttl, groups: vec![group] };
    w.said = Some(Vec::new());
    // Of no term: a round shows that the witness still leads.
    let message = PeerMessage::Renew { renew, term: 0 };
    w.feed("w", Input::Peer { from: node_id("a"), message });
    w.run(50);
    let said = w.said.take().expect("recorded");
    let granted = |m: &PeerMessage| matches!(m, PeerMessage::Grant(grant) if grant.arm == arm);
    said.iter().filter(|(from, message)| *from == "w" && granted(message)).count()
}

#[test]
fn a_lease_longer_than_the_next_leader_would_wait_for_is_not_granted() {
    let longest = spec().timing.lease_ttl;
    assert_eq!(grants_for(longest), 1, "the request is one that is granted otherwise");
    assert_eq!(grants_for(Span(longest.0 + 1)), 0);
    assert_eq!(grants_for(Span(u64::MAX)), 0, "nor does it overflow");
}

#[test]
fn the_last_epoch_has_no_successor() {
    let mut model = Model::default();
    let apply = |model: &mut Model, body| model.apply(2, 1, Command { at_unix_ms: 0, body });
    let assign = |epoch| {
        Body::Assign(Assign {
            group: GroupId::new("pair"),
            epoch: Epoch(epoch),
            master: node_id("a"),
            run_id: RunId::new("run1"),
            cause: Cause::Operator,
            evidence: String::new(),
            estimated_loss_bytes: Some(0),
            old_master_eligible: false,
            goes_on: false,
        })
    };
    apply(&mut model, Body::Bootstrap(spec()));
    assert!(matches!(apply(&mut model, assign(1)), Applied::Assigned(_)));
    let group = model.groups.get_mut(&GroupId::new("pair")).expect("bootstrapped");
    group.assignment.as_mut().expect("assigned").epoch = Epoch(u64::MAX);
    for epoch in [0, 1, u64::MAX] {
        let applied = apply(&mut model, assign(epoch));
        assert_eq!(applied, Applied::Rejected(Rejection::StaleEpoch), "{epoch}");
    }
}
