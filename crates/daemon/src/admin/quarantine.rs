//! What is kept aside on this host, for operators.

use redkeep_agent::quarantine::Entry;
use redkeep_proto::admin::v1 as pb;

use super::{port::Kept, time::unix_s};

/// Of `group`; empty = of all.
pub(super) fn listing(node: &str, group: &str, kept: Kept) -> pb::ListQuarantineResponse {
    let Kept { settings, entries } = kept;
    let wanted = |e: &Entry| group.is_empty() || e.name.group == group;
    pb::ListQuarantineResponse {
        node: node.to_owned(),
        directory: settings.directory.display().to_string(),
        max_bytes: settings.max_bytes,
        max_files: u32::try_from(settings.max_files).unwrap_or(u32::MAX),
        entries: entries.into_iter().filter(wanted).map(entry).collect(),
    }
}

fn entry(entry: Entry) -> pb::QuarantineEntry {
    let Entry { name, size, unix_s: at, path } = entry;
    pb::QuarantineEntry {
        group: name.group,
        epoch: name.epoch,
        gap_bytes: name.gap,
        size_bytes: size,
        time: Some(unix_s(at)),
        path: path.display().to_string(),
    }
}
