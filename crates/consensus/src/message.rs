//! Peer messages: bytes to raft-rs' type, and the checks that keep a bad one from reaching it.
//!
//! raft-rs panics on messages that contradict its log. Each such case is refused here first.

use crate::NodeId;
use crate::convert;
use crate::durable::valid_membership;
use crate::effect::SendClass;
use protobuf::Message as _;
use raft::eraftpb::{self, ConfChange, Entry, EntryType, Message, MessageType};

/// Indexes and terms above this are nonsense and would overflow sums.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a message was refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    #[error("peer message cannot be decoded")]
    Decode(#[source] protobuf::ProtobufError),
    #[error("message is for node {0}")]
    NotForThisNode(NodeId),
    #[error("message says it is from node {claimed}, but came from node {sender}")]
    Sender { claimed: NodeId, sender: NodeId },
    #[error("message of kind {0} is not taken from peers")]
    Kind(&'static str),
    #[error("answer from node {0}, which is not a member")]
    UnknownSender(NodeId),
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The leader knows entries of this node that this node does not have: its data was lost or
    /// put back from an old copy. It must stop, and return only under a new node id.
    #[error("leader says index {commit} is committed and stored here, but the log ends at {last}")]
    CommitBeyondLog { commit: u64, last: u64 },
    #[error("raft refuses the message")]
    Raft(#[source] raft::Error),
}

/// Encodes for the wire.
pub(crate) fn encode(message: &Message) -> Vec<u8> {
    // rust-protobuf fails only on messages with missing required fields; proto3 has none.
    message.write_to_bytes().expect("a proto3 message encodes into memory")
}

pub(crate) fn class(message: &Message) -> SendClass {
    match message.get_msg_type() {
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => SendClass::Heartbeat,
        MessageType::MsgAppend | MessageType::MsgAppendResponse => SendClass::Append,
        MessageType::MsgSnapshot => SendClass::Snapshot,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => SendClass::Other,
    }
}

/// Decodes and checks everything that does not need this node's log.
pub(crate) fn decode(bytes: &[u8], own: NodeId, sender: NodeId) -> Result<Message, StepError> {
    let message = Message::parse_from_bytes(bytes).map_err(StepError::Decode)?;
    if message.to != own.0 {
        return Err(StepError::NotForThisNode(NodeId(message.to)));
    }
    if message.from != sender.0 || message.from == 0 || message.from == own.0 {
        return Err(StepError::Sender { claimed: NodeId(message.from), sender });
    }
    check_kind(message.get_msg_type())?;
    check_numbers(&message)?;
    check_entries(&message)?;
    check_snapshot(&message)?;
    Ok(message)
}

fn check_kind(kind: MessageType) -> Result<(), StepError> {
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => Ok(()),
        MessageType::MsgHup => Err(StepError::Kind("MsgHup")),
        MessageType::MsgBeat => Err(StepError::Kind("MsgBeat")),
        MessageType::MsgPropose => Err(StepError::Kind("MsgPropose")),
        MessageType::MsgUnreachable => Err(StepError::Kind("MsgUnreachable")),
        MessageType::MsgSnapStatus => Err(StepError::Kind("MsgSnapStatus")),
        MessageType::MsgCheckQuorum => Err(StepError::Kind("MsgCheckQuorum")),
        MessageType::MsgTransferLeader => Err(StepError::Kind("MsgTransferLeader")),
        MessageType::MsgReadIndex => Err(StepError::Kind("MsgReadIndex")),
        MessageType::MsgReadIndexResp => Err(StepError::Kind("MsgReadIndexResp")),
    }
}

fn check_numbers(message: &Message) -> Result<(), StepError> {
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    if numbers.into_iter().any(|number| number > NUMBER_MAX) {
        return Err(StepError::Malformed("number out of range"));
    }
    // raft-rs takes term zero for a local message and skips its checks.
    if message.term == 0 {
        return Err(StepError::Malformed("term is zero"));
    }
    if message.request_snapshot != 0 || message.priority != 0 || message.deprecated_priority != 0 {
        return Err(StepError::Malformed("field that no node sets"));
    }
    Ok(())
}

fn check_entries(message: &Message) -> Result<(), StepError> {
    if !message.entries.is_empty() && message.get_msg_type() != MessageType::MsgAppend {
        return Err(StepError::Malformed("entries in a message that carries none"));
    }
    // raft-rs gives term zero to every index outside its log, so that such a message matches a log
    // anywhere. An honest leader's log begins after the first snapshot and has no index zero.
    if message.get_msg_type() == MessageType::MsgAppend
        && (message.index == 0 || message.log_term == 0)
    {
        return Err(StepError::Malformed("entries follow on nothing"));
    }
    let mut index = message.index;
    let mut term = message.log_term;
    for entry in message.entries.iter() {
        if entry.index != index + 1 {
            return Err(StepError::Malformed("entries are not contiguous"));
        }
        if entry.term < term || entry.term > message.term || entry.term == 0 {
            return Err(StepError::Malformed("terms of entries are out of order"));
        }
        check_entry_kind(entry)?;
        index = entry.index;
        term = entry.term;
    }
    Ok(())
}

fn check_entry_kind(entry: &Entry) -> Result<(), StepError> {
    match entry.get_entry_type() {
        EntryType::EntryNormal => Ok(()),
        EntryType::EntryConfChange => match ConfChange::parse_from_bytes(&entry.data) {
            Ok(_) => Ok(()),
            Err(error) => Err(StepError::Decode(error)),
        },
        EntryType::EntryConfChangeV2 => Err(StepError::Malformed("joint membership change")),
    }
}

fn check_snapshot(message: &Message) -> Result<(), StepError> {
    if message.get_msg_type() != MessageType::MsgSnapshot {
        return Ok(());
    }
    let meta = message.get_snapshot().get_metadata();
    if meta.index == 0 || meta.index > NUMBER_MAX || meta.term == 0 || meta.term > message.term {
        return Err(StepError::Malformed("snapshot at an impossible index or term"));
    }
    let conf: &eraftpb::ConfState = meta.get_conf_state();
    if !conf.get_voters_outgoing().is_empty()
        || !conf.get_learners_next().is_empty()
        || conf.auto_leave
    {
        return Err(StepError::Malformed("snapshot within a joint membership change"));
    }
    let (voters, learners) = (convert::ids(conf.get_voters()), convert::ids(conf.get_learners()));
    if !valid_membership(&voters, &learners) {
        return Err(StepError::Malformed("snapshot without a valid membership"));
    }
    Ok(())
}
