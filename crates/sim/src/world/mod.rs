//! The world: hosts, network, Redis, clients, an operator, and one queue of events in order of true time.
//!
//! Owned by the runner; one event at a time, no threads, no wall clock. It carries out every effect of every core and
//! asks the checkers after each event. Invariant: a run is a function of its plan alone.

mod aside;
mod by_hand;
mod clients;
mod driver;
mod effects;
mod event;
mod faults;
mod filter;
pub(crate) mod host;
mod layout;
mod look;
mod machine;
mod membership;
mod moments;
mod permission;
mod redis_control;
mod redis_process;
mod replication;
mod sample;
mod stall;

use std::{collections::BTreeMap, fmt};

use redkeep_core::{
    Epoch, GroupId, Input, Mutations, NodeId, RequestId, Span,
    spec::{ClusterSpec, NodeSpec},
};

use crate::{
    check::{Checks, Violation},
    clock::Real,
    lock::LockRules,
    net::{Endpoint, Network},
    plan::{Knobs, Layout, Plan},
    rng::Rng,
    trace::{Coverage, Lines, Trace},
};
use clients::Clients;
use event::{Event, Group, ProcessEvent, Undo};
use host::{Asked, Host, View};

/// Rules that are switched off, to see a checker catch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Switches {
    pub core: Mutations,
    pub lock: LockRules,
    /// A fence's epoch is acknowledged, but never reaches the disk.
    pub burn_forgotten: bool,
    /// The driver reads the clocks before it waits for its next input, not after (L8).
    pub clock_before_input: bool,
    /// A node that joins begins as a voter, with the membership that its configuration says.
    pub newcomers_vote: bool,
    /// No rule but a fault: the wall clocks jump back and forth by years.
    pub wall_clock_jumps: bool,
    /// Beyond the assumptions: the greatest slew of a clock, in parts per million, instead of the plan's.
    pub skew_max_ppm: Option<u64>,
}

/// The replicated spec of a layout.
#[must_use]
pub fn spec_of(layout: Layout, knobs: &Knobs) -> ClusterSpec {
    layout::spec(layout, knobs)
}

/// One stream of chance for each kind of thing.
#[derive(Debug)]
struct Dice {
    order: Rng,
    net: Rng,
    disk: Rng,
    kernel: Rng,
    redis: Rng,
    clients: Rng,
    process: Rng,
    faults: Rng,
    starts: Rng,
    aside: Rng,
    changes: Rng,
    looks: Rng,
}

impl Dice {
    fn new(seed: u64) -> Self {
        let stream = |label| Rng::new(seed, label);
        Self {
            order: stream(10),
            net: stream(11),
            disk: stream(12),
            kernel: stream(13),
            redis: stream(14),
            clients: stream(15),
            process: stream(16),
            faults: stream(17),
            starts: stream(18),
            aside: stream(29),
            changes: stream(31),
            looks: stream(32),
        }
    }
}

/// Numbers that are never used twice.
#[derive(Debug, Default)]
struct Counters {
    process: u64,
    redis: u64,
    connection: u64,
    job: u64,
    socket: u64,
    request: u64,
    announcement: u64,
}

fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}

