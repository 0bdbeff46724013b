//! One Redis: its life, role, history and data as an ordered list of writes.
//!
//! Modelled after Redis 7: asynchronous replication, partial and full resynchronisation (`PSYNC`), a second replication
//! id after a promotion, `CLIENT PAUSE WRITE`, `WAIT`, `min-replicas-to-write`. A frozen process executes what lies in its
//! buffers when it is thawed. Deliberately absent: the network and the kernel lock, which the world asks before it calls.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU64,
};

use redkeep_core::{
    RunId, Span,
    effect::MinReplicas,
    observe::{AttachedReplica, Bypass, PreviousHistory, RedisObservation, RedisRole},
};

use crate::{clock::Real, net::Endpoint};

/// Number of a client's write, unique in a world.
pub type WriteId = u32;

/// Bytes in the replication stream for one write.
pub const WRITE_BYTES: u64 = 64;

/// Where the data of a Redis that is none of this world end.
const FOREIGN_OFFSET: u64 = 70;
/// Writes that the replication backlog keeps (`repl-backlog-size`, 1 MiB).
const BACKLOG_BYTES: u64 = 1 << 20;

/// `repl-timeout`, shortened so that a run sees it.
pub const REPL_TIMEOUT: Span = Span::from_secs(10);

/// TCP sends again after this at first, then at doubling intervals (`TCP_RTO_MIN`, `TCP_RTO_MAX` of Linux).
const RESEND_FIRST: Span = Span::from_millis(200);
const RESEND_MAX: Span = Span::from_secs(120);

/// One direction of a connection: what was lost waits, and all behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backoff {
    until: Real,
    last: Span,
}

impl Backoff {
    /// Nothing is sent yet, whether the path is open or not.
    #[must_use]
    pub fn waits(&self, now: Real) -> bool {
        now < self.until
    }
    pub fn lost(&mut self, now: Real) {
        self.last = Span((self.last.0 * 2).clamp(RESEND_FIRST.0, RESEND_MAX.0));
        self.until = now.after(self.last);
    }
    pub fn arrived(&mut self) {
        *self = Self::default();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Dead,
    Loading,
    Up,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Master,
    ReplicaOf(Endpoint),
}

/// A replica as its master sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    pub conn: u64,
    /// Offset up to which the stream was sent.
    pub sent: u64,
    pub acked: u64,
    pub last_ack: Real,
    /// The full resynchronisation is over.
    pub online: bool,
    /// Of what the master sends.
    pub backoff: Backoff,
}

/// The link of a replica to its master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upstream {
    pub conn: u64,
    pub online: bool,
    pub last_heard: Real,
    /// Of what the replica sends.
    pub backoff: Backoff,
}

/// `CLIENT PAUSE ... WRITE`: blocked commands wait until it ends.
#[derive(Clone, Debug)]
pub enum Command {
    /// A client's `SET`, on `conn` of `client`, with a following `WAIT n` if asked for.
    Write { write: WriteId, client: Endpoint, socket: u64, wait: Option<usize> },
    /// A role-changing command of a supervisor; `job` names it there.
    Control { job: u64, change: Change },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Promote(MinReplicas),
    /// Without a change of role.
    GoOn(MinReplicas),
    SetMinReplicas(MinReplicas),
    Follow {
        master: Endpoint,
    },
    /// `CLIENT KILL TYPE master`, unless the link lives.
    Relink {
        master: Endpoint,
    },
    PauseWrites {
        until: Real,
    },
    Unpause,
    ShutWrites,
}

/// A client that waits for `WAIT n`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub write: WriteId,
    pub client: Endpoint,
    pub socket: u64,
    pub offset: u64,
    pub replicas: usize,
}

/// Data that moves with a full resynchronisation.
#[derive(Clone, Debug)]
pub struct DataSet {
    pub history: u64,
    pub offset: u64,
    pub log: Vec<WriteId>,
}

