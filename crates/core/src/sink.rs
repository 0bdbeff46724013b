//! Where the parts of the core put their effects. Parts may push; only the driver drains.

use std::collections::VecDeque;

use crate::{
    effect::{Action, ActionId, Effect, Event, EventKind, LockOp},
    ids::{Epoch, GroupId},
};

#[derive(Debug, Default)]
pub(crate) struct Sink {
    effects: VecDeque<Effect>,
    actions: u64,
}

impl Sink {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn lock(&mut self, op: LockOp) {
        self.push(Effect::Lock(op));
    }

    pub(crate) fn act(&mut self, group: &GroupId, action: Action) -> ActionId {
        self.actions += 1;
        let id = ActionId(self.actions);
        self.push(Effect::Act { group: group.clone(), id, action });
        id
    }

    pub(crate) fn event(&mut self, group: &GroupId, epoch: Epoch, index: u64, kind: EventKind) {
        self.push(Effect::Event(Event { group: Some(group.clone()), epoch, index, kind }));
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
