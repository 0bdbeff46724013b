//! `Model`.

use std::collections::{BTreeMap, VecDeque};

use redkeep_consensus::Span;
use redkeep_proto::log::v1::{self as pb, record::Kind as PbKind};

use super::{
    CodecError, FORMAT, cause_from_proto, cause_to_proto, check_format, eligible_from_proto,
    eligible_to_proto, group_id, group_name, need, node_id, optional_group, optional_node, spec,
};
use crate::{
    ids::{Epoch, GroupId, RunId},
    model::{Assignment, GroupModel, Model, Pause, Record, RecordKind},
};

pub(super) fn to_proto(model: &Model) -> pb::Snapshot {
    let Model { spec: cluster, groups, pause, history, left } = model;
    pb::Snapshot {
        format: FORMAT,
        spec: cluster.as_ref().map(spec::to_proto),
        groups: groups.iter().map(group_to_proto).collect(),
        pause: pause.map(pause_to_proto),
        history: history.iter().map(record_to_proto).collect(),
        left: left.iter().map(spec::node_to_proto).collect(),
    }
}

fn group_to_proto((id, group): (&GroupId, &GroupModel)) -> pb::GroupState {
    let GroupModel { assignment, eligible, joining, switchover, pause, has_data } = group;
    pb::GroupState {
        name: id.as_str().to_owned(),
        assignment: assignment.as_ref().map(assignment_to_proto),
        eligible: eligible_to_proto(eligible),
        joining: eligible_to_proto(joining),
        has_data: *has_data,
        switchover: switchover.map(|n| n.0),
        pause: pause.map(pause_to_proto),
    }
}

fn assignment_to_proto(assignment: &Assignment) -> pb::Assignment {
    let Assignment { epoch, master, run_id, cause, index, serving, previous_master, since } =
        assignment;
    pb::Assignment {
        epoch: epoch.0,
        master: master.0,
        run_id: run_id.as_str().to_owned(),
        cause: cause_to_proto(*cause),
        index: *index,
        serving: *serving,
        previous_master: previous_master.map(|n| n.0),
        since: since.0,
    }
}

fn pause_to_proto(Pause { index, duration }: Pause) -> pb::PauseState {
    pb::PauseState { index, duration_ns: duration.0 }
}

fn record_to_proto(record: &Record) -> pb::Record {
    let Record { index, term, at_unix_ms, group, epoch, kind } = record;
    pb::Record {
        index: *index,
        term: *term,
        at_unix_ms: *at_unix_ms,
        group: group_name(group.as_ref()),
        epoch: epoch.0,
        kind: Some(kind_to_proto(kind)),
    }
}

fn kind_to_proto(kind: &RecordKind) -> PbKind {
    match kind {
        RecordKind::Bootstrapped => PbKind::Bootstrapped(pb::Bootstrapped {}),
        RecordKind::Assigned { master, from, cause, evidence, estimated_loss_bytes } => {
            PbKind::Assigned(pb::Assigned {
                master: master.0,
                from: from.map(|n| n.0),
                cause: cause_to_proto(*cause),
                evidence: evidence.clone(),
                estimated_loss_bytes: estimated_loss_bytes.unwrap_or(0),
                loss_unknown: estimated_loss_bytes.is_none(),
            })
        }
        RecordKind::Serving { master } => PbKind::Serving(pb::NowServing { master: master.0 }),
        RecordKind::SwitchoverStarted { to } => {
            PbKind::SwitchoverStarted(pb::SwitchoverStarted { to: to.0 })
        }
        RecordKind::SwitchoverAborted { reason } => {
            PbKind::SwitchoverAborted(pb::SwitchoverAborted { reason: reason.clone() })
        }
        RecordKind::Paused { duration } => PbKind::Paused(pb::Paused { duration_ns: duration.0 }),
        RecordKind::Resumed => PbKind::Resumed(pb::Resumed {}),
        RecordKind::NodeAdded { name } => PbKind::NodeAdded(pb::NodeAdded { name: name.clone() }),
        RecordKind::NodeRemoved { name } => {
            PbKind::NodeRemoved(pb::NodeRemoved { name: name.clone() })
        }
        RecordKind::MemberAdded { node } => PbKind::MemberAdded(pb::MemberAdded { node: node.0 }),
        RecordKind::MemberRemoved { node } => {
            PbKind::MemberRemoved(pb::MemberRemoved { node: node.0 })
        }
        RecordKind::Acknowledged => PbKind::Acknowledged(pb::Acknowledged {}),
    }
}

pub(super) fn from_proto(snapshot: pb::Snapshot) -> Result<Model, CodecError> {
    let pb::Snapshot { format, spec: cluster, groups, pause, history, left } = snapshot;
    check_format(format, "snapshot.format")?;
    Ok(Model {
        spec: cluster.map(spec::from_proto).transpose()?,
        groups: groups_from_proto(groups)?,
        pause: pause.as_ref().map(pause_from_proto),
        history: history.into_iter().map(record_from_proto).collect::<Result<VecDeque<_>, _>>()?,
        left: left.into_iter().map(spec::node_from_proto).collect::<Result<_, _>>()?,
    })
}