#[derive(Clone, Debug)]
pub struct Redis {
    /// Number of this life of the process; 0 before the first.
    pub life: u64,
    pub phase: Phase,
    /// Faults that hold the process stopped.
    pub frozen: u32,
    pub role: Role,
    pub data: DataSet,
    /// The history before the last promotion, and the first offset that is no longer of it.
    pub previous: Option<(u64, u64)>,
    pub attached: BTreeMap<Endpoint, Attached>,
    pub upstream: Option<Upstream>,
    pub min_replicas: u32,
    /// `min-replicas-max-lag`, whole seconds.
    pub min_replicas_max_lag_s: u64,
    pub paused_until: Option<Real>,
    /// Commands in the socket buffers of a frozen process.
    pub inbox: VecDeque<Command>,
    /// Writes held by `CLIENT PAUSE`.
    pub blocked: VecDeque<Command>,
    pub waiting: Vec<Waiting>,
    /// When what could not leave is sent again.
    pub resend_at: Real,
    /// Ways in that the kernel lock does not guard.
    pub around: Vec<Bypass>,
    /// `replica-read-only no`: what a replica takes then is its own, and never replicated.
    pub writable: bool,
    /// What it read at its start was an append-only file.
    pub append_only: bool,
    /// Writes that it read then.
    pub read: usize,
    /// It, or a life before, read an old file: what it has since goes on from that.
    pub fell_back: bool,
}

/// Why a client's write was not executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    ReadOnly,
    NoReplicas,
}

impl Redis {
    /// A running Redis with an empty data set.
    #[must_use]
    pub fn new(life: u64, role: Role) -> Self {
        Self {
            life,
            phase: Phase::Up,
            frozen: 0,
            role,
            data: DataSet { history: life, offset: 0, log: Vec::new() },
            previous: None,
            attached: BTreeMap::new(),
            upstream: None,
            min_replicas: 0,
            min_replicas_max_lag_s: 10,
            paused_until: None,
            inbox: VecDeque::new(),
            blocked: VecDeque::new(),
            waiting: Vec::new(),
            resend_at: Real(0),
            around: Vec::new(),
            writable: false,
            append_only: false,
            read: 0,
            fell_back: false,
        }
    }

    /// The process dies; its data set is what is on its disk until it starts again.
    pub fn die(&mut self) {
        self.phase = Phase::Dead;
        self.attached.clear();
        self.upstream = None;
        self.inbox.clear();
        self.blocked.clear();
        self.waiting.clear();
        self.paused_until = None;
    }

    /// A new life with what was on disk: a role by its own file, and a history of its own.
    pub fn start(&mut self, life: u64, role: Role, kept: usize) {
        let mut log = std::mem::take(&mut self.data.log);
        log.truncate(kept);
        let (frozen, fell_back) = (self.frozen, self.fell_back);
        *self = Self::new(life, role);
        (self.frozen, self.fell_back) = (frozen, fell_back);
        self.read = log.len();
        self.phase = Phase::Loading;
        self.data.log = log;
    }

    /// The same from a file that names the history and the offset of its data: a replica can go on from there, and for a
    /// master that was its history before.
    pub fn start_from_rdb(&mut self, life: u64, role: Role, kept: usize) {
        let (history, had) = (self.data.history, self.data.log.len());
        let gone = had.saturating_sub(kept) as u64 * WRITE_BYTES;
        let Some(offset) = self.data.offset.checked_sub(gone) else {
            // What is kept is older than the history.
            return self.start(life, role, kept);
        };
        self.start(life, role, kept);
        self.data.offset = offset;
        match role {
            Role::Master => self.previous = Some((history, offset + 1)),
            Role::ReplicaOf(_) => self.data.history = history,
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }
    #[must_use]
    pub fn runs(&self) -> bool {
        self.is_up() && self.frozen == 0
    }
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.is_up() && self.role == Role::Master
    }

