//! Clients that write unique keys and remember what was acknowledged, when, and by whom.
//!
//! Each writer is one thread in the namespace of its host, with non-blocking sockets and one
//! `poll` loop. An acknowledgement carries two bounds for its arrival, since a client that was
//! not scheduled sees old answers late: without the lower bound a busy machine would look like
//! two masters. Who acknowledged is learnt on the connection itself, by `CONFIG GET pidfile`,
//! which the lab makes unique for each start of each Redis.

mod connection;
mod run;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::process::wait_until;
use crate::tempo::slowed;
use crate::time::Mono;

/// How a writer uses connections.
#[derive(Clone, Copy, Debug)]
pub enum WriterKind {
    /// A new connection each `every`, whether or not the last one was answered.
    ///
    /// An attempt that is not connected after 50 ms is given up; one that is connected waits
    /// for its answer, so that a thawed server's late answer is seen.
    Fresh { every: Duration },
    /// One connection, one write after another with `pause` between; a new connection after an
    /// error or 0.5 s without an answer. The old one is still listened to.
    Held { pause: Duration },
    /// As `Held`; each write is followed by `WAIT replicas`, and an acknowledged one counts as
    /// confirmed when that many replicas had it within 200 ms.
    Confirmed { pause: Duration, replicas: u32 },
}

/// How long Redis waits for replicas before it tells how many have a write.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_millis(200);

/// Which writers the write gap is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standpoint {
    /// Through the VIP, from where the applications are.
    Clients,
    /// On the side of the host that gets cut off; counts for loss and for two masters only.
    Victim,
}

/// One writer.
#[derive(Clone, Debug)]
pub struct WriterSpec {
    /// Prefix of its keys; unique in a run.
    pub name: String,
    pub target: SocketAddr,
    pub kind: WriterKind,
    pub password: String,
    pub standpoint: Standpoint,
    /// Where the master is instead, as somebody else finds out.
    pub directory: Option<Directory>,
}

/// The master's address as a client that has no VIP knows it; clones are the same address.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Mutex<SocketAddr>>);

impl Directory {
    pub fn new(first: SocketAddr) -> Self {
        Directory(Arc::new(Mutex::new(first)))
    }

    /// From now on writers go there, and leave connections to anywhere else.
    pub fn set(&self, master: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = master;
    }

    pub fn get(&self) -> SocketAddr {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriterSpec {
    /// A writer of the founding password that opens a connection every 5 ms.
    pub fn fresh(name: &str, target: SocketAddr) -> Self {
        let kind = WriterKind::Fresh { every: slowed(Duration::from_millis(5)) };
        Self::with_kind(name, target, kind)
    }

    /// A writer of the founding password that holds its connection, about 500 writes a second.
    pub fn held(name: &str, target: SocketAddr) -> Self {
        let kind = WriterKind::Held { pause: slowed(Duration::from_millis(2)) };
        Self::with_kind(name, target, kind)
    }

    /// A writer of the founding password that holds its connection and confirms each write.
    pub fn confirmed(name: &str, target: SocketAddr, replicas: u32) -> Self {
        let pause = slowed(Duration::from_millis(2));
        Self::with_kind(name, target, WriterKind::Confirmed { pause, replicas })
    }

    /// The same writer on the victim's side.
    #[must_use]
    pub fn beside_victim(mut self) -> Self {
        self.standpoint = Standpoint::Victim;
        self
    }

    /// The same writer, which goes where `directory` says.
    #[must_use]
    pub fn following(mut self, directory: Directory) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Where to connect now.
    pub(crate) fn aim(&self) -> SocketAddr {
        self.directory.as_ref().map_or(self.target, Directory::get)
    }

    fn with_kind(name: &str, target: SocketAddr, kind: WriterKind) -> Self {
        WriterSpec {
            name: name.to_owned(),
            target,
            kind,
            password: crate::redis::PASSWORD.to_owned(),
            standpoint: Standpoint::Clients,
            directory: None,
        }
    }

    /// Key of a write; its value is the same text.
    pub(crate) fn key(&self, sequence: u64) -> String {
        format!("lab:{}:{sequence}", self.name)
    }
}

/// A write that Redis acknowledged.
#[derive(Clone, Debug)]
pub struct Ack {
    pub sequence: u64,
    /// Just before the request was given to the kernel.
    pub sent: Mono,
    /// The answer had not arrived at this instant.
    pub absent_at: Mono,
    /// The answer was read at this instant.
    pub seen: Mono,
    /// Which start of which Redis answered, as [`crate::Redis::instance`] names it.
    pub server: Arc<str>,
    /// `WAIT` said, when asked, that enough replicas have it.
    pub confirmed: bool,
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused or reset, or there was no route.
    Network(std::io::ErrorKind),
    /// The server closed the connection.
    Closed,
    /// No connection within the attempt's limit.
    ConnectTimeout,
    /// No answer within the limit.
    AnswerTimeout,
    /// Redis answered with an error.
    Answer(String),
    /// The writer had too many attempts open and made none.
    Saturated,
}

/// A failure and when it was seen.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub at: Mono,
    pub failure: Failure,
}

/// What a writer has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub acks: Vec<Ack>,
    pub refusals: Vec<Refusal>,
    /// Writes that were sent.
    pub sent: u64,
}

