//! The supervisor's hands on Redis: probes, and the executor of role-changing commands.
//!
//! A command that was sent is never forgotten: it may lie in the buffers of a frozen Redis and run later, so the
//! observation says whether all were answered (`settled`).

use redkeep_core::{
    Action, ActionId, ActionOutcome, Input, RunId, Span,
    observe::{Bypass, ProbeFailure},
};

use crate::{
    check::Violation,
    lock::StartGuard,
    net::Endpoint,
    redis::{Change, Command, Phase, Role},
    world::{
        World,
        effects::failed,
        event::{Group, ProcessEvent, Stage},
        host::{LockWork, RedisJob, View},
        next,
    },
};

/// How long the executor waits for an answer.
const COMMAND_TIMEOUT: Span = Span::from_secs(1);
/// Between two looks for ways around the lock.
const LOOK_EVERY: Span = Span::from_secs(3);
/// Between two looks at the target's offset.
const POLL: Span = Span::from_micros(300);
/// `PROBE NOW` and probes take so long at most.
const ROUND_TRIP_MAX_NS: u64 = 400_000;

impl World {
    // Probes.

    pub(super) fn probe_due(&mut self, host: Endpoint, group: Group, extra: bool) {
        let probes = self.hosts[host].process.as_ref().is_some_and(|p| p.probes[group]);
        if !extra && !probes {
            return;
        }
        if !extra {
            let interval = self.spec.groups[group].probe.interval;
            let event = ProcessEvent::ProbeDue { group, extra: false };
            self.process_after(host, interval, event);
        }
        let Some(redis) = self.hosts[host].redis[group].as_ref() else { return };
        let life = redis.life;
        let result = match redis.phase {
            Phase::Dead => Err(ProbeFailure::Refused),
            Phase::Loading => Err(ProbeFailure::Loading),
            Phase::Up if redis.frozen > 0 => {
                let timeout = self.spec.groups[group].probe.timeout;
                let event = ProcessEvent::ProbeTimeout { group, redis_life: life };
                return self.process_after(host, timeout, event);
            }
            Phase::Up => {
                let process = self.hosts[host].process.as_ref();
                let settled = process.is_none_or(|p| p.control[group].unanswered.is_empty());
                let (port, around) = (self.port(group), self.look_around(host, group));
                let place = |e: Endpoint| (self.nodes[e].peer.ip(), port);
                let Some(redis) = self.hosts[host].redis[group].as_ref() else { return };
                Ok(redis.observe(self.now, (settled, around), place))
            }
        };
        if let Ok(o) = &result {
            let run_id = o.run_id.clone();
            self.watch(host, group, (life, run_id));
        }
        let id = self.spec.groups[group].id.clone();
        let took = Span(self.dice.redis.range(80_000, ROUND_TRIP_MAX_NS));
        let asked = self.hosts[host].clock.now(self.now).boot;
        self.news(host, took, Input::Observed { group: id, asked, result });
    }

    /// Its listening sockets: for each new life, and then every three seconds.
    fn look_around(&mut self, host: Endpoint, group: Group) -> Vec<Bypass> {
        let now = self.now;
        let h = &mut self.hosts[host];
        let (Some(redis), Some(p)) = (h.redis[group].as_ref(), h.process.as_mut()) else {
            return Vec::new();
        };
        let looked = &mut p.control[group].looked;
        match &*looked {
            Some((life, at, found)) if *life == redis.life && now.since(*at) < LOOK_EVERY => {
                found.clone()
            }
            _ => {
                *looked = Some((redis.life, now, redis.around.clone()));
                redis.around.clone()
            }
        }
    }

