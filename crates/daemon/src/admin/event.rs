//! Events of this node for operators.

use redkeep_core::{Event, EventKind, observe::FenceCause};
use redkeep_proto::admin::v1 as pb;

use super::{port::StampedEvent, time::unix_us, view::View};

pub(super) fn to_proto(view: &View, stamped: &StampedEvent) -> pb::Event {
    let StampedEvent { mono_ns, unix_us: at, event } = stamped;
    let Event { group, epoch, index, kind } = event;
    let (kind, text, about) = told(view, kind);
    pb::Event {
        node: view.me.clone(),
        mono_ns: *mono_ns,
        time: Some(unix_us(*at)),
        group: group.as_ref().map_or_else(String::new, ToString::to_string),
        epoch: epoch.0,
        index: *index,
        kind: kind.into(),
        text,
        about,
    }
}

/// Kind, sentence, and the node it is about.
fn told(view: &View, kind: &EventKind) -> (pb::EventKind, String, String) {
    let plain = |kind, text: &str| (kind, text.to_owned(), String::new());
    let node = |kind, text: String, node| (kind, text, view.name(node));
    match kind {
        EventKind::RedisUp { run_id, role } => {
            plain(pb::EventKind::RedisUp, &format!("Redis is up as {role}, run id {run_id}"))
        }
        EventKind::RedisDown { reason } => {
            plain(pb::EventKind::RedisDown, &format!("Redis is down: {reason}"))
        }
        EventKind::Fencing { cause } => {
            plain(pb::EventKind::Fencing, &format!("fencing: {}", fence_cause(*cause)))
        }
        EventKind::Fenced { cause, offset } => plain(
            pb::EventKind::Fenced,
            &format!("fenced at offset {offset}: {}", fence_cause(*cause)),
        ),
        EventKind::LeaseGranted => plain(pb::EventKind::LeaseGranted, "the lease is granted"),
        EventKind::LeaseLost => plain(pb::EventKind::LeaseLost, "the lease ended"),
        EventKind::Assigned { master, cause } => {
            let text = format!("{} is assigned as master: {cause}", view.name(*master));
            node(pb::EventKind::Assigned, text, *master)
        }
        EventKind::Promoted => plain(pb::EventKind::Promoted, "Redis is promoted"),
        EventKind::VipUp => plain(pb::EventKind::VipUp, "the VIP is up and announced"),
        EventKind::VipGone => plain(pb::EventKind::VipGone, "the VIP is removed"),
        EventKind::VipRestored => {
            plain(pb::EventKind::VipRestored, "the VIP was removed and is back")
        }
        EventKind::VipStray => plain(pb::EventKind::VipStray, "a VIP without a lease was removed"),
        EventKind::VipRival { who } => {
            plain(pb::EventKind::VipRival, &format!("another host answers for the VIP: {who}"))
        }
        EventKind::Serving { master } => {
            let text = format!("{} serves as master", view.name(*master));
            node(pb::EventKind::Serving, text, *master)
        }
        EventKind::Following { master } => {
            plain(pb::EventKind::Following, &format!("Redis follows {master}"))
        }
        EventKind::Eligible { members } => {
            plain(pb::EventKind::Eligible, &format!("eligible set: {members}"))
        }
        EventKind::SwitchoverStarted { to } => {
            let text = format!("switchover to {} begins", view.name(*to));
            node(pb::EventKind::SwitchoverStarted, text, *to)
        }
        EventKind::SwitchoverAborted { reason } => {
            plain(pb::EventKind::SwitchoverAborted, &format!("switchover aborted: {reason}"))
        }
        EventKind::Paused { seconds } => {
            plain(pb::EventKind::Paused, &format!("failover is paused for {seconds} s"))
        }
        EventKind::Resumed => plain(pb::EventKind::Resumed, "automatic failover is on"),
        EventKind::LockLost => plain(pb::EventKind::LockLost, "the kernel's table was changed"),
        EventKind::LockRestored => {
            plain(pb::EventKind::LockRestored, "the kernel's table is back, closed")
        }
        EventKind::LeaderChanged { leader, term } => {
            let name = leader.map_or_else(String::new, |l| view.name(l));
            let who = if leader.is_some() {
                format!("{name} leads")
            } else {
                "no leader is known".to_owned()
            };
            (pb::EventKind::LeaderChanged, format!("{who}, term {term}"), name)
        }
        EventKind::ActionFailed { action, text } => {
            plain(pb::EventKind::ActionFailed, &format!("{action} failed: {text}"))
        }
    }
}

const fn fence_cause(cause: FenceCause) -> &'static str {
    match cause {
        FenceCause::RedisDead => "its Redis died or hung",
        FenceCause::RunIdChanged => "its Redis was restarted",
        FenceCause::WrongRole => "its Redis changed role by itself",
        FenceCause::LeaderAsked => "the leader asked for it",
        FenceCause::Switchover => "switchover",
        FenceCause::TakeoverFailed => "the takeover failed",
        FenceCause::Stopping => "the supervisor stops",
    }
}
