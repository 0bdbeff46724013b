//! Log entries and snapshots as bytes: [`Command`] and [`Model`] to and from `redkeep.log.v1`.
//!
//! Owned by the core; the only place where it sees generated types. Every field is checked on its way in: a missing
//! message, an unknown enum value, an address that does not parse, a number out of its type's range are errors that
//! name the field. Nothing unknown is skipped, so a node that is too old for an entry stops with a clear message
//! instead of drifting from the others. Encoding cannot fail. Deliberately absent: compression and checksums, which
//! are the log's (`redkeep-wal`).

mod command;
mod model;
mod spec;

#[cfg(test)]
mod tests;

use prost::Message as _;
use redkeep_consensus::NodeId;
use redkeep_proto::log::v1 as pb;

use crate::{
    command::{Cause, Command},
    ids::{GroupId, RunId},
    model::Model,
    observe::EligibleMember,
};

/// Newest format of entries and snapshots that this version reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// Why bytes are not a command or a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("the bytes are not protobuf of the expected message")]
    Malformed(#[from] prost::DecodeError),
    #[error(
        "{field} is {found}; this version reads 1 to {newest}, so this node must be upgraded first"
    )]
    Format { field: &'static str, found: u32, newest: u32 },
    #[error("{field} is missing, or of a kind that this version does not know")]
    Missing { field: &'static str },
    #[error("{field} has the value {value}, which this version does not know")]
    UnknownValue { field: &'static str, value: i32 },
    #[error("{field} is {value}, which is out of range")]
    OutOfRange { field: &'static str, value: u64 },
    #[error("{field} is {text:?}, which is no address")]
    Address { field: &'static str, text: String },
    #[error("{field} names {name:?} twice")]
    Duplicate { field: &'static str, name: String },
}

/// The payload of a log entry.
#[must_use]
pub fn encode_command(command: &Command) -> Vec<u8> {
    command::to_proto(command).encode_to_vec()
}

/// The command of a log entry's payload.
///
/// # Errors
/// What is wrong, and where.
pub fn decode_command(bytes: &[u8]) -> Result<Command, CodecError> {
    command::from_proto(pb::Command::decode(bytes)?)
}

/// The replicated state for a snapshot.
#[must_use]
pub fn encode_model(model: &Model) -> Vec<u8> {
    model::to_proto(model).encode_to_vec()
}

/// The replicated state of a snapshot.
///
/// # Errors
/// What is wrong, and where.
pub fn decode_model(bytes: &[u8]) -> Result<Model, CodecError> {
    model::from_proto(pb::Snapshot::decode(bytes)?)
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T, CodecError> {
    value.ok_or(CodecError::Missing { field })
}

fn check_format(found: u32, field: &'static str) -> Result<(), CodecError> {
    if (1..=FORMAT).contains(&found) {
        Ok(())
    } else {
        Err(CodecError::Format { field, found, newest: FORMAT })
    }
}

fn node_id(value: u64, field: &'static str) -> Result<NodeId, CodecError> {
    if value == 0 { Err(CodecError::OutOfRange { field, value }) } else { Ok(NodeId(value)) }
}

fn optional_node(value: Option<u64>, field: &'static str) -> Result<Option<NodeId>, CodecError> {
    value.map(|v| node_id(v, field)).transpose()
}

fn group_id(name: &str, field: &'static str) -> Result<GroupId, CodecError> {
    if name.is_empty() { Err(CodecError::Missing { field }) } else { Ok(GroupId::new(name)) }
}

fn optional_group(name: Option<&str>, field: &'static str) -> Result<Option<GroupId>, CodecError> {
    name.map(|n| group_id(n, field)).transpose()
}

fn group_name(group: Option<&GroupId>) -> Option<String> {
    group.map(|g| g.as_str().to_owned())
}

fn eligible_to_proto(members: &[EligibleMember]) -> Vec<pb::EligibleMember> {
    members
        .iter()
        .map(|EligibleMember { node, run_id }| pb::EligibleMember {
            node: node.0,
            run_id: run_id.as_str().to_owned(),
        })
        .collect()
}

fn eligible_from_proto(
    members: Vec<pb::EligibleMember>,
    field: &'static str,
) -> Result<Vec<EligibleMember>, CodecError> {
    members
        .into_iter()
        .map(|pb::EligibleMember { node, run_id }| {
            Ok(EligibleMember { node: node_id(node, field)?, run_id: RunId::new(&run_id) })
        })
        .collect()
}

fn cause_to_proto(cause: Cause) -> i32 {
    let cause = match cause {
        Cause::Adopted => pb::Cause::Adopted,
        Cause::MasterDown => pb::Cause::MasterDown,
        Cause::NodeSilent => pb::Cause::NodeSilent,
        Cause::MasterUnreached => pb::Cause::MasterUnreached,
        Cause::Switchover => pb::Cause::Switchover,
        Cause::SwitchoverBack => pb::Cause::SwitchoverBack,
        Cause::Operator => pb::Cause::Operator,
        Cause::ColdStart => pb::Cause::ColdStart,
    };
    cause.into()
}

fn cause_from_proto(value: i32, field: &'static str) -> Result<Cause, CodecError> {
    match pb::Cause::try_from(value) {
        Ok(pb::Cause::Adopted) => Ok(Cause::Adopted),
        Ok(pb::Cause::MasterDown) => Ok(Cause::MasterDown),
        Ok(pb::Cause::NodeSilent) => Ok(Cause::NodeSilent),
        Ok(pb::Cause::MasterUnreached) => Ok(Cause::MasterUnreached),
        Ok(pb::Cause::Switchover) => Ok(Cause::Switchover),
        Ok(pb::Cause::SwitchoverBack) => Ok(Cause::SwitchoverBack),
        Ok(pb::Cause::Operator) => Ok(Cause::Operator),
        Ok(pb::Cause::ColdStart) => Ok(Cause::ColdStart),
        Ok(pb::Cause::Unspecified) | Err(_) => Err(CodecError::UnknownValue { field, value }),
    }
}
