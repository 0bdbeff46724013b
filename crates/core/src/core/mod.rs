//! Routing: one input in, everything that follows from it settled, effects out. No rule of its own lives here but the order:
//! consensus first, then the host, then renewals, then planning, then granting, then the report.

mod admin;
mod follow;
mod lead;
mod lock;
mod log;
mod membership;
pub(crate) mod reach;
mod status;

use std::collections::{BTreeMap, VecDeque};

use redkeep_consensus::{
    Asker, Config, ConfigError, Consensus, Mono, NodeId, Recovered, Role, Span, StepError,
};

use crate::{
    effect::{Effect, LockEvent},
    host::{Cx, HostGroup},
    ids::{Epoch, GroupId, Now},
    input::{HostEvent, Input, LockAtStart},
    leader::{Leader, Round},
    lease::Holder,
    message::{PeerMessage, Renew},
    model::{Model, Record},
    mutations::Mutations,
    observe::Report,
    recent::Recent,
    sight::Sights,
    sink::Sink,
    spec::{ClusterSpec, Timing},
};

/// The log is compacted when this many entries were applied since the last snapshot.
const COMPACT_AFTER: u64 = 1000;
/// Inputs settle in a few rounds; more is a bug.
const ROUNDS_MAX: usize = 64;

/// What a core is started with.
#[derive(Clone, Debug)]
pub struct Boot {
    pub node: NodeId,
    /// From the configuration file; the replicated spec rules once it is there.
    pub initial_spec: ClusterSpec,
    pub recovered: Recovered,
    pub burned: BTreeMap<GroupId, Epoch>,
    /// Began without a log in a cluster that runs already: it takes its membership from there.
    pub join: bool,
    /// Raised durably at each start.
    pub incarnation: u64,
    pub lock: LockAtStart,
    pub seed: u64,
    pub mutations: Mutations,
}

/// The brain of one supervisor.
#[derive(Debug)]
pub struct Core {
    me: NodeId,
    incarnation: u64,
    initial_spec: ClusterSpec,
    burned_at_start: BTreeMap<GroupId, Epoch>,
    lock_at_start: LockAtStart,
    consensus: Consensus,
    model: Model,
    applied: u64,
    snapshot_at: u64,
    hosts: BTreeMap<GroupId, HostGroup>,
    holder: Holder,
    leader: Option<Leader>,
    role: Role,
    leader_id: Option<NodeId>,
    sink: Sink,
    loopback: VecDeque<PeerMessage>,
    report_seq: u64,
    last_report: Option<(Mono, Report)>,
    /// When a report last said something new.
    news_at: Mono,
    pauses: BTreeMap<u64, Mono>,
    recent: Recent,
    sights: Sights,
    /// The kernel lock is not as it has to be.
    lock_attempt: Option<lock::Attempt>,
    last_transfer: Mono,
    /// For a leader: removals of nodes have index up to this.
    removal_at: u64,
    bootstrap_proposed: bool,
    /// There is something to hold a lease for.
    has_claims: bool,
    /// Last index of the log that was recovered.
    recovered_to: u64,
    /// Entries up to here were in the log at the start: an earlier life told of them.
    told_to: u64,
    /// The model is at least as new as any that an earlier life acted on.
    caught_up: bool,
    mutations: Mutations,
}

/// Raft's times, derived from the lease: an election must be short beside it, and not so short that a busy host loses its
/// leadership for nothing.
#[must_use]
pub(crate) fn raft_config(node: NodeId, spec: &ClusterSpec, seed: u64) -> Config {
    let ttl_ms = spec.timing.lease_ttl.as_millis();
    // Just above half of a renewal's interval: then one heartbeat stands between two rounds for renewals.
    let heartbeat = (ttl_ms * 11 / 60).clamp(20, 100);
    let election = (ttl_ms / 3).clamp(110, 500);
    Config {
        id: node,
        voters: spec.nodes.iter().map(|n| n.id).collect(),
        learners: Vec::new(),
        heartbeat: Span::from_millis(heartbeat),
        election_min: Span::from_millis(election),
        // Narrow, so that a lease outlives an election: two that stand at once do not split the votes.
        election_max: Span::from_millis(election * 7 / 5),
        seed,
    }
}

