//! Lines of the replicated history for operators.

use redkeep_core::model::{Record, RecordKind};
use redkeep_proto::admin::v1 as pb;

use super::{
    time::{span, unix_ms},
    view::{View, assigned_because},
};

/// The newest `limit` lines (0 = all) of `group` and of the cluster; empty = of everything. Oldest first.
pub(super) fn lines(view: &View, group: &str, limit: u32) -> Vec<pb::HistoryRecord> {
    let of_group =
        |r: &&Record| group.is_empty() || r.group.as_ref().is_none_or(|g| g.as_str() == group);
    let limit = match usize::try_from(limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(n) => n,
    };
    let mut lines: Vec<_> =
        view.history.iter().rev().filter(of_group).take(limit).map(|r| line(view, r)).collect();
    lines.reverse();
    lines
}

fn line(view: &View, record: &Record) -> pb::HistoryRecord {
    let Record { index, term, at_unix_ms, group, epoch, kind } = record;
    let plain = pb::HistoryRecord {
        index: *index,
        term: *term,
        time: Some(unix_ms(*at_unix_ms)),
        group: group.as_ref().map_or_else(String::new, ToString::to_string),
        epoch: epoch.0,
        ..pb::HistoryRecord::default()
    };
    match kind {
        RecordKind::Bootstrapped => {
            pb::HistoryRecord { kind: pb::HistoryKind::Bootstrapped.into(), ..plain }
        }
        RecordKind::Assigned { master, from, cause, evidence, estimated_loss_bytes } => {
            pb::HistoryRecord {
                kind: pb::HistoryKind::Assigned.into(),
                node: view.name(*master),
                from: from.map_or_else(String::new, |f| view.name(f)),
                cause: assigned_because(*cause).into(),
                text: evidence.clone(),
                estimated_loss_bytes: *estimated_loss_bytes,
                ..plain
            }
        }
        RecordKind::Serving { master } => {
            of_node(plain, pb::HistoryKind::Serving, view.name(*master))
        }
        RecordKind::SwitchoverStarted { to } => {
            of_node(plain, pb::HistoryKind::SwitchoverStarted, view.name(*to))
        }
        RecordKind::SwitchoverAborted { reason } => pb::HistoryRecord {
            kind: pb::HistoryKind::SwitchoverAborted.into(),
            text: reason.clone(),
            ..plain
        },
        RecordKind::Paused { duration } => pb::HistoryRecord {
            kind: pb::HistoryKind::Paused.into(),
            duration: Some(span(*duration)),
            ..plain
        },
        RecordKind::Resumed => pb::HistoryRecord { kind: pb::HistoryKind::Resumed.into(), ..plain },
        RecordKind::NodeAdded { name } => of_node(plain, pb::HistoryKind::NodeAdded, name.clone()),
        RecordKind::NodeRemoved { name } => {
            of_node(plain, pb::HistoryKind::NodeRemoved, name.clone())
        }
        RecordKind::MemberAdded { node } => {
            of_node(plain, pb::HistoryKind::MemberAdded, view.name(*node))
        }
        RecordKind::MemberRemoved { node } => {
            of_node(plain, pb::HistoryKind::MemberRemoved, view.name(*node))
        }
        RecordKind::Acknowledged => {
            pb::HistoryRecord { kind: pb::HistoryKind::Acknowledged.into(), ..plain }
        }
    }
}

fn of_node(plain: pb::HistoryRecord, kind: pb::HistoryKind, node: String) -> pb::HistoryRecord {
    pb::HistoryRecord { kind: kind.into(), node, ..plain }
}
