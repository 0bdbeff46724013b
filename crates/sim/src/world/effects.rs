//! Carries out what a core wants: messages, disk, the kernel lock, addresses and announcements.
//!
//! Each executor works in order, one thing at a time, and takes time. An order carries what the model said when it
//! was given, so that the checkers can tell a late one.

use redkeep_core::{
    Action, ActionId, ActionOutcome, Effect, GroupId, HostEvent, Input, LockEvent, LockOp, RunId,
    Span, command::Cause, effect::ActionFailure,
};

use crate::{
    claims,
    disk::DiskWrite,
    fault::FaultKind,
    lock::{Instant, KernelTime, StartGuard},
    net::Endpoint,
    world::{
        World,
        event::{Event, Group, ProcessEvent},
        host::{KernelJob, LockJob, LockWork, View},
        next,
    },
};

/// Announcements after the first: the schedule of the agent, in milliseconds.
const ANNOUNCE_MS: [u64; 6] = [0, 50, 200, 1_000, 2_000, 5_000];

impl World {
    pub(super) fn carry_out(&mut self, host: Endpoint, effects: Vec<Effect>) {
        let orders = |e: &Effect| matches!(e, Effect::Lock(_) | Effect::Act { .. });
        let views = if effects.iter().any(orders) { self.views(host) } else { Vec::new() };
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    if let Some(to) = self.host_of(to) {
                        self.send(host, to, message);
                    }
                }
                Effect::Persist(persist) => self.disk_order(host, DiskWrite::Persist(persist)),
                Effect::Burn { group, epoch } => {
                    self.disk_order(host, DiskWrite::Burn { group, epoch });
                }
                Effect::Lock(LockOp::Admit { item, run_id }) => {
                    self.admit_order(host, &item.group, run_id);
                }
                Effect::Lock(op) => self.lock_order(host, LockWork::Op(op), &views),
                Effect::Act { group, id, action } => self.act(host, &group, (id, action), &views),
                Effect::ProbeNow { group } => {
                    if let Some(group) = self.group_index(&group) {
                        let event = ProcessEvent::ProbeDue { group, extra: true };
                        self.process_after(host, Span(10_000), event);
                    }
                }
                Effect::Reply { id, reply } => {
                    self.note(format_args!("{host} -> {id:?} {reply:?}"));
                    self.answered(id, &reply);
                }
                Effect::Event(event) => {
                    self.note(format_args!("{host} event {event:?}"));
                    self.met_event(&event);
                    self.met_leader(host, &event);
                    self.check_moved(host, &event);
                }
                Effect::Look { number, target, timeout } => {
                    self.look_order(host, number, target, timeout);
                }
                Effect::SpecChanged(spec) => {
                    self.note(format_args!("{host} spec {}", spec.name));
                    self.follow_spec(host, &spec);
                }
            }
        }
    }

    pub(super) fn view_of(views: &[(Group, View)], group: Group) -> View {
        let none =
            View { epoch: redkeep_core::Epoch::NONE, master: None, cause: None, serving: false };
        views.iter().find(|(g, _)| *g == group).map_or(none, |(_, v)| *v)
    }

    // Disk.

    fn disk_order(&mut self, host: Endpoint, write: DiskWrite) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.disk.push_back(write);
        if p.disk.len() == 1 {
            self.disk_next(host);
        }
    }

    /// All that waits when the disk is free shares one sync, as in the daemon.
    fn disk_next(&mut self, host: Endpoint) {
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.disk_batch = p.disk.len();
        }
        let took = Span(self.dice.disk.range(100_000, self.knobs.disk_max.0));
        let stalled = self.hosts[host].disk_stalled_until.since(self.now);
        if stalled > Span(0) {
            self.coverage.met("disk stalled");
            self.moment(FaultKind::DiskStall, Some(host));
        }
        self.process_after(host, took + stalled, ProcessEvent::DiskDone);
    }

    pub(super) fn disk_done(&mut self, host: Endpoint) {
        if self.disk_refuses(host) {
            return;
        }
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let more = p.disk.len() > p.disk_batch;
        let batch: Vec<DiskWrite> = p.disk.drain(..p.disk_batch).collect();
        for write in batch {
            self.written(host, write);
        }
        if more {
            self.disk_next(host);
        }
    }

    fn written(&mut self, host: Endpoint, write: DiskWrite) {
        let input = match &write {
            DiskWrite::Persist(persist) => Input::Persisted { number: persist.number },
            DiskWrite::Burn { group, epoch } => {
                Input::Burned { group: group.clone(), epoch: *epoch }
            }
        };
        self.met_snapshot(&write);
        if !(self.switches.burn_forgotten && matches!(write, DiskWrite::Burn { .. })) {
            self.hosts[host].disk.write(write);
        }
        self.take_in(host, input);
    }

    fn met_snapshot(&mut self, write: &DiskWrite) {
        if let DiskWrite::Persist(p) = write
            && p.snapshot.is_some()
        {
            self.coverage.met(if p.replace_log { claims::BY_SNAPSHOT } else { claims::COMPACTED });
        }
    }

    // Kernel lock.

    pub(super) fn lock_order(&mut self, host: Endpoint, work: LockWork, views: &[(Group, View)]) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.lock.push_back(LockJob { work, views: views.to_vec() });
        if p.lock.len() == 1 {
            self.lock_next(host);
        }
    }

    /// The driver names the process that is watched for this life; with the old order the prober did it already.
    fn admit_order(&mut self, host: Endpoint, group: &GroupId, run_id: RunId) {
        let by_core = self.switches.lock.start_guard == StartGuard::UntilTaken;
        let Some(group) = self.group_index(group) else { return };
        let Some(p) = self.hosts[host].process.as_ref() else { return };
        let watched = p.control[group].watched.as_ref().filter(|(_, id)| by_core && *id == run_id);
        let life = watched.map(|(life, _)| *life);
        self.lock_order(host, LockWork::Admit { group, life, asked: Some(run_id) }, &[]);
    }

    fn lock_next(&mut self, host: Endpoint) {
        let next = self.hosts[host].process.as_ref().and_then(|p| p.lock.front());
        let admits = next.is_some_and(|j| matches!(j.work, LockWork::Admit { .. }));
        let dice = if admits { &mut self.dice.starts } else { &mut self.dice.kernel };
        let mut took = Span(dice.range(15_000, 100_000));
        if dice.chance(5_000) {
            took += Span(dice.range(0, 40_000_000));
            self.coverage.met("lock batch slow");
        }
        let stalled = self.hosts[host].lock_stalled_until.since(self.now);
        if stalled > Span(0) {
            self.coverage.met("lock batch stalled");
            self.moment(FaultKind::LockStall, Some(host));
        }
        self.process_after(host, took + stalled, ProcessEvent::LockDone);
    }

    pub(super) fn lock_done(&mut self, host: Endpoint) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let Some(job) = p.lock.pop_front() else { return };
        if matches!(job.work, LockWork::Op(LockOp::Open { .. }))
            && let Some(away) = p.dies_opening.take()
        {
            let delay = Span(self.dice.faults.range(1_000_000, 500_000_000));
            self.after(delay, Event::LateBatch { host, job: Box::new(job) });
            self.moment(FaultKind::KillSupervisorLateBatches, Some(host));
            return self.kill_supervisor(host, Some(away));
        }
        let more = !p.lock.is_empty();
        let ok = self.run_batch(host, &job);
        match job.work {
            LockWork::Op(op) => {
                let took = Span(self.dice.kernel.range(2_000, 30_000));
                self.news(host, took, Input::Lock(lock_event(&op, ok)));
            }
            LockWork::Admit { group, asked: Some(run_id), .. } => {
                let took = Span(self.dice.starts.range(2_000, 30_000));
                let group = self.spec.groups[group].id.clone();
                self.news(host, took, Input::Lock(LockEvent::Admitted { group, run_id, ok }));
            }
            LockWork::Admit { asked: None, .. } => {}
        }
        if more {
            self.lock_next(host);
        }
    }

    pub(super) fn late_batch(&mut self, host: Endpoint, job: &LockJob) {
        if self.put_off(host, || Event::LateBatch { host, job: Box::new(job.clone()) }) {
            return;
        }
        if self.hosts[host].powered {
            self.coverage.met("batch of a dead process");
            self.note(format_args!("{host} late batch of a dead process"));
            self.run_batch(host, job);
        }
    }

    fn run_batch(&mut self, host: Endpoint, job: &LockJob) -> bool {
        let op = match &job.work {
            LockWork::Op(op) => op,
            LockWork::Admit { group, life, .. } => {
                let (port, life) = (self.port(*group), *life);
                if let Some(life) = life {
                    self.hosts[host].lock.admit(port, life);
                }
                return life.is_some() || self.switches.lock.start_guard != StartGuard::UntilTaken;
            }
        };
        // Rounding to ticks ends a timer up to two ticks early; a stalled tick, late.
        let tick_error_ns =
            i64::try_from(self.dice.kernel.range(0, 28_000_000)).unwrap_or(0) - 8_000_000;
        let at = self.hosts[host].kernel_time(self.now);
        let ok = self.hosts[host].lock.run(op, Instant { at, tick_error_ns });
        self.note(format_args!("{host} lock {op:?} ok={ok}"));
        if ok {
            self.note_permission(host, job, op);
        }
        if let (LockOp::Open { items, .. }, true) = (op, ok) {
            for item in items {
                let Some(group) = self.group_index(&item.group) else { continue };
                let view = Self::view_of(&job.views, group);
                self.check_order(host, group, "open", view.epoch);
                self.opened(host, group, view);
            }
        }
        ok
    }

    fn opened(&mut self, host: Endpoint, group: Group, view: View) {
        if let Some(cause) = view.cause {
            self.checks.ledger.assigned(group, view.epoch, cause);
        }
        if self.checks.ledger.opened(group, host, (view.epoch, view.cause)) {
            self.coverage.met("tenure begun");
            if view.cause == Some(Cause::ColdStart) {
                let others = self.passed_over(host, group);
                self.checks.ledger.passed_over(group, view.epoch, others);
            }
            if self.is_newcomer(host) {
                self.coverage.met(claims::NEWCOMER_SERVES);
            }
            let unreached = view.cause == Some(Cause::MasterUnreached);
            if unreached && self.checks.ledger.moved(group, host, view.epoch) {
                self.coverage.met(claims::UNREACHED_MOVED);
            }
            if self.checks.ledger.goes_on(group, host, view.epoch) {
                self.coverage.met("old master went on after a switchover");
            }
            if let Some(redis) = &self.hosts[host].redis[group] {
                self.checks.tails.opened(host, group, (redis.life, view.epoch));
            }
            self.note(format_args!("{host} g{group} opens at epoch {}", view.epoch));
        }
        self.pump_soon(host, group);
    }

    // Addresses, announcements, sockets.

    fn act(
        &mut self,
        host: Endpoint,
        group: &GroupId,
        order: (ActionId, Action),
        views: &[(Group, View)],
    ) {
        let Some(group) = self.group_index(group) else { return };
        let (id, action) = order;
        let view = Self::view_of(views, group);
        self.note(format_args!("{host} g{group} act {id:?} {action:?}"));
        self.check_permission(host, group, &action, view.epoch);
        if matches!(action, Action::Compare { .. } | Action::KeepAside { .. }) {
            return self.aside_order(host, group, id, &action);
        }
        if action.is_redis() {
            return self.control_order(host, group, (id, action), view);
        }
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.kernel.push_back(KernelJob { group, id, action, view });
        if p.kernel.len() == 1 {
            self.kernel_next(host);
        }
    }

    fn kernel_next(&mut self, host: Endpoint) {
        let took = Span(self.dice.kernel.range(30_000, 400_000));
        self.process_after(host, took, ProcessEvent::KernelDone);
    }

    pub(super) fn kernel_done(&mut self, host: Endpoint) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let Some(job) = p.kernel.pop_front() else { return };
        let more = !p.kernel.is_empty();
        let outcome = self.run_kernel_job(host, &job);
        self.action_done(host, job.group, job.id, outcome);
        if more {
            self.kernel_next(host);
        }
    }

    pub(super) fn action_done(
        &mut self,
        host: Endpoint,
        group: Group,
        id: ActionId,
        outcome: ActionOutcome,
    ) {
        let group = self.spec.groups[group].id.clone();
        let took = Span(self.dice.kernel.range(2_000, 30_000));
        self.news(host, took, Input::ActionDone { group, id, outcome });
    }

    fn run_kernel_job(&mut self, host: Endpoint, job: &KernelJob) -> ActionOutcome {
        let group = job.group;
        match &job.action {
            Action::EnsureVip { valid_seconds, .. } => {
                self.check_order(host, group, "address", job.view.epoch);
                self.checks.orders.vip_up(host, group, job.view.epoch);
                let extra = self.dice.kernel.range(0, 600_000_000);
                let at = self.hosts[host].kernel_time(self.now);
                let ends = at.0 + u64::from(*valid_seconds) * 1_000_000_000 + extra;
                self.hosts[host].vips[group] = Some(KernelTime(ends));
                self.watch_vip(host, group, ends);
            }
            Action::RemoveVip { .. } => {
                self.hosts[host].vips[group] = None;
                self.stop_announcing(host, group);
            }
            Action::Announce { .. } => self.start_announcing(host, group),
            Action::ProbeRival { .. } => {
                let rival = (0..self.hosts.len()).find(|h| {
                    *h != host
                        && self.hosts[*h].has_vip(group, self.now)
                        && self.net.both_ways(*h, host)
                });
                if let Some(rival) = rival {
                    self.coverage.met("rival for the VIP");
                    return ActionOutcome::Rival(rival.to_string());
                }
            }
            Action::DestroySockets { .. } => {
                self.hosts[host].destroyed[group] = self.counters.socket;
                self.cut_replicas(host, group);
            }
            Action::Promote(_)
            | Action::GoOn(_)
            | Action::SetMinReplicas(_)
            | Action::Follow { .. }
            | Action::Relink { .. }
            | Action::Compare { .. }
            | Action::KeepAside { .. }
            | Action::PauseAndCatchUp { .. }
            | Action::Unpause
            | Action::ReadOffset
            | Action::ShutWrites
            | Action::VerifyVip { .. } => {
                return failed(false, "an action for Redis in the kernel's queue");
            }
        }
        ActionOutcome::Done
    }

    pub(super) fn watch_vip(&mut self, host: Endpoint, group: Group, ends: u64) {
        let at = self.hosts[host].clock.boot.real_of(ends);
        self.at(at, Event::VipExpires { host, group });
    }

    pub(super) fn vip_expires(&mut self, host: Endpoint, group: Group) {
        // A machine that stands still is asked again when it goes on.
        let stands = self.hosts[host].standing > 0;
        let Some(ends) = self.hosts[host].vips[group].filter(|_| !stands) else { return };
        let at = self.hosts[host].kernel_time(self.now);
        if at < ends {
            let due = self.hosts[host].clock.boot.real_of(ends.0);
            if due.since(self.now) < Span(5_000_000) {
                self.at(due.after_ns(1_000), Event::VipExpires { host, group });
            }
            return;
        }
        self.coverage.met("VIP expired in the kernel");
        self.vip_gone(host, group);
    }

    pub(super) fn vip_gone(&mut self, host: Endpoint, group: Group) {
        self.hosts[host].vips[group] = None;
        self.note(format_args!("{host} g{group} VIP gone"));
        let event = HostEvent::VipRemoved { group: self.spec.groups[group].id.clone() };
        let delay = Span(self.dice.kernel.range(50_000, 500_000));
        self.news(host, delay, Input::Host(event));
    }

    pub(super) fn tell_vip_present(&mut self, host: Endpoint, group: Group) {
        if self.hosts[host].has_vip(group, self.now) {
            let event = HostEvent::VipPresent { group: self.spec.groups[group].id.clone() };
            self.news(host, Span(200_000), Input::Host(event));
        }
    }

    fn start_announcing(&mut self, host: Endpoint, group: Group) {
        let number = next(&mut self.counters.announcement);
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.control[group].announcing = number;
        }
        self.announce(host, group, number, 0);
    }

    fn stop_announcing(&mut self, host: Endpoint, group: Group) {
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.control[group].announcing = 0;
        }
    }

    /// A gratuitous ARP leaves only while the lease is live: the kernel lock guards it too.
    pub(super) fn announce(&mut self, host: Endpoint, group: Group, number: u64, step: usize) {
        let Some(p) = self.hosts[host].process.as_ref() else { return };
        if p.control[group].announcing != number {
            return;
        }
        if self.hosts[host].leased(self.port(group), self.now) {
            for listener in 0..self.net.endpoints() {
                if listener != host && self.net.connected(host, listener) {
                    self.clients.learn(listener, group, host);
                }
            }
        } else {
            self.coverage.met("announcement stopped by the lock");
        }
        let now_ms = ANNOUNCE_MS.get(step).copied().unwrap_or(0);
        let then_ms = ANNOUNCE_MS.get(step + 1).copied().unwrap_or(now_ms + 60_000);
        let wait = Span::from_millis(then_ms - now_ms);
        let event = ProcessEvent::Announce { group, number, step: step + 1 };
        self.process_after(host, wait, event);
    }
}

pub(super) fn failed(retry: bool, text: &str) -> ActionOutcome {
    ActionOutcome::Failed(ActionFailure { retry, text: text.to_owned() })
}

fn lock_event(op: &LockOp, ok: bool) -> LockEvent {
    match op {
        LockOp::Arm { arm, .. } => LockEvent::Armed { arm: *arm, ok },
        LockOp::Open { arm, items, .. } => {
            let groups = items.iter().map(|i| i.group.clone()).collect();
            LockEvent::Opened { arm: *arm, groups, ok }
        }
        LockOp::Close { item } => LockEvent::Closed { group: item.group.clone(), ok },
        LockOp::Guard { item } => LockEvent::Guarded { group: item.group.clone(), ok },
        LockOp::PermitReplica { item, .. } => {
            LockEvent::ReplicaPermitted { group: item.group.clone(), ok }
        }
        LockOp::ForbidReplica { item } => {
            LockEvent::ReplicaForbidden { group: item.group.clone(), ok }
        }
        LockOp::Restore => LockEvent::Restored { ok },
        LockOp::Admit { item, run_id } => {
            LockEvent::Admitted { group: item.group.clone(), run_id: run_id.clone(), ok }
        }
    }
}
