//! The loop of a writer: open and write when due, poll, take answers, give up what is late.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, Progress};
use super::{Failure, Record, Refusal, StopFlag, WriterKind, WriterSpec, lock};
use crate::tempo::slowed;
use crate::time::Mono;

/// An attempt that takes longer to connect is given up, so a black hole costs little.
const CONNECT_LIMIT: Duration = Duration::from_millis(50);
/// A writer that holds its connection opens another after this long without an answer.
const HELD_ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How long an answer is still listened for; a frozen server may be thawed seconds later.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// Most connections open at once in one writer; Redis has `maxclients 4064`.
const OPEN_LIMIT: usize = 1000;
/// Pause after a failed attempt of the writer that holds its connection.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// Longest sleep, so that the stop flag is seen.
const LONGEST_POLL: Duration = Duration::from_millis(20);

struct Loop<'a> {
    spec: &'a WriterSpec,
    record: &'a Mutex<Record>,
    connections: Vec<Connection>,
    /// Whether the last of `connections` is the one to write on (held writers only).
    has_current: bool,
    /// Where that one leads.
    current_aim: SocketAddr,
    next_sequence: u64,
    next_write: Mono,
}

pub(super) fn run(spec: &WriterSpec, record: &Mutex<Record>, stop: &StopFlag) {
    let mut state = Loop {
        spec,
        record,
        connections: Vec::new(),
        has_current: false,
        current_aim: spec.target,
        next_sequence: 0,
        next_write: Mono::now(),
    };
    while !stop.is_set() {
        state.write_if_due();
        state.wait_and_read();
        state.give_up_late();
    }
}