    /// A client that gets in can write.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.is_master() || self.is_up() && self.writable
    }

    #[must_use]
    pub fn run_id(&self) -> RunId {
        RunId::new(&format!("{:040x}", self.life))
    }

    #[must_use]
    pub fn pauses(&self, now: Real) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Execute a write; its offset in the stream.
    ///
    /// # Errors
    /// [`WriteError`]: what Redis answers instead.
    pub fn write(&mut self, write: WriteId, now: Real) -> Result<u64, WriteError> {
        if self.role != Role::Master {
            return if self.writable { Ok(self.data.offset) } else { Err(WriteError::ReadOnly) };
        }
        if self.good_replicas(now) < u64::from(self.min_replicas) {
            return Err(WriteError::NoReplicas);
        }
        self.data.log.push(write);
        self.data.offset += WRITE_BYTES;
        Ok(self.data.offset)
    }

    /// Replicas online with a lag of at most `min-replicas-max-lag`.
    #[must_use]
    pub fn good_replicas(&self, now: Real) -> u64 {
        let lag_s = |a: &Attached| now.since(a.last_ack).0 / 1_000_000_000;
        let good = |a: &&Attached| a.online && lag_s(a) <= self.min_replicas_max_lag_s;
        self.attached.values().filter(good).count() as u64
    }

    pub fn set_min_replicas(&mut self, min: MinReplicas) {
        self.min_replicas = min.to_write;
        if let Some(seconds) = min.max_lag_s {
            self.min_replicas_max_lag_s = u64::from(seconds);
        }
    }

    /// Replicas that acknowledged `offset`: what `WAIT` counts.
    #[must_use]
    pub fn acknowledged(&self, offset: u64) -> usize {
        self.attached.values().filter(|a| a.online && a.acked >= offset).count()
    }

    pub fn promote(&mut self, history: u64) {
        if let Role::ReplicaOf(_) = self.role {
            self.previous = Some((self.data.history, self.data.offset + 1));
            self.data.history = history;
            self.role = Role::Master;
            self.upstream = None;
            self.attached.clear();
        }
    }

    /// `REPLICAOF` another, empty Redis, which is none of this world, and the copy is done: the same life with other data. Who
    /// follows it gets nothing (`repl-diskless-sync-delay`).
    pub fn stray(&mut self, own: Endpoint, history: u64) {
        self.role = Role::ReplicaOf(own);
        self.upstream = None;
        self.attached.clear();
        self.replace(DataSet { history, offset: FOREIGN_OFFSET, log: Vec::new() });
    }

    /// True if that changed anything.
    pub fn follow(&mut self, master: Endpoint) -> bool {
        if self.role == Role::ReplicaOf(master) {
            return false;
        }
        self.role = Role::ReplicaOf(master);
        self.upstream = None;
        self.attached.clear();
        true
    }

    /// `PSYNC`: a replica of `history` at `offset` can go on where it is.
    #[must_use]
    pub fn can_continue(&self, history: u64, offset: u64) -> bool {
        let same = history == self.data.history && offset <= self.data.offset;
        let before = self.previous.is_some_and(|(id, until)| {
            history == id && offset < until && offset <= self.data.offset
        });
        (same || before) && self.data.offset - offset <= BACKLOG_BYTES
    }

    /// Writes of the stream after `offset`.
    #[must_use]
    pub fn stream_from(&self, offset: u64) -> Vec<WriteId> {
        let missing =
            usize::try_from((self.data.offset - offset) / WRITE_BYTES).unwrap_or(usize::MAX);
        let from = self.data.log.len().saturating_sub(missing);
        self.data.log[from..].to_vec()
    }

    /// A partial resynchronisation was granted by a master of `history`.
    pub fn continue_with(&mut self, history: u64) {
        if self.data.history != history {
            self.previous = Some((self.data.history, self.data.offset + 1));
            self.data.history = history;
        }
    }

    /// Take over a full copy.
    pub fn replace(&mut self, data: DataSet) {
        self.data = data;
        (self.read, self.fell_back) = (0, false);
        self.previous = None;
    }

    /// Writes of the stream that begin after `from`; false if they do not fit.
    pub fn extend(&mut self, from: u64, writes: &[WriteId]) -> bool {
        if from > self.data.offset {
            return false;
        }
        let known = usize::try_from((self.data.offset - from) / WRITE_BYTES).unwrap_or(usize::MAX);
        if known < writes.len() {
            self.data.log.extend_from_slice(&writes[known..]);
            self.data.offset += (writes.len() - known) as u64 * WRITE_BYTES;
        }
        true
    }

    /// What `INFO` says, and what was found beside it; `place` gives address and port of an endpoint's Redis.
    pub fn observe(
        &self,
        now: Real,
        (settled, bypass): (bool, Vec<Bypass>),
        place: impl Fn(Endpoint) -> (std::net::IpAddr, u16),
    ) -> RedisObservation {
        let role = match self.role {
            Role::Master => RedisRole::Master,
            Role::ReplicaOf(master) => {
                let (addr, port) = place(master);
                let link_up = self.upstream.is_some_and(|u| u.online);
                RedisRole::Replica {
                    master_host: addr.to_string(),
                    master_port: port,
                    link_up,
                    read_only: !self.writable,
                }
            }
        };
        let replica = |(host, a): (&Endpoint, &Attached)| {
            let (addr, port) = place(*host);
            let whole_seconds = now.since(a.last_ack).0 / 1_000_000_000;
            AttachedReplica {
                addr,
                port,
                online: a.online,
                offset: a.acked,
                lag: Span::from_secs(whole_seconds),
            }
        };
        RedisObservation {
            run_id: self.run_id(),
            role,
            replication_id: history_name(self.data.history),
            previous: self.previous.map(|(id, until_offset)| PreviousHistory {
                replication_id: history_name(id),
                until_offset,
            }),
            offset: self.data.offset,
            keys: self.data.log.len() as u64,
            backlog_from: NonZeroU64::new(self.data.offset.saturating_sub(BACKLOG_BYTES) + 1),
            replicas: self.attached.iter().map(replica).collect(),
            version: "7.0.15".into(),
            append_only: self.append_only,
            settled,
            bypass,
        }
    }
}

