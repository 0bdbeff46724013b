//! What the cores wanted, a line each, for those who ask for it; and messages that are held up on their way.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_core::message::PeerMessage;
use redkeep_core::observe::{RedisView, Report};
use redkeep_core::*;

use super::{MS, name_of};

/// What belongs together on a tape.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Arming, asking, granting, opening.
    Lease,
    /// What closes and guards.
    Lock,
    Act,
    /// What a node tells the leader, where it says something new of the role.
    Report,
    /// What a leader asks a node for.
    Ask,
    /// What operators are told.
    Event,
}

impl Kind {
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("lease", Self::Lease),
        ("lock", Self::Lock),
        ("act", Self::Act),
        ("report", Self::Report),
        ("ask", Self::Ask),
        ("event", Self::Event),
    ];
}

#[derive(Default, Debug)]
pub(crate) struct Tape {
    pub shown: BTreeSet<Kind>,
    pub lines: Vec<String>,
    /// Times are told from here.
    pub from: u64,
    reported: BTreeMap<&'static str, String>,
}

impl Tape {
    pub(super) fn take(&mut self, t: u64, name: &'static str, effect: &Effect) {
        let told = match effect {
            Effect::Send { message: PeerMessage::Report(report), .. } => {
                let text = report_text(report);
                let last = self.reported.insert(name, text.clone());
                (last.as_ref() != Some(&text)).then_some((Kind::Report, text))
            }
            Effect::Send { to, message } => message_text(message)
                .map(|(kind, text)| (kind, format!("{text} -> {}", name_of(*to)))),
            Effect::Lock(op) => Some(lock_text(op)),
            Effect::Act { action, .. } => Some((Kind::Act, act_text(action))),
            Effect::Burn { epoch, .. } => Some((Kind::Lock, format!("burn e{epoch}"))),
            Effect::Event(e) => Some((Kind::Event, event_text(e))),
            Effect::Reply { reply, .. } => Some((Kind::Event, reply_text(reply))),
            Effect::Persist(_)
            | Effect::ProbeNow { .. }
            | Effect::Look { .. }
            | Effect::SpecChanged(_) => None,
        };
        if let Some((kind, text)) = told {
            self.line(t, name, kind, &text);
        }
    }

    pub(super) fn answered(&mut self, t: u64, name: &'static str, input: &Input) {
        if let Input::Lock(event) = input
            && !event.is_ok()
        {
            self.line(t, name, Kind::Lease, "the kernel refuses");
        }
    }

    fn line(&mut self, t: u64, name: &str, kind: Kind, text: &str) {
        if self.shown.contains(&kind) {
            let ms = (t - self.from) / MS;
            self.lines.push(format!("{ms:>5}  {name}  {text}"));
        }
    }
}

/// Messages of a kind that do not arrive until they are released.
#[derive(Default, Debug)]
pub(crate) struct Post {
    pub rules: Vec<Rule>,
    pub held: Vec<(&'static str, &'static str, PeerMessage)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub kind: String,
    pub from: &'static str,
    pub to: &'static str,
}

impl Post {
    pub(super) fn holds(
        &mut self,
        from: &'static str,
        to: &'static str,
        message: &PeerMessage,
    ) -> bool {
        let kind = kind_of(message);
        let held = self.rules.iter().any(|r| r.kind == kind && r.from == from && r.to == to);
        if held {
            self.held.push((from, to, message.clone()));
        }
        held
    }
}

pub(crate) fn kind_of(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Raft { .. } => "raft",
        PeerMessage::Renew { .. } => "renew",
        PeerMessage::Grant(_) => "grant",
        PeerMessage::Report(_) => "report",
        PeerMessage::FenceRequest { .. } => "fence-request",
        PeerMessage::RelinkRequest { .. } => "relink-request",
        PeerMessage::Reach(_) => "reach",
    }
}

fn arm_text(arm: ArmId) -> String {
    format!("#{}.{}", arm.incarnation, arm.counter)
}

