//! Three cores on one virtual clock, with a perfect network, disk and kernel lock, and a Redis that does as it is told.
//! For claims about the whole path; faults of every kind are the simulator's.
#![allow(dead_code, reason = "each test file uses its own part")]

mod lock;
mod redis;
pub(crate) mod tape;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use redkeep_consensus::Recovered;
use redkeep_core::ids::node_id;
use redkeep_core::message::PeerMessage;
use redkeep_core::spec::{
    ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip,
};
use redkeep_core::*;

pub(crate) use lock::Lock;
pub(crate) use redis::{Keeping, Redis};

pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn node(name: &str, n: u8) -> NodeSpec {
    NodeSpec {
        id: node_id(name),
        name: name.into(),
        peer: SocketAddr::from(([10, 99, 0, n], 7600)),
        admin: SocketAddr::from(([10, 99, 0, n], 7601)),
        added: false,
    }
}

pub(crate) fn spec() -> ClusterSpec {
    let ms = Span::from_millis;
    ClusterSpec {
        name: "demo".into(),
        timing: Timing {
            lease_ttl: ms(300),
            max_clock_drift_ppm: 100_000,
            margin: ms(25),
            switchover_timeout: ms(2000),
            takeover_timeout: ms(2000),
            cold_start_wait: ms(30_000),
            failover_cooldown: ms(0),
        },
        mass_failure_limit: 0,
        nodes: vec![node("a", 1), node("b", 2), node("w", 3)],
        groups: vec![GroupSpec {
            id: GroupId::new("pair"),
            port: 16465,
            vip: Vip { addr: [10, 99, 0, 100].into(), prefix: 32 },
            interface: "eth0".into(),
            members: ["a", "b"].map(|n| Member { node: node_id(n), priority: 100 }).to_vec(),
            probe: ProbeTiming {
                interval: ms(50),
                timeout: ms(100),
                fall: 2,
                loading_timeout: ms(60_000),
            },
            max_lag: ms(3000),
            max_lag_bytes: 0,
            min_replicas_to_write: 0,
            durability: Durability::Async,
        }],
    }
}

pub(crate) struct Host {
    pub core: Core,
    pub redis: Option<Redis>,
    pub lock: Lock,
    pub vip: bool,
    pub up: bool,
    pub next_probe: u64,
    pub deadline: u64,
    pub died_told: bool,
    /// The kernel refuses every opening.
    pub deny_open: bool,
    /// The kernel's tables are not as they have to be, and cannot be made anew.
    pub lock_broken: bool,
    pub disk: Recovered,
    pub burned: BTreeMap<GroupId, Epoch>,
    pub incarnation: u64,
    pub log: Vec<Event>,
    pub actions: Vec<Action>,
    /// Of the last attempt to keep a data set aside.
    pub keep_id: Option<ActionId>,
    /// Offsets of the data sets that were kept aside, with the gap.
    pub kept: Vec<(u64, Option<u64>)>,
    pub replies: Vec<AdminReply>,
}

pub(crate) struct World {
    pub t: u64,
    pub hosts: BTreeMap<&'static str, Host>,
    queue: VecDeque<(&'static str, Input)>,
    pub cut: BTreeSet<(&'static str, &'static str)>,
    /// Who does not get to the Redis of whom, while their supervisors hear each other.
    pub filtered: BTreeSet<(&'static str, &'static str)>,
    /// What becomes of an attempt to keep a data set aside.
    pub keeping: Keeping,
    /// Replicas cannot attach, whatever they follow.
    pub no_replication: bool,
    /// Lines for those who ask for them.
    pub tape: Option<tape::Tape>,
    /// Messages that are held up.
    pub post: tape::Post,
    /// Every message that was sent, for those who ask for it.
    pub said: Option<Vec<(&'static str, PeerMessage)>>,
    runs: u64,
}

/// Hosts of the first hour, then those that may join.
pub(crate) const NAMES: [&str; 5] = ["a", "b", "w", "x", "y"];

pub(crate) fn name_of(id: NodeId) -> &'static str {
    NAMES.into_iter().find(|n| node_id(n) == id).expect("known node")
}

impl World {
    pub(crate) fn pair() -> Self {
        Self::pair_of(&spec())
    }

