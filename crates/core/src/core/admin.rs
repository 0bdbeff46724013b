//! Operators' requests: checked here, decided in the log, answered when the outcome is known.

use redkeep_consensus::{Mono, NodeId, Span};

use super::Core;
use crate::{
    admin::{AdminReply, AdminRequest, Busy, Refusal},
    command::Body,
    effect::Effect,
    ids::{Epoch, GroupId, Now, RequestId},
    leader::{Order, Waiter},
    model::Pause,
    plan::{Candidates, Exclusion, Forced, Loss, bypass},
};

const PAUSE_MAX: Span = Span::from_secs(7 * 24 * 3600);
const PAUSE_MIN: Span = Span::from_secs(1);

/// Whether a target was named, and what the candidate rules are.
struct Wanted {
    group: GroupId,
    to: Option<NodeId>,
    allow_data_loss: bool,
}

/// What becomes of a request at once.
pub(super) enum Next {
    Answer(AdminReply),
    /// To be answered with `text` when it is applied.
    Propose {
        body: Body,
        text: String,
    },
    /// The leader answers when the outcome is known.
    Wait,
}

impl Next {
    fn from_reply(reply: Option<AdminReply>) -> Self {
        reply.map_or(Self::Wait, Self::Answer)
    }

    pub(super) fn refused(why: Refusal) -> Self {
        Self::Answer(AdminReply::Refused(why))
    }
}

impl Core {
    pub(super) fn admin(&mut self, now: Now, id: RequestId, request: AdminRequest) {
        if self.leader.is_none() {
            let reply = AdminReply::NotLeader { leader: self.leader_id };
            self.sink.push(Effect::Reply { id, reply });
            return;
        }
        let next = match request {
            AdminRequest::Switchover { group, to, dry_run } => Next::from_reply(self.switchover(
                now,
                id,
                &Wanted { group, to, allow_data_loss: false },
                dry_run,
            )),
            AdminRequest::Failover { group, to, allow_data_loss, dry_run } => Next::from_reply(
                self.failover(now, id, Wanted { group, to, allow_data_loss }, dry_run),
            ),
            AdminRequest::Pause { group, duration } => self.pause(group, duration),
            AdminRequest::Resume { group } => self.resume(now, group),
            AdminRequest::Acknowledge { group, dry_run } => self.acknowledge(now, group, dry_run),
            AdminRequest::TransferLeadership { to } => Next::Answer(self.transfer(now, to)),
            AdminRequest::AddNode { node, dry_run } => self.add_node(node, dry_run),
            AdminRequest::RemoveNode { node, dry_run } => self.remove_node(now, node, dry_run),
            AdminRequest::AddMember { group, member, dry_run } => {
                self.add_member(group, member, dry_run)
            }
            AdminRequest::RemoveMember { group, node, dry_run } => {
                self.remove_member(group, node, dry_run)
            }
        };
        let reply = match next {
            Next::Answer(reply) => Some(reply),
            Next::Propose { body, text } => self.order(now, id, body, text),
            Next::Wait => None,
        };
        if let Some(reply) = reply {
            self.sink.push(Effect::Reply { id, reply });
        }
    }

    /// Proposed now, answered when it is applied: before that another leader may cut it off.
    fn order(&mut self, now: Now, id: RequestId, body: Body, text: String) -> Option<AdminReply> {
        let removes = matches!(body, Body::RemoveNode { .. });
        let Some(index) = self.propose(now, body) else { return Some(self.not_proposed()) };
        if removes {
            self.removal_at = index;
        }
        self.leader.as_mut()?.order(Order { id, index, text });
        None
    }

    /// A planned target must be able to catch up: same data set as the master's, link up, not empty beside data.
    fn cannot_catch_up(&self, group: &GroupId, to: NodeId) -> Option<Exclusion> {
        let nodes = self.leader.as_ref()?.nodes();
        let of = |node: NodeId| nodes.get(&node)?.last_observation(group);
        let (target, master) = (of(to)?, of(self.model.group(group)?.master()?)?);
        if !target.link_up() {
            Some(Exclusion::LinkDown)
        } else if target.replication_id != master.replication_id {
            Some(Exclusion::OtherHistory)
        } else {
            (target.keys == 0 && master.keys > 0).then_some(Exclusion::Empty)
        }
    }