pub(crate) fn message_text(message: &PeerMessage) -> Option<(Kind, String)> {
    Some(match message {
        PeerMessage::Renew { renew, .. } => {
            let last = renew.last_grant.map_or("none".into(), arm_text);
            let epochs: Vec<String> =
                renew.groups.iter().map(|g| format!("e{}", g.epoch)).collect();
            let lagging = renew.groups.iter().any(|g| !g.lagging.is_empty());
            let lagging = if lagging { ", a member lags" } else { "" };
            let (arm, epochs) = (arm_text(renew.arm), epochs.join(" "));
            (Kind::Lease, format!("renew {arm} {epochs}, last grant {last}{lagging}"))
        }
        PeerMessage::Grant(grant) => {
            let epochs: Vec<String> = grant.groups.iter().map(|(_, e)| format!("e{e}")).collect();
            (Kind::Lease, format!("grant {} {}", arm_text(grant.arm), epochs.join(" ")))
        }
        PeerMessage::FenceRequest { epoch, .. } => (Kind::Ask, format!("ask to fence e{epoch}")),
        PeerMessage::RelinkRequest { epoch, .. } => (Kind::Ask, format!("ask to relink e{epoch}")),
        PeerMessage::Report(report) => (Kind::Report, report_text(report)),
        PeerMessage::Raft { .. } | PeerMessage::Reach(_) => return None,
    })
}

fn report_text(report: &Report) -> String {
    let mut parts = Vec::new();
    for g in &report.groups {
        parts.push(match &g.redis {
            RedisView::Unknown => "redis unknown".to_owned(),
            RedisView::Up(o) if o.is_master() => format!("redis master {}", o.run_id),
            RedisView::Up(o) => format!("redis replica {}", o.run_id),
            RedisView::Doubtful(_, why) => format!("redis doubtful: {why:?}"),
            RedisView::Down(why) => format!("redis down: {why:?}"),
        });
        if let Some(f) = g.fenced {
            let confirmed = if f.confirmed_by_target { ", confirmed" } else { "" };
            parts.push(format!("fenced e{} at {} by {:?}{confirmed}", f.epoch, f.offset, f.cause));
        }
        parts.extend(g.serving.map(|e| format!("serves e{e}")));
    }
    format!("report: {}", parts.join(", "))
}

fn lock_text(op: &LockOp) -> (Kind, String) {
    match op {
        LockOp::Arm { arm, generation, .. } => {
            (Kind::Lease, format!("arm {} in {generation:?}", arm_text(*arm)))
        }
        LockOp::Open { arm, generation, .. } => {
            (Kind::Lease, format!("open {} in {generation:?}", arm_text(*arm)))
        }
        LockOp::Close { .. } => (Kind::Lock, "close".into()),
        LockOp::Guard { .. } => (Kind::Lock, "guard".into()),
        LockOp::PermitReplica { .. } => (Kind::Lock, "permit replica".into()),
        LockOp::ForbidReplica { .. } => (Kind::Lock, "forbid replica".into()),
        LockOp::Restore => (Kind::Lock, "restore".into()),
        LockOp::Admit { run_id, .. } => (Kind::Lock, format!("admit {run_id}")),
    }
}

fn act_text(action: &Action) -> String {
    match action {
        Action::Promote { .. } => "promote".into(),
        Action::GoOn(_) => "go on as master".into(),
        Action::SetMinReplicas(min) => format!("min-replicas-to-write {}", min.to_write),
        Action::Follow { master } => format!("follow {master}"),
        Action::Compare { master } => format!("compare the data set with that of {master}"),
        Action::KeepAside { gap, .. } => format!("keep the data set aside, {gap:?} bytes beyond"),
        Action::Relink { .. } => "relink".into(),
        Action::PauseAndCatchUp { .. } => "pause writes and let the target catch up".into(),
        Action::Unpause => "unpause".into(),
        Action::ReadOffset => "read the final offset".into(),
        Action::ShutWrites => "shut writes".into(),
        Action::VerifyVip { .. } => "verify vip".into(),
        Action::EnsureVip { .. } => "vip up".into(),
        Action::RemoveVip { .. } => "vip away".into(),
        Action::Announce { .. } => "announce".into(),
        Action::ProbeRival { .. } => "look for a rival".into(),
        Action::DestroySockets { .. } => "reset connections".into(),
    }
}

fn event_text(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Assigned { master, cause } => format!("{} is named: {cause}", name_of(*master)),
        EventKind::Serving { master } => format!("{} serves", name_of(*master)),
        EventKind::SwitchoverStarted { to } => format!("hands over to {}", name_of(*to)),
        EventKind::LeaderChanged { leader, .. } => {
            let who = leader.map_or("nobody", name_of);
            return format!("event: {who} leads");
        }
        other => format!("{other:?}"),
    };
    format!("event e{}: {what}", event.epoch)
}

fn reply_text(reply: &AdminReply) -> String {
    match reply {
        AdminReply::Done { text, .. } => format!("answer: done, {text}"),
        AdminReply::Refused(why) => format!("answer: refused, {why}"),
        AdminReply::NotLeader { .. } => "answer: not the leader".into(),
        AdminReply::Unknown { text } => format!("answer: unknown, {text}"),
    }
}
