//! The supervisor's process: start, death, stops, and its driver, which takes one input at a time.

use redkeep_core::{Boot, Core, Effect, HostEvent, Input, NodeId, Span, message::PeerMessage};

use crate::{
    check::Violation,
    clock::Real,
    fault::FaultKind,
    net::{Endpoint, Fate},
    world::{
        World,
        event::{Event, ProcessEvent, Undo},
        host::Process,
        next,
    },
};

/// Inputs that wait for a stopped process; the transport drops what comes beyond.
const INBOX_MAX: usize = 4096;

impl World {
    pub(super) fn start_supervisor(&mut self, host: Endpoint) {
        let h = &self.hosts[host];
        if !h.powered || h.process.is_some() || !h.in_service {
            return;
        }
        if self.put_off(host, || Event::Start { host }) || self.start_is_refused(host) {
            return;
        }
        let life = next(&mut self.counters.process);
        let groups = self.spec.groups.len();
        let initial_spec = self.file_of(host);
        let join = self.is_newcomer(host) && !self.switches.newcomers_vote;
        let links: Vec<NodeId> = initial_spec.nodes.iter().map(|n| n.id).collect();
        let h = &mut self.hosts[host];
        let image = h.disk.open();
        let at = h.kernel_time(self.now);
        let boot = Boot {
            node: h.node,
            initial_spec,
            recovered: image.recovered,
            burned: image.burned,
            join,
            incarnation: image.incarnation,
            lock: h.lock.adopt(at),
            seed: self.plan.seed ^ (life << 32),
            mutations: self.switches.core,
        };
        self.note(format_args!("{host} supervisor {life} starts, lock {:?}", boot.lock));
        let now = self.hosts[host].clock.now(self.now);
        match Core::new(boot, now) {
            Ok(core) => {
                let mut process = Process::new(core, life, groups, now);
                process.heard_from.extend(&links);
                process.links = links;
                self.hosts[host].process = Some(process);
                self.hosts[host].flushes_untold = 0;
            }
            Err(error) => return self.fail(Violation::NoStart { host, why: error.to_string() }),
        }
        for group in 0..groups {
            if self.hosts[host].redis[group].is_some() {
                if let Some(p) = self.hosts[host].process.as_mut() {
                    p.probes[group] = true;
                }
                let delay = Span(self.dice.process.range(100_000, 3_000_000));
                self.process_after(host, delay, ProcessEvent::ProbeDue { group, extra: false });
            }
            self.tell_vip_present(host, group);
        }
        self.drain(host);
    }

    /// The process dies; batches in its queues die with it, but the sync that is under way may end.
    pub(super) fn kill_supervisor(&mut self, host: Endpoint, restart: Option<Span>) {
        let Some(mut process) = self.hosts[host].process.take() else { return };
        let life = process.life;
        self.note(format_args!("{host} supervisor {life} dies"));
        if !process.disk.is_empty() && self.dice.disk.chance(500_000) {
            self.coverage.met("write survived its process");
            for write in process.disk.drain(..process.disk_batch) {
                self.hosts[host].disk.write(write);
            }
        }
        for notified in 0..self.hosts.len() {
            if notified != host {
                let delay = Span(self.dice.net.range(200_000, 2_000_000));
                self.after(delay, Event::PeerDied { dead: host, notified, life });
            }
        }
        if let Some(delay) = restart {
            self.after(delay, Event::Start { host });
        }
    }

    /// Its stream ended and its port refuses: that is proof. A silent host is none.
    pub(super) fn peer_died(&mut self, dead: Endpoint, notified: Endpoint, life: u64) {
        let gone = self.hosts[dead].powered && self.hosts[dead].process.is_none();
        if gone && self.net.both_ways(dead, notified) {
            self.note(format_args!("{notified} sees supervisor {life} of {dead} gone"));
            self.coverage.met("peer proved dead");
            let peer = self.hosts[dead].node;
            self.take_in(notified, Input::PeerDied { peer });
        }
    }