#[derive(Debug)]
pub struct World {
    now: Real,
    queue: BTreeMap<(Real, u64, u64), Event>,
    queued: u64,
    dice: Dice,
    counters: Counters,
    plan: Plan,
    knobs: Knobs,
    switches: Switches,
    /// The first spec: what it says of groups, but for their members, stays.
    spec: ClusterSpec,
    /// By host: those of the first spec, then those that may join.
    nodes: Vec<NodeSpec>,
    hosts: Vec<Host>,
    net: Network,
    clients: Clients,
    asked: BTreeMap<RequestId, Asked>,
    checks: Checks,
    trace: Trace,
    coverage: Coverage,
    failure: Option<Violation>,
    /// What Redis starts with comes from an append-only file.
    append_only: bool,
    ending: sample::Ending,
    changes: membership::Changes,
    /// Faults that are prepared and not done.
    moments: Vec<moments::Moment>,
    /// Redis that somebody has just made writable.
    hands: Vec<by_hand::Hand>,
    /// By group: the reason that the leader stated last.
    stated: Vec<Option<&'static str>>,
    done: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub hash: u64,
    /// The same over all that no wall clock is in.
    pub deeds: u64,
    pub events: u64,
    pub ended: Real,
    pub coverage: Coverage,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

impl World {
    #[must_use]
    pub fn new(plan: Plan, switches: Switches, lines: Lines) -> Self {
        let mut knobs = plan.knobs();
        knobs.skew_max_ppm = switches.skew_max_ppm.unwrap_or(knobs.skew_max_ppm);
        let mut dice = Dice::new(plan.seed);
        let spec = layout::spec(plan.layout, &knobs);
        let mut nodes = spec.nodes.clone();
        nodes.extend(layout::spares(plan.layout, plan.spares()));
        let mut hosts = layout::hosts((&spec, &nodes), &knobs, switches.lock, &mut dice.faults);
        for host in &mut hosts {
            host.clock.wall_jumps = switches.wall_clock_jumps;
        }
        let append_only = dice.aside.chance(400_000);
        let machines = hosts.len() + 1;
        let clients = Clients::new(&spec, hosts.len());
        let checks = Checks::new(&spec, hosts.len());
        let changes = membership::Changes::new(&spec);
        let stated = vec![None; spec.groups.len()];
        let mut world = Self {
            now: Real(0),
            queue: BTreeMap::new(),
            queued: 0,
            dice,
            counters: Counters::default(),
            net: Network::new(machines, knobs.weather),
            knobs,
            switches,
            spec,
            nodes,
            hosts,
            clients,
            asked: BTreeMap::new(),
            checks,
            trace: Trace::new(lines),
            coverage: Coverage::default(),
            failure: None,
            append_only,
            ending: sample::Ending::default(),
            changes,
            moments: Vec::new(),
            hands: Vec::new(),
            stated,
            done: false,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.begin_redis();
        for host in 0..self.spec.nodes.len() {
            let delay = Span(self.dice.process.range(0, 50_000_000));
            self.after(delay, Event::Start { host });
        }
        for writer in 0..self.clients.writers.len() {
            let delay = Span(self.dice.clients.range(1_000_000, 30_000_000));
            self.after(delay, Event::WriterTick { writer });
        }
        for group in 0..self.spec.groups.len() {
            self.after(Span::from_secs(1), Event::ReplicationBeat { group });
        }
        for index in 0..self.plan.faults.len() {
            let at = self.plan.faults[index].at;
            self.after(at, Event::Fault { index });
        }
        self.after(Span::from_millis(50), Event::Sample);
        let heal_at = self.plan.heal_at();
        self.after(heal_at, Event::Heal);
    }

    /// Run to the end.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        while self.failure.is_none() && !self.done {
            let Some(((at, _, _), event)) = self.queue.pop_first() else { break };
            self.now = at;
            self.dispatch(event);
            self.follow_hands();
            self.check_writers();
            self.check_open_ports();
        }
        Outcome {
            violation: self.failure,
            hash: self.trace.hash(),
            deeds: self.trace.deeds(),
            events: self.trace.events(),
            ended: self.now,
            coverage: self.coverage,
            tail: self.trace.tail().map(str::to_owned).collect(),
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start_supervisor(host),
            Event::Process { host, life, event } => self.process_event(host, life, event),
            Event::LateBatch { host, job } => self.late_batch(host, &job),
            Event::Packet { from, to, message, sent } => {
                self.packet_arrives((from, to), sent, *message);
            }
            Event::PeerDied { dead, notified, life } => self.peer_died(dead, notified, life),
            Event::News { host, life, input } => self.news_now(host, life, *input),
            Event::VipExpires { host, group } => self.vip_expires(host, group),
            Event::Redis { host, group, life, event } => self.redis_event(host, group, life, event),
            Event::RedisStart { host, group, keep } => self.start_redis(host, group, keep),
            Event::ReplicationBeat { group } => self.replication_beat(group),
            Event::Link { group, master, replica, conn, event } => {
                self.link_event(replication::Link { group, master, replica, conn }, event);
            }
            Event::Look { look, packet } => self.look_arrives(look, packet),
            Event::WriterTick { writer } => self.writer_tick(writer),
            Event::Request { group, to, request } => self.request_arrives(group, to, request),
            Event::Fault { index } => self.fault(index),
            Event::Cut { from, to, lasts } => self.cut_for(from, to, lasts),
            Event::Undo { undo } => self.undo(undo),
            Event::Flood { until } => {
                self.flood(until);
            }
            Event::Retire { host, group } => self.retire(host, group),
            Event::Sample => self.sample(),
            Event::Heal => self.heal(),
        }
    }

