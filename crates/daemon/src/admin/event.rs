//! Events of this node for operators.

use redkeep_core::{Event, EventKind, NodeId, observe::FenceCause};
use redkeep_proto::admin::v1 as pb;

use super::{port::StampedEvent, time::unix_us, view::View};

pub(super) fn to_proto(view: &View, stamped: &StampedEvent) -> pb::Event {
    let StampedEvent { mono_ns, unix_us: at, event } = stamped;
    let Event { group, epoch, index, kind } = event;
    pb::Event {
        node: view.me.clone(),
        mono_ns: *mono_ns,
        time: Some(unix_us(*at)),
        group: group.as_ref().map_or_else(String::new, ToString::to_string),
        epoch: epoch.0,
        index: *index,
        kind: kind_of(kind).into(),
        text: sentence(view, kind),
        about: about(kind).map_or_else(String::new, |n| view.name(n)),
    }
}

const fn kind_of(kind: &EventKind) -> pb::EventKind {
    match kind {
        EventKind::RedisUp { .. } => pb::EventKind::RedisUp,
        EventKind::RedisDown { .. } => pb::EventKind::RedisDown,
        EventKind::Fencing { .. } => pb::EventKind::Fencing,
        EventKind::Fenced { .. } => pb::EventKind::Fenced,
        EventKind::LeaseGranted => pb::EventKind::LeaseGranted,
        EventKind::LeaseLost => pb::EventKind::LeaseLost,
        EventKind::Assigned { .. } => pb::EventKind::Assigned,
        EventKind::Promoted => pb::EventKind::Promoted,
        EventKind::VipUp => pb::EventKind::VipUp,
        EventKind::VipGone => pb::EventKind::VipGone,
        EventKind::VipRestored => pb::EventKind::VipRestored,
        EventKind::VipStray => pb::EventKind::VipStray,
        EventKind::VipRival { .. } => pb::EventKind::VipRival,
        EventKind::Serving { .. } => pb::EventKind::Serving,
        EventKind::Following { .. } => pb::EventKind::Following,
        EventKind::Eligible { .. } => pb::EventKind::Eligible,
        EventKind::SwitchoverStarted { .. } => pb::EventKind::SwitchoverStarted,
        EventKind::SwitchoverAborted { .. } => pb::EventKind::SwitchoverAborted,
        EventKind::Paused { .. } => pb::EventKind::Paused,
        EventKind::Resumed => pb::EventKind::Resumed,
        EventKind::Acknowledged => pb::EventKind::Acknowledged,
        EventKind::LockLost => pb::EventKind::LockLost,
        EventKind::LockRestored => pb::EventKind::LockRestored,
        EventKind::LockBroken => pb::EventKind::LockBroken,
        EventKind::WritableByHand { .. } => pb::EventKind::WritableByHand,
        EventKind::LeaderChanged { .. } => pb::EventKind::LeaderChanged,
        EventKind::ActionFailed { .. } => pb::EventKind::ActionFailed,
        EventKind::Bypass { .. } => pb::EventKind::Bypass,
        EventKind::BypassClosed => pb::EventKind::BypassClosed,
        EventKind::Unreached { .. } => pb::EventKind::Unreached,
        EventKind::Reached { .. } => pb::EventKind::Reached,
        EventKind::DiskStalled { .. } => pb::EventKind::DiskStalled,
        EventKind::Quarantined { .. } => pb::EventKind::Quarantined,
        EventKind::QuarantineFailed { .. } => pb::EventKind::QuarantineFailed,
    }
}

/// The node it is about, where another than the one where it happened.
const fn about(kind: &EventKind) -> Option<NodeId> {
    match kind {
        EventKind::Assigned { master, .. } | EventKind::Serving { master } => Some(*master),
        EventKind::SwitchoverStarted { to } => Some(*to),
        EventKind::Unreached { node, .. } | EventKind::Reached { node } => Some(*node),
        EventKind::LeaderChanged { leader, .. } => *leader,
        _ => None,
    }
}

