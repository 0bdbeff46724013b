//! A network of nodes with virtual time, disks that take time, and cuts. Deterministic.
//!
//! It checks at every event: one leader per term, one entry per index, nothing acknowledged and no
//! vote given that is not on the disk, each read ended once.

use crate::*;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const MS: u64 = 1_000_000;

/// One node with its disk and its state machine (a comma-joined list of what was applied).
pub(super) struct Host {
    pub(super) node: Option<Consensus>,
    config: Config,
    pub(super) disk: Recovered,
    writes: VecDeque<(Mono, Persist)>,
    pub(super) write_delay: Span,
    pub(super) machine: String,
    pub(super) applied: u64,
    pub(super) restores: usize,
    open_reads: BTreeSet<ReadId>,
    pub(super) ready: BTreeMap<ReadId, (u64, Mono)>,
    pub(super) lost: BTreeSet<ReadId>,
    pub(super) roles: Vec<(Mono, Role, u64)>,
    pub(super) members: (Vec<NodeId>, Vec<NodeId>),
}

impl Host {
    pub(super) fn is_leader(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.role() == Role::Leader)
    }

    pub(super) fn has_snapshot_in_flight(&self) -> bool {
        self.writes.iter().any(|(_, write)| write.replace_log)
    }
}

/// From, to, class, bytes.
type Letter = (u64, u64, SendClass, Vec<u8>);

pub(super) struct Net {
    pub(super) now: Mono,
    pub(super) hosts: BTreeMap<u64, Host>,
    in_flight: BTreeMap<(Mono, u64), Letter>,
    sequence: u64,
    cuts: BTreeSet<(u64, u64)>,
    pub(super) lost_snapshots: usize,
    /// Messages arrive in the order of sending, as over one connection.
    pub(super) fifo: bool,
    rng: crate::rng::Rng,
    leaders: BTreeMap<u64, u64>,
    log: BTreeMap<u64, (u64, Vec<u8>)>,
    pub(super) hash: u64,
    pub(super) sent: BTreeMap<SendClass, usize>,
}

pub(super) fn config(id: u64, voters: &[u64], seed: u64) -> Config {
    Config {
        id: NodeId(id),
        voters: voters.iter().copied().map(NodeId).collect(),
        learners: vec![],
        heartbeat: Span::from_millis(30),
        election_min: Span::from_millis(150),
        election_max: Span::from_millis(300),
        seed,
    }
}

impl Net {
    pub(super) fn new(nodes: u64, seed: u64) -> Net {
        let voters: Vec<u64> = (1..=nodes).collect();
        let mut net = Net {
            now: Mono(1_000_000_007),
            hosts: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            cuts: BTreeSet::new(),
            lost_snapshots: 0,
            fifo: false,
            rng: crate::rng::Rng::new(seed, 99),
            leaders: BTreeMap::new(),
            log: BTreeMap::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            sent: BTreeMap::new(),
        };
        for id in voters.clone() {
            net.add(config(id, &voters, seed));
        }
        net
    }

    pub(super) fn add(&mut self, config: Config) {
        let id = config.id.0;
        self.hosts.insert(
            id,
            Host {
                node: None,
                config,
                disk: Recovered::default(),
                writes: VecDeque::new(),
                write_delay: Span::from_millis(1),
                machine: String::new(),
                applied: 0,
                restores: 0,
                open_reads: BTreeSet::new(),
                ready: BTreeMap::new(),
                lost: BTreeSet::new(),
                roles: vec![],
                members: (vec![], vec![]),
            },
        );
        self.start(id);
    }

    /// Starts from what is on the disk.
    pub(super) fn start(&mut self, id: u64) {
        let now = self.now;
        let host = self.host(id);
        assert!(host.node.is_none());
        host.config.seed = host.config.seed.wrapping_add(1);
        host.machine.clear();
        host.applied = 0;
        let node = Consensus::new(host.config.clone(), host.disk.clone(), now);
        host.node = Some(node.expect("starts"));
        self.drain(id);
    }

    /// The process ends; writes that were not yet durable are gone.
    pub(super) fn kill(&mut self, id: u64) {
        let host = self.host(id);
        host.node = None;
        host.writes.clear();
        host.open_reads.clear();
        self.in_flight.retain(|_, (from, to, _, _)| *from != id && *to != id);
    }