impl Core {
    /// # Errors
    /// The spec's timings or the recovered log are not usable.
    pub fn new(boot: Boot, now: Now) -> Result<Self, ConfigError> {
        let mut config = raft_config(boot.node, &boot.initial_spec, boot.seed);
        if boot.join {
            config.voters.clear();
        }
        let recovered_to = boot.recovered.last_index();
        let consensus = Consensus::new(config, boot.recovered, now.boot)?;
        let holder = Holder::new(
            boot.incarnation,
            boot.lock.open,
            boot.seed ^ boot.incarnation,
            boot.mutations,
        );
        let mut core = Self {
            me: boot.node,
            incarnation: boot.incarnation,
            initial_spec: boot.initial_spec,
            burned_at_start: boot.burned,
            lock_at_start: boot.lock,
            consensus,
            model: Model::default(),
            applied: 0,
            snapshot_at: 0,
            hosts: BTreeMap::new(),
            holder,
            leader: None,
            role: Role::Follower,
            leader_id: None,
            sink: Sink::default(),
            loopback: VecDeque::new(),
            report_seq: 0,
            last_report: None,
            news_at: now.boot,
            pauses: BTreeMap::new(),
            recent: Recent::default(),
            sights: Sights::default(),
            lock_attempt: None,
            last_transfer: now.boot,
            removal_at: 0,
            bootstrap_proposed: false,
            has_claims: false,
            recovered_to,
            told_to: recovered_to,
            caught_up: false,
            mutations: boot.mutations,
        };
        core.settle(now);
        if core.model.spec.is_none() {
            core.spec_changed();
        }
        Ok(core)
    }

    fn spec(&self) -> &ClusterSpec {
        self.model.spec.as_ref().unwrap_or(&self.initial_spec)
    }

    fn timing(&self) -> Timing {
        self.spec().timing
    }