fn sentence(view: &View, kind: &EventKind) -> String {
    let plain = str::to_owned;
    match kind {
        EventKind::RedisUp { run_id, role } => format!("Redis is up as {role}, run id {run_id}"),
        EventKind::RedisDown { reason } => format!("Redis is down: {reason}"),
        EventKind::Fencing { cause } => format!("fencing: {}", fence_cause(*cause)),
        EventKind::Fenced { cause, offset } => {
            format!("fenced at offset {offset}: {}", fence_cause(*cause))
        }
        EventKind::LeaseGranted => plain("the lease is granted"),
        EventKind::LeaseLost => plain("the lease ended"),
        EventKind::Assigned { master, cause } => {
            format!("{} is assigned as master: {cause}", view.name(*master))
        }
        EventKind::Promoted => plain("Redis is promoted"),
        EventKind::VipUp => plain("the VIP is up and announced"),
        EventKind::VipGone => plain("the VIP is removed"),
        EventKind::VipRestored => plain("the VIP was removed by somebody and is back"),
        EventKind::VipStray => plain("a VIP without a lease was found and removed"),
        EventKind::VipRival { who } => format!("another host answers for the VIP: {who}"),
        EventKind::Serving { master } => format!("{} serves as master", view.name(*master)),
        EventKind::Following { master } => format!("Redis follows {master}"),
        EventKind::Eligible { members } if members.is_empty() => plain("the eligible set is empty"),
        EventKind::Eligible { members } => format!("eligible set: {members}"),
        EventKind::SwitchoverStarted { to } => format!("switchover to {} begins", view.name(*to)),
        EventKind::SwitchoverAborted { reason } => format!("switchover aborted: {reason}"),
        EventKind::Paused { seconds } => {
            format!("automatic failover is paused for {seconds} s")
        }
        EventKind::Resumed => plain("automatic failover is on"),
        EventKind::Acknowledged => plain("an operator has acknowledged the failures"),
        EventKind::LockLost => plain("the kernel's table was changed by somebody"),
        EventKind::LockRestored => plain("the kernel's table is back, closed"),
        EventKind::LockBroken => plain(
            "the kernel's table cannot be put back: the port may be open, writes are shut in Redis",
        ),
        EventKind::WritableByHand { role } => {
            format!("somebody made Redis {role}: its port is closed")
        }
        EventKind::LeaderChanged { leader: Some(leader), term } => {
            format!("{} leads, term {term}", view.name(*leader))
        }
        EventKind::LeaderChanged { leader: None, term } => {
            format!("no leader is known, term {term}")
        }
        EventKind::ActionFailed { action, text } => format!("{action} failed: {text}"),
        EventKind::Bypass { text } => format!("Redis can be reached around the lock: {text}"),
        EventKind::BypassClosed => plain("Redis can no longer be reached around the lock"),
        EventKind::Unreached { node, why } => {
            format!("Redis at {} cannot be reached from here: {why}", view.name(*node))
        }
        EventKind::Reached { node } => {
            format!("Redis at {} can be reached again", view.name(*node))
        }
        EventKind::DiskStalled { took } => {
            format!("the disk of the log stalled: one write took {} ms", took.as_millis())
        }
        EventKind::Quarantined { gap, size, path } => {
            let lacks = lacks(*gap);
            format!("{lacks}: the data set is kept as {path} ({size} bytes)")
        }
        EventKind::QuarantineFailed { gap, reason } => {
            let lacks = lacks(*gap);
            format!("{lacks}, and the data set is overwritten without being kept: {reason}")
        }
    }
}

fn lacks(gap: Option<u64>) -> String {
    match gap {
        Some(gap) => format!("the new master lacks {gap} bytes of what was written here"),
        None => "the new master may lack some of what was written here".to_owned(),
    }
}

const fn fence_cause(cause: FenceCause) -> &'static str {
    match cause {
        FenceCause::RedisDead => "its Redis died or hung",
        FenceCause::RunIdChanged => "its Redis was restarted",
        FenceCause::WrongRole => "its Redis changed role by itself",
        FenceCause::LeaderAsked => "the leader asked for it",
        FenceCause::Unreached => "a majority of nodes cannot reach its Redis",
        FenceCause::Switchover => "switchover",
        FenceCause::TakeoverFailed => "the takeover failed",
        FenceCause::Stopping => "the supervisor stops",
    }
}
