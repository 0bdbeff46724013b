//! An event.

use redkeep_proto::admin::v1 as pb;
use serde::Serialize;

use super::{text, time::rfc3339, word};

#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    pub(crate) node: String,
    /// CLOCK_MONOTONIC of the node.
    pub(crate) mono_ns: u64,
    pub(crate) at: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) index: Option<u64>,
    pub(crate) kind: Option<String>,
    pub(crate) text: String,
    pub(crate) about: Option<String>,
}

impl From<pb::Event> for EventView {
    fn from(event: pb::Event) -> Self {
        let kind = word(event.kind().as_str_name(), "EVENT_KIND_");
        let pb::Event { node, mono_ns, time, group, epoch, index, kind: _, text: told, about } =
            event;
        Self {
            node,
            mono_ns,
            at: time.map(rfc3339),
            group: text(group),
            epoch: (epoch > 0).then_some(epoch),
            index: (index > 0).then_some(index),
            kind,
            text: told,
            about: text(about),
        }
    }
}
