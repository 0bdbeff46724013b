//! The history.

use redkeep_proto::admin::v1 as pb;
use serde::Serialize;

use super::{
    FreshnessView, text,
    time::{ms, rfc3339},
    word,
};

#[derive(Debug, Serialize)]
pub(crate) struct HistoryView {
    pub(crate) freshness: FreshnessView,
    /// Oldest first.
    pub(crate) records: Vec<RecordView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RecordView {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) at: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) epoch: Option<u64>,
    /// bootstrapped, assigned, serving, switchover_started, switchover_aborted, paused, resumed,
    /// node_added, node_removed, member_added, member_removed.
    pub(crate) kind: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) cause: Option<String>,
    pub(crate) text: Option<String>,
    /// Of an assignment; null where it is not known.
    pub(crate) estimated_loss_bytes: Option<u64>,
    pub(crate) duration_ms: Option<u64>,
}

impl From<pb::GetHistoryResponse> for HistoryView {
    fn from(answer: pb::GetHistoryResponse) -> Self {
        let pb::GetHistoryResponse { freshness, records } = answer;
        Self {
            freshness: freshness.unwrap_or_default().into(),
            records: records.into_iter().map(RecordView::from).collect(),
        }
    }
}

impl From<pb::HistoryRecord> for RecordView {
    fn from(record: pb::HistoryRecord) -> Self {
        let is_assignment = record.kind() == pb::HistoryKind::Assigned;
        let kind = word(record.kind().as_str_name(), "HISTORY_KIND_");
        let cause = word(record.cause().as_str_name(), "CAUSE_");
        let pb::HistoryRecord {
            index,
            term,
            time,
            group,
            epoch,
            kind: _,
            node,
            from,
            cause: _,
            text: told,
            estimated_loss_bytes,
            duration,
        } = record;
        Self {
            index,
            term,
            at: time.map(rfc3339),
            group: text(group),
            epoch: (epoch > 0).then_some(epoch),
            kind,
            node: text(node),
            from: text(from),
            cause,
            text: text(told),
            estimated_loss_bytes: estimated_loss_bytes.filter(|_| is_assignment),
            duration_ms: duration.map(ms),
        }
    }
}
