//! Carries out the plan: faults, their ends, and the healing of everything at the end.

use redkeep_consensus::Role as RaftRole;
use redkeep_core::{
    AdminReply, AdminRequest, EventKind, HostEvent, Input, NodeId, RequestId, Span, command::Cause,
};

use crate::{
    fault::{FaultKind, Planned, Target},
    net::Endpoint,
    world::{
        World,
        event::{Event, Group, Keep, Undo},
        host::Asked,
        layout, next,
    },
};

const CAUSES: [Cause; 7] = [
    Cause::Adopted,
    Cause::MasterDown,
    Cause::NodeSilent,
    Cause::Switchover,
    Cause::SwitchoverBack,
    Cause::Operator,
    Cause::ColdStart,
];

impl World {
    pub(super) fn fault(&mut self, index: usize) {
        let fault = self.plan.faults[index];
        let Some(host) = self.resolve(fault.target) else { return };
        self.note(format_args!("FAULT {} at {host}", fault.kind.as_str()));
        if self.carry_out_fault(host, &fault) {
            self.coverage.met(fault.kind.as_str());
        }
    }

    fn resolve(&mut self, target: Target) -> Option<Endpoint> {
        match target {
            Target::Node(n) => (n < self.hosts.len()).then_some(n),
            Target::Leader => self.leader().or(Some(self.hosts.len() - 1)),
            Target::Master(g) => Some(self.master(g).unwrap_or(0)),
            Target::Replica(g) => {
                let master = self.master(g);
                let member = |h: &usize| self.hosts[*h].redis[g].is_some() && Some(*h) != master;
                (0..self.hosts.len()).find(member)
            }
        }
    }

    /// The host that serves the group, or else one whose Redis says it is master.
    pub(super) fn master(&self, group: Group) -> Option<Endpoint> {
        let (now, port) = (self.now, self.port(group));
        let leased = (0..self.hosts.len()).find(|h| self.hosts[*h].leased(port, now));
        let says = |h: &usize| {
            self.hosts[*h].redis[group].as_ref().is_some_and(crate::redis::Redis::is_master)
        };
        leased.or_else(|| (0..self.hosts.len()).find(says))
    }

    /// A running supervisor that leads, the one of the highest term.
    pub(super) fn leader(&mut self) -> Option<Endpoint> {
        let mut best = None;
        for host in 0..self.hosts.len() {
            let now = self.hosts[host].clock.now(self.now);
            let Some(p) = self.hosts[host].process.as_mut() else { continue };
            let status = p.core.status(now);
            if status.role == RaftRole::Leader && best.is_none_or(|(term, _)| term < status.term) {
                best = Some((status.term, host));
            }
        }
        best.map(|(_, host)| host)
    }

    fn group_at(&self, host: Endpoint, fault: &Planned) -> Option<Group> {
        let preferred = match fault.target {
            Target::Master(g) | Target::Replica(g) => Some(g),
            Target::Node(_) | Target::Leader => None,
        };
        let own: Vec<Group> =
            (0..self.spec.groups.len()).filter(|g| self.hosts[host].redis[*g].is_some()).collect();
        let any = || {
            let pick = usize::try_from(fault.pick % 1_000).unwrap_or(0);
            own.get(pick % own.len().max(1)).copied()
        };
        preferred.filter(|g| own.contains(g)).or_else(any)
    }

    /// False if there was nothing to do.
    fn carry_out_fault(&mut self, host: Endpoint, fault: &Planned) -> bool {
        use FaultKind as F;
        match fault.kind {
            F::FreezeSupervisor
            | F::FreezeMidStep
            | F::KillSupervisor
            | F::KillSupervisorLateBatches => self.fault_of_supervisor(host, fault),
            F::PowerOff => self.power_off(host, fault.lasts),
            F::KillRedis | F::KillRedisEmpty | F::KillRedisOld | F::FreezeRedis => {
                self.fault_of_redis(host, fault)
            }
            F::CutOneWay | F::CutPair | F::Isolate | F::Deaf | F::Mute | F::Split => {
                self.fault_of_links(host, fault);
                true
            }
            F::LoseGrants => {
                self.hosts[host].no_grants_until = self.now.after(fault.lasts);
                true
            }
            F::HoldReports => {
                self.hosts[host].reports_held_until = self.now.after(fault.lasts);
                self.hosts[host].holds_reports = false;
                true
            }
            F::LossyNet | F::DuplicatingNet | F::StragglingNet => {
                self.bad_weather(fault);
                true
            }
            F::DiskStall => {
                self.hosts[host].disk_stalled_until = self.now.after(fault.lasts);
                true
            }
            F::LockStall => {
                self.hosts[host].lock_stalled_until = self.now.after(fault.lasts);
                true
            }
            F::LockFlush => self.lock_flush(host),
            F::VipDelete => self.vip_delete(host, fault),
            F::ClockSlew => {
                let max = i64::try_from(self.knobs.skew_max_ppm).unwrap_or(0);
                let skew = layout::skew(max, &mut self.dice.faults);
                let now = self.now;
                self.hosts[host].clock.boot.set_skew(now, skew);
                true
            }
            F::Switchover | F::Failover | F::Pause | F::TransferLeadership => {
                self.order(host, fault)
            }
            F::StalledElection => self.stall_next_election(host, fault.lasts),
            F::StalledLook => self.stall_next_look(host, fault.lasts),
        }
    }

