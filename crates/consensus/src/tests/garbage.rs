//! Messages that no honest node sends: refused, and nothing panics.

use super::net::{Net, config};
use crate::*;
use protobuf::{Message as _, ProtobufEnum as _};
use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};

fn message(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term) = (from, to, term);
    message
}

#[test]
fn envelope_and_kind_are_checked() {
    let mut node =
        Consensus::new(config(1, &[1, 2, 3], 1), Recovered::default(), Mono(0)).expect("starts");
    let mut step = |from: u64, message: &Message| {
        node.step(Mono(1), NodeId(from), &message.write_to_bytes().expect("encodes"))
    };
    use MessageType::*;
    let wrong = step(2, &message(MsgHeartbeat, 2, 3, 5));
    assert!(matches!(wrong, Err(StepError::NotForThisNode(NodeId(3)))));
    let forged = step(2, &message(MsgHeartbeat, 3, 1, 5));
    assert!(matches!(forged, Err(StepError::Sender { .. })));
    let own = step(1, &message(MsgHeartbeat, 1, 1, 5));
    assert!(matches!(own, Err(StepError::Sender { .. })));
    for kind in [
        MsgHup,
        MsgBeat,
        MsgPropose,
        MsgUnreachable,
        MsgSnapStatus,
        MsgCheckQuorum,
        MsgTransferLeader,
        MsgReadIndex,
        MsgReadIndexResp,
    ] {
        assert!(matches!(step(2, &message(kind, 2, 1, 5)), Err(StepError::Kind(_))), "{kind:?}");
    }
    let stranger = step(9, &message(MsgAppendResponse, 9, 1, 1));
    assert!(matches!(stranger, Err(StepError::UnknownSender(NodeId(9)))));
    let local = step(2, &message(MsgHeartbeat, 2, 1, 0));
    assert!(matches!(local, Err(StepError::Malformed(_))));
    let mut gap = message(MsgAppend, 2, 1, 5);
    let mut entry = RaftEntry::default();
    (entry.index, entry.term) = (7, 5);
    gap.set_entries(vec![entry].into());
    assert!(matches!(step(2, &gap), Err(StepError::Malformed(_))));
    assert!(matches!(node.step(Mono(1), NodeId(2), &[0xff; 9]), Err(StepError::Decode(_))));
}

#[test]
fn mutated_messages_are_refused_or_harmless() {
    // Fields of real messages are set to odd values and stepped into nodes in each role.
    let mut accepted = 0;
    for seed in 0..60u64 {
        let mut rng = crate::rng::Rng::new(seed, 3);
        let mut net = Net::new(3, seed);
        let leader = net.elect();
        net.propose(leader, "x");
        net.run(rng.next() % 100);
        let term = net.node(leader).term();
        let target = 1 + rng.next() % 3;
        let now = net.now;
        let node = net.node(target);
        for _ in 0..200 {
            let odd = |rng: &mut crate::rng::Rng| match rng.next() % 24 {
                0 => 0,
                1 => u64::MAX - rng.next() % 3,
                2 => 1 << 62,
                3..=9 => term,
                _ => rng.next() % 8,
            };
            let mut m = Message::default();
            let kinds = MessageType::values();
            m.set_msg_type(kinds[(rng.next() % kinds.len() as u64) as usize]);
            m.from = 1 + rng.next() % 4;
            m.to = target;
            m.term = if rng.next().is_multiple_of(2) { term } else { odd(&mut rng) };
            m.log_term = odd(&mut rng);
            m.index = odd(&mut rng);
            m.commit = odd(&mut rng);
            m.commit_term = odd(&mut rng);
            m.reject = rng.next().is_multiple_of(2);
            m.reject_hint = odd(&mut rng);
            m.context = rng.next().to_be_bytes().to_vec().into();
            if rng.next().is_multiple_of(3) {
                let mut entry = RaftEntry::default();
                (entry.index, entry.term) = (m.index.wrapping_add(1), odd(&mut rng));
                m.set_entries(vec![entry].into());
            }
            if rng.next().is_multiple_of(3) {
                let meta = m.mut_snapshot().mut_metadata();
                (meta.index, meta.term) = (odd(&mut rng), odd(&mut rng));
                meta.mut_conf_state().set_voters((0..rng.next() % 4).collect());
            }
            let bytes = m.write_to_bytes().expect("encodes");
            accepted += usize::from(node.step(now, NodeId(m.from), &bytes).is_ok());
            while let Some(effect) = node.next_effect() {
                if let Effect::Persist(write) = effect {
                    node.persisted(now, write.number);
                }
            }
        }
    }
    assert!(accepted > 60 * 200 / 20, "only {accepted} got as far as raft-rs");
}

/// Found by the mutations above: raft-rs panicked in `commit_to`.
#[test]
fn an_append_that_follows_on_an_index_outside_the_log_in_term_zero_is_refused() {
    let mut node =
        Consensus::new(config(1, &[1, 2, 3], 1), Recovered::default(), Mono(0)).expect("starts");
    let mut append = message(MessageType::MsgAppend, 2, 1, 5);
    (append.index, append.log_term, append.commit) = (7, 0, 7);
    let refused = node.step(Mono(1), NodeId(2), &append.write_to_bytes().expect("encodes"));
    assert!(matches!(refused, Err(StepError::Malformed(_))), "{refused:?}");
}

#[test]
fn random_bytes_are_refused_or_harmless() {
    let mut rng = crate::rng::Rng::new(1, 1);
    let mut node =
        Consensus::new(config(1, &[1, 2, 3], 1), Recovered::default(), Mono(0)).expect("starts");
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..rng.next() % 40).map(|_| rng.next() as u8).collect();
        let _ = node.step(Mono(1), NodeId(2), &bytes);
    }
    assert_eq!(node.term(), 1);
}
