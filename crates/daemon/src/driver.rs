//! The one task that owns the core.
//!
//! It shares a thread with the peers' streams and the Redis connections: what they read is in the core without waking
//! another thread, and what the core sends leaves in the same turn. Operators are elsewhere. Nothing there blocks but the
//! kernel lock, for the 0.1 ms that the kernel needs.
//!
//! It takes one input, reads the clocks (lease rule L8), feeds the core, and hands every effect to its executor without
//! waiting for any of them. Between inputs it sleeps until the core's deadline. It also publishes what operators see:
//! the status, on change but not more often than every 20 ms, and events with their stamps.

use std::{collections::BTreeMap, sync::Arc};

use redkeep_agent::redis::Secret;
use redkeep_core::{
    ActionOutcome, Core, Effect, Epoch, Event, EventKind, GroupId, Input, LockOp, Mono, NodeId,
    Now, Span,
    effect::ActionFailure,
    message::PeerMessage,
    spec::{ClusterSpec, GroupSpec, NodeSpec},
};
use tokio::{runtime::Handle, sync::watch};

use crate::{
    alarm::Alarm,
    clock::Clocks,
    config::GroupAccess,
    executor::{
        disk::{DiskQueue, DiskWork},
        kernel::{KernelQueue, KernelWork},
        lock::Lock,
        look,
        redis::{Access, GroupRedis, Quarantine},
    },
    front::Front,
    inbox::{Inbox, Outlet, Post},
    peer::Links,
    sd_notify::ServiceManager,
};

/// Least time between two published statuses, nanoseconds.
const PUBLISH_EVERY: u64 = 20_000_000;
/// Statuses without any event are published this often, nanoseconds.
const PUBLISH_QUIET: u64 = 250_000_000;
/// Longest sleep: operators see a status at least so often.
const QUIET: Span = Span::from_millis(500);

/// Everybody who carries out effects.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) links: Links,
    pub(crate) disk: DiskQueue,
    pub(crate) lock: Lock,
    pub(crate) kernel: KernelQueue,
    pub(crate) runtime: Handle,
    pub(crate) inbox: Inbox,
    /// Told the peer server which nodes there are.
    pub(crate) nodes: watch::Sender<Vec<NodeSpec>>,
    pub(crate) access: BTreeMap<GroupId, Access>,
    pub(crate) quarantine: Arc<Quarantine>,
}

/// A group that has a Redis on this host.
#[derive(Debug)]
struct LocalGroup {
    spec: GroupSpec,
    redis: GroupRedis,
    probed: Mono,
}

impl LocalGroup {
    /// Go along with whatever woke this thread, once most of the interval has passed: a wake of its own costs more.
    fn probe_if_due(&mut self, now: Mono) {
        if now >= self.probed + Span(self.spec.probe.interval.0 / 5 * 4) {
            self.probe(now);
        }
    }

    fn probe(&mut self, now: Mono) {
        self.redis.probe_now();
        self.probed = now;
    }

