//! What became of a request, as gRPC says it. The one place that knows codes.
//!
//! FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND: refused, nothing was done. UNAVAILABLE: nobody could decide,
//! nothing was done. ABORTED: the outcome is not known.

use redkeep_core::{
    AdminReply, GroupId, NodeId, Refusal,
    model::Rejection,
    plan::{Exclusion, HoldReason},
};
use redkeep_proto::{
    admin::v1::{self as pb, RefusalReason},
    details::encode_refusal,
};
use tonic::{Code, Status};

use super::{problems::mends, time::span};

/// What became of a request at the node that could decide.
pub(super) enum Decided {
    Done(pb::Outcome),
    /// The node does not lead; the leader it knows.
    Elsewhere(Option<NodeId>),
}

pub(super) fn decided(
    reply: AdminReply,
    group: Option<&GroupId>,
    me: &str,
) -> Result<Decided, Status> {
    match reply {
        AdminReply::Done { index, epoch, text } => Ok(Decided::Done(pb::Outcome {
            answered_by: me.to_owned(),
            index,
            epoch: epoch.0,
            text,
        })),
        AdminReply::Refused(refusal) => Err(refused(&refusal, group)),
        AdminReply::NotLeader { leader } => Ok(Decided::Elsewhere(leader)),
        AdminReply::Unknown { text } => Err(unknown(&text)),
    }
}

/// The outcome is not known: it may still come to pass.
pub(super) fn unknown(text: &str) -> Status {
    Status::aborted(format!("the outcome is not known: {text}"))
}

/// Nobody could decide; nothing was done.
pub(super) fn no_leader(text: &str) -> Status {
    let help = "redkeepctl status";
    with_refusal(Code::Unavailable, RefusalReason::NotLeader, text, help)
}

pub(super) fn not_ready() -> Status {
    let text = "this node does not know the cluster's spec yet; a majority of supervisors must run";
    with_refusal(Code::Unavailable, RefusalReason::NotReady, text, "redkeepctl status")
}

pub(super) fn no_such_node(name: &str, known: &[&str]) -> Status {
    let text = format!("no node is named {name}; there are {}", known.join(", "));
    with_refusal(Code::NotFound, RefusalReason::NoSuchNode, &text, "redkeepctl status")
}

pub(super) fn no_such_group(name: &str, known: &[&str]) -> Status {
    let text = format!("no group is named {name}; there are {}", known.join(", "));
    with_refusal(Code::NotFound, RefusalReason::NoSuchGroup, &text, "redkeepctl status")
}

/// `key` is no address that a supervisor could answer at.
pub(super) fn no_address(key: &str, text: &str) -> Status {
    let text = format!(
        "{key} is {text:?}, must be ADDRESS:PORT, as in 10.99.0.4:7600 or [fd99::4]:7600; names are not looked up"
    );
    with_refusal(Code::InvalidArgument, RefusalReason::Address, &text, "")
}

/// Not a name that a node can have.
pub(super) fn no_name(text: &str) -> Status {
    let text = format!("{text:?} is no name: at most 63 letters, digits, '-', '_' or '.'");
    with_refusal(Code::InvalidArgument, RefusalReason::Node, &text, "")
}

/// A reader of events that fell too far behind.
pub(super) fn lagged(missed: u64) -> Status {
    Status::data_loss(format!("{missed} events were missed: the reader is too slow"))
}

fn with_refusal(code: Code, reason: RefusalReason, text: &str, help: &str) -> Status {
    let refusal = pb::Refusal {
        reason: reason.into(),
        text: text.to_owned(),
        help: help.to_owned(),
        hold: None,
        excluded: None,
    };
    status(code, &refusal)
}

fn status(code: Code, refusal: &pb::Refusal) -> Status {
    let details = encode_refusal(code.into(), &refusal.text, refusal);
    Status::with_details(code, refusal.text.clone(), details.into())
}