    fn after(&mut self, delay: Span, event: Event) {
        self.at(self.now.after(delay), event);
    }

    fn at(&mut self, at: Real, event: Event) {
        self.queued += 1;
        let order = self.dice.order.next();
        self.queue.insert((at.max(self.now), order, self.queued), event);
    }

    fn undo_after(&mut self, delay: Span, undo: Undo) {
        self.after(delay, Event::Undo { undo });
    }

    fn process_after(&mut self, host: Endpoint, delay: Span, event: ProcessEvent) {
        if let Some(p) = &self.hosts[host].process {
            let life = p.life;
            self.after(delay, Event::Process { host, life, event });
        }
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.now, what);
    }

    fn fail(&mut self, violation: Violation) {
        self.trace.line(self.now, format_args!("VIOLATION {violation}"));
        if self.failure.is_none() {
            self.failure = Some(violation);
        }
    }

    fn port(&self, group: Group) -> u16 {
        self.spec.groups[group].port
    }

    fn group_index(&self, id: &GroupId) -> Option<Group> {
        self.spec.groups.iter().position(|g| g.id == *id)
    }

    fn host_at(&self, addr: std::net::SocketAddr) -> Option<Endpoint> {
        self.nodes.iter().position(|n| n.peer.ip() == addr.ip())
    }

    fn host_of(&self, node: NodeId) -> Option<Endpoint> {
        self.hosts.iter().position(|h| h.node == node)
    }

    fn is_host(&self, endpoint: Endpoint) -> bool {
        endpoint < self.hosts.len()
    }

    /// What the supervisor's model says of every group now.
    fn views(&mut self, host: Endpoint) -> Vec<(Group, View)> {
        let now = self.hosts[host].clock.now(self.now);
        let Some(process) = self.hosts[host].process.as_mut() else { return Vec::new() };
        let status = process.core.status(now);
        let view = |g: redkeep_core::status::GroupStatus| {
            let index = self.spec.groups.iter().position(|s| s.id == g.group)?;
            let view =
                View { epoch: g.epoch, master: g.master, cause: g.cause, serving: g.serving };
            Some((index, view))
        };
        status.groups.into_iter().filter_map(view).collect()
    }

    fn check_writers(&mut self) {
        for group in 0..self.spec.groups.len() {
            let port = self.port(group);
            let now = self.now;
            let mut leases = self.hosts.iter().filter(|h| h.leased(port, now));
            if let (Some(a), Some(b)) = (leases.next(), leases.next()) {
                let violation = Violation::TwoLeases { group, a: a.node, b: b.node };
                return self.fail(violation);
            }
            // Two masters that were found so are nobody's doing, until their ports are guarded.
            let writes = |h: &Host| h.takes_writes(group, port, now) && !h.is_rival(group, port);
            let writers = self.hosts.iter().enumerate().filter(|(_, h)| writes(h));
            let mut writers = writers.filter(|(n, _)| !self.is_by_hand(*n, group)).map(|(_, h)| h);
            if let (Some(a), Some(b)) = (writers.next(), writers.next()) {
                let violation = Violation::TwoWriters { group, a: a.node, b: b.node };
                return self.fail(violation);
            }
        }
    }

    /// An order of `view` is carried out by the executor `what` of a host.
    fn check_order(&mut self, host: Endpoint, group: Group, what: &'static str, epoch: Epoch) {
        if let Err(violation) = self.checks.orders.executed(host, group, what, epoch) {
            self.fail(violation);
        }
    }

    fn news(&mut self, host: Endpoint, delay: Span, input: Input) {
        if let Some(p) = &self.hosts[host].process {
            let life = p.life;
            self.after(delay, Event::News { host, life, input: Box::new(input) });
        }
    }
}