    fn probe_due(&self) -> Mono {
        self.probed + self.spec.probe.interval
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Driver {
    node: NodeId,
    core: Core,
    clocks: Clocks,
    hands: Hands,
    groups: BTreeMap<GroupId, LocalGroup>,
    front: Arc<Front>,
    service: ServiceManager,
    published: Mono,
    alive: Mono,
    news: bool,
    leader: Option<NodeId>,
    leader_heard: Option<Mono>,
}

impl Driver {
    pub(crate) fn new(
        (node, core, clocks): (NodeId, Core, Clocks),
        hands: Hands,
        front: Arc<Front>,
        service: ServiceManager,
    ) -> Self {
        let (published, alive) = (Mono::default(), Mono::default());
        Self {
            node,
            core,
            clocks,
            hands,
            groups: BTreeMap::new(),
            front,
            service,
            published,
            alive,
            news: true,
            leader: None,
            leader_heard: None,
        }
    }

    /// Until [`Post::Stop`]; gives the disk back to be closed.
    pub(crate) async fn run(mut self, mut outlet: Outlet, mut alarm: Alarm) -> DiskQueue {
        let mut now = self.clocks.now();
        self.drain(now);
        loop {
            self.groups.values_mut().for_each(|local| local.probe_if_due(now.boot));
            self.publish(now);
            let post = match self.hands.lock.answer() {
                Some(input) => Some(Post::Input(input)),
                None => self.wait(now, &mut outlet, &mut alarm).await,
            };
            now = self.clocks.now();
            match post {
                Some(Post::Input(input)) => {
                    if let Input::Peer { from, message } = &input {
                        self.heard(*from, message, now);
                    }
                    self.core.handle(now, input);
                }
                Some(Post::Lock(hint)) => self.hands.lock.follow(hint),
                Some(Post::Stalled(took)) => self.tell_stall(took, now),
                Some(Post::Stop) => return self.hands.disk,
                None => self.core.handle(now, Input::Wake),
            }
            self.drain(now);
        }
    }

    fn heard(&mut self, from: NodeId, message: &PeerMessage, now: Now) {
        if Some(from) == self.leader {
            self.leader_heard = Some(now.boot);
        }
        if matches!(message, PeerMessage::Renew { .. }) {
            self.hands.links.asked(from);
        }
    }

    /// None when the core is to be woken.
    async fn wait(&mut self, now: Now, outlet: &mut Outlet, alarm: &mut Alarm) -> Option<Post> {
        let look = self.hands.links.look().map_or(QUIET, |look| look.min(QUIET));
        let probes = self.groups.values().map(LocalGroup::probe_due);
        let wake = probes.fold(self.core.deadline(now).min(now.boot + look), Mono::min);
        tokio::select! {
            biased;
            post = outlet.take() => Some(post),
            rung = alarm.wait(wake) => {
                rung.expect("a timer of the kernel rings");
                None
            }
        }
    }

    fn drain(&mut self, now: Now) {
        while let Some(effect) = self.core.next_effect() {
            self.carry_out(effect, now);
        }
        self.hands.links.flush();
    }

    fn carry_out(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Send { to, message } => self.hands.links.send(to, message),
            Effect::Persist(persist) => self.hands.disk.put(DiskWork::Persist(persist)),
            Effect::Burn { group, epoch } => self.hands.disk.put(DiskWork::Burn { group, epoch }),
            Effect::Lock(LockOp::Admit { item, run_id }) => {
                let known = self.groups.get(&item.group);
                let process = known.and_then(|known| known.redis.process_of(&run_id));
                self.hands.lock.take_in(item, run_id, process);
            }
            Effect::Lock(op) => self.hands.lock.carry_out(op),
            Effect::Act { group, id, action } if action.is_redis() => match self.groups.get(&group)
            {
                Some(local) => local.redis.act(id, action),
                None => {
                    let text = "the group has no Redis on this host".to_owned();
                    let outcome = ActionOutcome::Failed(ActionFailure { retry: false, text });
                    self.hands.inbox.answer(Input::ActionDone { group, id, outcome });
                }
            },
            Effect::Act { group, id, action } => {
                self.hands.kernel.put(KernelWork::Act { group, id, action });
            }
            Effect::ProbeNow { group } => {
                if let Some(local) = self.groups.get_mut(&group) {
                    local.probe(now.boot);
                }
            }
            Effect::Look { number, target, timeout } => {
                let inbox = self.hands.inbox.clone();
                self.hands.runtime.spawn(look::look(inbox, number, target, timeout));
            }
            Effect::Reply { id, reply } => self.front.reply(id, reply),
            Effect::Event(event) => self.tell(event, now),
            Effect::SpecChanged(spec) => self.follow_spec(&spec),
        }
    }

    fn tell(&mut self, event: Event, now: Now) {
        let group = event.group.as_ref().map_or("-", GroupId::as_str);
        // The decision's log index is the id of a failover in logs, history and events.
        let span =
            tracing::info_span!("decision", index = event.index, group, epoch = event.epoch.0);
        span.in_scope(|| tracing::info!(at_boot_ns = now.boot.0, "{:?}", event.kind));
        self.front.tell(event);
        self.news = true;
    }

    fn tell_stall(&mut self, took: Span, now: Now) {
        let kind = EventKind::DiskStalled { took };
        self.tell(Event { group: None, epoch: Epoch::NONE, index: 0, kind }, now);
    }

    /// Links, groups and probes follow the replicated spec.
    fn follow_spec(&mut self, spec: &ClusterSpec) {
        self.news = true;
        self.hands.links.set_peers(&spec.nodes);
        self.hands.nodes.send_replace(spec.nodes.clone());
        let local: Vec<_> = spec.groups.iter().filter(|g| g.is_member(self.node)).collect();
        // Who else is a member, or how long a replica may lag, is nothing to the connections.
        let same = |known: &GroupSpec, new: &GroupSpec| {
            (known.port, known.vip, known.probe) == (new.port, new.vip, new.probe)
        };
        self.groups.retain(|id, known| local.iter().any(|g| g.id == *id && same(&known.spec, g)));
        for group in &local {
            if self.groups.contains_key(&group.id) {
                continue;
            }
            let Some(addr) = spec.redis_addr(self.node, group) else { continue };
            let none = || Access { group: GroupAccess::default(), password: None::<Secret> };
            let access = self.hands.access.get(&group.id).cloned().unwrap_or_else(none);
            let inbox = self.hands.inbox.clone();
            let redis = GroupRedis::start(
                &self.hands.runtime,
                (addr, group),
                &access,
                &self.hands.quarantine,
                inbox,
            );
            let local = LocalGroup { spec: (*group).clone(), redis, probed: Mono(0) };
            self.groups.insert(group.id.clone(), local);
        }
        self.hands.kernel.put(KernelWork::Groups(local.into_iter().cloned().collect()));
    }

    fn publish(&mut self, now: Now) {
        let since = now.boot.0.saturating_sub(self.published.0);
        if since >= PUBLISH_QUIET || (self.news && since >= PUBLISH_EVERY) {
            let status = self.core.status(now);
            if self.news {
                self.front.publish_history(self.core.history());
            }
            if status.leader != self.leader {
                (self.leader, self.leader_heard) = (status.leader, None);
            }
            self.front.publish(status, self.leader_heard);
            self.news = false;
            self.published = now.boot;
            let dropped = self.hands.inbox.take_dropped();
            if dropped > 0 {
                tracing::warn!(
                    dropped,
                    "the core is behind: messages and probe results were dropped"
                );
            }
        }
        let Some(interval) = self.service.watchdog_interval() else { return };
        if now.boot.0.saturating_sub(self.alive.0)
            >= u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)
        {
            self.service.alive();
            self.alive = now.boot;
        }
    }
}