fn refused(refusal: &Refusal, group: Option<&GroupId>) -> Status {
    let explain =
        group.map_or_else(|| "redkeepctl status".to_owned(), |g| format!("redkeepctl explain {g}"));
    let (code, reason, help) = match refusal {
        Refusal::NoSuchGroup(_) => {
            (Code::NotFound, RefusalReason::NoSuchGroup, "redkeepctl status".to_owned())
        }
        Refusal::NotAMember(_) | Refusal::NoVote(_) => {
            (Code::FailedPrecondition, RefusalReason::NotAMember, explain)
        }
        Refusal::LossUnnamed => (Code::InvalidArgument, RefusalReason::LossUnnamed, explain),
        Refusal::AlreadyMaster(_) => {
            (Code::FailedPrecondition, RefusalReason::AlreadyMaster, explain)
        }
        Refusal::Excluded { node: _, why: Exclusion::Bypass { open } } => {
            (Code::FailedPrecondition, RefusalReason::Excluded, mends(open))
        }
        Refusal::Held(HoldReason::Bypass { node: _, open }) => {
            (Code::FailedPrecondition, RefusalReason::Held, mends(open))
        }
        Refusal::Excluded { .. } => (Code::FailedPrecondition, RefusalReason::Excluded, explain),
        Refusal::NoCandidate => (Code::FailedPrecondition, RefusalReason::NoCandidate, explain),
        Refusal::Held(_) => (Code::FailedPrecondition, RefusalReason::Held, explain),
        Refusal::Busy(_) => (Code::FailedPrecondition, RefusalReason::Busy, explain),
        Refusal::Node { .. } | Refusal::Overtaken(Rejection::Node(_)) => {
            (Code::FailedPrecondition, RefusalReason::Node, "redkeepctl status".to_owned())
        }
        Refusal::Aborted(_) | Refusal::Overtaken(_) => {
            (Code::FailedPrecondition, RefusalReason::Aborted, explain)
        }
        Refusal::PauseLength(_) => {
            (Code::InvalidArgument, RefusalReason::PauseLength, String::new())
        }
    };
    let refusal = pb::Refusal {
        reason: reason.into(),
        text: refusal.to_string(),
        help,
        hold: match refusal {
            Refusal::Held(why) => Some(hold(why)),
            _ => None,
        },
        excluded: match refusal {
            Refusal::Excluded { node: _, why } => Some(exclusion(why)),
            _ => None,
        },
    };
    status(code, &refusal)
}

/// What holds a group back.
pub(super) fn hold(why: &HoldReason) -> pb::Hold {
    let (reason, left) = match why {
        HoldReason::Paused => (pb::HoldReason::Paused, None),
        HoldReason::OldLease { left } => (pb::HoldReason::OldLease, Some(*left)),
        HoldReason::AwaitingFence { left } => (pb::HoldReason::AwaitingFence, Some(*left)),
        HoldReason::OldMasterDoubtful => (pb::HoldReason::OldMasterDoubtful, None),
        HoldReason::NoCandidate => (pb::HoldReason::NoCandidate, None),
        HoldReason::AdoptionIncomplete => (pb::HoldReason::AdoptionIncomplete, None),
        HoldReason::AdoptionAmbiguous { masters: _ } => (pb::HoldReason::AdoptionAmbiguous, None),
        HoldReason::AdoptionNoMaster => (pb::HoldReason::AdoptionNoMaster, None),
        HoldReason::AdoptedNotGuarded => (pb::HoldReason::AdoptedNotGuarded, None),
        HoldReason::ColdStart { left } => (pb::HoldReason::ColdStart, Some(*left)),
        HoldReason::EmptyDataSet => (pb::HoldReason::EmptyDataSet, None),
        HoldReason::OlderDataSet => (pb::HoldReason::OlderDataSet, None),
        HoldReason::UnrelatedDataSets { .. } => (pb::HoldReason::UnrelatedDataSets, None),
        HoldReason::OtherHistory => (pb::HoldReason::OtherHistory, None),
        HoldReason::Cooldown { left } => (pb::HoldReason::Cooldown, Some(*left)),
        HoldReason::MassFailure { .. } => (pb::HoldReason::MassFailure, None),
        HoldReason::InFlight => (pb::HoldReason::InFlight, None),
        HoldReason::LeadershipTransfer => (pb::HoldReason::LeadershipTransfer, None),
        HoldReason::TakeoverRunning { left } => (pb::HoldReason::TakeoverRunning, Some(*left)),
        HoldReason::Bypass { .. } => (pb::HoldReason::Bypass, None),
        HoldReason::FencingUnreached { left, .. } => {
            (pb::HoldReason::FencingUnreached, Some(*left))
        }
        HoldReason::Unreached { .. } => (pb::HoldReason::Unreached, None),
    };
    pb::Hold { reason: reason.into(), text: why.to_string(), left: left.map(span) }
}

/// The rule that excludes a candidate.
pub(super) fn exclusion(why: &Exclusion) -> pb::Exclusion {
    let reason = match why {
        Exclusion::NotEligible => pb::ExclusionReason::NotEligible,
        Exclusion::Restarted => pb::ExclusionReason::Restarted,
        Exclusion::SupervisorSilent => pb::ExclusionReason::SupervisorSilent,
        Exclusion::RedisDown => pb::ExclusionReason::RedisDown,
        Exclusion::NotProbed => pb::ExclusionReason::NotProbed,
        Exclusion::NeverPromote => pb::ExclusionReason::NeverPromote,
        Exclusion::OtherHistory => pb::ExclusionReason::OtherHistory,
        Exclusion::Empty => pb::ExclusionReason::Empty,
        Exclusion::IsMaster => pb::ExclusionReason::IsMaster,
        Exclusion::LinkDown => pb::ExclusionReason::LinkDown,
        Exclusion::Bypass { .. } => pb::ExclusionReason::Bypass,
        Exclusion::Lock => pb::ExclusionReason::Lock,
    };
    pb::Exclusion { reason: reason.into(), text: why.to_string() }
}