    pub(crate) fn pair_of(spec: &ClusterSpec) -> Self {
        let mut w = Self {
            t: 10_000 * MS,
            hosts: BTreeMap::new(),
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            filtered: BTreeSet::new(),
            keeping: Keeping::Succeeds,
            no_replication: false,
            tape: None,
            post: tape::Post::default(),
            said: None,
            runs: 2,
        };
        for (i, name) in NAMES.into_iter().take(3).enumerate() {
            let redis = match name {
                "w" => None,
                _ => Some(Redis {
                    run: i as u64 + 1,
                    alive: true,
                    hung: false,
                    no_writes: None,
                    master: (name == "b").then(|| SocketAddr::from(([10, 99, 0, 1], 16465))),
                    offset: 1000,
                    keys: 10,
                    history: "h1".into(),
                    previous: None,
                    append_only: false,
                    bypass: Vec::new(),
                    backlog_from: 1,
                    stuck_since: None,
                    min_replicas: 0,
                    min_replicas_max_lag: None,
                    late_bytes: 0,
                    target_lags: false,
                }),
            };
            w.add_host(name, redis, Core::new(first_boot(name, spec), now_at(w.t)).expect("core"));
        }
        w
    }

    fn add_host(&mut self, name: &'static str, redis: Option<Redis>, core: Core) {
        let host = Host {
            core,
            redis,
            lock: Lock::default(),
            vip: false,
            up: true,
            next_probe: 0,
            deadline: 0,
            died_told: false,
            deny_open: false,
            lock_broken: false,
            disk: Recovered::default(),
            burned: BTreeMap::new(),
            incarnation: 1,
            log: Vec::new(),
            actions: Vec::new(),
            keep_id: None,
            kept: Vec::new(),
            replies: Vec::new(),
        };
        self.hosts.insert(name, host);
        self.drain(name);
    }

    /// A host that was not there before, with `join = true`.
    pub(crate) fn join(&mut self, name: &'static str, spec: &ClusterSpec) {
        let boot = Boot { join: true, ..first_boot(name, spec) };
        self.add_host(name, None, Core::new(boot, self.now()).expect("core"));
    }

    pub(crate) fn now(&self) -> Now {
        now_at(self.t)
    }

