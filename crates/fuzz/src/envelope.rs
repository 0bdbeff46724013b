//! Target `peer_envelope`: whatever an authenticated peer sends is refused or harmless.
//!
//! Raft's own bytes go to a bare [`raft`] node. All else goes to a whole core that leads, beside its own Redis, so that each
//! message meets all that there is to meet. Raft messages do not reach that core: a leader may commit an entry that this
//! version cannot read, and then the core stops by design.

use std::collections::BTreeMap;

use redkeep_consensus::{HardState, Recovered, Snapshot, Span};
use redkeep_core::{
    ActionOutcome, Boot, Core, Effect, Epoch, GroupId, Input, LockAtStart, LockEvent, LockOp, Mono,
    Mutations, NodeId, Now, RunId,
    codec::encode_model,
    command::{Assign, Body, Cause, Command},
    ids::node_id,
    message::PeerMessage,
    model::Model,
    observe::{RedisObservation, RedisRole},
    spec::{ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
};

use crate::raft;

/// More inputs that follow from each other are a loop.
const SETTLES_WITHIN: usize = 10_000;

pub(crate) fn peer_envelope(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 2 {
        0 => raft::script(bytes),
        _ => envelopes(bytes, kind / 2 % 2 == 1),
    }
}

/// `assigned`: the core's own Redis is the master.
fn envelopes(bytes: &[u8], assigned: bool) {
    let mut world = World::start(assigned);
    for part in crate::parts(bytes).take(16) {
        let Some((from, seq, messages)) = redkeepd::fuzzing::envelope(part) else { continue };
        // As the receiver does: the sender is a node of the configuration, and not this one.
        let known = ["b", "w"].map(node_id);
        let from = if known.contains(&from) { from } else { known[usize::from(seq % 2 == 0)] };
        world.pass(seq % 512);
        for message in messages {
            if !matches!(message, PeerMessage::Raft { .. }) {
                world.feed(Input::Peer { from, message });
            }
        }
    }
    // Whatever was said must not make it fail later.
    world.pass(500);
    world.pass(5_000);
}

struct World {
    core: Core,
    now_ms: u64,
    deadline: Mono,
}

impl World {
    fn start(assigned: bool) -> Self {
        let spec = spec();
        let now_ms = 1_000_000;
        let core = Core::new(
            Boot {
                node: node_id("a"),
                initial_spec: spec.clone(),
                recovered: recovered(&spec, assigned),
                burned: BTreeMap::new(),
                join: false,
                incarnation: 3,
                lock: LockAtStart::default(),
                seed: 7,
                mutations: Mutations::NONE,
            },
            now(now_ms),
        )
        .expect("a state that fits together");
        let mut world = Self { core, now_ms, deadline: Mono(0) };
        world.settle(Vec::new());
        world.pass(400);
        world.observe();
        world.pass(400);
        world
    }

    /// The Redis of this host, as its probe sees it.
    fn observe(&mut self) {
        let observation = RedisObservation {
            run_id: RunId::new("run1"),
            role: RedisRole::Master,
            replication_id: "h1".to_owned(),
            previous: None,
            offset: 1000,
            keys: 10,
            backlog_from: None,
            replicas: Vec::new(),
            version: "7.0.15".to_owned(),
            append_only: false,
            settled: true,
            bypass: Vec::new(),
        };
        let group = GroupId::new("pair");
        let asked = Mono(self.now_ms * 1_000_000);
        self.feed(Input::Observed { group, asked, result: Ok(observation) });
    }

    /// Time passes, and the core is woken when it asked for it, some times at most.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        for _ in 0..20 {
            let due = self.deadline.0.div_ceil(1_000_000);
            if due > end {
                break;
            }
            self.now_ms = due.max(self.now_ms);
            self.feed(Input::Wake);
        }
        self.now_ms = end;
        self.feed(Input::Wake);
    }

    fn feed(&mut self, input: Input) {
        self.settle(vec![input]);
    }

    fn settle(&mut self, mut inputs: Vec<Input>) {
        for _ in 0..SETTLES_WITHIN {
            while let Some(effect) = self.core.next_effect() {
                inputs.extend(answer(effect));
            }
            let Some(input) = inputs.pop() else {
                self.deadline = self.core.deadline(now(self.now_ms));
                return;
            };
            self.core.handle(now(self.now_ms), input);
        }
        panic!("the core does not come to rest");
    }
}