impl Loop<'_> {
    fn write_if_due(&mut self) {
        let now = Mono::now();
        if now < self.next_write {
            return;
        }
        match self.spec.kind {
            WriterKind::Fresh { every } => {
                // A writer that fell behind does not catch up in a burst.
                self.next_write = (self.next_write + every).max(now);
                self.write_on_fresh();
            }
            WriterKind::Held { pause: _ } => self.write_on_held(now, None),
            WriterKind::Confirmed { pause: _, replicas } => {
                self.write_on_held(now, Some(replicas));
            }
        }
    }

    fn write_on_fresh(&mut self) {
        if self.connections.len() >= OPEN_LIMIT {
            self.refuse(Failure::Saturated);
            return;
        }
        let opened = Connection::open(self.spec.aim(), &self.spec.password);
        let written = opened.and_then(|mut connection| {
            self.next_sequence += 1;
            connection.write(self.next_sequence, &self.spec.key(self.next_sequence), None)?;
            Ok(connection)
        });
        match written {
            Ok(connection) => {
                lock(self.record).sent += 1;
                self.connections.push(connection);
            }
            Err(failure) => self.refuse(failure),
        }
    }

    fn write_on_held(&mut self, now: Mono, replicas: Option<u32>) {
        let aim = self.spec.aim();
        if aim != self.current_aim {
            // The old connection stays among those that are listened to.
            self.has_current = false;
        }
        if !self.has_current {
            match Connection::open(aim, &self.spec.password) {
                Ok(connection) => {
                    self.current_aim = aim;
                    self.connections.push(connection);
                    self.has_current = true;
                }
                Err(failure) => {
                    self.refuse(failure);
                    self.next_write = now + RETRY_PAUSE;
                    return;
                }
            }
        }
        let Some(current) = self.connections.last_mut() else { return };
        if current.oldest_write().is_some() {
            return;
        }
        self.next_sequence += 1;
        let key = self.spec.key(self.next_sequence);
        match current.write(self.next_sequence, &key, replicas) {
            Ok(()) => lock(self.record).sent += 1,
            Err(failure) => {
                self.connections.pop();
                self.fail_current(failure);
            }
        }
    }

    fn wait_and_read(&mut self) {
        let began = Mono::now();
        let ready = self.poll_until(self.wake_at(began).since(began));
        let mut failed = Vec::new();
        for (index, is_ready) in ready.iter().enumerate() {
            if *is_ready {
                self.read_one(index, &mut failed);
            } else {
                self.connections[index].note_quiet(began);
            }
        }
        for index in failed.into_iter().rev() {
            self.remove(index);
        }
    }

    fn wake_at(&self, now: Mono) -> Mono {
        let held = !matches!(self.spec.kind, WriterKind::Fresh { .. });
        let held_busy =
            held && self.connections.last().is_some_and(|last| last.oldest_write().is_some());
        let longest = now + LONGEST_POLL;
        if self.has_current && held_busy { longest } else { self.next_write.min(longest) }
    }

    fn poll_until(&self, limit: Duration) -> Vec<bool> {
        let mut set: Vec<PollFd<'_>> = self
            .connections
            .iter()
            .map(|connection| {
                let connecting =
                    if connection.is_connected() { PollFlags::empty() } else { PollFlags::OUT };
                PollFd::new(connection.stream(), PollFlags::IN | connecting)
            })
            .collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        // An interrupted poll reports nothing; the next round looks again.
        let count = poll(&mut set, Some(&timeout)).unwrap_or(0);
        if count == 0 {
            return vec![false; set.len()];
        }
        set.iter().map(|entry| !entry.revents().is_empty()).collect()
    }

    /// Takes what one connection has; puts its index into `done` when it is finished with.
    fn read_one(&mut self, index: usize, done: &mut Vec<usize>) {
        let progress = self.connections[index].on_ready();
        let mut failure = None;
        for step in progress {
            match step {
                Progress::Waiting => {}
                Progress::Acked(ack) => {
                    if let WriterKind::Held { pause } | WriterKind::Confirmed { pause, .. } =
                        self.spec.kind
                    {
                        self.next_write = ack.seen + pause;
                    }
                    lock(self.record).acks.push(ack);
                }
                Progress::Confirmed(sequence) => {
                    let mut record = lock(self.record);
                    let mut acks = record.acks.iter_mut().rev();
                    if let Some(ack) = acks.find(|ack| ack.sequence == sequence) {
                        ack.confirmed = true;
                    }
                }
                Progress::Failed(why) => failure = Some(why),
            }
        }
        let is_current = self.has_current && index + 1 == self.connections.len();
        if let Some(failure) = failure {
            if is_current {
                self.fail_current(failure);
            } else if self.connections[index].oldest_write().is_some() {
                self.refuse(failure);
            }
            done.push(index);
        } else if self.connections[index].is_idle() && !is_current {
            done.push(index);
        }
    }

    fn remove(&mut self, index: usize) {
        // Order matters: the held writer's current connection is the last one.
        self.connections.remove(index);
    }

    /// The current connection of a held writer is no longer the one to write on.
    fn fail_current(&mut self, failure: Failure) {
        self.has_current = false;
        self.next_write = Mono::now() + RETRY_PAUSE;
        self.refuse(failure);
    }

    fn give_up_late(&mut self) {
        let now = Mono::now();
        if self.has_current {
            let late = self.connections.last().is_some_and(|current| {
                current
                    .oldest_write()
                    .is_some_and(|sent| now.since(sent) > slowed(HELD_ANSWER_LIMIT))
            });
            if late {
                // It stays among the connections that are listened to.
                self.fail_current(Failure::AnswerTimeout);
            }
        }
        let mut given_up = Vec::new();
        let current = if self.has_current { self.connections.len().checked_sub(1) } else { None };
        for (index, connection) in self.connections.iter().enumerate() {
            let age = now.since(connection.opened());
            if !connection.is_connected() && age > slowed(CONNECT_LIMIT) {
                given_up.push((index, Failure::ConnectTimeout));
            } else if current != Some(index) && age > LISTEN_LIMIT {
                given_up.push((index, Failure::AnswerTimeout));
            }
        }
        for (index, failure) in given_up.into_iter().rev() {
            if current == Some(index) {
                self.fail_current(failure);
            } else {
                self.refuse(failure);
            }
            self.remove(index);
        }
    }

    fn refuse(&self, failure: Failure) {
        lock(self.record).refusals.push(Refusal { at: Mono::now(), failure });
    }
}