    /// Step a millisecond at a time until `done`, or panic after `limit_ms`.
    pub(crate) fn until(
        &mut self,
        what: &str,
        limit_ms: u64,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> u64 {
        let start = self.t;
        while !done(self) {
            assert!(
                self.t - start < limit_ms * MS,
                "not within {limit_ms} ms: {what}\n{}",
                self.describe()
            );
            self.step();
        }
        (self.t - start) / MS
    }

    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    pub(crate) fn step(&mut self) {
        self.t += MS;
        self.replicate();
        for name in self.names() {
            self.probe(name);
            let host = self.hosts.get_mut(name).expect("host");
            if host.up && host.deadline <= self.t {
                self.queue.push_back((name, Input::Wake));
            }
        }
        for _ in 0..10_000 {
            let Some((name, input)) = self.queue.pop_front() else { return };
            self.feed(name, input);
        }
        panic!("the cores do not come to rest");
    }

    pub(crate) fn feed(&mut self, name: &'static str, input: Input) {
        let now = now_at(self.t);
        let Some(host) = self.hosts.get_mut(name).filter(|h| h.up) else { return };
        host.core.handle(now, input);
        self.host(name).deadline = self.host(name).core.deadline(now).0;
        self.drain(name);
    }

    pub(crate) fn drain(&mut self, name: &'static str) {
        while let Some(effect) = self.hosts.get_mut(name).and_then(|h| h.core.next_effect()) {
            self.effect(name, effect);
        }
    }

    fn effect(&mut self, name: &'static str, effect: Effect) {
        let t = self.t;
        if let Some(tape) = &mut self.tape {
            tape.take(t, name, &effect);
        }
        let answer = match effect {
            Effect::Send { to, message } => {
                let to = name_of(to);
                if let Some(said) = &mut self.said {
                    said.push((name, message.clone()));
                }
                if !self.cut.contains(&(name, to)) && !self.post.holds(name, to, &message) {
                    self.queue.push_back((to, Input::Peer { from: node_id(name), message }));
                }
                None
            }
            Effect::Persist(p) => {
                p.apply_to(&mut self.host(name).disk);
                Some(Input::Persisted { number: p.number })
            }
            Effect::Burn { group, epoch } => {
                self.host(name).burned.insert(group.clone(), epoch);
                Some(Input::Burned { group, epoch })
            }
            Effect::Lock(LockOp::Open { arm, items, .. }) if self.host(name).deny_open => {
                let groups = items.into_iter().map(|i| i.group).collect();
                Some(Input::Lock(LockEvent::Opened { arm, groups, ok: false }))
            }
            Effect::Lock(LockOp::Restore) if self.host(name).lock_broken => {
                Some(Input::Lock(LockEvent::Restored { ok: false }))
            }
            Effect::Lock(op) => Some(Input::Lock(self.host(name).lock.run(t, op))),
            Effect::Act { group, id, action } => {
                if matches!(action, Action::KeepAside { .. }) {
                    self.host(name).keep_id = Some(id);
                }
                let outcome = self.act(name, &action);
                self.host(name).actions.push(action);
                outcome.map(|outcome| Input::ActionDone { group, id, outcome })
            }
            Effect::ProbeNow { .. } => {
                self.host(name).next_probe = 0;
                None
            }
            Effect::Reply { reply, .. } => {
                self.host(name).replies.push(reply);
                None
            }
            Effect::Event(e) => {
                self.host(name).log.push(e);
                None
            }
            Effect::Look { number, target, .. } => {
                let result = self.look(name, target);
                Some(Input::Looked { number, result })
            }
            Effect::SpecChanged(_) => None,
        };
        if let (Some(tape), Some(input)) = (&mut self.tape, &answer) {
            tape.answered(t, name, input);
        }
        if let Some(input) = answer {
            self.queue.push_back((name, input));
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.hosts.keys().copied().collect()
    }

    pub(crate) fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).expect("host")
    }

    /// The supervisor's process is gone; its lock stays in the kernel.
    pub(crate) fn stop_supervisor(&mut self, name: &str) {
        self.host(name).up = false;
    }

    /// Its next life, with what the last one had on disk. What it told before is forgotten here.
    pub(crate) fn start_supervisor(&mut self, name: &'static str, spec: &ClusterSpec) {
        let now = self.now();
        let host = self.host(name);
        host.incarnation += 1;
        let boot = Boot {
            node: node_id(name),
            initial_spec: spec.clone(),
            recovered: host.disk.clone(),
            burned: host.burned.clone(),
            join: false,
            incarnation: host.incarnation,
            lock: LockAtStart {
                guarded: host.lock.guarded.iter().copied().collect(),
                replica: host.lock.replica.keys().copied().collect(),
                ..LockAtStart::default()
            },
            seed: 70 + host.incarnation,
            mutations: Mutations::NONE,
        };
        host.core = Core::new(boot, now).expect("core");
        (host.up, host.deadline, host.next_probe) = (true, 0, 0);
        host.log.clear();
        self.drain(name);
    }

    pub(crate) fn isolate(&mut self, name: &'static str) {
        for n in NAMES {
            self.cut.insert((name, n));
            self.cut.insert((n, name));
        }
    }

    pub(crate) fn cut_between(&mut self, one: &'static str, other: &'static str) {
        self.cut.extend([(one, other), (other, one)]);
    }

    /// Leadership at `to`, and long enough for its first round.
    pub(crate) fn lead_by(&mut self, to: &'static str) {
        self.ask(AdminRequest::TransferLeadership { to: node_id(to) });
        self.until("it leads", 100, |w| w.leader() == Some(to));
        self.run(100);
    }

    /// Asks the leader, whose name is returned, for a switchover.
    pub(crate) fn switch_to(&mut self, to: &str) -> &'static str {
        let leader = self.leader().expect("a leader");
        let (group, to) = (GroupId::new("pair"), Some(node_id(to)));
        self.ask(AdminRequest::Switchover { group, to, dry_run: false });
        leader
    }