/// A running writer; its drop stops it.
#[derive(Debug)]
pub struct Writer {
    spec: WriterSpec,
    record: Arc<Mutex<Record>>,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

/// Tells a writer to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Starts the writer's thread on a host.
    pub fn start(host: &Host, spec: WriterSpec) -> Result<Self> {
        let net = host.net()?;
        let record = Arc::new(Mutex::new(Record::default()));
        let stop = StopFlag::default();
        host.register_writer(stop.clone());
        let shared = (spec.clone(), Arc::clone(&record), stop.clone());
        let (entered, outcome) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(spec.name.clone()).spawn(move || {
            let result = net.namespace().enter();
            // Only the name was needed; keeping the rest would delay a power-off.
            drop(net);
            let usable = result.is_ok();
            if entered.send(result).is_err() || !usable {
                return;
            }
            let (spec, record, stop) = shared;
            run::run(&spec, &record, &stop);
        })?;
        outcome.recv().context("writer ended early")??;
        Ok(Writer { spec, record, stop, thread: Some(thread) })
    }

    pub fn spec(&self) -> &WriterSpec {
        &self.spec
    }

    /// A copy of what was seen so far.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Number of acknowledged writes so far.
    pub fn acked(&self) -> usize {
        lock(&self.record).acks.len()
    }

    /// Waits for `count` acknowledgements more than there are now.
    pub fn wait_more(&self, count: usize, limit: Duration) -> Result<()> {
        let goal = self.acked() + count;
        let what = format!("writer {} to get {count} more acknowledgements", self.spec.name);
        wait_until(&what, limit, || (self.acked() >= goal).then_some(()))
    }

    /// Waits for the first acknowledgement by another server than `not`, seen after `after`.
    pub fn wait_other_server(&self, not: &str, after: Mono, limit: Duration) -> Result<Ack> {
        let what = format!("writer {} to be answered by another than {not}", self.spec.name);
        wait_until(&what, limit, || {
            let record = lock(&self.record);
            let later = record.acks.iter().rev().take_while(|ack| ack.seen > after);
            later.filter(|ack| *ack.server != *not).last().cloned()
        })
    }

    /// The acknowledgement that was read last.
    pub(crate) fn last_ack(&self) -> Option<Ack> {
        lock(&self.record).acks.last().cloned()
    }

    /// The server of the last acknowledgement.
    pub fn last_server(&self) -> Option<Arc<str>> {
        lock(&self.record).acks.last().map(|ack| Arc::clone(&ack.server))
    }

    /// Stops the writer and returns all it saw.
    pub fn finish(mut self) -> (WriterSpec, Record) {
        self.end();
        let record = std::mem::take(&mut *lock(&self.record));
        (self.spec.clone(), record)
    }

    fn end(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; its record stands.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
