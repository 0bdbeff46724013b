//! The Redis processes: start, death, stops, and the execution of commands.

use redkeep_core::{Input, Span};

use crate::{
    net::Endpoint,
    plan::Found,
    redis::{Change, Command, Role, Waiting, WriteError},
    world::{
        World,
        event::{Event, Group, Keep, RedisEvent, Undo},
        next,
    },
};

/// What the expiry of one key adds to the offset of a master that nobody writes to.
const EXPIRED_BYTES: u64 = 31;

impl World {
    /// The pair runs before the first supervisor starts: the first member is the master, unless it is found otherwise.
    pub(super) fn begin_redis(&mut self) {
        for group in 0..self.spec.groups.len() {
            for host in 0..self.hosts.len() {
                let role = self.role_by_file(group, host);
                let Some(redis) = self.hosts[host].redis[group].as_mut() else { continue };
                *redis = crate::redis::Redis::new(next(&mut self.counters.redis), role);
                let rival = self.knobs.found == Found::TwoMasters && role == Role::Master;
                self.hosts[host].rival[group] = rival;
                self.connect_soon(host, group, Span(1_000_000));
            }
        }
    }

    /// `replicaof` in the configuration file: all but the first member follow the first.
    fn role_by_file(&self, group: Group, host: Endpoint) -> Role {
        let member = |n: usize| self.spec.groups[group].members.get(n).map(|m| m.node);
        let [first, second] = [0, 1].map(|n| member(n).and_then(|n| self.host_of(n)));
        let Some(first) = first else { return Role::Master };
        match (self.knobs.found, second) {
            (Found::TwoMasters, Some(second)) if host == second => Role::Master,
            (Found::NoMaster, Some(second)) if host == first => Role::ReplicaOf(second),
            // The file of a newcomer names no master.
            _ if host >= self.spec.nodes.len() => Role::Master,
            _ if host == first => Role::Master,
            _ => Role::ReplicaOf(first),
        }
    }

    pub(super) fn redis_after(
        &mut self,
        host: Endpoint,
        group: Group,
        delay: Span,
        event: RedisEvent,
    ) {
        if let Some(redis) = &self.hosts[host].redis[group] {
            let life = redis.life;
            self.after(delay, Event::Redis { host, group, life, event });
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "an event is taken once")]
    pub(super) fn redis_event(
        &mut self,
        host: Endpoint,
        group: Group,
        life: u64,
        event: RedisEvent,
    ) {
        let now = self.now;
        let Some(redis) = self.hosts[host].redis[group].as_mut().filter(|r| r.life == life) else {
            return;
        };
        match event {
            RedisEvent::Loaded => {
                if redis.phase == crate::redis::Phase::Loading {
                    redis.phase = crate::redis::Phase::Up;
                    let role = redis.role;
                    self.note(format_args!("{host} g{group} redis {life} is up as {role:?}"));
                    self.connect_soon(host, group, Span(1_000_000));
                }
            }
            RedisEvent::Drain => {
                while let Some(command) = self.next_waiting(host, group) {
                    self.execute(host, group, command);
                }
            }
            RedisEvent::PauseEnds => {
                if redis.paused_until.is_some_and(|until| until <= now) {
                    self.unpause(host, group);
                }
            }
            RedisEvent::Connect => self.connect(host, group),
            RedisEvent::Pump => self.pump(host, group),
            RedisEvent::LinkDown { conn } => self.link_down(host, group, conn),
        }
    }

    fn next_waiting(&mut self, host: Endpoint, group: Group) -> Option<Command> {
        let redis = self.hosts[host].redis[group].as_mut()?;
        if redis.runs() { redis.inbox.pop_front() } else { None }
    }