    /// An operator asks the leader; what it answers at once.
    pub(crate) fn ask(&mut self, request: AdminRequest) -> Vec<AdminReply> {
        let leader = self.leader().expect("a leader");
        self.host(leader).replies.clear();
        self.feed(leader, Input::Admin { id: RequestId(1), request });
        self.host(leader).replies.clone()
    }

    /// The same of what is answered when it is committed.
    pub(crate) fn order(&mut self, request: AdminRequest) -> AdminReply {
        let leader = self.leader().expect("a leader");
        if self.ask(request).is_empty() {
            self.until("an answer", 100, |w| !w.host(leader).replies.is_empty());
        }
        self.host(leader).replies[0].clone()
    }

    /// Asks for a failover at the price of data.
    pub(crate) fn force(&mut self, to: &str) -> Vec<AdminReply> {
        let (group, to) = (GroupId::new("pair"), Some(node_id(to)));
        self.ask(AdminRequest::Failover { group, to, allow_data_loss: true, dry_run: false })
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn leader(&mut self) -> Option<&'static str> {
        let now = self.now();
        self.names().into_iter().find(|n| {
            let host = self.host(n);
            host.up && host.core.status(now).leader == Some(node_id(n))
        })
    }

    /// Status of the pair as the leader sees it.
    pub(crate) fn pair_status(&mut self) -> Option<redkeep_core::status::GroupStatus> {
        let now = self.now();
        let leader = self.leader()?;
        self.host(leader).core.status(now).groups.into_iter().next()
    }

    pub(crate) fn serving(&mut self) -> Option<&'static str> {
        let g = self.pair_status()?;
        g.serving.then(|| g.master.map(name_of)).flatten()
    }

    /// Adopted, serving at a, b in the eligible set, leadership off the master's node.
    pub(crate) fn settled_pair() -> Self {
        Self::settled(Self::pair())
    }

    /// The pair without its replica, which is not eligible any more.
    pub(crate) fn without_b() -> Self {
        let mut w = Self::settled_pair();
        w.kill_redis("b");
        w.until("b left", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.is_empty()));
        w
    }

    /// b took over from a a moment ago, a follows it and is eligible, and a cooldown of a minute runs.
    pub(crate) fn cooling_down() -> Self {
        let mut spec = spec();
        spec.timing.failover_cooldown = Span::from_secs(60);
        let mut w = Self::settled(Self::pair_of(&spec));
        w.kill_redis("a");
        w.until("b serves", 100, |w| w.serving() == Some("b"));
        w.start_redis("a", false);
        w.until("a is eligible", 5000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
        w
    }

    pub(crate) fn is_cooling(&mut self) -> bool {
        let hold = self.pair_status().and_then(|g| g.hold);
        matches!(hold, Some(plan::HoldReason::Cooldown { .. }))
    }

    pub(crate) fn settled(mut w: Self) -> Self {
        w.until("a serves and b is eligible", 5000, |w| {
            w.serving() == Some("a") && w.pair_status().is_some_and(|g| g.eligible.len() == 1)
        });
        w.until("the witness leads", 20_000, |w| w.leader() == Some("w"));
        w.run(200);
        w
    }

    pub(crate) fn describe(&mut self) -> String {
        let now = self.now();
        let mut out = String::new();
        for n in self.names() {
            let s = self.host(n).core.status(now);
            let h = &self.hosts[n];
            out += &format!("{n}: {s:#?}\nlock {:?} vip {} redis {:?}\n", h.lock, h.vip, h.redis);
            for e in h.log.iter().rev().take(30) {
                out += &format!("  {e:?}\n");
            }
        }
        out
    }
}

fn first_boot(name: &str, spec: &ClusterSpec) -> Boot {
    let place = NAMES.iter().position(|n| *n == name).expect("known host");
    Boot {
        node: node_id(name),
        initial_spec: spec.clone(),
        recovered: Recovered::default(),
        burned: BTreeMap::new(),
        join: false,
        incarnation: 1,
        lock: LockAtStart::default(),
        seed: 7 + place as u64,
        mutations: Mutations::NONE,
    }
}

fn now_at(t: u64) -> Now {
    Now { boot: Mono(t), raw: Mono(t), unix_ms: t / MS }
}
