//! Looks at all supervisors every 50 ms, heals the world when the plan is over, and ends the run when all is well.

use redkeep_consensus::Role as RaftRole;
use redkeep_core::{AdminRequest, Span, plan::HoldReason, status::StatusView};

use crate::{
    check::Violation,
    claims::hold_name,
    clock::Real,
    net::Endpoint,
    plan::Profile,
    redis::{Phase, Role},
    world::{
        World,
        event::{Event, Group, Keep},
        membership,
    },
};

const SAMPLE: Span = Span::from_millis(50);
/// The latest that a message comes after the healing, where late messages were the fault.
const LATE_WHEN_HEALED: Span = Span::from_millis(20);
/// Everything is well for this long at the end.
const WELL_FOR: Span = Span::from_millis(600);
/// From the healing on, a group that can be served is served within this.
const SERVED_WITHIN: Span = Span::from_secs(12);
/// The same for every replica following the master.
const FOLLOWED_WITHIN: Span = Span::from_secs(20);
/// An order has been answered after this.
const ANSWERED_WITHIN: Span = Span::from_secs(10);
/// When the operator steps in where the leader says that nobody may be promoted.
const OPERATOR_AFTER: Span = Span::from_secs(5);

/// The end of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    pub(super) healed: Option<Real>,
    well_since: Option<Real>,
    operator_asked: Option<Real>,
}

impl World {
    pub(super) fn sample(&mut self) {
        self.after(SAMPLE, Event::Sample);
        let statuses: Vec<StatusView> =
            (0..self.hosts.len()).filter_map(|h| self.status(h)).collect();
        for status in &statuses {
            if let Err(violation) = self.checks.progress.agreed(status) {
                return self.fail(violation);
            }
        }
        let seats: Vec<_> = statuses.iter().filter_map(membership::seat).collect();
        self.check_seats(&seats);
        let leader = statuses.iter().filter(|s| s.role == RaftRole::Leader).max_by_key(|s| s.term);
        for group in 0..self.spec.groups.len() {
            let served = self.hosts.iter().any(|h| h.leased(self.port(group), self.now));
            let hold = leader.and_then(|l| l.groups.get(group)).and_then(|g| g.hold.as_ref());
            self.stated(group, hold);
            self.check_gap(group, leader);
            let verdict = self.checks.progress.reasoned(self.now, group, served, leader);
            if let Err(violation) = verdict {
                return self.fail(violation);
            }
        }
        self.tell_voters(&statuses);
        self.operator_changes(leader);
        if let Some(healed) = self.ending.healed {
            self.look_at_the_end(healed, leader, &statuses);
        }
    }

    /// Counted when it begins: a reason that stands for long is one.
    fn stated(&mut self, group: Group, hold: Option<&HoldReason>) {
        let name = hold.map(hold_name);
        if self.stated[group] != name {
            self.stated[group] = name;
            if let Some(name) = name {
                self.coverage.met(name);
                self.note(format_args!("g{group} {name}"));
            }
        }
    }

    /// What a leader says right after it proposed, or asked for a fence, lasts shorter than the time between two samples.
    pub(super) fn stated_now(&mut self, host: Endpoint) {
        let Some(status) = self.status(host).filter(|s| s.role == RaftRole::Leader) else { return };
        for (group, g) in status.groups.iter().enumerate() {
            self.stated(group, g.hold.as_ref());
        }
    }

    /// One fault at a time, and a healthy replica: service is back within a few leases, healed or not.
    fn check_gap(&mut self, group: Group, leader: Option<&StatusView>) {
        let port = self.port(group);
        let now = self.now;
        let served =
            self.hosts.iter().any(|h| h.leased(port, now) && h.takes_writes(group, port, now));
        let bound =
            self.knobs.lease_ttl * 3 + Span::from_millis(1_500) + self.knobs.failover_cooldown;
        let hold = leader.and_then(|l| l.groups.get(group)).and_then(|g| g.hold.as_ref());
        // What is waited for by order, or for a person, does not count as time that was needed.
        let excused = hold.is_some_and(|h| h.needs_operator() || is_ordered(h));
        let since = self.checks.progress.unserved(now, group, served || excused);
        let one_by_one =
            self.plan.profile == Profile::Single && now > Real(0).after(Span::from_millis(1_500));
        if one_by_one && since > bound && !self.net_is_bad() {
            self.fail(Violation::ServiceGap { group, since, bound });
        }
    }

    /// Faults of the network as a whole, for which no bound is promised.
    fn net_is_bad(&self) -> bool {
        let late = self.hosts.iter().any(|h| self.now < h.reports_held_until);
        late || self.net.weather != self.knobs.weather
    }

    /// Of a supervisor that runs.
    pub(super) fn status(&mut self, host: Endpoint) -> Option<StatusView> {
        let now = self.hosts[host].clock.now(self.now);
        let process = self.hosts[host].process.as_mut().filter(|p| p.frozen == 0)?;
        Some(process.core.status(now))
    }

