//! From consensus to the model: committed entries are applied, and what they change is passed on.

use redkeep_consensus::{Effect as RaftEffect, NodeId, Role, SendClass};

use super::{COMPACT_AFTER, Core};
use crate::{
    codec,
    effect::{Effect, Event, EventKind},
    host::{AtStart, HostGroup},
    ids::{Epoch, GroupId, Now},
    leader::{Elected, Leader},
    message::{PeerMessage, RaftClass},
    model::{Applied, Model},
    observe::EligibleMember,
};

impl Core {
    /// True when there was something.
    pub(super) fn drain_consensus(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(effect) = self.consensus.next_effect() {
            any = true;
            match effect {
                RaftEffect::Send { to, bytes, class } => {
                    let class = match class {
                        SendClass::Heartbeat => RaftClass::Heartbeat,
                        SendClass::Append | SendClass::Snapshot | SendClass::Other => {
                            RaftClass::Other
                        }
                    };
                    self.sink
                        .push(Effect::Send { to, message: PeerMessage::Raft { bytes, class } });
                }
                RaftEffect::Persist(persist) => {
                    // What this life writes over the recovered log nobody has told of.
                    if let Some(first) = persist.entries.first() {
                        self.told_to = self.told_to.min(first.index.saturating_sub(1));
                    }
                    self.sink.push(Effect::Persist(persist));
                }
                RaftEffect::Apply { index, term, data } => self.apply(now, index, term, &data),
                RaftEffect::Membership { index, .. } => {
                    self.note_applied(now, index, &Applied::Nothing);
                }
                RaftEffect::Restore { index, data, .. } => self.restore(now, index, &data),
                RaftEffect::ReadReady { id, index } => {
                    if let Some(l) = self.leader.as_mut() {
                        l.grantor.read_ready(id, index);
                    }
                }
                RaftEffect::ReadLost { id } => {
                    if let Some(l) = self.leader.as_mut() {
                        l.grantor.read_lost(id);
                    }
                }
                RaftEffect::RoleChanged { role, term, leader } => {
                    self.role_changed(now, role, term, leader);
                }
            }
        }
        any
    }

    pub(super) fn role_changed(&mut self, now: Now, role: Role, term: u64, leader: Option<NodeId>) {
        let leads = role == Role::Leader;
        let new_leader = self.leader_id != leader;
        self.role = role;
        self.leader_id = leader;
        let same_term = self.leader.as_ref().is_some_and(|l| l.is_term(term));
        if !leads || !same_term {
            if let Some(old) = self.leader.take() {
                let wishes = old.dismiss();
                self.carry_out(now, wishes);
            }
            self.bootstrap_proposed = false;
        }
        if leads && self.leader.is_none() {
            self.removal_at = self.consensus.last_index();
            self.leader = Some(Leader::new(
                self.me,
                Elected { term, last_index: self.consensus.last_index() },
                now,
                self.timing(),
                self.mutations,
            ));
        }
        if new_leader {
            self.last_report = None;
            let kind = EventKind::LeaderChanged { leader, term };
            self.sink.push(Effect::Event(Event {
                group: None,
                epoch: Epoch::NONE,
                index: 0,
                kind,
            }));
            // Under the same arming the request may go to the new leader: it was armed before it was asked for.
            if let Some(renew) = self.holder.request() {
                self.ask_leader(renew);
            }
        }
    }

    pub(super) fn apply(&mut self, now: Now, index: u64, term: u64, data: &[u8]) {
        let applied = if data.is_empty() {
            Applied::Nothing
        } else {
            match codec::decode_command(data) {
                Ok(command) => self.model.apply(index, term, command),
                // Skipping it would let this node's model part from the others': stop instead.
                Err(error) => panic!(
                    "log entry {index} cannot be read by this version: {error}; upgrade this node"
                ),
            }
        };
        self.after_apply(now, index, &applied);
        self.note_applied(now, index, &applied);
        let answers = self.leader.as_mut().map(|l| l.decided(index, term, &applied));
        self.carry_out(now, answers.unwrap_or_default());
        if self.applied - self.snapshot_at >= COMPACT_AFTER {
            self.snapshot_at = self.applied;
            self.consensus.compact(self.applied, codec::encode_model(&self.model));
        }
    }