/// Disk, kernel and Redis do as they are told.
fn answer(effect: Effect) -> Option<Input> {
    match effect {
        Effect::Persist(write) => Some(Input::Persisted { number: write.number }),
        Effect::Burn { group, epoch } => Some(Input::Burned { group, epoch }),
        Effect::Lock(op) => Some(Input::Lock(done(op))),
        Effect::Act { group, id, action } => {
            let outcome = match action {
                redkeep_core::Action::PauseAndCatchUp { .. } | redkeep_core::Action::ReadOffset => {
                    ActionOutcome::Offset(1000)
                }
                _ => ActionOutcome::Done,
            };
            Some(Input::ActionDone { group, id, outcome })
        }
        Effect::Look { number, .. } => Some(Input::Looked { number, result: Ok(()) }),
        Effect::Send { .. }
        | Effect::ProbeNow { .. }
        | Effect::Reply { .. }
        | Effect::Event(_)
        | Effect::SpecChanged(_) => None,
    }
}

fn done(op: LockOp) -> LockEvent {
    let ok = true;
    match op {
        LockOp::Arm { arm, .. } => LockEvent::Armed { arm, ok },
        LockOp::Open { arm, items, .. } => LockEvent::Opened {
            arm,
            groups: items.into_iter().map(|item| item.group).collect(),
            ok,
        },
        LockOp::Close { item } => LockEvent::Closed { group: item.group, ok },
        LockOp::Guard { item } => LockEvent::Guarded { group: item.group, ok },
        LockOp::PermitReplica { item, .. } => LockEvent::ReplicaPermitted { group: item.group, ok },
        LockOp::ForbidReplica { item } => LockEvent::ReplicaForbidden { group: item.group, ok },
        LockOp::Restore => LockEvent::Restored { ok },
        LockOp::Admit { item, run_id } => LockEvent::Admitted { group: item.group, run_id, ok },
    }
}

const fn now(ms: u64) -> Now {
    let at = Mono(ms * 1_000_000);
    Now { boot: at, raw: at, unix_ms: ms }
}

/// The only voter, so that it leads; the cluster has three nodes all the same.
fn recovered(spec: &ClusterSpec, assigned: bool) -> Recovered {
    let mut model = Model::default();
    let group = GroupId::new("pair");
    let master = node_id(if assigned { "a" } else { "b" });
    let bodies = [
        Body::Bootstrap(spec.clone()),
        Body::Assign(Assign {
            group: group.clone(),
            epoch: Epoch(1),
            master,
            run_id: RunId::new("run1"),
            cause: Cause::Adopted,
            evidence: String::new(),
            estimated_loss_bytes: Some(0),
            old_master_eligible: false,
            goes_on: false,
        }),
        Body::Serving { group, epoch: Epoch(1) },
    ];
    for (index, body) in (2..).zip(bodies) {
        model.apply(index, 1, Command { at_unix_ms: 0, body });
    }
    let voters: Vec<NodeId> = vec![node_id("a")];
    let data = encode_model(&model);
    Recovered {
        hard_state: HardState { term: 1, vote: 0, commit: 4 },
        snapshot: Some(Snapshot { index: 4, term: 1, voters, learners: Vec::new(), data }),
        entries: Vec::new(),
    }
}

fn spec() -> ClusterSpec {
    let ms = Span::from_millis;
    let node = |(name, n): (&str, u8)| NodeSpec {
        id: node_id(name),
        name: name.to_owned(),
        peer: ([10, 99, 0, n], 7600).into(),
        admin: ([10, 99, 0, n], 7601).into(),
        added: false,
    };
    ClusterSpec {
        name: "demo".to_owned(),
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
        nodes: [("a", 1), ("b", 2), ("w", 3)].map(node).to_vec(),
        groups: vec![GroupSpec {
            id: GroupId::new("pair"),
            port: 16465,
            vip: Vip { addr: [10, 99, 0, 100].into(), prefix: 32 },
            interface: "eth0".to_owned(),
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