    /// All faults have ended by themselves; what is down is started, and pauses are lifted.
    pub(super) fn heal(&mut self) {
        self.note(format_args!("HEALED"));
        self.ending.healed = Some(self.now);
        if self.plan.profile == Profile::Late {
            // Messages later than a lease are the fault of this profile; with them nobody serves for long.
            self.net.weather.straggler_max = self.net.weather.straggler_max.min(LATE_WHEN_HEALED);
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].powered && self.hosts[host].process.is_none() {
                self.after(Span::from_millis(10), Event::Start { host });
            }
            for group in 0..self.spec.groups.len() {
                let dead =
                    self.hosts[host].redis[group].as_ref().is_some_and(|r| r.phase == Phase::Dead);
                if dead {
                    let delay = Span(self.dice.faults.range(1_000_000, 200_000_000));
                    self.after(delay, Event::RedisStart { host, group, keep: Keep::Most });
                }
            }
        }
    }

    fn look_at_the_end(&mut self, healed: Real, leader: Option<&StatusView>, all: &[StatusView]) {
        let since = self.now.since(self.changes.waits_from(healed));
        let mut well = self.look_at_changes(since, leader, all);
        for group in 0..self.spec.groups.len() {
            let served = self.is_served(group);
            well &= served && self.all_follow(group).is_ok();
            if !served && since > SERVED_WITHIN {
                let hold = leader.and_then(|l| l.groups.get(group)).and_then(|g| g.hold.as_ref());
                let hold = hold.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                return self.fail(Violation::NotServing { group, since, hold });
            }
            if let Err(host) = self.all_follow(group)
                && since > FOLLOWED_WITHIN
            {
                return self.fail(Violation::NotFollowing { group, host, since });
            }
        }
        if since > Span::from_secs(1) {
            self.operator_mends(since, leader);
        }
        if !well {
            self.ending.well_since = None;
            return;
        }
        let since = *self.ending.well_since.get_or_insert(self.now);
        if self.now.since(since) >= WELL_FOR && !self.someone_still_waits() {
            self.last_look();
        }
    }

    /// The master takes clients' writes under a lease, and did so a moment ago through the VIP.
    fn is_served(&self, group: Group) -> bool {
        let port = self.port(group);
        let master = (0..self.hosts.len()).find(|h| {
            self.hosts[*h].leased(port, self.now)
                && self.hosts[*h].takes_writes(group, port, self.now)
        });
        let recently = self.checks.ledger.last_acknowledged(group);
        let recently = recently.is_some_and(|at| self.now.since(at) < Span::from_millis(400));
        master.is_some_and(|h| self.hosts[h].has_vip(group, self.now)) && recently
    }

    fn all_follow(&self, group: Group) -> Result<(), Endpoint> {
        let master = self.master(group);
        for host in 0..self.hosts.len() {
            let redis = self.hosts[host].redis[group].as_ref();
            let Some(redis) = redis.filter(|_| self.hosts[host].member[group]) else { continue };
            let follows = master.is_some_and(|m| redis.role == Role::ReplicaOf(m))
                && redis.upstream.is_some_and(|u| u.online);
            if Some(host) != master && !follows {
                return Err(host);
            }
        }
        Ok(())
    }

    /// Pauses are lifted; where nobody may be promoted by rule, the fullest data set is named by the operator.
    fn operator_mends(&mut self, since: Span, leader: Option<&StatusView>) {
        let again =
            self.ending.operator_asked.is_some_and(|at| self.now.since(at) < Span::from_secs(1));
        let Some(leader) = leader.filter(|_| !again) else { return };
        let Some(host) = self.host_of(leader.node) else { return };
        for group in 0..self.spec.groups.len() {
            let Some(g) = leader.groups.get(group) else { continue };
            let id = g.group.clone();
            let terminal = g.hold.as_ref().is_some_and(HoldReason::needs_operator);
            let request = if g.paused_for.is_some() {
                AdminRequest::Resume { group: Some(id) }
            } else if matches!(g.hold, Some(HoldReason::MassFailure { .. })) {
                self.coverage.met("operator acknowledged a mass failure");
                AdminRequest::Acknowledge { group: None, dry_run: false }
            } else if terminal && since > OPERATOR_AFTER && !self.is_served(group) {
                let Some(to) = self.fullest(group).map(|h| self.hosts[h].node) else { continue };
                self.coverage.met("operator named a master");
                AdminRequest::Failover {
                    group: id,
                    to: Some(to),
                    allow_data_loss: true,
                    dry_run: false,
                }
            } else {
                continue;
            };
            self.ending.operator_asked = Some(self.now);
            self.ask(host, request);
        }
    }

    fn fullest(&self, group: Group) -> Option<Endpoint> {
        let size = |h: &usize| self.hosts[*h].redis[group].as_ref().map_or(0, |r| r.data.log.len());
        // What a newcomer held before nobody wants.
        let foreign = |h: &usize| self.is_newcomer(*h) && self.hosts[*h].rival[group];
        let members = (0..self.hosts.len()).filter(|h| self.hosts[*h].member[group]);
        members.filter(|h| !foreign(h)).max_by_key(size)
    }

    fn someone_still_waits(&mut self) -> bool {
        let open: Vec<(Endpoint, u64, Real)> =
            self.asked.values().map(|a| (a.host, a.life, a.at)).collect();
        let mut waits = false;
        for (host, life, at) in open {
            let alive = self.hosts[host].process.as_ref().is_some_and(|p| p.life == life);
            waits |= alive;
            if alive && self.now.since(at) > ANSWERED_WITHIN {
                self.fail(Violation::NoAnswer { host });
            }
        }
        waits
    }

    fn last_look(&mut self) {
        for group in 0..self.spec.groups.len() {
            let Some(master) = self.master(group) else { continue };
            let Some(redis) = &self.hosts[master].redis[group] else { continue };
            let verdict = self.checks.ledger.at_end(group, &redis.data.log, self.clients.written());
            if let Err(violation) = verdict {
                return self.fail(violation);
            }
        }
        self.coverage.met("run ended well");
        self.note(format_args!("ALL WELL"));
        self.done = true;
    }
}

/// Holds that an operator or the spec asked for, or that wait for data to come back.
fn is_ordered(hold: &HoldReason) -> bool {
    matches!(
        hold,
        HoldReason::Paused
            | HoldReason::Cooldown { .. }
            | HoldReason::MassFailure { .. }
            | HoldReason::ColdStart { .. }
    )
}
