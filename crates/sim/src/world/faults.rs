//! Carries out the plan: faults, their ends, and the healing of everything at the end.

use std::net::SocketAddr;

use redkeep_consensus::Role as RaftRole;
use redkeep_core::{
    AdminReply, AdminRequest, EventKind, HostEvent, Input, NodeId, Refusal, RequestId, Span,
    command::Cause, observe::Bypass,
};

use crate::{
    clock::Real,
    fault::{FaultKind, Planned, Target},
    net::Endpoint,
    plan::Profile,
    world::{
        World,
        event::{Event, Group, Keep, Undo},
        host::Asked,
        layout, next,
    },
};

/// A stop in the next step is not counted when it comes later.
const MOMENT_MAX: Span = Span::from_secs(5);
/// A process that is to die while it opens a gate dies within this.
const DIES_WITHIN: Span = Span::from_millis(400);
/// Between two orders of a script.
const FLOOD_EVERY: Span = Span::from_millis(1);
/// A port that no lock guards.
const SECOND_PORT: u16 = 16_379;

const CAUSES: [Cause; 8] = [
    Cause::Adopted,
    Cause::MasterDown,
    Cause::NodeSilent,
    Cause::Switchover,
    Cause::SwitchoverBack,
    Cause::Operator,
    Cause::ColdStart,
    Cause::MasterUnreached,
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
                let member = |h: &usize| self.hosts[*h].member[g] && Some(*h) != master;
                (0..self.hosts.len()).find(member)
            }
        }
    }

    /// The host that serves the group, or else one whose Redis says it is master.
    pub(super) fn master(&self, group: Group) -> Option<Endpoint> {
        let (now, port) = (self.now, self.port(group));
        let leased = (0..self.hosts.len()).find(|h| self.hosts[*h].leased(port, now));
        let says = |h: &usize| {
            let redis = self.hosts[*h].redis[group].as_ref();
            self.hosts[*h].member[group] && redis.is_some_and(crate::redis::Redis::is_master)
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

    pub(super) fn group_at(&self, host: Endpoint, fault: &Planned) -> Option<Group> {
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
            F::KillRedis
            | F::KillRedisEmpty
            | F::KillRedisOld
            | F::RestartFromRdb
            | F::FreezeRedis => self.fault_of_redis(host, fault),
            F::CutOneWay | F::CutPair | F::Isolate | F::Deaf | F::Mute | F::Split => {
                self.fault_of_links(host, fault);
                true
            }
            F::LoseGrants | F::HoldReports | F::DiskStall | F::LockStall => {
                self.stall(host, fault);
                false
            }
            F::LossyNet | F::DuplicatingNet | F::StragglingNet => {
                self.bad_weather(fault);
                false
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
            F::OpenAround => self.open_around(host, fault),
            F::PortFiltered | F::PortFilteredForNodes => self.filter_port(host, fault),
            F::PromoteByHand | F::WritableByHand => self.order_by_hand(host, fault),
            F::StrayByHand => self.stray_by_hand(host, fault),
            F::DiskFails => self.disk_fails(host, fault.lasts),
            F::LogFlood => self.flood(self.now.after(fault.lasts)),
            F::PauseMachine => self.pause_machine(host, fault.lasts),
            F::AddNode | F::RemoveNode | F::AddMember | F::RemoveMember => {
                self.change_membership(host, fault)
            }
        }
    }

    /// What is late or lost from now on, once there is something.
    fn stall(&mut self, host: Endpoint, fault: &Planned) {
        let until = self.now.after(fault.lasts);
        let h = &mut self.hosts[host];
        match fault.kind {
            FaultKind::LoseGrants => h.no_grants_until = until,
            FaultKind::HoldReports => {
                h.reports_held_until = until;
                h.holds_reports = false;
            }
            FaultKind::DiskStall => h.disk_stalled_until = until,
            _ => h.lock_stalled_until = until,
        }
        self.awaits(fault.kind, Some(host), fault.lasts);
    }

    fn fault_of_supervisor(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(p) = self.hosts[host].process.as_mut() else { return false };
        let life = p.life;
        match fault.kind {
            FaultKind::FreezeMidStep => {
                p.stop_in_next_step = Some(fault.lasts);
                self.awaits(fault.kind, Some(host), MOMENT_MAX);
                return false;
            }
            FaultKind::KillSupervisorLateBatches => {
                p.dies_opening = Some(fault.lasts);
                self.undo_after(DIES_WITHIN, Undo::KillAnyway { host, life });
                self.awaits(fault.kind, Some(host), DIES_WITHIN);
                return false;
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
            FaultKind::RestartFromRdb => Keep::Rdb,
            FaultKind::FreezeRedis => {
                let redis = self.hosts[host].redis[group].as_ref();
                let alive = redis.is_some_and(|r| r.phase != crate::redis::Phase::Dead);
                self.freeze_redis(host, group, fault.lasts);
                return alive;
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
        self.awaits(fault.kind, None, fault.lasts);
        let undo = Undo::Weather { loss_ppm, duplicate_ppm, straggler_ppm, straggler_max };
        self.undo_after(fault.lasts, undo);
    }

    fn lock_flush(&mut self, host: Endpoint) -> bool {
        self.hosts[host].lock.flushed();
        if self.hosts[host].process.is_some() {
            self.hosts[host].flushes_untold += 1;
        }
        let delay = Span(self.dice.faults.range(500_000, 16_000_000));
        self.news(host, delay, Input::Host(HostEvent::LockLost));
        true
    }

    /// `CONFIG SET tls-port` by somebody: nobody looks at once.
    fn open_around(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        let second = SocketAddr::new(self.nodes[host].peer.ip(), SECOND_PORT);
        let redis = self.hosts[host].redis[group].as_mut();
        let Some(redis) = redis.filter(|r| r.phase != crate::redis::Phase::Dead) else {
            return false;
        };
        redis.around = vec![Bypass::Tcp(second)];
        let life = redis.life;
        self.undo_after(fault.lasts, Undo::CloseAround { host, group, life });
        true
    }

    fn close_around(&mut self, host: Endpoint, group: Group, life: u64) {
        let redis = self.hosts[host].redis[group].as_mut();
        if let Some(redis) = redis.filter(|r| r.life == life) {
            redis.around.clear();
        }
    }

    fn vip_delete(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let Some(group) = self.group_at(host, fault) else { return false };
        if !self.hosts[host].has_vip(group, self.now) {
            return false;
        }
        self.vip_gone(host, group);
        true
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
            Undo::Resume { host } => self.resume_machine(host),
            Undo::CloseAround { host, group, life } => self.close_around(host, group, life),
            Undo::Unfilter { host, group, kind } => self.unfilter(host, group, kind),
            Undo::ReadOnly { host, group, life } => {
                self.set_writable(host, group, (life, false));
            }
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
        let somewhere = fault.pick % 10 < 3 && self.plan.profile != Profile::Corner;
        let leader = self.leader().filter(|_| !somewhere).unwrap_or(host);
        let pick = usize::try_from(fault.pick % 1_000).unwrap_or(0);
        let named = match fault.target {
            Target::Master(_) => true,
            Target::Replica(_) => self.plan.profile == Profile::Corner,
            Target::Node(_) | Target::Leader => false,
        };
        let to = if named { host } else { pick % self.hosts.len() };
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
        self.ask_for(leader, request, (Some(fault.kind), false));
        // It is done when it was not refused.
        false
    }

    pub(super) fn ask(&mut self, host: Endpoint, request: AdminRequest) -> bool {
        self.ask_for(host, request, (None, false))
    }

    /// `purpose`: the fault that the order is, and whether it is about the membership.
    pub(super) fn ask_for(
        &mut self,
        host: Endpoint,
        request: AdminRequest,
        purpose: (Option<FaultKind>, bool),
    ) -> bool {
        let (kind, changes) = purpose;
        let Some(life) = self.hosts[host].process.as_ref().map(|p| p.life) else { return false };
        let id = RequestId(next(&mut self.counters.request));
        self.asked.insert(id, Asked { host, life, at: self.now, kind, changes });
        self.take_in(host, Input::Admin { id, request });
        true
    }

    /// `resume` of what is not paused is an entry in the log and nothing else.
    pub(super) fn flood(&mut self, until: Real) -> bool {
        if self.now >= until {
            return false;
        }
        self.after(FLOOD_EVERY, Event::Flood { until });
        let group = Some(self.spec.groups[0].id.clone());
        self.leader().is_some_and(|host| self.ask(host, AdminRequest::Resume { group }))
    }

    pub(super) fn answered(&mut self, id: RequestId, reply: &AdminReply) {
        let begun = match reply {
            AdminReply::Done { .. } | AdminReply::Unknown { .. } => true,
            AdminReply::Refused(why) => matches!(why, Refusal::Aborted(_)),
            AdminReply::NotLeader { .. } => false,
        };
        let asked = self.asked.remove(&id);
        if asked.is_some_and(|a| a.changes) {
            self.change_answered(reply);
        }
        let kind = asked.and_then(|asked| asked.kind);
        if let Some(kind) = kind.filter(|_| begun) {
            self.coverage.met(kind.as_str());
        }
        self.coverage.met(match reply {
            AdminReply::Done { .. } => "order done",
            AdminReply::Refused(_) => "order refused",
            AdminReply::NotLeader { .. } => "order to a follower",
            AdminReply::Unknown { .. } => "order's outcome unknown",
        });
    }

    pub(super) fn met_event(&mut self, event: &redkeep_core::Event) {
        let met = match &event.kind {
            EventKind::Assigned { cause, master } => {
                let group = event.group.as_ref().and_then(|g| self.group_index(g));
                let cause = CAUSES.into_iter().find(|c| c.as_str() == cause);
                if let Some(group) = group {
                    self.checks.permission.named(group, event.epoch, *master);
                }
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