    fn fault_of_supervisor(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(p) = self.hosts[host].process.as_mut() else { return false };
        let life = p.life;
        match fault.kind {
            FaultKind::FreezeMidStep => p.stop_in_next_step = Some(fault.lasts),
            FaultKind::KillSupervisorLateBatches => {
                p.dies_opening = Some(fault.lasts);
                self.undo_after(Span::from_millis(400), Undo::KillAnyway { host, life });
            }
            FaultKind::KillSupervisor => self.kill_supervisor(host, Some(fault.lasts)),
            _ => self.freeze_supervisor(host, fault.lasts),
        }
        true
    }

    fn fault_of_redis(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        let keep = match fault.kind {
            FaultKind::KillRedisEmpty => Keep::Nothing,
            FaultKind::KillRedisOld => Keep::Half,
            FaultKind::FreezeRedis => {
                self.freeze_redis(host, group, fault.lasts);
                return true;
            }
            _ => Keep::Most,
        };
        if !self.kill_redis(host, group) {
            return false;
        }
        self.after(fault.lasts, Event::RedisStart { host, group, keep });
        true
    }

    fn fault_of_links(&mut self, host: Endpoint, fault: &Planned) {
        let others: Vec<Endpoint> = (0..self.net.endpoints()).filter(|e| *e != host).collect();
        let pick = usize::try_from(fault.pick % 1_000).unwrap_or(0);
        let one = others[pick % others.len()];
        let leader = self.leader().unwrap_or(host);
        let far = |e: &Endpoint| *e != host && *e != leader;
        let cuts: Vec<(Endpoint, Endpoint)> = match fault.kind {
            FaultKind::Split => others
                .iter()
                .filter(|o| far(o))
                .flat_map(|o| [(host, *o), (*o, host), (leader, *o), (*o, leader)])
                .collect(),
            FaultKind::CutOneWay => vec![(host, one)],
            FaultKind::CutPair => vec![(host, one), (one, host)],
            FaultKind::Deaf => others.iter().map(|o| (*o, host)).collect(),
            FaultKind::Mute => others.iter().map(|o| (host, *o)).collect(),
            _ => others.iter().flat_map(|o| [(host, *o), (*o, host)]).collect(),
        };
        for (from, to) in cuts {
            self.net.cut(from, to);
            self.undo_after(fault.lasts, Undo::Join { from, to });
        }
    }

    fn bad_weather(&mut self, fault: &Planned) {
        let (mut loss_ppm, mut duplicate_ppm, mut straggler_ppm, mut straggler_max) = (0, 0, 0, 0);
        match fault.kind {
            FaultKind::LossyNet => loss_ppm = 50_000 + fault.pick % 350_000,
            FaultKind::DuplicatingNet => duplicate_ppm = 300_000,
            _ => {
                straggler_ppm = 100_000 + fault.pick % 200_000;
                straggler_max = 400_000_000;
            }
        }
        let w = &mut self.net.weather;
        w.loss_ppm += loss_ppm;
        w.duplicate_ppm += duplicate_ppm;
        w.straggler_ppm += straggler_ppm;
        w.straggler_max += Span(straggler_max);
        let undo = Undo::Weather { loss_ppm, duplicate_ppm, straggler_ppm, straggler_max };
        self.undo_after(fault.lasts, undo);
    }

    fn lock_flush(&mut self, host: Endpoint) -> bool {
        self.hosts[host].lock.flushed();
        let delay = Span(self.dice.faults.range(500_000, 16_000_000));
        self.news(host, delay, Input::Host(HostEvent::LockLost));
        true
    }

    fn vip_delete(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        if !self.hosts[host].has_vip(group, self.now) {
            return false;
        }
        self.vip_gone(host, group);
        true
    }

    /// All memory goes, and what was not synced, but for a part of it.
    fn power_off(&mut self, host: Endpoint, lasts: Span) -> bool {
        if !self.hosts[host].powered {
            return false;
        }
        self.hosts[host].powered = false;
        self.hosts[host].process = None;
        for group in 0..self.spec.groups.len() {
            self.kill_redis(host, group);
            self.hosts[host].vips[group] = None;
        }
        let unsynced = self.hosts[host].disk.unsynced();
        let kept = self.dice.disk.index(unsynced + 1);
        if kept < unsynced {
            self.coverage.met("unsynced write lost");
        }
        let h = &mut self.hosts[host];
        h.disk.power_lost(kept);
        h.lock.close_all(std::collections::BTreeSet::new());
        self.undo_after(lasts, Undo::PowerOn { host });
        true
    }