fn groups_from_proto(
    groups: Vec<pb::GroupState>,
) -> Result<BTreeMap<GroupId, GroupModel>, CodecError> {
    let mut all = BTreeMap::new();
    for group in groups {
        let (id, model) = group_from_proto(group)?;
        if all.contains_key(&id) {
            let name = id.as_str().to_owned();
            return Err(CodecError::Duplicate { field: "snapshot.groups.name", name });
        }
        all.insert(id, model);
    }
    Ok(all)
}

fn group_from_proto(group: pb::GroupState) -> Result<(GroupId, GroupModel), CodecError> {
    let pb::GroupState { name, assignment, eligible, joining, switchover, pause, has_data } = group;
    let model = GroupModel {
        assignment: assignment.map(assignment_from_proto).transpose()?,
        eligible: eligible_from_proto(eligible, "snapshot.groups.eligible.node")?,
        joining: eligible_from_proto(joining, "snapshot.groups.joining.node")?,
        has_data,
        switchover: optional_node(switchover, "snapshot.groups.switchover")?,
        pause: pause.as_ref().map(pause_from_proto),
    };
    Ok((group_id(&name, "snapshot.groups.name")?, model))
}

fn assignment_from_proto(assignment: pb::Assignment) -> Result<Assignment, CodecError> {
    let pb::Assignment { epoch, master, run_id, cause, index, serving, previous_master, since } =
        assignment;
    Ok(Assignment {
        epoch: Epoch(epoch),
        master: node_id(master, "assignment.master")?,
        run_id: RunId::new(&run_id),
        cause: cause_from_proto(cause, "assignment.cause")?,
        index,
        serving,
        previous_master: optional_node(previous_master, "assignment.previous_master")?,
        // Snapshots of before there was this field say 0.
        since: if since == 0 { Epoch(epoch) } else { Epoch(since) },
    })
}

fn pause_from_proto(pause: &pb::PauseState) -> Pause {
    let pb::PauseState { index, duration_ns } = *pause;
    Pause { index, duration: Span(duration_ns) }
}

fn record_from_proto(record: pb::Record) -> Result<Record, CodecError> {
    let pb::Record { index, term, at_unix_ms, group, epoch, kind } = record;
    Ok(Record {
        index,
        term,
        at_unix_ms,
        group: optional_group(group.as_deref(), "record.group")?,
        epoch: Epoch(epoch),
        kind: kind_from_proto(need(kind, "record.kind")?)?,
    })
}

fn kind_from_proto(kind: PbKind) -> Result<RecordKind, CodecError> {
    Ok(match kind {
        PbKind::Bootstrapped(pb::Bootstrapped {}) => RecordKind::Bootstrapped,
        PbKind::Assigned(pb::Assigned {
            master,
            from,
            cause,
            evidence,
            estimated_loss_bytes,
            loss_unknown,
        }) => RecordKind::Assigned {
            master: node_id(master, "assigned.master")?,
            from: optional_node(from, "assigned.from")?,
            cause: cause_from_proto(cause, "assigned.cause")?,
            evidence,
            estimated_loss_bytes: (!loss_unknown).then_some(estimated_loss_bytes),
        },
        PbKind::Serving(pb::NowServing { master }) => {
            RecordKind::Serving { master: node_id(master, "now_serving.master")? }
        }
        PbKind::SwitchoverStarted(pb::SwitchoverStarted { to }) => {
            RecordKind::SwitchoverStarted { to: node_id(to, "switchover_started.to")? }
        }
        PbKind::SwitchoverAborted(pb::SwitchoverAborted { reason }) => {
            RecordKind::SwitchoverAborted { reason }
        }
        PbKind::Paused(pb::Paused { duration_ns }) => {
            RecordKind::Paused { duration: Span(duration_ns) }
        }
        PbKind::Resumed(pb::Resumed {}) => RecordKind::Resumed,
        PbKind::NodeAdded(pb::NodeAdded { name }) => RecordKind::NodeAdded { name },
        PbKind::NodeRemoved(pb::NodeRemoved { name }) => RecordKind::NodeRemoved { name },
        PbKind::MemberAdded(pb::MemberAdded { node }) => {
            RecordKind::MemberAdded { node: node_id(node, "member_added.node")? }
        }
        PbKind::MemberRemoved(pb::MemberRemoved { node }) => {
            RecordKind::MemberRemoved { node: node_id(node, "member_removed.node")? }
        }
        PbKind::Acknowledged(pb::Acknowledged {}) => RecordKind::Acknowledged,
    })
}