    /// Feed one input; afterwards drain [`Core::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        let raw = Mono(now.unix_ms.saturating_mul(1_000_000));
        let now = if self.mutations.wait_by_wall_clock() { Now { raw, ..now } } else { now };
        self.consensus.advance(now.boot);
        match input {
            Input::Peer { from, message } => self.peer_message(now, from, message),
            Input::PeerDied { peer } => self.peer_died(now, peer),
            Input::Persisted { number } => self.consensus.persisted(now.boot, number),
            Input::Burned { group, epoch } => self.with_host(now, &group, |h, _| h.burned(epoch)),
            Input::Lock(event) => self.lock_event(now, &event),
            Input::ActionDone { group, id, outcome } => {
                self.with_host(now, &group, |h, cx| h.action_done(cx, id, &outcome));
            }
            Input::Observed { group, asked, result } => {
                self.with_host(now, &group, |h, cx| h.observed(cx, asked, result));
            }
            Input::RedisDied { group, run_id } => {
                self.with_host(now, &group, |h, cx| h.died(cx, run_id.as_ref()));
            }
            Input::Looked { number, result } => {
                self.sights.looked(now.boot, number, result, &mut self.sink);
            }
            Input::Host(event) => self.host_event(now, &event),
            Input::Admin { id, request } => self.admin(now, id, request),
            Input::Wake => {}
        }
        self.settle(now);
    }

    pub fn next_effect(&mut self) -> Option<Effect> {
        self.sink.pop()
    }

    /// When to feed [`Input::Wake`] at the latest; CLOCK_BOOTTIME.
    pub fn deadline(&mut self, now: Now) -> Mono {
        let mut at = self.consensus.deadline();
        // What lies in the past was settled at this instant already and needs no wake.
        let ahead = |d: &Mono| *d > now.boot;
        for h in self.hosts.values() {
            at = h.deadline(&self.holder).filter(ahead).map_or(at, |d| d.min(at));
        }
        at = self.sights.deadline().filter(ahead).map_or(at, |d| d.min(at));
        at = self.lock_deadline().filter(ahead).map_or(at, |d| d.min(at));
        at = self.report_again().map_or(at, |d| d.min(at));
        at = self.reach_deadline(now).map_or(at, |d| d.min(at));
        if self.has_claims && self.leader_id.is_some() {
            let due = self.holder.due(self.timing(), false);
            at = Some(due).filter(ahead).map_or(at, |d| d.min(at));
        }
        if let Some(l) = self.leader.as_mut() {
            at = l.deadline(now).map_or(at, |d| d.min(at));
        }
        // A deadline that has passed without effect (a lapsed lease, say) must not make the driver spin.
        at.max(Mono(now.boot.0 + 1_000_000))
    }

    /// The replicated history, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Record> {
        self.model.history.iter().cloned().collect()
    }

    /// The machines of the groups, and what they work with.
    fn parts(&mut self, now: Now) -> (&mut BTreeMap<GroupId, HostGroup>, Cx<'_>) {
        let cx = Cx {
            now,
            cluster: self.model.spec.as_ref().unwrap_or(&self.initial_spec),
            model: &self.model,
            holder: &mut self.holder,
            sink: &mut self.sink,
            mutations: self.mutations,
        };
        (&mut self.hosts, cx)
    }

    fn with_host(
        &mut self,
        now: Now,
        group: &GroupId,
        f: impl FnOnce(&mut HostGroup, &mut Cx<'_>),
    ) {
        let (hosts, mut cx) = self.parts(now);
        if let Some(h) = hosts.get_mut(group) {
            f(h, &mut cx);
        }
    }

    fn each_host(&mut self, now: Now, mut f: impl FnMut(&mut HostGroup, &mut Cx<'_>)) {
        let (hosts, mut cx) = self.parts(now);
        for h in hosts.values_mut() {
            f(h, &mut cx);
        }
    }

    fn peer_message(&mut self, now: Now, from: NodeId, message: PeerMessage) {
        let silent_after = self.spec().timing.silent_after();
        if let Some(l) = self.leader.as_mut() {
            l.heard(now.boot, from, silent_after);
        }
        match message {
            PeerMessage::Raft { bytes, .. } => self.raft_message(now, from, &bytes),
            PeerMessage::Renew { renew, term } => {
                self.renew_asked(now, Asker { node: from, term }, renew);
            }
            PeerMessage::Grant(grant) => {
                if self.holder.granted(&grant)
                    && let Some(op) = self.holder.take_deferred(now.boot)
                {
                    self.sink.lock(op);
                }
            }
            PeerMessage::Report(report) => {
                if let Some(l) = self.leader.as_mut() {
                    l.reported(now.boot, from, report, &self.model);
                }
            }
            PeerMessage::Reach(reach) => self.reach_message(from, reach),
            PeerMessage::FenceRequest { group, epoch, unreached } => {
                self.with_host(now, &group, |h, cx| h.fence_requested(cx, epoch, unreached));
            }
            PeerMessage::RelinkRequest { group, epoch } => {
                self.with_host(now, &group, |h, cx| h.relink_requested(cx, epoch));
            }
        }
    }

    fn raft_message(&mut self, now: Now, from: NodeId, bytes: &[u8]) {
        match self.consensus.step(now.boot, from, bytes) {
            Ok(()) => {}
            // Votes or entries that this node once acknowledged are gone: it must not take part any more.
            Err(error @ StepError::CommitBeyondLog { .. }) => {
                panic!(
                    "the data directory is lost or old: {error}; see operations, loss of a data directory"
                )
            }
            Err(error) => tracing::warn!(%from, %error, "raft message refused"),
        }
    }

    /// L2: the request itself, or else a round that begins after it, shows that no other was elected before it was made.
    fn renew_asked(&mut self, now: Now, asker: Asker, renew: Renew) {
        // The next leader waits for the lease of the spec (L4), so no longer one may be held.
        let longest = self.timing().lease_ttl;
        if renew.ttl > longest {
            let from = asker.node;
            tracing::warn!(%from, ttl_ns = renew.ttl.0, "asks for a lease longer than the spec's");
            return;
        }
        let Some(l) = self.leader.as_mut() else { return };
        if self.mutations.skip_read_index() {
            let read = redkeep_consensus::ReadId(renew.arm.counter ^ (asker.node.0 << 20));
            l.grantor.ask(read, asker.node, renew);
            l.grantor.read_ready(read, self.applied);
            return;
        }
        let deadline = now.boot + renew.ttl;
        if let Ok(read) = self.consensus.read_index_for(now.boot, deadline, asker) {
            l.grantor.ask(read, asker.node, renew);
        }
    }

    /// The leader's process is proved dead: the first of the rest stands at once, the others wait their time.
    fn peer_died(&mut self, now: Now, peer: NodeId) {
        if self.consensus.leader() != Some(peer) {
            return;
        }
        let mut rest: Vec<(u8, NodeId)> = self
            .consensus
            .voters()
            .iter()
            .filter(|n| **n != peer)
            .map(|n| (self.burden(*n), *n))
            .collect();
        rest.sort();
        if rest.first().is_some_and(|(_, n)| *n == self.me) {
            self.consensus.leader_died(now.boot);
        }
    }

    fn holds_a_group(&self, node: NodeId) -> bool {
        self.model.groups.values().any(|g| g.master() == Some(node))
    }

    fn lock_event(&mut self, now: Now, event: &LockEvent) {
        match event {
            LockEvent::Armed { arm, ok } => {
                if let Some(renew) = self.holder.armed(*arm, *ok) {
                    self.ask_leader(renew);
                }
            }
            LockEvent::Opened { arm, groups, ok } => {
                for g in self.holder.opened(*arm, groups, *ok) {
                    self.with_host(now, &g, |h, cx| h.lock_event(cx, event));
                }
            }
            LockEvent::Restored { ok } => self.lock_restored(now, *ok),
            LockEvent::Closed { group, .. }
            | LockEvent::Guarded { group, .. }
            | LockEvent::ReplicaPermitted { group, .. }
            | LockEvent::ReplicaForbidden { group, .. }
            | LockEvent::Admitted { group, .. } => {
                let group = group.clone();
                self.with_host(now, &group, |h, cx| h.lock_event(cx, event));
            }
        }
    }

    fn host_event(&mut self, now: Now, event: &HostEvent) {
        match event {
            HostEvent::VipRemoved { group } | HostEvent::VipPresent { group } => {
                let group = group.clone();
                self.with_host(now, &group, |h, cx| h.host_event(cx, event));
            }
            HostEvent::LockBroken => self.lock_broken(now),
            HostEvent::LockLost => {
                self.lock_attempt = None;
                self.holder.lock_lost();
                self.each_host(now, |h, cx| h.host_event(cx, event));
            }
            HostEvent::LinkUp { .. } => self.each_host(now, |h, cx| h.host_event(cx, event)),
        }
    }

    /// What an earlier life did, it did by entries that were in its log; its commit index may not have reached the disk.
    /// Until those are applied again (or found never to have been committed, and cut off), the model may be older than the
    /// host's state, and nothing is done by it.
    fn catch_up(&mut self) {
        if !self.caught_up && self.leader_id.is_some() {
            self.caught_up = self.applied >= self.recovered_to.min(self.consensus.last_index());
        }
    }

    /// Everything that follows from an input, until nothing moves any more.
    fn settle(&mut self, now: Now) {
        for _ in 0..ROUNDS_MAX {
            self.drain_consensus(now);
            while let Some(message) = self.loopback.pop_front() {
                self.peer_message(now, self.me, message);
            }
            self.catch_up();
            let may_act = self.caught_up || self.mutations.act_on_old_model();
            self.each_host(now, |h, cx| h.reconcile(cx, may_act));
            self.restore_lock(now);
            self.open_gates(now);
            self.renew(now);
            self.look_at_others(now);
            self.report(now);
            self.lead(now);
            if !self.drain_consensus(now) && self.loopback.is_empty() {
                return;
            }
        }
        tracing::error!("an input did not settle");
    }

    fn round<'a>(&'a self, now: Now, paused: &'a dyn Fn(&GroupId) -> bool) -> Round<'a> {
        let (cluster, recent) = (self.spec(), &self.recent);
        Round { now, model: &self.model, cluster, paused, recent, applied: self.applied }
    }

    /// What is left of a pause of `group`; each node counts from its own apply.
    fn pause_left(&self, now: Now, group: &GroupId) -> Option<Span> {
        let own = self.model.group(group).and_then(|g| g.pause);
        let both = [own, self.model.pause].into_iter().flatten();
        both.map(|p| self.left_of(now, p)).max().filter(|l| *l > 0).map(Span)
    }

    fn left_of(&self, now: Now, pause: crate::model::Pause) -> u64 {
        let since = self.pauses.get(&pause.index).copied().unwrap_or(now.boot);
        pause.duration.0.saturating_sub(now.boot.0.saturating_sub(since.0))
    }

    /// Of the pause of all groups.
    fn pause_of_all_left(&self, now: Now) -> Option<Span> {
        self.model.pause.map(|p| self.left_of(now, p)).filter(|l| *l > 0).map(Span)
    }
}