    /// The boot unit makes the table, closed, before anything else starts.
    fn power_on(&mut self, host: Endpoint) {
        let node = self.hosts[host].node;
        let own = self.spec.groups.iter().filter(|g| g.is_member(node));
        let ports = own.map(|g| g.port).collect();
        self.hosts[host].lock.close_all(ports);
        self.hosts[host].powered = true;
        for group in 0..self.spec.groups.len() {
            if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                redis.frozen = 0;
                let delay = Span(self.dice.faults.range(10_000_000, 300_000_000));
                self.after(delay, Event::RedisStart { host, group, keep: Keep::Most });
            }
        }
        let delay = Span(self.dice.faults.range(10_000_000, 500_000_000));
        self.after(delay, Event::Start { host });
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Thaw { host, life } => self.thaw_supervisor(host, life),
            Undo::KillAnyway { host, life } => {
                let p = self.hosts[host].process.as_mut().filter(|p| p.life == life);
                if let Some(away) = p.and_then(|p| p.dies_opening.take()) {
                    self.kill_supervisor(host, Some(away));
                }
            }
            Undo::PowerOn { host } => self.power_on(host),
            Undo::ThawRedis { host, group, life } => self.thaw_redis(host, group, life),
            Undo::Join { from, to } => self.net.heal(from, to),
            Undo::Weather { loss_ppm, duplicate_ppm, straggler_ppm, straggler_max } => {
                let w = &mut self.net.weather;
                w.loss_ppm -= loss_ppm;
                w.duplicate_ppm -= duplicate_ppm;
                w.straggler_ppm -= straggler_ppm;
                w.straggler_max = w.straggler_max - Span(straggler_max);
            }
        }
    }

    // The operator.

    fn order(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let group = self.group_at(host, fault).unwrap_or(0);
        let id = self.spec.groups[group].id.clone();
        let lasts = fault.lasts.max(Span::from_secs(1));
        let somewhere = fault.pick % 10 < 3;
        let leader = self.leader().filter(|_| !somewhere).unwrap_or(host);
        let pick = usize::try_from(fault.pick % 1_000).unwrap_or(0);
        let to =
            if matches!(fault.target, Target::Master(_)) { host } else { pick % self.hosts.len() };
        let to: NodeId = self.hosts[to].node;
        let request = match fault.kind {
            FaultKind::Switchover => {
                AdminRequest::Switchover { group: id, to: None, dry_run: false }
            }
            FaultKind::Failover => AdminRequest::Failover {
                group: id,
                to: None,
                allow_data_loss: false,
                dry_run: false,
            },
            FaultKind::Pause => AdminRequest::Pause { group: Some(id), duration: lasts },
            _ => AdminRequest::TransferLeadership { to },
        };
        self.ask(leader, request)
    }

    pub(super) fn ask(&mut self, host: Endpoint, request: AdminRequest) -> bool {
        let Some(life) = self.hosts[host].process.as_ref().map(|p| p.life) else { return false };
        let id = RequestId(next(&mut self.counters.request));
        self.asked.insert(id, Asked { host, life, at: self.now });
        self.take_in(host, Input::Admin { id, request });
        true
    }

    pub(super) fn answered(&mut self, id: RequestId, reply: &AdminReply) {
        self.asked.remove(&id);
        self.coverage.met(match reply {
            AdminReply::Done { .. } => "order done",
            AdminReply::Refused(_) => "order refused",
            AdminReply::NotLeader { .. } => "order to a follower",
            AdminReply::Unknown { .. } => "order's outcome unknown",
        });
    }

    pub(super) fn met_event(&mut self, event: &redkeep_core::Event) {
        let met = match &event.kind {
            EventKind::Assigned { cause, .. } => {
                let group = event.group.as_ref().and_then(|g| self.group_index(g));
                let cause = CAUSES.into_iter().find(|c| c.as_str() == cause);
                if let (Some(group), Some(cause)) = (group, cause) {
                    self.checks.ledger.assigned(group, event.epoch, cause);
                }
                "assigned"
            }
            EventKind::Fenced { .. } => "fenced",
            EventKind::LeaseLost => "lease lost",
            EventKind::Serving { .. } => "serving",
            EventKind::SwitchoverAborted { .. } => "switchover aborted",
            EventKind::SwitchoverStarted { .. } => "switchover started",
            EventKind::LeaderChanged { .. } => "leader changed",
            EventKind::VipRestored => "VIP restored",
            EventKind::LockLost => "lock lost",
            _ => return,
        };
        self.coverage.met(met);
    }
}
