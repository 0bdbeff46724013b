//! Effects on their way out, and the messages that must wait for the disk.
//!
//! A follower's messages (acknowledgements, votes) promise something that must be durable first.
//! They are parked under the number of the write they wait for. A leader's messages promise
//! nothing about its own disk and leave at once (Raft dissertation 10.2.1).

use crate::NodeId;
use crate::durable::Persist;
use crate::effect::Effect;
use crate::message;
use raft::eraftpb;
use std::collections::VecDeque;

/// A write that is not yet known to be durable, and what waits for it.
#[derive(Debug)]
struct Outstanding {
    number: u64,
    /// raft-rs' own number for what is durable with this write.
    ready_number: u64,
    parked: Vec<eraftpb::Message>,
    /// The snapshot from the leader that this write holds.
    restore: Option<eraftpb::Snapshot>,
}

/// What a durable write releases.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pub(crate) ready_number: Option<u64>,
    pub(crate) restores: Vec<eraftpb::Snapshot>,
    pub(crate) messages: Vec<eraftpb::Message>,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    effects: VecDeque<Effect>,
    outstanding: VecDeque<Outstanding>,
    last_number: u64,
}

impl Outbox {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn send(&mut self, message: &eraftpb::Message) {
        self.push(Effect::Send {
            to: NodeId(message.to),
            bytes: message::encode(message),
            class: message::class(message),
        });
    }

    /// Emits a write and gives its number. `persist.number` is set here.
    pub(crate) fn persist(&mut self, mut persist: Persist) -> u64 {
        self.last_number += 1;
        persist.number = self.last_number;
        self.push(Effect::Persist(persist));
        self.last_number
    }

    /// Remembers that raft-rs' `ready_number` is durable once write `number` is.
    pub(crate) fn await_write(
        &mut self,
        number: u64,
        ready_number: u64,
        restore: Option<eraftpb::Snapshot>,
    ) {
        self.outstanding.push_back(Outstanding {
            number,
            ready_number,
            parked: Vec::new(),
            restore,
        });
    }

    /// Parks messages behind the last outstanding write; gives them back if there is none.
    pub(crate) fn park(
        &mut self,
        ready_number: u64,
        messages: Vec<eraftpb::Message>,
    ) -> Option<Vec<eraftpb::Message>> {
        let Some(last) = self.outstanding.back_mut() else { return Some(messages) };
        last.ready_number = last.ready_number.max(ready_number);
        last.parked.extend(messages);
        None
    }

    /// All writes up to `number` are durable.
    ///
    /// # Panics
    /// If no such write was ever emitted: the driver would acknowledge what was never written.
    pub(crate) fn release(&mut self, number: u64) -> Released {
        assert!(number <= self.last_number, "write {number} was never emitted");
        let mut released = Released::default();
        while self.outstanding.front().is_some_and(|front| front.number <= number) {
            let Some(front) = self.outstanding.pop_front() else { break };
            released.ready_number = Some(front.ready_number);
            released.restores.extend(front.restore);
            released.messages.extend(front.parked);
        }
        released
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// True while a snapshot from the leader is not yet durable and applied.
    pub(crate) fn is_restoring(&self) -> bool {
        self.outstanding.iter().any(|write| write.restore.is_some())
    }
}