    fn switchover(
        &mut self,
        now: Now,
        id: RequestId,
        wanted: &Wanted,
        dry_run: bool,
    ) -> Option<AdminReply> {
        let (epoch, to) = match self.choose_target(now, wanted) {
            Ok(found) => found,
            Err(refusal) => return Some(AdminReply::Refused(refusal)),
        };
        let name = self.spec().node_name(to);
        if let Some(why) = self.cannot_catch_up(&wanted.group, to) {
            return Some(AdminReply::Refused(Refusal::Excluded { node: name, why }));
        }
        if dry_run {
            let text = format!(
                "would switch {} over to {name}: writes pause, {name} catches up, then it takes the VIP",
                wanted.group
            );
            return Some(AdminReply::Done { index: self.applied, epoch, text });
        }
        let body = Body::Switchover { group: wanted.group.clone(), epoch, to };
        let Some(index) = self.propose(now, body) else { return Some(self.not_proposed()) };
        let timing = self.timing();
        let limit =
            timing.switchover_timeout.0 + timing.takeover_timeout.0 + timing.lease_ttl.0 * 2;
        let leader = self.leader.as_mut()?;
        leader.proposed(now, &wanted.group, false, Some(index));
        let (group, deadline) = (wanted.group.clone(), Mono(now.boot.0 + limit));
        let (index, to, since) = (Some(index), Some(to), now.boot);
        leader.wait_for(Waiter { id, group, index, from_epoch: epoch, to, since, deadline });
        None
    }

    fn failover(
        &mut self,
        now: Now,
        id: RequestId,
        wanted: Wanted,
        dry_run: bool,
    ) -> Option<AdminReply> {
        let (epoch, to) = match self.choose_target(now, &wanted) {
            Ok(found) => found,
            Err(refusal) => return Some(AdminReply::Refused(refusal)),
        };
        let name = self.spec().node_name(to);
        if dry_run {
            let text = format!(
                "would ask the old master's node to fence (or wait for its lease), then make {name} master of {}; {}",
                wanted.group,
                self.what_is_lost(now, &wanted.group, to),
            );
            return Some(AdminReply::Done { index: self.applied, epoch, text });
        }
        let timing = self.timing();
        let limit = timing.wait_for(timing.lease_ttl).0 + timing.takeover_timeout.0 * 2;
        let leader = self.leader.as_mut()?;
        let forced = Forced { request: id, to: Some(to), allow_data_loss: wanted.allow_data_loss };
        leader.force(&wanted.group, forced);
        let (group, deadline) = (wanted.group, Mono(now.boot.0 + limit));
        let (index, to, since) = (None, Some(to), now.boot);
        leader.wait_for(Waiter { id, group, index, from_epoch: epoch, to, since, deadline });
        None
    }

    /// For people: what a promotion of `to` would lose.
    fn what_is_lost(&self, now: Now, group: &GroupId, to: NodeId) -> String {
        let round = self.round(now, &|_| false);
        let candidates = self.leader.as_ref().and_then(|l| l.candidates(&round, group));
        match candidates.and_then(|c| c.loss(to)) {
            None => "how many bytes would be lost is not known".to_owned(),
            Some(Loss { bytes, known_ago }) => format!(
                "about {bytes} bytes would be lost, as known {} ms ago",
                known_ago.as_millis()
            ),
        }
    }

    /// The target that was named, if it may be promoted, else the best; and the epoch that it replaces.
    fn choose_target(&self, now: Now, wanted: &Wanted) -> Result<(Epoch, NodeId), Refusal> {
        let group = &wanted.group;
        let spec = self.spec().group(group).ok_or_else(|| Refusal::NoSuchGroup(group.clone()))?;
        // Among all members the rank knows nothing of who is empty.
        if wanted.allow_data_loss && wanted.to.is_none() {
            return Err(Refusal::LossUnnamed);
        }
        let leader = self.leader.as_ref().ok_or(Refusal::NoCandidate)?;
        let round = self.round(now, &|_| false);
        let candidates = leader.candidates(&round, group).ok_or(Refusal::NoCandidate)?;
        let c = Candidates { allow_data_loss: wanted.allow_data_loss, ..candidates };
        let name = |n: NodeId| self.spec().node_name(n);
        let model = c.group;
        // One that ended with nobody who can go on stands in the log until another master is named.
        let stuck = leader.hold(group).is_some_and(|hold| hold.needs_operator());
        if let Some(busy) = leader.busy_with(now.boot, group, self.spec()) {
            return Err(Refusal::Busy(busy));
        }
        if let Some(to) = model.switchover.filter(|_| !stuck) {
            let within = self.timing().switchover_timeout;
            return Err(Refusal::Busy(Busy::Switchover { to: name(to), within }));
        }
        if let Some(to) = wanted.to {
            if !spec.is_member(to) {
                return Err(Refusal::NotAMember(name(to)));
            }
            // One that fenced serves no longer, and may be named again.
            let fenced = c.fenced(to).is_some_and(|f| f.epoch == model.epoch());
            let serves = model.assignment.as_ref().is_some_and(|a| a.serving) && !fenced;
            if model.master() == Some(to) && serves {
                return Err(Refusal::AlreadyMaster(name(to)));
            }
        }
        if let Some(hold) = bypass::hold(&c, self.spec()) {
            return Err(Refusal::Held(hold));
        }
        if let Some(to) = wanted.to {
            return match c.judge(to) {
                Ok(_) => Ok((model.epoch(), to)),
                Err(why) => Err(Refusal::Excluded { node: name(to), why }),
            };
        }
        let others: Vec<_> =
            spec.members.iter().filter(|m| Some(m.node) != model.master()).collect();
        match c.ranked().into_iter().find(|x| Some(x.node) != model.master()) {
            Some(best) => Ok((model.epoch(), best.node)),
            None => match others.as_slice() {
                [one] => Err(Refusal::Excluded {
                    node: name(one.node),
                    why: c.judge(one.node).err().unwrap_or(Exclusion::NotEligible),
                }),
                _ => Err(Refusal::NoCandidate),
            },
        }
    }

