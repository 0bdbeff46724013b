//! Clients: writers through the VIP, and writers on each host that speak to its own address.
//!
//! A write counts as acknowledged when the answer passes the lock of the host that gives it and the network takes it
//! to the client. Some writers confirm with `WAIT n`, n as the supervisor beside the master says it.

use std::collections::BTreeMap;

use redkeep_consensus::Role as RaftRole;
use redkeep_core::{
    Span,
    observe::RedisView,
    spec::{ClusterSpec, Durability},
    status::StatusView,
};

use crate::{
    check::{Violation, ledger::Acknowledged},
    net::Endpoint,
    redis::{Command, Waiting, WriteId},
    world::{
        World,
        event::{Event, Group, Request},
        next,
    },
};

/// Whom a writer speaks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Vip,
    Host(Endpoint),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) client: Endpoint,
    pub(super) group: Group,
    pub(super) address: Address,
    pub(super) waits: bool,
}

#[derive(Debug)]
pub(super) struct Clients {
    pub(super) writers: Vec<Writer>,
    /// Who answers for a group's VIP, as each endpoint believes.
    arp: BTreeMap<(Endpoint, Group), Endpoint>,
    written: WriteId,
}

impl Clients {
    pub(super) fn new(spec: &ClusterSpec, machine: Endpoint) -> Self {
        let mut writers = Vec::new();
        for (group, g) in spec.groups.iter().enumerate() {
            for waits in [false, true] {
                writers.push(Writer { client: machine, group, address: Address::Vip, waits });
            }
            for (host, node) in spec.nodes.iter().enumerate() {
                if g.is_member(node.id) {
                    let address = Address::Host(host);
                    writers.push(Writer { client: host, group, address, waits: false });
                }
            }
        }
        Self { writers, arp: BTreeMap::new(), written: 0 }
    }

    /// One more beside a Redis.
    pub(super) fn add_local(&mut self, host: Endpoint, group: Group) -> usize {
        let address = Address::Host(host);
        self.writers.push(Writer { client: host, group, address, waits: false });
        self.writers.len() - 1
    }

    /// Numbers below this were given to writes.
    pub(super) fn written(&self) -> WriteId {
        self.written
    }

    pub(super) fn learn(&mut self, listener: Endpoint, group: Group, host: Endpoint) {
        self.arp.insert((listener, group), host);
    }
}

impl World {
    pub(super) fn writer_tick(&mut self, index: usize) {
        let interval = self.knobs.write_interval.0;
        let groups = self.spec.groups.len() as u64;
        let wait = Span(self.dice.clients.range(interval * groups / 2, interval * groups * 3 / 2));
        self.after(wait, Event::WriterTick { writer: index });
        let writer = self.clients.writers[index];
        let Some(to) = self.destination(writer) else { return };
        if !self.net.connected(writer.client, to) || !self.alive(writer.client) {
            return;
        }
        let write = self.clients.written;
        self.clients.written += 1;
        let wait = if writer.waits { self.wait_replicas(to, writer.group) } else { None };
        let via_vip = writer.address == Address::Vip;
        let request = Request { write, writer: index, client: writer.client, via_vip, wait };
        let delay =
            if to == writer.client { Span(20_000) } else { self.net.delay(&mut self.dice.clients) };
        self.after(delay, Event::Request { group: writer.group, to, request });
    }

    fn alive(&self, endpoint: Endpoint) -> bool {
        !self.is_host(endpoint) || self.hosts[endpoint].powered
    }

    fn destination(&mut self, writer: Writer) -> Option<Endpoint> {
        match writer.address {
            Address::Host(host) => Some(host),
            Address::Vip => {
                let known = self.clients.arp.get(&(writer.client, writer.group)).copied();
                if known.is_none() || self.dice.clients.chance(5_000) {
                    self.ask_arp(writer.client, writer.group);
                }
                known
            }
        }
    }