    pub(super) fn after_apply(&mut self, now: Now, index: u64, applied: &Applied) {
        let is_news = index > self.told_to;
        match applied {
            Applied::Spec => self.spec_changed(),
            Applied::Pause(group) => {
                self.pauses.insert(index, now.boot);
                if is_news {
                    self.tell_pause(group.as_ref(), index);
                }
            }
            Applied::Acknowledged(group) if is_news => {
                self.acknowledged(now, group.as_ref(), index);
            }
            Applied::Rejected(why) if is_news => {
                tracing::info!(index, %why, "a committed command came too late");
            }
            Applied::Assigned(group)
            | Applied::Serving(group)
            | Applied::Eligible(group)
            | Applied::SwitchoverAborted(group)
                if is_news =>
            {
                if matches!(applied, Applied::Assigned(_)) {
                    self.note_failover(now, group);
                }
                self.tell_decision(group, index, applied);
            }
            Applied::Assigned(_)
            | Applied::Serving(_)
            | Applied::Eligible(_)
            | Applied::SwitchoverAborted(_)
            | Applied::Rejected(_)
            | Applied::Switchover(_)
            | Applied::Acknowledged(_)
            | Applied::Nothing => {}
        }
    }

    /// The same master named again is no failover: the brakes are for moves.
    fn note_failover(&mut self, now: Now, group: &GroupId) {
        let a = self.model.group(group).and_then(|g| g.assignment.as_ref());
        if a.is_some_and(|a| a.previous_master.is_some() && a.cause.is_automatic()) {
            self.recent.failed_over(now.boot, group);
        }
    }

    fn acknowledged(&mut self, now: Now, group: Option<&GroupId>, index: u64) {
        let all = self.model.groups.keys();
        for id in all.filter(|id| group.is_none_or(|g| g == *id)) {
            self.recent.acknowledge(now.boot, id);
        }
        let (group, kind) = (group.cloned(), EventKind::Acknowledged);
        self.sink.push(Effect::Event(Event { group, epoch: Epoch::NONE, index, kind }));
    }

    fn tell_pause(&mut self, group: Option<&GroupId>, index: u64) {
        let pause = match group {
            Some(g) => self.model.group(g).and_then(|g| g.pause),
            None => self.model.pause,
        };
        let kind = pause.map_or(EventKind::Resumed, |p| EventKind::Paused {
            seconds: p.duration.0 / 1_000_000_000,
        });
        let (group, epoch) = (group.cloned(), Epoch::NONE);
        self.sink.push(Effect::Event(Event { group, epoch, index, kind }));
    }

    fn tell_decision(&mut self, group: &GroupId, index: u64, applied: &Applied) {
        let Some(g) = self.model.group(group) else { return };
        let (epoch, assignment) = (g.epoch(), g.assignment.as_ref());
        let (index, kind) = match (applied, assignment) {
            (Applied::Assigned(_), Some(a)) => {
                let cause = a.cause.as_str().to_owned();
                (index, EventKind::Assigned { master: a.master, cause })
            }
            (Applied::Serving(_), Some(a)) => (a.index, EventKind::Serving { master: a.master }),
            (Applied::Eligible(_), _) => {
                let name = |m: &EligibleMember| self.spec().node_name(m.node);
                let names: Vec<String> = g.eligible.iter().map(name).collect();
                (index, EventKind::Eligible { members: names.join(" ") })
            }
            (Applied::SwitchoverAborted(_), _) => {
                (index, EventKind::SwitchoverAborted { reason: "see history".to_owned() })
            }
            _ => return,
        };
        self.sink.event(group, epoch, index, kind);
    }

    pub(super) fn note_applied(&mut self, now: Now, index: u64, applied: &Applied) {
        self.applied = index;
        let Some(mut leader) = self.leader.take() else { return };
        let wishes = leader.applied(&self.round(now, &|_| false), index, applied);
        self.leader = Some(leader);
        self.carry_out(now, wishes);
    }

    pub(super) fn restore(&mut self, now: Now, index: u64, data: &[u8]) {
        if data.is_empty() {
            self.model = Model::default();
        } else {
            match codec::decode_model(data) {
                Ok(model) => self.model = model,
                Err(error) => panic!(
                    "snapshot at {index} cannot be read by this version: {error}; upgrade this node"
                ),
            }
            self.spec_changed();
        }
        self.snapshot_at = index;
        self.note_applied(now, index, &Applied::Nothing);
    }

    /// The groups of which this node is a member get their machines; known ones keep theirs, and others go: their ports stay
    /// guarded, and a replica's element in the lock runs out.
    pub(super) fn spec_changed(&mut self) {
        let spec = self.spec().clone();
        let me = self.me;
        self.hosts.retain(|id, _| spec.group(id).is_some_and(|g| g.is_member(me)));
        for g in spec.groups.iter().filter(|g| g.is_member(self.me)) {
            let at_start = AtStart {
                guarded: self.lock_at_start.guarded.contains(&g.port),
                replica: self.lock_at_start.replica.contains(&g.port),
                open: self.lock_at_start.open.is_some(),
            };
            let burned = self.burned_at_start.get(&g.id).copied().unwrap_or(Epoch::NONE);
            let new = || HostGroup::new(self.me, g.clone(), burned, at_start);
            self.hosts.entry(g.id.clone()).or_insert_with(new);
        }
        self.sink.push(Effect::SpecChanged(Box::new(spec)));
    }
}