    fn pause(&self, group: Option<GroupId>, duration: Span) -> Next {
        if !(PAUSE_MIN..=PAUSE_MAX).contains(&duration) {
            return Next::refused(Refusal::PauseLength(duration));
        }
        if let Some(refusal) = self.unknown_group(group.as_ref()) {
            return Next::refused(refusal);
        }
        let what = group.as_ref().map_or("all groups".to_owned(), ToString::to_string);
        let text = format!("automatic failover of {what} is paused for {duration}; leases go on");
        Next::Propose { body: Body::Pause { group, duration }, text }
    }

    fn resume(&self, now: Now, group: Option<GroupId>) -> Next {
        if let Some(refusal) = self.unknown_group(group.as_ref()) {
            return Next::refused(refusal);
        }
        let what = group.as_ref().map_or("all groups".to_owned(), ToString::to_string);
        let text = match self.still_paused(now, group.as_ref()) {
            Some(rest) => format!("the pause of {what} is over; {rest}"),
            None => format!("automatic failover of {what} is on"),
        };
        Next::Propose { body: Body::Resume { group }, text }
    }

    fn acknowledge(&self, now: Now, group: Option<GroupId>, dry_run: bool) -> Next {
        if let Some(refusal) = self.unknown_group(group.as_ref()) {
            return Next::refused(refusal);
        }
        let cooldown = self.timing().failover_cooldown;
        let mut ends = Vec::new();
        for id in self.model.groups.keys().filter(|id| group.as_ref().is_none_or(|g| g == *id)) {
            let left = self.recent.cooldown_left(now.boot, id, cooldown);
            if left > Span(0) {
                let left = Span::from_secs(left.0.div_ceil(1_000_000_000));
                ends.push(format!("the cooldown of {id} ends {left} early"));
            }
            if self.leader.as_ref().is_some_and(|l| l.counts(id)) {
                ends.push(format!("the failure of {id} counts no more"));
            }
        }
        let what = group.as_ref().map_or("all groups".to_owned(), ToString::to_string);
        let text = match ends.as_slice() {
            [] => format!("nothing of {what} waits for an acknowledgement"),
            ends => ends.join("; "),
        };
        if dry_run {
            return self.would(text);
        }
        Next::Propose { body: Body::Acknowledge { group }, text }
    }

    /// A group's own pause and that of all groups end one by one: what the end of one leaves.
    fn still_paused(&self, now: Now, ended: Option<&GroupId>) -> Option<String> {
        let runs = |p: Option<Pause>| p.is_some_and(|p| self.left_of(now, p) > 0);
        if let Some(group) = ended {
            return runs(self.model.pause)
                .then(|| format!("{group} is still paused with all groups: redkeepctl resume"));
        }
        let own = self.model.groups.iter().filter(|(_, g)| runs(g.pause));
        let each: Vec<String> = own
            .map(|(group, _)| {
                format!("{group} is still paused by itself: redkeepctl resume {group}")
            })
            .collect();
        (!each.is_empty()).then(|| each.join("; "))
    }

    fn unknown_group(&self, group: Option<&GroupId>) -> Option<Refusal> {
        let g = group?;
        self.model.group(g).is_none().then(|| Refusal::NoSuchGroup(g.clone()))
    }

    /// What a dry run says.
    pub(super) fn would(&self, text: String) -> Next {
        Next::Answer(AdminReply::Done { index: self.applied, epoch: Epoch::NONE, text })
    }

    fn not_proposed(&self) -> AdminReply {
        let moving = self.consensus.transferee().is_some();
        let busy = if moving { Busy::LeadershipTransfer } else { Busy::Backlog };
        AdminReply::Refused(Refusal::Busy(busy))
    }

    fn transfer(&mut self, now: Now, to: NodeId) -> AdminReply {
        let name = self.spec().node_name(to);
        if !self.consensus.voters().contains(&to) {
            return AdminReply::Refused(Refusal::NoVote(name));
        }
        self.hand_on(now, to);
        AdminReply::Done {
            index: self.applied,
            epoch: Epoch::NONE,
            text: format!("asked {name} to lead"),
        }
    }
}
