//! What a supervisor does with Redis beside its control connection: comparing two data sets, and keeping one aside.

use redkeep_core::{
    Action, ActionId, ActionOutcome, Epoch, Span,
    effect::Kept,
    lineage::{Compared, Lineage},
    observe::RedisObservation,
};

use crate::{
    check::{Violation, tails::Doomed},
    net::Endpoint,
    redis::{Redis, Role},
    world::{
        World,
        effects::failed,
        event::{AsideWork, Group, ProcessEvent},
    },
};

/// A snapshot and its file take so long at most; a retried one is tried again after a second.
const KEEPING_MAX_NS: u64 = 600_000_000;

impl World {
    pub(super) fn aside_order(
        &mut self,
        host: Endpoint,
        group: Group,
        id: ActionId,
        action: &Action,
    ) {
        if let Action::Compare { master } = action {
            let Some(master) = self.host_at(*master) else { return };
            let took = Span(self.dice.aside.range(200_000, 3_000_000));
            let work = AsideWork::Compare { master };
            self.process_after(host, took, ProcessEvent::Aside { group, id, work });
        }
        if let Action::KeepAside { epoch, .. } = action {
            let epoch = *epoch;
            self.checks.tails.attempted(host, group, epoch);
            let redis = self.hosts[host].redis[group].as_ref().filter(|r| r.runs());
            let (life, log) = redis.map_or((0, Vec::new()), |r| (r.life, r.data.log.clone()));
            let took = Span(self.dice.aside.range(5_000_000, KEEPING_MAX_NS));
            let work = AsideWork::Keep { epoch, life, log };
            self.process_after(host, took, ProcessEvent::Aside { group, id, work });
        }
    }

    pub(super) fn aside_done(
        &mut self,
        host: Endpoint,
        group: Group,
        id: ActionId,
        work: AsideWork,
    ) {
        let outcome = match work {
            AsideWork::Compare { master } => self.compare(host, group, master),
            AsideWork::Keep { epoch, life, log } => self.keep(host, group, epoch, (life, &log)),
        };
        self.note(format_args!("{host} g{group} aside {id:?} {outcome:?}"));
        self.action_done(host, group, id, outcome);
    }

    fn compare(&mut self, host: Endpoint, group: Group, master: Endpoint) -> ActionOutcome {
        let runs = |r: &&Redis| r.runs();
        let Some(own) = self.hosts[host].redis[group].as_ref().filter(runs) else {
            return failed(true, "Redis says nothing of its data set");
        };
        let other = self.hosts[master].redis[group].as_ref().filter(|r| r.is_master());
        let Some(other) = other.filter(|_| self.reachable(group, master, host)) else {
            self.coverage.met("data sets not compared yet");
            return failed(true, "the master does not answer");
        };
        let port = self.port(group);
        let place = |e: Endpoint| (self.nodes[e].peer.ip(), port);
        let own = own.observe(self.now, (true, Vec::new()), place);
        let other = other.observe(self.now, (true, Vec::new()), place);
        self.coverage.met("data sets compared");
        ActionOutcome::Compared(Box::new(Compared {
            run_id: own.run_id.clone(),
            keys: own.keys,
            own: lineage(own),
            master: lineage(other),
            append_only: self.append_only,
        }))
    }

    /// Most of the time it succeeds; the rest with or without hope for the next attempt.
    fn keep(
        &mut self,
        host: Endpoint,
        group: Group,
        epoch: Epoch,
        (life, log): (u64, &[crate::redis::WriteId]),
    ) -> ActionOutcome {
        let lives = |r: &&Redis| r.runs() && r.life == life;
        if self.hosts[host].redis[group].as_ref().filter(lives).is_none() {
            return failed(true, "connection closed");
        }
        if self.dice.aside.chance(150_000) {
            let retry = self.dice.aside.chance(700_000);
            if !retry {
                self.checks.tails.given_up(host, group, epoch);
            }
            self.coverage.met("data set could not be kept");
            return failed(retry, "no room");
        }
        self.checks.tails.kept(host, group, log);
        self.coverage.met("data set kept aside");
        ActionOutcome::Kept(Kept { path: format!("/kept/{host}-{group}-{epoch}"), size: 1 })
    }

    /// A Redis that is a master by role is about to become a replica of one that serves.
    pub(super) fn check_tail(
        &mut self,
        host: Endpoint,
        group: Group,
        (master, epoch): (Endpoint, Epoch),
    ) {
        let (now, port) = (self.now, self.port(group));
        // A master that has just died or been restarted is no measure: nobody is copied from it.
        let serves = self.hosts[master].leased(port, now)
            && self.hosts[master].takes_writes(group, port, now);
        let own = self.hosts[host].redis[group].as_ref().filter(|r| r.role == Role::Master);
        let other = self.hosts[master].redis[group].as_ref().filter(|_| serves);
        let (Some(own), Some(other)) = (own, other) else { return };
        let writes = self.checks.tails.dropped(Doomed {
            host,
            group,
            life: own.life,
            log: &own.data.log,
            epoch,
            master: &other.data.log,
            append_only: self.append_only,
        });
        if writes > 0 {
            self.fail(Violation::TailDropped { group, host, epoch, writes });
        }
    }
}

fn lineage(seen: RedisObservation) -> Lineage {
    Lineage { replication_id: seen.replication_id, previous: seen.previous, offset: seen.offset }
}
