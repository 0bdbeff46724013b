//! The leader's side of the lease: who may be granted, and until when another must not be named.
//!
//! Exists only while this node leads; a new leader starts with a full wait (L4). Owned by the leader part of the core.
//! Deliberately absent: what to decide (the planner), and any deadline of the holder.

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, NodeId, ReadId, Span};

use crate::{
    ids::{ArmId, GroupId},
    message::Renew,
    mutations::Mutations,
    spec::Timing,
};

/// Grants a holder may get without naming one of them (L6).
const UNCONFIRMED_MAX: u8 = 2;

/// A decision for a group, from the first thought of it to its fate in the log (L3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InFlight {
    /// Decided to fail over; the old master is being asked to fence.
    Deciding,
    /// Proposed. Ends when this index is applied, whoever's entry is there.
    Proposed { index: u64 },
}

#[derive(Clone, Copy, Debug)]
struct GroupGrant {
    /// No other master is proposed before this instant of CLOCK_MONOTONIC_RAW, unless the old one fenced.
    not_before: Mono,
    in_flight: Option<InFlight>,
    since: Mono,
}

#[derive(Clone, Debug, Default)]
struct Confirmation {
    unconfirmed: u8,
    confirmed: Option<ArmId>,
}

/// A request whose ReadIndex round is done or under way.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub from: NodeId,
    pub renew: Renew,
    /// Set when the round came back: grant only when this index is applied.
    pub read_index: Option<u64>,
}

#[derive(Debug)]
pub struct Grantor {
    timing: Timing,
    elected: Mono,
    groups: BTreeMap<GroupId, GroupGrant>,
    holders: BTreeMap<NodeId, Confirmation>,
    waiting: BTreeMap<ReadId, Waiting>,
    mutations: Mutations,
}

impl Grantor {
    /// A new leader knows of no grant, so it waits for the longest that may run (L4).
    #[must_use]
    pub fn new(elected_raw: Mono, timing: Timing, mutations: Mutations) -> Self {
        Self {
            timing,
            elected: elected_raw,
            groups: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            mutations,
        }
    }

    fn wait(&self, ttl: Span) -> Span {
        if self.mutations.no_margin() {
            Span(ttl.0.saturating_sub(ttl.0 / 10))
        } else {
            self.timing.wait_for(ttl)
        }
    }

    fn group(&mut self, id: &GroupId) -> &mut GroupGrant {
        let first = if self.mutations.new_leader_does_not_wait() {
            self.elected
        } else {
            Mono(self.elected.0 + self.wait(self.timing.lease_ttl).0)
        };
        self.groups.entry(id.clone()).or_insert(GroupGrant {
            not_before: first,
            in_flight: None,
            since: Mono(0),
        })
    }

    /// How long another master of `group` must still not be named; zero = it may be.
    pub fn wait_left(&mut self, now_raw: Mono, group: &GroupId) -> Span {
        if self.mutations.no_not_before() {
            return Span(0);
        }
        Span(self.group(group).not_before.0.saturating_sub(now_raw.0))
    }

    pub fn in_flight(&mut self, now_raw: Mono, group: &GroupId) -> Option<InFlight> {
        let times_out = self.mutations.in_flight_times_out();
        let g = self.group(group);
        if times_out && now_raw.0 > g.since.0 + 50_000_000 {
            g.in_flight = None;
        }
        g.in_flight
    }

    /// From here on the group gets no grants.
    pub fn begin(&mut self, now_raw: Mono, group: &GroupId, what: InFlight) {
        let g = self.group(group);
        g.in_flight = Some(what);
        g.since = now_raw;
    }

    /// Everything up to `index` was applied, by this term or another: what was proposed there has its fate.
    pub fn applied(&mut self, index: u64) {
        for g in self.groups.values_mut() {
            if matches!(g.in_flight, Some(InFlight::Proposed { index: i }) if i <= index) {
                g.in_flight = None;
            }
        }
    }

    /// A new master was assigned: it has a full lease's time to appear before it counts as silent, and its tenure
    /// begins with a clean record, or one that missed two grants once could never be granted again.
    pub fn assigned(&mut self, now_raw: Mono, group: &GroupId, master: NodeId) {
        self.holders.entry(master).or_default().unconfirmed = 0;
        let until = Mono(now_raw.0 + self.wait(self.timing.lease_ttl).0);
        let g = self.group(group);
        g.not_before = g.not_before.max(until);
    }

    /// Remember a request until its ReadIndex round ends.
    pub fn ask(&mut self, read: ReadId, from: NodeId, renew: Renew) {
        self.note_confirmation(from, renew.last_grant);
        self.waiting.insert(read, Waiting { from, renew, read_index: None });
    }

    fn note_confirmation(&mut self, from: NodeId, named: Option<ArmId>) {
        let c = self.holders.entry(from).or_default();
        if named.is_some() && named > c.confirmed {
            c.confirmed = named;
            c.unconfirmed = 0;
        }
    }

    pub fn read_ready(&mut self, read: ReadId, index: u64) {
        if let Some(w) = self.waiting.get_mut(&read) {
            w.read_index = Some(index);
        }
    }

    pub fn read_lost(&mut self, read: ReadId) {
        self.waiting.remove(&read);
    }

    /// The requests that can be answered now: their round is done and its index applied.
    pub fn take_answerable(&mut self, applied: u64) -> Vec<Waiting> {
        let ready: Vec<ReadId> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.read_index.is_some_and(|i| i <= applied))
            .map(|(id, _)| *id)
            .collect();
        ready.iter().filter_map(|id| self.waiting.remove(id)).collect()
    }

    /// The last step before a grant leaves (L3, L6): nothing in flight, and the holder hears us. Sets `not_before`.
    pub fn grant(&mut self, now_raw: Mono, from: NodeId, group: &GroupId, ttl: Span) -> bool {
        if self.in_flight(now_raw, group).is_some() && !self.mutations.ignore_in_flight() {
            return false;
        }
        let deaf = self.holders.get(&from).is_some_and(|c| c.unconfirmed >= UNCONFIRMED_MAX);
        if deaf && self.wait_left(now_raw, group) > Span(0) && !self.mutations.no_grant_limit() {
            return false;
        }
        let until = Mono(now_raw.0 + self.wait(ttl).0);
        let g = self.group(group);
        g.not_before = g.not_before.max(until);
        true
    }

    /// One more grant left for this holder.
    pub fn sent(&mut self, to: NodeId) {
        let c = self.holders.entry(to).or_default();
        c.unconfirmed = c.unconfirmed.saturating_add(1);
    }
}
