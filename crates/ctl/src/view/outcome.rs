//! A change that was made.

use redkeep_proto::admin::v1 as pb;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct OutcomeView {
    pub(crate) answered_by: String,
    pub(crate) dry_run: bool,
    /// Log index of the decision; null where nothing was written.
    pub(crate) index: Option<u64>,
    pub(crate) epoch: Option<u64>,
    pub(crate) text: String,
}

impl OutcomeView {
    pub(crate) fn new(outcome: pb::Outcome, dry_run: bool) -> Self {
        let pb::Outcome { answered_by, index, epoch, text } = outcome;
        Self {
            answered_by,
            dry_run,
            index: (index > 0 && !dry_run).then_some(index),
            epoch: (epoch > 0).then_some(epoch),
            text,
        }
    }
}