    /// An ARP request: a host answers while it has the VIP and its lease is live.
    fn ask_arp(&mut self, client: Endpoint, group: Group) {
        let (now, port) = (self.now, self.port(group));
        let answers = |h: &usize| {
            let host = &self.hosts[*h];
            host.has_vip(group, now)
                && (host.leased(port, now) || !host.lock.is_guarded(port))
                && self.net.both_ways(client, *h)
        };
        let holders: Vec<usize> = (0..self.hosts.len()).filter(answers).collect();
        if !holders.is_empty() {
            let host = *self.dice.clients.pick(&holders);
            self.clients.learn(client, group, host);
        }
    }

    /// The n for `WAIT`, as the supervisor of that host says now.
    fn wait_replicas(&mut self, host: Endpoint, group: Group) -> Option<usize> {
        if !self.hosts[host].runs() {
            return None;
        }
        let id = self.spec.groups[group].id.clone();
        let now = self.hosts[host].clock.now(self.now);
        let own = self.hosts[host].node;
        let status = self.hosts[host].process.as_mut()?.core.status(now);
        let g = status.groups.into_iter().find(|g| g.group == id)?;
        (g.master == Some(own) && g.wait_replicas > 0).then_some(g.wait_replicas)
    }

    pub(super) fn request_arrives(&mut self, group: Group, to: Endpoint, request: Request) {
        let (now, port) = (self.now, self.port(group));
        let lost = !self.net.connected(request.client, to) || !self.hosts[to].powered;
        let no_address = request.via_vip && !self.hosts[to].has_vip(group, now);
        if lost || no_address || self.dropped(group, request.client, to) {
            // Nobody answers: the neighbour entry grows stale and is asked for anew.
            if self.dice.clients.chance(200_000) {
                self.ask_arp(request.client, group);
            }
            return;
        }
        if !self.hosts[to].passes(port, now) {
            self.coverage.met("request reset by the lock");
            if self.dice.clients.chance(200_000) {
                self.ask_arp(request.client, group);
            }
            return;
        }
        let Some(redis) = self.hosts[to].redis[group].as_mut().filter(|r| r.is_up()) else {
            return;
        };
        let socket = next(&mut self.counters.socket);
        let Request { write, client, wait, .. } = request;
        let command = Command::Write { write, client, socket, wait };
        if redis.frozen > 0 {
            self.coverage.met("request in a frozen Redis");
            redis.inbox.push_back(command);
        } else {
            self.execute(to, group, command);
        }
    }

    /// Redis answers a write; true if the answer reaches the client.
    fn leaves(&mut self, host: Endpoint, group: Group, client: Endpoint, socket: u64) -> bool {
        if socket <= self.hosts[host].destroyed[group] {
            self.coverage.met("answer on a destroyed socket");
            return false;
        }
        if !self.hosts[host].answer_leaves(self.port(group), self.now) {
            self.coverage.met("answer dropped by the lock");
            return false;
        }
        self.net.connected(host, client)
    }

    pub(super) fn answer(
        &mut self,
        host: Endpoint,
        group: Group,
        request: (WriteId, Endpoint, u64),
        ok: bool,
    ) {
        let (write, client, socket) = request;
        if !ok || !self.leaves(host, group, client, socket) {
            return;
        }
        self.note(format_args!("{host} g{group} acknowledges {write}"));
        if self.hosts[host].is_rival(group, self.port(group)) {
            return self.coverage.met("write of a second master before the first start");
        }
        if self.is_by_hand(host, group) && !self.hosts[host].leased(self.port(group), self.now) {
            return self.coverage.met("write of a replica made writable by hand");
        }
        self.check_strict(host, group, write);
        self.checks.tails.answered(write);
        let elsewhere = self.fullest_elsewhere(host, group);
        let log = self.hosts[host].redis[group].as_ref().map_or(&[][..], |r| &r.data.log);
        let acknowledged = Acknowledged { group, host, write, at: self.now, elsewhere };
        let verdict = self.checks.ledger.acknowledged(acknowledged, log, self.clients.written);
        match verdict {
            Ok(lost) => {
                if lost > 0 {
                    self.coverage.met("tail lost");
                    self.note(format_args!("{host} g{group} lacks {lost} acknowledged writes"));
                }
            }
            Err(violation) => self.fail(violation),
        }
    }

