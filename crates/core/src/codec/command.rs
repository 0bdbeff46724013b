//! `Command`.

use redkeep_consensus::Span;
use redkeep_proto::log::v1::{self as pb, command::Body as PbBody};

use super::{
    CodecError, FORMAT, cause_from_proto, cause_to_proto, check_format, eligible_from_proto,
    eligible_to_proto, group_id, group_name, need, node_id, optional_group, spec,
};
use crate::{
    command::{Assign, Body, Command},
    ids::{Epoch, RunId},
};

pub(super) fn to_proto(command: &Command) -> pb::Command {
    let Command { at_unix_ms, body } = command;
    pb::Command { format: FORMAT, at_unix_ms: *at_unix_ms, body: Some(body_to_proto(body)) }
}

fn body_to_proto(body: &Body) -> PbBody {
    match body {
        Body::Bootstrap(cluster) => {
            PbBody::Bootstrap(pb::Bootstrap { spec: Some(spec::to_proto(cluster)) })
        }
        Body::Assign(assign) => PbBody::Assign(assign_to_proto(assign)),
        Body::Serving { group, epoch } => {
            PbBody::Serving(pb::Serving { group: group.as_str().to_owned(), epoch: epoch.0 })
        }
        Body::Eligible { group, epoch, members, joining, has_data } => {
            PbBody::Eligible(pb::Eligible {
                group: group.as_str().to_owned(),
                epoch: epoch.0,
                members: eligible_to_proto(members),
                joining: eligible_to_proto(joining),
                has_data: *has_data,
            })
        }
        Body::Switchover { group, epoch, to } => PbBody::Switchover(pb::Switchover {
            group: group.as_str().to_owned(),
            epoch: epoch.0,
            to: to.0,
        }),
        Body::SwitchoverAbort { group, epoch, reason } => {
            PbBody::SwitchoverAbort(pb::SwitchoverAbort {
                group: group.as_str().to_owned(),
                epoch: epoch.0,
                reason: reason.clone(),
            })
        }
        Body::Pause { group, duration } => {
            PbBody::Pause(pb::Pause { group: group_name(group.as_ref()), duration_ns: duration.0 })
        }
        Body::Resume { group } => PbBody::Resume(pb::Resume { group: group_name(group.as_ref()) }),
        Body::AddNode(node) => {
            PbBody::AddNode(pb::AddNode { node: Some(spec::node_to_proto(node)) })
        }
        Body::RemoveNode { node } => PbBody::RemoveNode(pb::RemoveNode { node: node.0 }),
        Body::AddMember { group, member } => PbBody::AddMember(pb::AddMember {
            group: group.as_str().to_owned(),
            member: Some(spec::member_to_proto(member)),
        }),
        Body::RemoveMember { group, node } => PbBody::RemoveMember(pb::RemoveMember {
            group: group.as_str().to_owned(),
            node: node.0,
        }),
        Body::Acknowledge { group } => {
            PbBody::Acknowledge(pb::Acknowledge { group: group_name(group.as_ref()) })
        }
    }
}

fn assign_to_proto(assign: &Assign) -> pb::Assign {
    let Assign {
        group,
        epoch,
        master,
        run_id,
        cause,
        evidence,
        estimated_loss_bytes,
        old_master_eligible,
        goes_on,
    } = assign;
    pb::Assign {
        group: group.as_str().to_owned(),
        epoch: epoch.0,
        master: master.0,
        run_id: run_id.as_str().to_owned(),
        cause: cause_to_proto(*cause),
        evidence: evidence.clone(),
        estimated_loss_bytes: estimated_loss_bytes.unwrap_or(0),
        loss_unknown: estimated_loss_bytes.is_none(),
        old_master_eligible: *old_master_eligible,
        goes_on: *goes_on,
    }
}

pub(super) fn from_proto(command: pb::Command) -> Result<Command, CodecError> {
    let pb::Command { format, at_unix_ms, body } = command;
    check_format(format, "command.format")?;
    Ok(Command { at_unix_ms, body: body_from_proto(need(body, "command.body")?)? })
}

fn body_from_proto(body: PbBody) -> Result<Body, CodecError> {
    Ok(match body {
        PbBody::Bootstrap(pb::Bootstrap { spec }) => {
            Body::Bootstrap(spec::from_proto(need(spec, "bootstrap.spec")?)?)
        }
        PbBody::Assign(assign) => Body::Assign(assign_from_proto(assign)?),
        PbBody::Serving(pb::Serving { group, epoch }) => {
            Body::Serving { group: group_id(&group, "serving.group")?, epoch: Epoch(epoch) }
        }
        PbBody::Eligible(pb::Eligible { group, epoch, members, joining, has_data }) => {
            Body::Eligible {
                group: group_id(&group, "eligible.group")?,
                epoch: Epoch(epoch),
                members: eligible_from_proto(members, "eligible.members.node")?,
                joining: eligible_from_proto(joining, "eligible.joining.node")?,
                has_data,
            }
        }
        PbBody::Switchover(pb::Switchover { group, epoch, to }) => Body::Switchover {
            group: group_id(&group, "switchover.group")?,
            epoch: Epoch(epoch),
            to: node_id(to, "switchover.to")?,
        },
        PbBody::SwitchoverAbort(pb::SwitchoverAbort { group, epoch, reason }) => {
            Body::SwitchoverAbort {
                group: group_id(&group, "switchover_abort.group")?,
                epoch: Epoch(epoch),
                reason,
            }
        }
        PbBody::Pause(pb::Pause { group, duration_ns }) => Body::Pause {
            group: optional_group(group.as_deref(), "pause.group")?,
            duration: Span(duration_ns),
        },
        PbBody::Resume(pb::Resume { group }) => {
            Body::Resume { group: optional_group(group.as_deref(), "resume.group")? }
        }
        PbBody::AddNode(pb::AddNode { node }) => {
            Body::AddNode(spec::node_from_proto(need(node, "add_node.node")?)?)
        }
        PbBody::RemoveNode(pb::RemoveNode { node }) => {
            Body::RemoveNode { node: node_id(node, "remove_node.node")? }
        }
        PbBody::AddMember(pb::AddMember { group, member }) => Body::AddMember {
            group: group_id(&group, "add_member.group")?,
            member: spec::member_from_proto(&need(member, "add_member.member")?)?,
        },
        PbBody::RemoveMember(pb::RemoveMember { group, node }) => Body::RemoveMember {
            group: group_id(&group, "remove_member.group")?,
            node: node_id(node, "remove_member.node")?,
        },
        PbBody::Acknowledge(pb::Acknowledge { group }) => {
            Body::Acknowledge { group: optional_group(group.as_deref(), "acknowledge.group")? }
        }
    })
}

fn assign_from_proto(assign: pb::Assign) -> Result<Assign, CodecError> {
    let pb::Assign {
        group,
        epoch,
        master,
        run_id,
        cause,
        evidence,
        estimated_loss_bytes,
        loss_unknown,
        old_master_eligible,
        goes_on,
    } = assign;
    Ok(Assign {
        group: group_id(&group, "assign.group")?,
        epoch: Epoch(epoch),
        master: node_id(master, "assign.master")?,
        run_id: RunId::new(&run_id),
        cause: cause_from_proto(cause, "assign.cause")?,
        evidence,
        estimated_loss_bytes: (!loss_unknown).then_some(estimated_loss_bytes),
        old_master_eligible,
        goes_on,
    })
}
