//! A new life of the local Redis: the closing that its start left in the kernel is lifted by the driver's own order.
//!
//! The order that admits a life stands in the lock's queue behind all that was decided before the life was taken in,
//! and before all that is decided after. So nothing that an earlier life was granted or permitted outlives it.
//! Whoever saw the life first must not admit it by himself: what older observations permit may still be on its way.

use super::{Cx, HostGroup};
use crate::{effect::LockOp, ids::RunId, lease::holder::lock_item};

impl HostGroup {
    /// Before anything follows from an observation of this life.
    pub(super) fn admit(&mut self, cx: &mut Cx<'_>, life: &RunId) {
        if self.admitted.as_ref() == Some(life) {
            return;
        }
        self.admitted = Some(life.clone());
        let item = lock_item(&self.spec, 0);
        cx.sink.lock(LockOp::Admit { item, run_id: life.clone() });
    }

    /// A refused one is asked for again when the life is seen again.
    pub(super) fn admit_answered(&mut self, life: &RunId, ok: bool) {
        if !ok && self.admitted.as_ref() == Some(life) {
            self.admitted = None;
        }
    }
}