    fn watch(&mut self, host: Endpoint, group: Group, life: (u64, RunId)) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let control = &mut p.control[group];
        if control.watched.as_ref() == Some(&life) {
            return;
        }
        let number = life.0;
        control.watched = Some(life);
        if self.switches.lock.start_guard == StartGuard::UntilProbed {
            let work = LockWork::Admit { group, life: Some(number), asked: None };
            self.lock_order(host, work, &[]);
        }
    }

    /// No answer in time; a Redis that died meanwhile closed the connection.
    pub(super) fn probe_timeout(&mut self, host: Endpoint, group: Group, redis_life: u64) {
        let Some(redis) = self.hosts[host].redis[group].as_ref() else { return };
        let same = redis.life == redis_life && redis.phase == Phase::Up;
        let failure = if same { ProbeFailure::Timeout } else { ProbeFailure::Closed };
        self.coverage.met("probe timed out");
        let id = self.spec.groups[group].id.clone();
        let asked = self.hosts[host].clock.now(self.now).boot;
        self.news(host, Span(1_000), Input::Observed { group: id, asked, result: Err(failure) });
    }

    // Role-changing commands.

    pub(super) fn control_order(
        &mut self,
        host: Endpoint,
        group: Group,
        order: (ActionId, Action),
        view: View,
    ) {
        let number = next(&mut self.counters.job);
        let limit = match &order.1 {
            Action::PauseAndCatchUp { limit, .. } => *limit,
            Action::Promote(_)
            | Action::GoOn(_)
            | Action::SetMinReplicas(_)
            | Action::Follow { .. }
            | Action::Relink { .. }
            | Action::Compare { .. }
            | Action::KeepAside { .. }
            | Action::Unpause
            | Action::ReadOffset
            | Action::ShutWrites
            | Action::VerifyVip { .. }
            | Action::EnsureVip { .. }
            | Action::RemoveVip { .. }
            | Action::Announce { .. }
            | Action::ProbeRival { .. }
            | Action::DestroySockets { .. } => COMMAND_TIMEOUT,
        };
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let (id, action) = order;
        let job = RedisJob { number, id, action, view, deadline: self.now.after(limit) };
        p.control[group].queue.push_back(job);
        self.control_next(host, group);
    }

    fn control_next(&mut self, host: Endpoint, group: Group) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let control = &mut p.control[group];
        if control.running.is_some() {
            return;
        }
        let Some(mut job) = control.queue.pop_front() else { return };
        // The time in the queue does not count; the limit of a pause does.
        if !matches!(job.action, Action::PauseAndCatchUp { .. }) {
            job.deadline = self.now.after(COMMAND_TIMEOUT);
        }
        let (number, deadline) = (job.number, job.deadline);
        control.running = Some(job);
        let sent = Span(self.dice.redis.range(20_000, 150_000));
        self.stage(host, group, (number, Stage::Send), sent);
        self.stage(host, group, (number, Stage::TimedOut), deadline.since(self.now));
    }

    fn stage(&mut self, host: Endpoint, group: Group, step: (u64, Stage), delay: Span) {
        let (job, stage) = step;
        self.process_after(host, delay, ProcessEvent::RedisJob { group, job, stage });
    }

    fn running(&self, host: Endpoint, group: Group, number: u64) -> Option<RedisJob> {
        let p = self.hosts[host].process.as_ref()?;
        p.control[group].running.clone().filter(|j| j.number == number)
    }

    fn finish(&mut self, host: Endpoint, group: Group, outcome: ActionOutcome) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let Some(job) = p.control[group].running.take() else { return };
        self.note(format_args!("{host} g{group} done {:?} {outcome:?}", job.id));
        self.action_done(host, group, job.id, outcome);
        self.control_next(host, group);
    }

    pub(super) fn control(&mut self, host: Endpoint, group: Group, number: u64, stage: Stage) {
        let Some(job) = self.running(host, group, number) else { return };
        match stage {
            Stage::Send => self.control_send(host, group, &job),
            Stage::Poll => self.control_poll(host, group, &job),
            Stage::Answered => {
                let redis = self.hosts[host].redis[group].as_ref();
                let is_master = redis.is_some_and(|r| r.role == Role::Master);
                let strayed = matches!(job.action, Action::GoOn(_)) && !is_master;
                let outcome = if strayed { ActionOutcome::NotMaster } else { ActionOutcome::Done };
                self.finish(host, group, outcome);
            }
            Stage::TimedOut => {
                self.coverage.met("control command timed out");
                let retry = !matches!(job.action, Action::PauseAndCatchUp { .. });
                self.finish(host, group, failed(retry, "no answer in time"));
            }
        }
    }

    fn change_of(&self, job: &RedisJob) -> Option<Change> {
        match &job.action {
            Action::Promote(min) => Some(Change::Promote(*min)),
            Action::GoOn(min) => Some(Change::GoOn(*min)),
            Action::SetMinReplicas(min) => Some(Change::SetMinReplicas(*min)),
            Action::Follow { master } => {
                let master = self.host_at(*master)?;
                Some(Change::Follow { master })
            }
            Action::Relink { master } => {
                let master = self.host_at(*master)?;
                Some(Change::Relink { master })
            }
            Action::PauseAndCatchUp { .. } => Some(Change::PauseWrites { until: job.deadline }),
            Action::Unpause => Some(Change::Unpause),
            Action::ShutWrites => Some(Change::ShutWrites),
            Action::ReadOffset
            | Action::Compare { .. }
            | Action::KeepAside { .. }
            | Action::VerifyVip { .. }
            | Action::EnsureVip { .. }
            | Action::RemoveVip { .. }
            | Action::Announce { .. }
            | Action::ProbeRival { .. }
            | Action::DestroySockets { .. } => None,
        }
    }

    fn control_send(&mut self, host: Endpoint, group: Group, job: &RedisJob) {
        let Some(redis) = self.hosts[host].redis[group].as_mut() else { return };
        match (redis.phase, redis.frozen > 0) {
            (Phase::Dead, _) => {
                return self.finish(host, group, failed(true, "connection refused"));
            }
            (Phase::Loading, _) => return self.finish(host, group, failed(true, "LOADING")),
            (Phase::Up, _) => {}
        }
        let frozen = redis.frozen > 0;
        let Some(change) = self.change_of(job) else {
            return self.control_read(host, group, job, frozen);
        };
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.control[group].unanswered.insert(job.number);
        }
        let command = Command::Control { job: job.number, change };
        if frozen {
            self.coverage.met("role change in a frozen Redis");
            if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                redis.inbox.push_back(command);
            }
        } else {
            self.execute(host, group, command);
        }
    }

    fn control_read(&mut self, host: Endpoint, group: Group, job: &RedisJob, frozen: bool) {
        if frozen {
            // No answer: the time-out ends it.
            return;
        }
        let offset = self.hosts[host].redis[group].as_ref().map_or(0, |r| r.data.offset);
        let outcome = match &job.action {
            Action::ReadOffset => ActionOutcome::Offset(offset),
            Action::VerifyVip { .. } if self.hosts[host].has_vip(group, self.now) => {
                ActionOutcome::Done
            }
            Action::VerifyVip { .. } => failed(true, "no route to the VIP"),
            Action::Promote(_)
            | Action::GoOn(_)
            | Action::SetMinReplicas(_)
            | Action::Follow { .. }
            | Action::Relink { .. }
            | Action::Compare { .. }
            | Action::KeepAside { .. }
            | Action::PauseAndCatchUp { .. }
            | Action::Unpause
            | Action::ShutWrites
            | Action::EnsureVip { .. }
            | Action::RemoveVip { .. }
            | Action::Announce { .. }
            | Action::ProbeRival { .. }
            | Action::DestroySockets { .. } => failed(false, "not for Redis"),
        };
        self.finish(host, group, outcome);
    }

    /// Redis carries out a supervisor's command, maybe long after it was sent.
    pub(super) fn changed(&mut self, host: Endpoint, group: Group, number: u64, change: Change) {
        let job = self.running(host, group, number);
        if let Some(job) = &job {
            self.check_change(host, group, job, change);
        } else {
            self.coverage.met("role change after its time-out");
        }
        self.apply_change(host, group, change);
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.control[group].unanswered.remove(&number);
        if job.is_some() {
            let answered = Span(self.dice.redis.range(20_000, 150_000));
            let stage = if matches!(change, Change::PauseWrites { .. }) {
                Stage::Poll
            } else {
                Stage::Answered
            };
            self.stage(host, group, (number, stage), answered);
        }
    }

    /// VIP first: replicas follow only a master that serves at the VIP, and is committed to do so.
    fn check_change(&mut self, host: Endpoint, group: Group, job: &RedisJob, change: Change) {
        let epoch = job.view.epoch;
        match change {
            Change::Promote(_) | Change::GoOn(_) => self.check_order(host, group, "role", epoch),
            Change::Follow { master } => {
                self.check_order(host, group, "role", epoch);
                let to = self.hosts[master].node;
                let committed = job.view.serving && job.view.master == Some(to);
                if !committed || !self.checks.orders.was_up(master, group, epoch) {
                    self.fail(Violation::FollowedTooEarly { group, host, master, epoch });
                }
                self.check_tail(host, group, (master, epoch));
                self.coverage.met("replica repointed");
            }
            Change::SetMinReplicas(_)
            | Change::Relink { .. }
            | Change::PauseWrites { .. }
            | Change::Unpause
            | Change::ShutWrites => {}
        }
    }

    fn control_poll(&mut self, host: Endpoint, group: Group, job: &RedisJob) {
        let Action::PauseAndCatchUp { target, .. } = &job.action else { return };
        let Some(redis) = self.hosts[host].redis[group].as_ref() else { return };
        if redis.phase != Phase::Up {
            return self.finish(host, group, failed(false, "connection closed"));
        }
        let target = self.host_at(*target);
        let offset = redis.data.offset;
        let acked = target.and_then(|t| redis.attached.get(&t)).map(|a| a.acked);
        if redis.frozen == 0 && acked == Some(offset) {
            return self.finish(host, group, ActionOutcome::Offset(offset));
        }
        self.stage(host, group, (job.number, Stage::Poll), POLL);
    }
}