    /// What a strict master acknowledges has as many replicas attached as its supervisor knows members.
    fn check_strict(&mut self, host: Endpoint, group: Group, write: WriteId) {
        if self.spec.groups[group].durability != Durability::Strict {
            return;
        }
        let members = self.members_at(host, group);
        let Some(members) = members else { return self.checks.strict.forget(host, group) };
        let attached = self.hosts[host].redis[group].as_ref();
        let attached = attached.map_or(0, |r| r.good_replicas(self.now));
        if attached < self.checks.strict.demands(host, group, members, self.now) {
            self.fail(Violation::StrictBroken { group, host, write, attached, members });
        }
    }

    /// Size of the eligible set, as the supervisor of the master `host` has applied it.
    fn members_at(&mut self, host: Endpoint, group: Group) -> Option<u64> {
        if !self.hosts[host].runs() {
            return None;
        }
        let (now, own) = (self.hosts[host].clock.now(self.now), self.hosts[host].node);
        let id = self.spec.groups[group].id.clone();
        let status = self.hosts[host].process.as_mut()?.core.status(now);
        let g = status.groups.into_iter().find(|g| g.group == id && g.master == Some(own))?;
        Some(g.eligible.len() as u64)
    }

    fn fullest_elsewhere(&self, host: Endpoint, group: Group) -> usize {
        let others = (0..self.hosts.len()).filter(|h| *h != host && self.hosts[*h].member[group]);
        let asked = others.filter(|h| self.hosts[*h].runs() && self.net.both_ways(host, *h));
        asked
            .filter_map(|h| self.hosts[h].redis[group].as_ref())
            .map(|r| r.data.log.len())
            .max()
            .unwrap_or(0)
    }

    /// The data sets beside that of `host` which the leader knows of: nobody follows it yet.
    pub(super) fn passed_over(
        &mut self,
        host: Endpoint,
        group: Group,
    ) -> Vec<(Endpoint, Vec<WriteId>)> {
        let hosts = 0..self.hosts.len();
        let statuses: Vec<StatusView> = hosts.clone().filter_map(|h| self.status(h)).collect();
        let leader = statuses.iter().filter(|s| s.role == RaftRole::Leader).max_by_key(|s| s.term);
        let members = leader.and_then(|l| l.groups.get(group)).map_or(&[][..], |g| &g.members);
        let known = |h: Endpoint| {
            let redis = self.hosts[h].redis[group].as_ref()?;
            let member = members.iter().find(|m| m.node == self.hosts[h].node && m.known)?;
            let RedisView::Up(seen) = &member.redis else { return None };
            let same = seen.run_id == redis.run_id() && !self.hosts[h].rival[group];
            same.then(|| (h, redis.data.log.clone()))
        };
        hosts.filter(|h| *h != host).filter_map(known).collect()
    }

    /// `WAIT`: who has enough acknowledgements gets an answer.
    pub(super) fn check_waits(&mut self, host: Endpoint, group: Group) {
        let Some(redis) = self.hosts[host].redis[group].as_mut() else { return };
        if redis.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut redis.waiting);
        let (met, rest): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|w| redis.acknowledged(w.offset) >= w.replicas);
        redis.waiting = rest;
        for w in met {
            self.confirm(host, group, w);
        }
    }

    /// The client asks for n again: had it risen meanwhile, the write would not be confirmed.
    fn confirm(&mut self, host: Endpoint, group: Group, w: Waiting) {
        if !self.leaves(host, group, w.client, w.socket) {
            return;
        }
        if self.wait_replicas(host, group).is_some_and(|n| n <= w.replicas) {
            self.coverage.met("write confirmed by WAIT");
            self.checks.ledger.confirmed(w.write);
        }
    }
}
