//! A planned switchover at the master that hands over: it pauses its clients until the next one has everything, then fences.

use redkeep_consensus::{NodeId, Span};

use super::{Cx, HostGroup};
use crate::{
    effect::{Action, ActionId, ActionOutcome, EventKind},
    ids::Epoch,
    model::{Assignment, GroupModel},
    observe::FenceCause,
};

/// A planned switchover as seen by the master that hands over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    epoch: Epoch,
    to: NodeId,
    action: ActionId,
    failed: bool,
}

impl HostGroup {
    pub(super) fn drive_planned(&mut self, cx: &mut Cx<'_>, group: &GroupModel, a: &Assignment) {
        match (group.switchover, self.planned) {
            (Some(to), None) if self.takeover.as_ref().is_some_and(|t| t.serving) => {
                let Some(target) = cx.cluster.redis_addr(to, &self.spec) else { return };
                let limit = cx.cluster.timing.switchover_timeout;
                let action = cx
                    .sink
                    .act(self.id(), Action::PauseAndCatchUp { target, limit: Span(limit.0 / 2) });
                self.planned = Some(Planned { epoch: a.epoch, to, action, failed: false });
                self.tell(cx, EventKind::SwitchoverStarted { to });
            }
            (None, Some(_)) => {
                self.planned = None;
                cx.sink.act(self.id(), Action::Unpause);
            }
            (Some(_) | None, _) => {}
        }
    }

    pub(super) fn planned_action_done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ActionId,
        outcome: &ActionOutcome,
    ) {
        let Some(p) = self.planned.as_mut().filter(|p| p.action == id) else { return };
        match outcome {
            ActionOutcome::Offset(offset) if self.fence.is_none() => {
                let (epoch, to) = (p.epoch, p.to);
                let current =
                    self.model(cx).filter(|g| g.epoch() == epoch && g.switchover == Some(to));
                if current.is_some() {
                    self.start_fence(cx, epoch, FenceCause::Switchover, Some(*offset));
                }
            }
            ActionOutcome::Failed(_) if !p.failed => {
                p.failed = true;
                cx.sink.act(self.id(), Action::Unpause);
            }
            ActionOutcome::Offset(_)
            | ActionOutcome::Failed(_)
            | ActionOutcome::Done
            | ActionOutcome::NotMaster
            | ActionOutcome::Rival(_)
            | ActionOutcome::Compared(_)
            | ActionOutcome::Kept(_) => {}
        }
    }
}
