//! What one node keeps aside.

use redkeep_proto::admin::v1 as pb;
use serde::Serialize;

use super::time::rfc3339;

#[derive(Debug, Serialize)]
pub(crate) struct QuarantineView {
    pub(crate) node: String,
    pub(crate) directory: String,
    /// 0 = nothing is kept.
    pub(crate) max_bytes: u64,
    /// Of one group.
    pub(crate) max_files: u32,
    /// Oldest first.
    pub(crate) entries: Vec<QuarantineEntryView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct QuarantineEntryView {
    pub(crate) group: String,
    /// Of the new master.
    pub(crate) epoch: u64,
    /// What the new master lacks; null = unknown.
    pub(crate) gap_bytes: Option<u64>,
    pub(crate) size_bytes: u64,
    pub(crate) at: Option<String>,
    pub(crate) path: String,
}

impl From<pb::ListQuarantineResponse> for QuarantineView {
    fn from(answer: pb::ListQuarantineResponse) -> Self {
        let pb::ListQuarantineResponse { node, directory, max_bytes, max_files, entries } = answer;
        let entries = entries.into_iter().map(QuarantineEntryView::from).collect();
        Self { node, directory, max_bytes, max_files, entries }
    }
}

impl From<pb::QuarantineEntry> for QuarantineEntryView {
    fn from(entry: pb::QuarantineEntry) -> Self {
        let pb::QuarantineEntry { group, epoch, gap_bytes, size_bytes, time, path } = entry;
        Self { group, epoch, gap_bytes, size_bytes, at: time.map(rfc3339), path }
    }
}