    pub(super) fn kill_redis(&mut self, host: Endpoint, group: Group) -> bool {
        let Some(redis) =
            self.hosts[host].redis[group].as_mut().filter(|r| r.phase != crate::redis::Phase::Dead)
        else {
            return false;
        };
        let (life, run_id) = (redis.life, redis.run_id());
        // What a newcomer held stays foreign until it is replaced.
        self.hosts[host].rival[group] &= host >= self.spec.nodes.len();
        self.note(format_args!("{host} g{group} redis {life} dies"));
        self.leave_links(host, group);
        if let Some(redis) = self.hosts[host].redis[group].as_mut() {
            redis.die();
        }
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.control[group].unanswered.clear();
        }
        let slow = self.dice.redis.chance(100_000);
        let delay = Span(self.dice.redis.range(200_000, if slow { 60_000_000 } else { 3_000_000 }));
        let id = self.spec.groups[group].id.clone();
        self.news(host, delay, Input::RedisDied { group: id, run_id: Some(run_id) });
        true
    }

    /// The service unit starts Redis: the drop-in closes the port first.
    pub(super) fn start_redis(&mut self, host: Endpoint, group: Group, keep: Keep) {
        if !self.hosts[host].powered
            || self.put_off(host, || Event::RedisStart { host, group, keep })
        {
            return;
        }
        let role = self.role_by_file(group, host);
        let port = self.port(group);
        let life = next(&mut self.counters.redis);
        let tail = self.dice.redis.below(40);
        let short = self.dice.redis.chance(300_000);
        let h = &mut self.hosts[host];
        let Some(redis) = h.redis[group].as_mut().filter(|r| r.phase == crate::redis::Phase::Dead)
        else {
            return;
        };
        let len = redis.data.log.len();
        let kept = match keep {
            // What was read from the disk is there.
            Keep::Most if short => {
                len.saturating_sub(usize::try_from(tail).unwrap_or(0)).max(redis.read.min(len))
            }
            Keep::Most => len,
            Keep::Half | Keep::Rdb => len / 2,
            Keep::Nothing => 0,
        };
        h.lock.redis_starts(port, life);
        redis.fell_back |= matches!(keep, Keep::Half | Keep::Rdb | Keep::Nothing);
        let append_only = self.append_only && keep == Keep::Most && !redis.fell_back;
        // An RDB names its history to a replica, and from Redis 7 on to a master; an append-only file never does.
        let named = kept > 0 && !append_only && (keep == Keep::Rdb || role != Role::Master);
        if named {
            redis.start_from_rdb(life, role, kept);
        } else {
            redis.start(life, role, kept);
            let expires = role == Role::Master && kept > 0;
            redis.data.offset = if expires { tail * EXPIRED_BYTES } else { 0 };
        }
        redis.append_only = append_only;
        self.note(format_args!(
            "{host} g{group} redis {life} starts as {role:?} with {kept} of {len}"
        ));
        let loading = Span(self.dice.redis.range(1_000_000, 60_000_000));
        self.redis_after(host, group, loading, RedisEvent::Loaded);
    }

    pub(super) fn freeze_redis(&mut self, host: Endpoint, group: Group, lasts: Span) {
        let Some(redis) = self.hosts[host].redis[group].as_mut() else { return };
        redis.frozen += 1;
        let life = redis.life;
        self.note(format_args!("{host} g{group} redis {life} stops"));
        self.undo_after(lasts, Undo::ThawRedis { host, group, life });
    }

    pub(super) fn thaw_redis(&mut self, host: Endpoint, group: Group, life: u64) {
        let Some(redis) = self.hosts[host].redis[group].as_mut() else { return };
        redis.frozen = redis.frozen.saturating_sub(1);
        let runs = redis.frozen == 0;
        self.note(format_args!("{host} g{group} redis {life} goes on"));
        if runs {
            self.redis_after(host, group, Span(10_000), RedisEvent::Drain);
            self.pump_soon(host, group);
        }
    }

    pub(super) fn execute(&mut self, host: Endpoint, group: Group, command: Command) {
        match command {
            Command::Control { job, change } => self.changed(host, group, job, change),
            Command::Write { write, client, socket, wait } => {
                let now = self.now;
                let Some(redis) = self.hosts[host].redis[group].as_mut() else { return };
                if redis.pauses(now) && redis.role == Role::Master {
                    self.coverage.met("write held by a pause");
                    redis.blocked.push_back(command);
                    return;
                }
                match redis.write(write, now) {
                    Ok(offset) => {
                        if let Some(replicas) = wait {
                            redis.waiting.push(Waiting { write, client, socket, offset, replicas });
                        }
                        self.answer(host, group, (write, client, socket), true);
                        self.pump_soon(host, group);
                    }
                    Err(WriteError::ReadOnly | WriteError::NoReplicas) => {
                        self.answer(host, group, (write, client, socket), false);
                    }
                }
            }
        }
    }

    pub(super) fn apply_change(&mut self, host: Endpoint, group: Group, change: Change) {
        self.note(format_args!("{host} g{group} redis carries out {change:?}"));
        match change {
            Change::Promote(min) => {
                let history = next(&mut self.counters.redis);
                self.leave_upstream(host, group);
                self.cut_replicas_of_new_master(host, group);
                if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                    redis.promote(history);
                    redis.set_min_replicas(min);
                }
                self.unpause(host, group);
            }
            Change::GoOn(min) => {
                if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                    redis.set_min_replicas(min);
                }
                self.unpause(host, group);
            }
            Change::Follow { master } => {
                let Some(redis) = self.hosts[host].redis[group].as_ref() else { return };
                if redis.role == Role::ReplicaOf(master) || master == host {
                    return;
                }
                self.leave_links(host, group);
                if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                    redis.follow(master);
                    redis.waiting.clear();
                }
                self.unpause(host, group);
                self.connect_soon(host, group, Span(3_000_000));
            }
            Change::SetMinReplicas(min) => {
                self.coverage.met("min-replicas-to-write steered");
                if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                    redis.set_min_replicas(min);
                }
            }
            Change::Relink { master } => self.relink(host, group, master),
            Change::PauseWrites { until } => {
                if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                    redis.paused_until = Some(until);
                }
                let left = until.since(self.now);
                self.redis_after(host, group, left, RedisEvent::PauseEnds);
            }
            Change::Unpause => self.unpause(host, group),
            Change::ShutWrites => {
                if let Some(redis) = self.hosts[host].redis[group].as_mut() {
                    redis.min_replicas = u32::MAX;
                }
            }
        }
    }

    /// Writes that the pause held are executed now.
    fn unpause(&mut self, host: Endpoint, group: Group) {
        let Some(redis) = self.hosts[host].redis[group].as_mut() else { return };
        redis.paused_until = None;
        for command in std::mem::take(&mut redis.blocked) {
            self.execute(host, group, command);
        }
    }
}