    pub(super) fn host(&mut self, id: u64) -> &mut Host {
        self.hosts.get_mut(&id).expect("known host")
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Consensus {
        self.host(id).node.as_mut().expect("running")
    }

    /// One direction.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }

    pub(super) fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Calls one input at the present time and carries the effects out.
    pub(super) fn input<T>(&mut self, id: u64, call: impl FnOnce(&mut Consensus, Mono) -> T) -> T {
        let now = self.now;
        let out = call(self.node(id), now);
        self.drain(id);
        out
    }

    pub(super) fn propose(&mut self, id: u64, data: &str) -> Proposed {
        self.input(id, |node, now| node.propose(now, data.into())).expect("accepted")
    }

    pub(super) fn read(&mut self, id: u64, patience_ms: u64) -> ReadId {
        // Effects of the call may already end the read, so note it as open first.
        let now = self.now;
        let deadline = now + Span::from_millis(patience_ms);
        let read = self.node(id).read_index(now, deadline).expect("accepted");
        self.host(id).open_reads.insert(read);
        self.drain(id);
        read
    }

    /// A read at `id` for a node that asked.
    pub(super) fn read_for(&mut self, id: u64, asker: Asker) -> ReadId {
        let now = self.now;
        let deadline = now + Span::from_millis(500);
        let read = self.node(id).read_index_for(now, deadline, asker).expect("accepted");
        self.host(id).open_reads.insert(read);
        self.drain(id);
        read
    }

    fn drain(&mut self, id: u64) {
        while let Some(effect) = self.node(id).next_effect() {
            self.note(&effect);
            self.carry_out(id, effect);
        }
    }

    fn note(&mut self, effect: &Effect) {
        self.hash_bytes(&self.now.0.to_be_bytes());
        match effect {
            // Formatting large data would take most of the time of a run.
            Effect::Send { to, bytes, class: _ } => {
                self.hash_bytes(&to.0.to_be_bytes());
                self.hash_bytes(bytes);
            }
            Effect::Persist(write) => {
                self.hash_bytes(format!("{:?}{:?}", write.number, write.hard_state).as_bytes());
                for entry in &write.entries {
                    self.hash_bytes(&entry.index.to_be_bytes());
                    self.hash_bytes(&entry.data);
                }
            }
            Effect::Apply { index, term: _, data } | Effect::Restore { index, term: _, data } => {
                self.hash_bytes(&index.to_be_bytes());
                self.hash_bytes(data);
            }
            other => self.hash_bytes(format!("{other:?}").as_bytes()),
        }
    }

    fn hash_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn carry_out(&mut self, id: u64, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, bytes, class } => self.send(id, to.0, bytes, class),
            Effect::Persist(write) => {
                let host = self.host(id);
                let at = now + host.write_delay;
                host.writes.push_back((at, write));
            }
            Effect::Apply { index, term, data } => {
                self.check_committed(index, term, &data);
                let host = self.host(id);
                assert_eq!(host.applied + 1, index);
                host.applied = index;
                if !data.is_empty() {
                    host.machine += std::str::from_utf8(&data).expect("text");
                    host.machine += ",";
                }
            }
            Effect::Membership { index, term: _, voters, learners } => {
                let host = self.host(id);
                assert!(index == host.applied + 1 || index == host.applied);
                host.applied = index;
                host.members = (voters, learners);
            }
            Effect::Restore { index, term: _, data } => {
                let host = self.host(id);
                assert!(index > host.applied);
                host.applied = index;
                host.machine = String::from_utf8(data).expect("text");
                host.restores += 1;
            }
            Effect::ReadReady { id: read, index } => {
                let host = self.host(id);
                assert!(host.open_reads.remove(&read), "ended twice");
                assert!(host.applied >= index, "state machine is behind the read");
                host.ready.insert(read, (index, now));
            }
            Effect::ReadLost { id: read } => {
                let host = self.host(id);
                assert!(host.open_reads.remove(&read), "ended twice");
                host.lost.insert(read);
            }
            Effect::RoleChanged { role, term, leader: _ } => {
                self.host(id).roles.push((now, role, term));
                if role == Role::Leader {
                    let leader = *self.leaders.entry(term).or_insert(id);
                    assert_eq!(leader, id, "two leaders in term {term}");
                }
            }
        }
    }

    fn check_committed(&mut self, index: u64, term: u64, data: &[u8]) {
        let known = self.log.entry(index).or_insert_with(|| (term, data.to_vec()));
        assert_eq!((known.0, &known.1[..]), (term, data), "two entries at index {index}");
    }

    fn send(&mut self, from: u64, to: u64, bytes: Vec<u8>, class: SendClass) {
        let message = Message::parse_from_bytes(&bytes).expect("own message");
        let disk = &self.host(from).disk;
        match message.get_msg_type() {
            MessageType::MsgAppendResponse if !message.reject => {
                assert!(disk.last_index() >= message.index, "acknowledged before durable");
            }
            MessageType::MsgRequestVoteResponse if !message.reject => {
                assert_eq!((disk.hard_state.term, disk.hard_state.vote), (message.term, to));
            }
            MessageType::MsgRequestVote => {
                assert_eq!((disk.hard_state.term, disk.hard_state.vote), (message.term, from));
            }
            _ => {}
        }
        *self.sent.entry(class).or_default() += 1;
        let delay = if self.fifo { Span(MS) } else { Span(MS + self.rng.next() % (2 * MS)) };
        if class == SendClass::Snapshot && self.lost_snapshots > 0 {
            self.lost_snapshots -= 1;
            return;
        }
        if self.cuts.contains(&(from, to)) {
            return;
        }
        self.sequence += 1;
        self.in_flight.insert((self.now + delay, self.sequence), (from, to, class, bytes));
    }

    fn next_time(&self) -> Option<Mono> {
        let message = self.in_flight.keys().next().map(|(at, _)| *at);
        let write = self.hosts.values().filter_map(|host| host.writes.front().map(|w| w.0)).min();
        let tick =
            self.hosts.values().filter_map(|host| Some(host.node.as_ref()?.deadline())).min();
        [message, write, tick].into_iter().flatten().min()
    }

    fn event(&mut self) {
        self.now = self.now.max(self.next_time().expect("something is due"));
        let now = self.now;
        if let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= now
        {
            let (from, to, class, bytes) = entry.remove();
            if self.cuts.contains(&(from, to)) || self.host(to).node.is_none() {
                return;
            }
            let taken = self.input(to, |node, now| node.step(now, NodeId(from), &bytes));
            // A late answer of a node that was removed is the one refusal an honest network sees.
            assert!(matches!(taken, Ok(()) | Err(StepError::UnknownSender(_))), "{taken:?}");
            if class == SendClass::Snapshot && self.host(from).node.is_some() {
                self.input(from, |node, _| node.report_snapshot(NodeId(to), true));
            }
            return;
        }
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            let host = self.host(id);
            if host.writes.front().is_some_and(|(at, _)| *at <= now) {
                let (_, write) = host.writes.pop_front().expect("just seen");
                write.apply_to(&mut host.disk);
                host.disk.validate().expect("disk is consistent");
                self.input(id, |node, now| node.persisted(now, write.number));
                return;
            }
            if host.node.as_ref().is_some_and(|node| node.deadline() <= now) {
                self.input(id, Consensus::advance);
                assert!(self.node(id).deadline() > now, "deadline did not move");
            }
        }
    }

    pub(super) fn run(&mut self, millis: u64) {
        let until = self.now + Span::from_millis(millis);
        while self.next_time().is_some_and(|at| at <= until) {
            self.event();
        }
        self.now = until;
    }

    /// Runs until `done`, at most `millis`.
    pub(super) fn run_until(&mut self, millis: u64, mut done: impl FnMut(&mut Net) -> bool) {
        let until = self.now + Span::from_millis(millis);
        while !done(self) {
            let next = self.next_time().expect("something is due");
            assert!(next <= until, "not reached within {millis} ms");
            self.event();
        }
    }

    /// The leader that a majority of the running nodes follows, if there is one.
    pub(super) fn leader(&self) -> Option<u64> {
        let running = || self.hosts.values().filter_map(|host| host.node.as_ref());
        let newest =
            running().filter(|node| node.role() == Role::Leader).max_by_key(|node| node.term())?;
        let (id, term) = (newest.id(), newest.term());
        let followers =
            running().filter(|node| node.term() == term && node.leader() == Some(id)).count();
        (followers * 2 > self.hosts.len()).then_some(id.0)
    }

    pub(super) fn elect(&mut self) -> u64 {
        self.run_until(3000, |net| net.leader().is_some());
        let leader = self.leader().expect("elected");
        // Until its first entry is committed it is leader only by name.
        self.run_until(1000, |net| net.node(leader).committed() == net.node(leader).last_index());
        leader
    }

    pub(super) fn others(&self, id: u64) -> Vec<u64> {
        self.hosts.keys().copied().filter(|other| *other != id).collect()
    }

    /// All running nodes have the same state machine, and it holds `data`.
    pub(super) fn settle(&mut self, data: &str) {
        self.run_until(5000, |net| {
            let mut machines = net.hosts.values().filter(|h| h.node.is_some()).map(|h| &h.machine);
            let first = machines.next().expect("one runs").clone();
            first.contains(data) && machines.all(|machine| *machine == first)
        });
    }
}