    pub(super) fn freeze_supervisor(&mut self, host: Endpoint, lasts: Span) {
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.frozen += 1;
            let life = p.life;
            self.note(format_args!("{host} supervisor {life} stops"));
            self.undo_after(lasts, Undo::Thaw { host, life });
        }
    }

    pub(super) fn thaw_supervisor(&mut self, host: Endpoint, life: u64) {
        let Some(p) = self.hosts[host].process.as_mut().filter(|p| p.life == life) else { return };
        p.frozen -= 1;
        if p.frozen > 0 {
            return;
        }
        let deferred = std::mem::take(&mut p.deferred);
        self.note(format_args!("{host} supervisor {life} goes on"));
        for event in deferred {
            let delay = Span(self.dice.process.range(1_000, 200_000));
            self.after(delay, Event::Process { host, life, event });
        }
        self.schedule_step(host);
    }

    /// What comes due while the process is stopped waits, but for a system call that had begun.
    pub(super) fn process_event(&mut self, host: Endpoint, life: u64, event: ProcessEvent) {
        let stands = self.hosts[host].standing > 0;
        let Some(p) = self.hosts[host].process.as_mut().filter(|p| p.life == life) else { return };
        if p.frozen > 0 {
            let in_kernel = matches!(
                event,
                ProcessEvent::DiskDone | ProcessEvent::LockDone | ProcessEvent::KernelDone
            );
            if !in_kernel || stands || self.dice.process.chance(700_000) {
                p.deferred.push(event);
                return;
            }
            self.coverage.met("system call ended while stopped");
        }
        match event {
            ProcessEvent::Step => self.step(host),
            ProcessEvent::Wake { number } => {
                if self.hosts[host].process.as_ref().is_some_and(|p| p.wake == number) {
                    self.take_in(host, Input::Wake);
                }
            }
            ProcessEvent::DiskDone => self.disk_done(host),
            ProcessEvent::LockDone => self.lock_done(host),
            ProcessEvent::KernelDone => self.kernel_done(host),
            ProcessEvent::RedisJob { group, job, stage } => self.control(host, group, job, stage),
            ProcessEvent::Announce { group, number, step } => {
                self.announce(host, group, number, step);
            }
            ProcessEvent::Aside { group, id, work } => self.aside_done(host, group, id, work),
            ProcessEvent::ProbeDue { group, extra } => self.probe_due(host, group, extra),
            ProcessEvent::ProbeTimeout { group, redis_life } => {
                self.probe_timeout(host, group, redis_life);
            }
            ProcessEvent::Look { look, step } => self.look_goes_on(look, step),
        }
    }

    pub(super) fn news_now(&mut self, host: Endpoint, life: u64, input: Input) {
        if self.hosts[host].process.as_ref().is_some_and(|p| p.life == life) {
            self.take_in(host, input);
        }
    }

    /// Put an input at the end of the driver's queue.
    pub(super) fn take_in(&mut self, host: Endpoint, input: Input) {
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        if p.inbox.len() >= INBOX_MAX && matches!(input, Input::Peer { .. }) {
            self.coverage.met("inbox full");
            return;
        }
        p.inbox.push_back(input);
        self.schedule_step(host);
    }

    fn schedule_step(&mut self, host: Endpoint) {
        let delay = Span(self.dice.process.range(5_000, 60_000));
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        let work = p.held.is_some() || !p.inbox.is_empty();
        if work && !p.stepping && p.frozen == 0 {
            p.stepping = true;
            self.process_after(host, delay, ProcessEvent::Step);
        }
    }

    /// Take one input, *then* read the clocks (L8), then let the core handle it.
    fn step(&mut self, host: Endpoint) {
        let now = self.hosts[host].clock.now(self.now);
        let clock_before_input = self.switches.clock_before_input;
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.stepping = false;
        let now = if clock_before_input { p.waits_since } else { now };
        let (now, input) = match p.held.take() {
            Some(held) => held,
            None => match p.inbox.pop_front() {
                Some(input) => (now, input),
                None => return,
            },
        };
        if let Some(lasts) = p.stop_in_next_step.take() {
            p.held = Some((now, input));
            self.coverage.met("stopped between clock and use");
            self.moment(FaultKind::FreezeMidStep, Some(host));
            return self.freeze_supervisor(host, lasts);
        }
        let Some(input) = self.stall_at_look(host, now, input) else { return };
        let line = describe(&input);
        self.trace.line_with(self.now, format_args!("{host} <- {line}"), wall_clock_in(&input));
        if matches!(input, Input::Host(HostEvent::LockLost)) {
            let untold = &mut self.hosts[host].flushes_untold;
            *untold = untold.saturating_sub(1);
        }
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.told = now;
            p.core.handle(now, input);
        }
        self.drain(host);
        self.schedule_step(host);
    }

    /// Carry out what the core wants, then sleep until its deadline.
    fn drain(&mut self, host: Endpoint) {
        let mut effects = Vec::new();
        let now = self.hosts[host].clock.now(self.now);
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.waits_since = now;
        while let Some(effect) = p.core.next_effect() {
            effects.push(effect);
        }
        p.wake += 1;
        let number = p.wake;
        let deadline = p.core.deadline(now);
        self.stall_as_candidate(host, &effects);
        let brief = effects.iter().any(|e| match e {
            Effect::Persist(p) => !p.entries.is_empty(),
            Effect::Send { message: PeerMessage::FenceRequest { .. }, .. } => true,
            _ => false,
        });
        self.carry_out(host, effects);
        if brief {
            self.stated_now(host);
        }
        let at = self.hosts[host].clock.boot.real_of(deadline.0);
        let late = Span(self.dice.process.range(0, 300_000));
        if let Some(p) = self.hosts[host].process.as_mut() {
            p.sends_held = Span(0);
            let event = ProcessEvent::Wake { number };
            let life = p.life;
            self.at(at.after(late), Event::Process { host, life, event });
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a message that was sent is gone")]
    pub(super) fn send(&mut self, from: Endpoint, to: Endpoint, message: PeerMessage) {
        let node = self.hosts[to].node;
        let linked = self.hosts[from].process.as_ref().is_some_and(|p| p.links.contains(&node));
        if !linked || !self.net.connected(from, to) {
            return;
        }
        let mut held = self.hosts[from].process.as_ref().map_or(Span(0), |p| p.sends_held);
        match &message {
            PeerMessage::Grant(_) if self.now < self.hosts[to].no_grants_until => {
                self.moment(FaultKind::LoseGrants, Some(to));
                return self.coverage.met("grant lost");
            }
            PeerMessage::Report(report) => {
                let h = &mut self.hosts[from];
                h.holds_reports |= report.groups.iter().any(|g| g.fenced.is_some());
                if h.holds_reports && h.reports_held_until > self.now {
                    held = held.max(h.reports_held_until.since(self.now));
                    self.coverage.met("report of a fence held up");
                    self.moment(FaultKind::HoldReports, Some(from));
                }
            }
            PeerMessage::Raft { .. }
            | PeerMessage::Renew { .. }
            | PeerMessage::Grant(_)
            | PeerMessage::Reach(_)
            | PeerMessage::FenceRequest { .. }
            | PeerMessage::RelinkRequest { .. } => {}
        }
        let delays = match self.net.fate(&mut self.dice.net) {
            Fate::Lost => {
                self.coverage.met("message lost");
                return self.moment(FaultKind::LossyNet, None);
            }
            Fate::Once(delay) => vec![delay],
            Fate::Twice(first, second) => {
                self.coverage.met("message doubled");
                self.moment(FaultKind::DuplicatingNet, None);
                vec![first, second]
            }
        };
        for delay in delays {
            if delay > self.knobs.weather.delay_max {
                self.coverage.met("message held up");
                self.moment(FaultKind::StragglingNet, None);
            }
            let message = Box::new(message.clone());
            self.after(held + delay, Event::Packet { from, to, message, sent: self.now });
        }
    }

    /// What was held up lay beyond the cut already.
    pub(super) fn packet_arrives(
        &mut self,
        way: (Endpoint, Endpoint),
        sent: Real,
        message: PeerMessage,
    ) {
        let (from, to) = way;
        let held_up = self.now.since(sent) > self.knobs.weather.delay_max;
        if !(held_up || self.net.connected(from, to)) || !self.hosts[to].powered {
            return;
        }
        let from = self.hosts[from].node;
        let knows = self.hosts[to].process.as_ref().is_some_and(|p| p.heard_from.contains(&from));
        if knows {
            self.take_in(to, Input::Peer { from, message });
        } else {
            self.coverage.met("stream of a stranger refused");
        }
    }
}

/// An input in one line.
fn describe(input: &Input) -> String {
    match input {
        Input::Peer { from, message: PeerMessage::Raft { bytes, class } } => {
            format!("{from} raft {class:?} {} bytes", bytes.len())
        }
        other => format!("{other:?}"),
    }
}

/// A sum over what names the wall clock: entries of the log, which are stamped for people.
fn wall_clock_in(input: &Input) -> Option<u64> {
    let Input::Peer { message: PeerMessage::Raft { bytes, .. }, .. } = input else { return None };
    Some(bytes.iter().fold(7_u64, |h, b| h.wrapping_mul(31) ^ u64::from(*b)))
}
