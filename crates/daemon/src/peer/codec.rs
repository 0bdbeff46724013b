//! Messages between supervisors to and from `redkeep.peer.v1`.
//!
//! Used by the transport only. Every field is checked on its way in: what is missing, unknown or out of range is an
//! error that names the field, and the whole message is dropped. Deliberately absent: envelopes, which are the
//! transport's, and any meaning.

mod report;

#[cfg(test)]
mod tests;

use redkeep_core::{
    ArmId, Epoch, GroupId, Mono, NodeId, RunId, Span,
    message::{Grant, PeerMessage, RaftClass, Reach, ReachStep, Renew, RenewGroup},
    observe::EligibleMember,
};
use redkeep_proto::peer::v1::{self as pb, message::Body};

/// Why a message was not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("{field} is missing, or of a kind that this version does not know")]
    Missing { field: &'static str },
    #[error("{field} has the value {value}, which this version does not know")]
    UnknownValue { field: &'static str, value: i32 },
    #[error("{field} is {value}, which is out of range")]
    OutOfRange { field: &'static str, value: u64 },
    #[error("{field} is {text:?}, which is no address")]
    Address { field: &'static str, text: String },
}

/// As it goes into an envelope.
pub(crate) fn encode(message: &PeerMessage) -> pb::Message {
    let body = match message {
        PeerMessage::Raft { bytes, class } => Body::Raft(pb::RaftMessage {
            bytes: bytes.clone(),
            class: class_to_proto(*class).into(),
        }),
        PeerMessage::Renew { renew, term } => Body::Renew(renew_to_proto(renew, *term)),
        PeerMessage::Grant(grant) => Body::Grant(grant_to_proto(grant)),
        PeerMessage::Report(report) => Body::Report(report::to_proto(report)),
        PeerMessage::Reach(reach) => Body::Reach(reach_to_proto(*reach)),
        PeerMessage::FenceRequest { group, epoch, unreached } => {
            let (group, unreached) = (name(group), *unreached);
            Body::FenceRequest(pb::FenceRequest { group, epoch: epoch.0, unreached })
        }
        PeerMessage::RelinkRequest { group, epoch } => {
            Body::RelinkRequest(pb::RelinkRequest { group: name(group), epoch: epoch.0 })
        }
    };
    pb::Message { body: Some(body) }
}

/// As it came in an envelope.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn decode(message: pb::Message) -> Result<PeerMessage, DecodeError> {
    let pb::Message { body } = message;
    Ok(match need(body, "message.body")? {
        Body::Raft(pb::RaftMessage { bytes, class }) => {
            PeerMessage::Raft { bytes, class: class_from_proto(class)? }
        }
        Body::Renew(renew) => {
            PeerMessage::Renew { term: renew.term, renew: renew_from_proto(renew)? }
        }
        Body::Grant(grant) => PeerMessage::Grant(grant_from_proto(grant)?),
        Body::Report(report) => PeerMessage::Report(report::from_proto(report)?),
        Body::Reach(reach) => PeerMessage::Reach(reach_from_proto(reach)?),
        Body::FenceRequest(pb::FenceRequest { group, epoch, unreached }) => {
            let group = group_id(&group, "fence_request.group")?;
            PeerMessage::FenceRequest { group, epoch: Epoch(epoch), unreached }
        }
        Body::RelinkRequest(pb::RelinkRequest { group, epoch }) => PeerMessage::RelinkRequest {
            group: group_id(&group, "relink_request.group")?,
            epoch: Epoch(epoch),
        },
    })
}

fn class_to_proto(class: RaftClass) -> pb::RaftClass {
    match class {
        RaftClass::Heartbeat => pb::RaftClass::Heartbeat,
        RaftClass::Other => pb::RaftClass::Other,
    }
}

fn class_from_proto(value: i32) -> Result<RaftClass, DecodeError> {
    match pb::RaftClass::try_from(value) {
        Ok(pb::RaftClass::Heartbeat) => Ok(RaftClass::Heartbeat),
        Ok(pb::RaftClass::Other) => Ok(RaftClass::Other),
        Ok(pb::RaftClass::Unspecified) | Err(_) => {
            Err(DecodeError::UnknownValue { field: "raft.class", value })
        }
    }
}

fn reach_to_proto(reach: Reach) -> pb::Reach {
    let Reach { step, target, asker, asked_at } = reach;
    let step = match step {
        ReachStep::Ask => pb::ReachStep::Ask,
        ReachStep::Ping => pb::ReachStep::Ping,
        ReachStep::Pong => pb::ReachStep::Pong,
        ReachStep::Heard => pb::ReachStep::Heard,
    };
    pb::Reach { step: step.into(), target: target.0, asker: asker.0, asked_ns: asked_at.0 }
}

fn reach_from_proto(reach: pb::Reach) -> Result<Reach, DecodeError> {
    let pb::Reach { step, target, asker, asked_ns } = reach;
    let step = match pb::ReachStep::try_from(step) {
        Ok(pb::ReachStep::Ask) => ReachStep::Ask,
        Ok(pb::ReachStep::Ping) => ReachStep::Ping,
        Ok(pb::ReachStep::Pong) => ReachStep::Pong,
        Ok(pb::ReachStep::Heard) => ReachStep::Heard,
        Ok(pb::ReachStep::Unspecified) | Err(_) => {
            return Err(DecodeError::UnknownValue { field: "reach.step", value: step });
        }
    };
    Ok(Reach { step, target: NodeId(target), asker: NodeId(asker), asked_at: Mono(asked_ns) })
}

fn renew_to_proto(renew: &Renew, term: u64) -> pb::Renew {
    let Renew { arm, last_grant, ttl, groups } = renew;
    pb::Renew {
        arm: Some(arm_to_proto(*arm)),
        last_grant: last_grant.map(arm_to_proto),
        ttl_ns: ttl.0,
        term,
        groups: groups
            .iter()
            .map(|RenewGroup { group, epoch, lagging }| pb::RenewGroup {
                group: name(group),
                epoch: epoch.0,
                lagging: lagging.iter().map(eligible_to_proto).collect(),
            })
            .collect(),
    }
}

fn renew_from_proto(renew: pb::Renew) -> Result<Renew, DecodeError> {
    let pb::Renew { arm, last_grant, ttl_ns, groups, term: _ } = renew;
    Ok(Renew {
        arm: arm_from_proto(&need(arm, "renew.arm")?),
        last_grant: last_grant.as_ref().map(arm_from_proto),
        ttl: Span(ttl_ns),
        groups: groups.into_iter().map(renew_group_from_proto).collect::<Result<_, _>>()?,
    })
}

fn renew_group_from_proto(group: pb::RenewGroup) -> Result<RenewGroup, DecodeError> {
    let pb::RenewGroup { group, epoch, lagging } = group;
    Ok(RenewGroup {
        group: group_id(&group, "renew.groups.group")?,
        epoch: Epoch(epoch),
        lagging: lagging.iter().map(eligible_from_proto).collect::<Result<_, _>>()?,
    })
}

fn grant_to_proto(grant: &Grant) -> pb::Grant {
    let Grant { arm, term, groups, from } = grant;
    pb::Grant {
        arm: Some(arm_to_proto(*arm)),
        term: *term,
        groups: groups
            .iter()
            .map(|(group, epoch)| pb::GrantGroup { group: name(group), epoch: epoch.0 })
            .collect(),
        from: from.0,
    }
}

fn grant_from_proto(grant: pb::Grant) -> Result<Grant, DecodeError> {
    let pb::Grant { arm, term, groups, from } = grant;
    Ok(Grant {
        arm: arm_from_proto(&need(arm, "grant.arm")?),
        term,
        groups: groups
            .iter()
            .map(|pb::GrantGroup { group, epoch }| {
                Ok((group_id(group, "grant.groups.group")?, Epoch(*epoch)))
            })
            .collect::<Result<_, _>>()?,
        from: node_id(from, "grant.from")?,
    })
}

fn arm_to_proto(ArmId { incarnation, counter }: ArmId) -> pb::ArmId {
    pb::ArmId { incarnation, counter }
}

fn arm_from_proto(arm: &pb::ArmId) -> ArmId {
    let pb::ArmId { incarnation, counter } = *arm;
    ArmId { incarnation, counter }
}

fn eligible_to_proto(EligibleMember { node, run_id }: &EligibleMember) -> pb::EligibleMember {
    pb::EligibleMember { node: node.0, run_id: run_id.as_str().to_owned() }
}

fn eligible_from_proto(member: &pb::EligibleMember) -> Result<EligibleMember, DecodeError> {
    let pb::EligibleMember { node, run_id } = member;
    Ok(EligibleMember {
        node: node_id(*node, "renew.groups.lagging.node")?,
        run_id: RunId::new(run_id),
    })
}

fn name(group: &GroupId) -> String {
    group.as_str().to_owned()
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

fn node_id(value: u64, field: &'static str) -> Result<NodeId, DecodeError> {
    if value == 0 { Err(DecodeError::OutOfRange { field, value }) } else { Ok(NodeId(value)) }
}

fn group_id(name: &str, field: &'static str) -> Result<GroupId, DecodeError> {
    if name.is_empty() { Err(DecodeError::Missing { field }) } else { Ok(GroupId::new(name)) }
}

fn port(value: u32, field: &'static str) -> Result<u16, DecodeError> {
    u16::try_from(value).map_err(|_| DecodeError::OutOfRange { field, value: u64::from(value) })
}
