//! Looks at the Redis of another host, step by step as the adapter makes them: a new connection, `PING`, one line, a time-out.
//!
//! A stranger's packets are judged where they arrive: by the network, a filter before the port, the lock, and the process. A
//! connection is made by the two kernels; a Redis that hangs is connected to and says nothing. As for clients, the weather holds
//! no packet up: TCP would send a lost one again when most looks are over.

use std::net::SocketAddr;

use redkeep_core::{Event as Told, EventKind, Input, Span, observe::FenceCause};

use crate::{
    check::Violation,
    net::Endpoint,
    redis::Phase,
    world::{
        World,
        event::{Event, Look, LookPacket, LookStep, ProcessEvent},
    },
};

/// A Redis that hangs is asked again whether it goes on.
const HANGS: Span = Span::from_millis(5);

impl World {
    pub(super) fn look_order(
        &mut self,
        from: Endpoint,
        number: u64,
        target: SocketAddr,
        timeout: Span,
    ) {
        let group = self.spec.groups.iter().position(|g| g.port == target.port());
        let life = self.hosts[from].process.as_ref().map(|p| p.life);
        let (Some(to), Some(group), Some(life)) = (self.host_at(target), group, life) else {
            return;
        };
        let look = Look { from, life, number, to, group };
        if let Some(p) = self.hosts[from].process.as_mut() {
            p.looks.insert(number, false);
        }
        self.look_step(look, LookStep::Connect { timeout });
    }

    /// The supervisor's task goes on, once it gets to run.
    fn look_step(&mut self, look: Look, step: LookStep) {
        let delay = Span(self.dice.looks.range(5_000, 60_000));
        self.process_after(look.from, delay, ProcessEvent::Look { look, step });
    }

    fn look_packet(&mut self, look: Look, packet: LookPacket) {
        let delay = self.net.delay(&mut self.dice.looks);
        self.after(delay, Event::Look { look, packet });
    }

    fn is_open(&self, look: Look) -> bool {
        let p = self.hosts[look.from].process.as_ref();
        p.is_some_and(|p| p.life == look.life && p.looks.contains_key(&look.number))
    }

    pub(super) fn look_goes_on(&mut self, look: Look, step: LookStep) {
        match step {
            LookStep::Connect { timeout } => {
                let event = ProcessEvent::Look { look, step: LookStep::GivesUp { timeout } };
                self.process_after(look.from, timeout, event);
                self.look_packet(look, LookPacket::Connect);
            }
            LookStep::Ask if self.is_open(look) => self.look_packet(look, LookPacket::Ping),
            LookStep::Ask => {}
            LookStep::GivesUp { timeout } => {
                let why = format!("no answer within {} ms", timeout.0 / 1_000_000);
                self.look_ends(look, Err((why, false)));
            }
        }
    }

    pub(super) fn look_arrives(&mut self, look: Look, packet: LookPacket) {
        let Look { from, to, group, .. } = look;
        let there = if packet.is_back() { from } else { to };
        if !self.is_open(look) || self.put_off(there, || Event::Look { look, packet }) {
            return;
        }
        if packet.is_back() {
            if self.net.connected(to, from) {
                self.look_is_answered(look, packet);
            }
            return;
        }
        let lost = !self.net.connected(from, to) || !self.hosts[to].powered;
        if lost || self.dropped(group, from, to) {
            return;
        }
        let reset = |by_lock| match packet {
            LookPacket::Connect => LookPacket::Reset { why: "connection refused", by_lock },
            _ => LookPacket::Reset { why: "connection closed", by_lock },
        };
        if !self.hosts[to].passes(self.port(group), self.now) {
            self.coverage.met("look reset by the lock");
            return self.look_packet(look, reset(true));
        }
        let redis = self.hosts[to].redis[group].as_ref();
        let Some(redis) = redis.filter(|r| r.phase != Phase::Dead) else {
            return self.look_packet(look, reset(false));
        };
        if packet == LookPacket::Ping && redis.frozen > 0 {
            return self.after(HANGS, Event::Look { look, packet });
        }
        if !self.hosts[to].answer_leaves(self.port(group), self.now) {
            if let Some(p) = self.hosts[from].process.as_mut() {
                p.looks.insert(look.number, true);
            }
            return;
        }
        let answer = match packet {
            LookPacket::Connect => LookPacket::Accepted,
            _ => LookPacket::Pong,
        };
        self.look_packet(look, answer);
    }

    fn look_is_answered(&mut self, look: Look, packet: LookPacket) {
        match packet {
            LookPacket::Accepted => self.look_step(look, LookStep::Ask),
            LookPacket::Pong => self.look_ends(look, Ok(())),
            LookPacket::Reset { why, by_lock } => self.look_ends(look, Err((why.into(), by_lock))),
            LookPacket::Connect | LookPacket::Ping => {}
        }
    }

    /// How it ended, and in truth: whether the lock alone was in the way.
    fn look_ends(&mut self, look: Look, result: Result<(), (String, bool)>) {
        let Look { from, number, to, group, .. } = look;
        let open = self.is_open(look);
        let p = self.hosts[from].process.as_mut().filter(|_| open);
        let Some(silenced) = p.and_then(|p| p.looks.remove(&number)) else { return };
        let met = match &result {
            Ok(()) => "look answered",
            Err((_, by_lock)) if *by_lock || silenced => "look kept out by the lock",
            Err(_) => {
                self.checks.looks.missed(self.now, (group, from, to));
                "look not answered"
            }
        };
        self.coverage.met(met);
        let result = result.map_err(|(why, _)| why);
        self.take_in(from, Input::Looked { number, result });
    }

    /// A master fences because a majority of nodes is said not to reach it: something must have been in their way. Not judged where
    /// nodes join and leave, since the majority is that of the spec.
    pub(super) fn check_moved(&mut self, host: Endpoint, told: &Told) {
        let unreached = matches!(told.kind, EventKind::Fencing { cause: FenceCause::Unreached });
        let group = told.group.as_ref().and_then(|g| self.group_index(g));
        let Some(group) = group.filter(|_| unreached && self.plan.spares() == 0) else { return };
        let needed = self.spec.nodes.len() / 2 + 1;
        let by = self.checks.looks.missed_by(self.now, (group, host));
        if by < needed {
            self.fail(Violation::NeedlessMove { group, host, by, needed });
        }
    }
}
