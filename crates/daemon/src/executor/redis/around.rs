//! The ways into one Redis that the kernel lock does not guard: other ports than the group's, and unix sockets.
//!
//! All sockets of the process are looked at for each new life. After that a look every few seconds compares the sockets that
//! listen on this host (one short netlink dump) and the modes of the unix sockets (one stat each), and only what is new leads
//! to a full look: its cost grows with the connections of Redis. Owned by the probe task. Deliberately absent: any judgement.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use redkeep_agent::{
    process::{Listeners, UnixListener},
    sockdiag::SocketTable,
};
use redkeep_core::{GroupId, observe::Bypass};

use crate::executor::lock::chain;

/// `CONFIG SET tls-port`, or a changed mode, is seen within this.
const LOOK_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Around {
    group: GroupId,
    /// Taken out while a thread works on it.
    state: Option<State>,
    due: Instant,
    open: Vec<Bypass>,
    /// Why the last look failed: told once.
    failure: Option<String>,
}

#[derive(Debug)]
struct State {
    port: u16,
    table: Option<SocketTable>,
    /// Of this life; none where it cannot be told whose sockets they are.
    listeners: Option<Listeners>,
    /// All that listened on this host at the last full look.
    host: BTreeSet<u32>,
}

impl Around {
    pub(super) fn new(group: GroupId, port: u16) -> Self {
        let state = State { port, table: None, listeners: None, host: BTreeSet::new() };
        Self { group, state: Some(state), due: Instant::now(), open: Vec::new(), failure: None }
    }

    /// What was open at the last look.
    pub(super) fn open(&self) -> &[Bypass] {
        &self.open
    }

    /// A new life of Redis.
    pub(super) async fn look_anew(&mut self, pid: u32) {
        self.run(move |state| {
            state.listeners = None;
            state.look(pid, true)
        })
        .await;
    }

    /// The same life, when it is time.
    pub(super) async fn look_again(&mut self, pid: u32) {
        if Instant::now() >= self.due {
            self.run(move |state| state.look_if_changed(pid)).await;
        }
    }

    /// Reading /proc of a Redis with many connections takes milliseconds: not on the runtime's own threads.
    async fn run(&mut self, look: impl FnOnce(&mut State) -> Result<(), String> + Send + 'static) {
        let Some(mut state) = self.state.take() else { return };
        let work = tokio::task::spawn_blocking(move || {
            let result = look(&mut state);
            (state, result)
        });
        // The thread ends in a panic only, which ends the process.
        let Ok((state, result)) = work.await else { return };
        self.due = Instant::now() + LOOK_EVERY;
        let failure = result.err();
        if let Some(error) = failure.as_ref().filter(|_| failure != self.failure) {
            let group = &self.group;
            tracing::warn!(%group, error, "the listening sockets of Redis cannot be checked");
        }
        self.failure = failure;
        self.open = state.open();
        self.state = Some(state);
    }
}

impl State {
    fn look_if_changed(&mut self, pid: u32) -> Result<(), String> {
        let Some(known) = &mut self.listeners else { return self.look(pid, true) };
        known.look_at_modes(pid);
        if self.listening()? == self.host { Ok(()) } else { self.look(pid, false) }
    }

    /// A process that does not listen on the group's port may be another one: `INFO` may tell the id of another pid
    /// namespace. Once it was seen to, a port that Redis left since tells nothing.
    fn look(&mut self, pid: u32, is_new: bool) -> Result<(), String> {
        // Before the full look: what comes in between leads to another.
        self.host = self.listening()?;
        let found = Listeners::of(pid).map_err(|e| chain(&e))?;
        if is_new && !found.has_port(self.port) {
            return Err(format!("process {pid} does not listen on port {}", self.port));
        }
        self.listeners = Some(found);
        Ok(())
    }

    /// The inodes of all TCP sockets that listen in this network namespace.
    fn listening(&mut self) -> Result<BTreeSet<u32>, String> {
        let table = match &mut self.table {
            Some(table) => table,
            None => self.table.insert(SocketTable::open().map_err(|e| chain(&e))?),
        };
        match table.listening() {
            Ok(all) => Ok(all.into_iter().map(|l| l.inode).collect()),
            Err(error) => {
                self.table = None;
                Err(chain(&error))
            }
        }
    }

    fn open(&self) -> Vec<Bypass> {
        let Some(listeners) = &self.listeners else { return Vec::new() };
        let tcp = listeners.unguarded(&BTreeSet::from([self.port])).into_iter().map(Bypass::Tcp);
        // What root may do, the supervisor may; whoever is the user of Redis needs no socket to change its data.
        let unix = listeners.open_to_others(&[]).map(unix);
        tcp.chain(unix).collect()
    }
}

fn unix(listener: &UnixListener) -> Bypass {
    let UnixListener { path, reach: _, mode, uid } = listener;
    Bypass::Unix { path: path.display().to_string(), mode: *mode, uid: *uid }
}