fn history_name(id: u64) -> String {
    format!("{id:040x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master_with(writes: u32) -> Redis {
        let mut redis = Redis::new(1, Role::Master);
        for w in 0..writes {
            redis.write(w, Real(0)).unwrap();
        }
        redis
    }

    #[test]
    fn a_replica_goes_on_where_it_was_and_after_a_promotion_up_to_that_point_only() {
        let mut new = master_with(4);
        new.role = Role::ReplicaOf(0);
        new.promote(9);
        assert!(new.can_continue(1, 4 * WRITE_BYTES));
        new.write(100, Real(0)).unwrap();
        assert!(!new.can_continue(1, 5 * WRITE_BYTES));
        assert_eq!(new.stream_from(3 * WRITE_BYTES), vec![3, 100]);
    }

    #[test]
    fn a_doubled_piece_of_the_stream_changes_nothing() {
        let mut replica = Redis::new(2, Role::ReplicaOf(0));
        assert!(replica.extend(0, &[1, 2, 3]));
        assert!(replica.extend(WRITE_BYTES, &[2, 3, 4]));
        assert_eq!(replica.data.log, vec![1, 2, 3, 4]);
        assert!(!replica.extend(9 * WRITE_BYTES, &[5]));
    }

    #[test]
    fn a_restarted_redis_has_another_life_and_history_and_at_most_its_old_data() {
        let mut redis = master_with(5);
        redis.die();
        redis.start(2, Role::Master, 3);
        assert_eq!((redis.life, redis.data.history, redis.data.offset), (2, 2, 0));
        assert_eq!(redis.data.log, vec![0, 1, 2]);
    }

    #[test]
    fn a_file_that_names_its_history_lets_a_replica_go_on_and_a_master_remember() {
        let started = |role, kept| {
            let mut redis = master_with(5);
            redis.die();
            redis.start_from_rdb(2, role, kept);
            redis
        };
        let replica = started(Role::ReplicaOf(0), 3);
        assert_eq!((replica.data.history, replica.data.offset), (1, 3 * WRITE_BYTES));
        assert!(master_with(5).can_continue(1, replica.data.offset));
        let master = started(Role::Master, 3);
        assert_eq!(master.data.history, 2);
        assert_eq!(master.previous, Some((1, 3 * WRITE_BYTES + 1)));
        assert!(
            master.can_continue(1, 3 * WRITE_BYTES) && !master.can_continue(1, 4 * WRITE_BYTES)
        );
    }

    #[test]
    fn what_was_lost_often_waits_twice_as_long_each_time_until_something_arrives() {
        let mut backoff = Backoff::default();
        assert!(!backoff.waits(Real(0)));
        let mut now = Real(0);
        for waited_ms in [200, 400, 800] {
            backoff.lost(now);
            let end = now.after(Span::from_millis(waited_ms));
            assert!(backoff.waits(Real(end.0 - 1)) && !backoff.waits(end), "{waited_ms}");
            now = end;
        }
        backoff.arrived();
        backoff.lost(now);
        assert!(!backoff.waits(now.after(RESEND_FIRST)));
    }

    #[test]
    fn a_replica_refuses_writes() {
        let mut redis = Redis::new(2, Role::ReplicaOf(0));
        assert_eq!(redis.write(1, Real(0)), Err(WriteError::ReadOnly));
    }
}
