//! One group's Redis on this host: a probe task and a control task, each with its own connection.
//!
//! The probe task looks when the driver asks, which is at each interval and more often, and when its connection ends; it also has the
//! process watched, whose death it reports without any probe. The control task carries out role changes one by one.
//! A Redis that hangs delays these two and nobody else. Invariant (lease-review R6): an observation says `settled` only
//! if every role-changing command was answered before the look began and none was sent until it ended.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redkeep_agent::{
    process::{ProcessEvent, ProcessId, ProcessWatch},
    redis::{
        self as agent, MasterAuth, Observation, Probe, RedisAddress, RedisEndpoint, RedisFailure,
        Secret, WriteCheck,
    },
};
use redkeep_core::{
    Action, ActionId, ActionOutcome, GroupId, Input, RunId, Span,
    effect::ActionFailure,
    observe::{
        AttachedReplica, Bypass, PreviousHistory, ProbeFailure, RedisObservation, RedisRole,
    },
    spec::GroupSpec,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::{MARK, OWN_SOURCE};
use crate::{clock, config::GroupAccess, inbox::Inbox};

mod around;
mod aside;
mod control;
mod own_pause;

use around::Around;
pub(crate) use aside::Quarantine;
use own_pause::{Both, OwnPause};

/// The Redis of one group, as the driver sees it. Dropping it ends both tasks.
#[derive(Debug)]
pub(crate) struct GroupRedis {
    shared: Arc<Shared>,
    actions: mpsc::UnboundedSender<(ActionId, Action)>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for GroupRedis {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What both tasks of a group know.
#[derive(Debug)]
struct Shared {
    group: GroupId,
    endpoint: RedisEndpoint,
    inbox: Inbox,
    probe_now: Notify,
    settling: Settling,
    deaths: mpsc::UnboundedSender<u32>,
    watched: Watched,
    own_pause: OwnPause,
}

/// The life whose process is watched. Written before the first observation of that life is handed to the core.
#[derive(Debug, Default)]
struct Watched(Mutex<Option<(RunId, ProcessId)>>);

impl Watched {
    fn set(&self, life: Option<(RunId, ProcessId)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }

    /// The process of this life; none if another life, or none, is watched by now.
    fn process_of(&self, life: &RunId) -> Option<ProcessId> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.as_ref().filter(|(run_id, _)| run_id == life).map(|(_, process)| *process)
    }
}

/// Whether role-changing commands are outstanding, with a count so that one that came and went in between shows too.
/// Odd = not settled.
#[derive(Debug)]
struct Settling(AtomicU64);

impl Settling {
    fn new() -> Self {
        Self(AtomicU64::new(1))
    }
    fn set(&self, settled: bool) {
        let now = self.0.load(Ordering::Acquire);
        if now.is_multiple_of(2) != settled {
            self.0.store(now + 1, Ordering::Release);
        }
    }
    fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What is needed to reach a group's Redis.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) group: GroupAccess,
    pub(crate) password: Option<Secret>,
}

/// The local Redis: over loopback from the address that the lock exempts, or by its unix socket.
fn endpoint(addr: SocketAddr, spec: &GroupSpec, access: &Access) -> RedisEndpoint {
    let address = match &access.group.unix_socket {
        Some(path) => RedisAddress::Unix(path.clone()),
        None => RedisAddress::Tcp(local_address(addr)),
    };
    let mut endpoint = RedisEndpoint::new(address);
    endpoint.source = Some(OWN_SOURCE);
    endpoint.mark = Some(MARK);
    endpoint.username.clone_from(&access.group.username);
    endpoint.password.clone_from(&access.password);
    endpoint.connect_timeout = Duration::from_nanos(spec.probe.timeout.0);
    endpoint.command_timeout = Duration::from_nanos(spec.probe.timeout.0);
    endpoint.renamed.clone_from(&access.group.rename_commands);
    endpoint
}

/// Of IPv6 the lock exempts no address (ADR 0012): what a closed Redis answers there is dropped.
fn local_address(addr: SocketAddr) -> SocketAddr {
    if addr.is_ipv6() { (Ipv4Addr::LOCALHOST, addr.port()).into() } else { addr }
}

impl GroupRedis {
    pub(crate) fn start(
        runtime: &Handle,
        (addr, spec): (SocketAddr, &GroupSpec),
        access: &Access,
        quarantine: &Arc<Quarantine>,
        inbox: Inbox,
    ) -> Self {
        let (deaths, died) = mpsc::unbounded_channel();
        let (actions, queue) = mpsc::unbounded_channel();
        let endpoint = endpoint(addr, spec, access);
        let auth = access
            .password
            .clone()
            .map(|password| MasterAuth { username: access.group.username.clone(), password });
        let shared = Arc::new(Shared {
            group: spec.id.clone(),
            endpoint,
            inbox,
            probe_now: Notify::new(),
            settling: Settling::new(),
            deaths,
            watched: Watched::default(),
            own_pause: OwnPause::default(),
        });
        let tasks = [
            runtime.spawn(Prober::new(Arc::clone(&shared), spec.port).run()),
            runtime.spawn(control::run(
                (Arc::clone(&shared), Arc::clone(quarantine)),
                auth,
                queue,
                died,
            )),
        ];
        Self { shared, actions, tasks }
    }

    pub(crate) fn probe_now(&self) {
        self.shared.probe_now.notify_one();
    }

    /// The process that is watched for this life of Redis.
    pub(crate) fn process_of(&self, life: &RunId) -> Option<ProcessId> {
        self.shared.watched.process_of(life)
    }

    pub(crate) fn act(&self, id: ActionId, action: Action) {
        // The task lives as long as this value.
        let _ = self.actions.send((id, action));
    }
}

impl Shared {
    fn done(&self, id: ActionId, outcome: ActionOutcome) {
        self.inbox.answer(Input::ActionDone { group: self.group.clone(), id, outcome });
    }

    fn failed(&self, id: ActionId, retry: bool, text: String) {
        self.done(id, ActionOutcome::Failed(ActionFailure { retry, text }));
    }
}

/// The probe task.
struct Prober {
    shared: Arc<Shared>,
    probe: Probe,
    writes: WriteCheck,
    /// Process id and run id of the life that is watched.
    life: Option<(u32, String)>,
    watch: Option<ProcessWatch>,
    around: Around,
}

impl Prober {
    fn new(shared: Arc<Shared>, port: u16) -> Self {
        let probe = Probe::new(shared.endpoint.clone());
        let writes = WriteCheck::new(shared.endpoint.clone());
        let around = Around::new(shared.group.clone(), port);
        Self { shared, probe, writes, life: None, watch: None, around }
    }

    async fn run(mut self) {
        loop {
            let closed = self.probe.closed();
            let ended = async {
                match closed {
                    Some(closed) => closed.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ended => {}
                () = self.shared.probe_now.notified() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        // Before the look: an observation is told as soon as it is made.
        if let Some((pid, _)) = &self.life {
            self.around.look_again(*pid).await;
        }
        let before = self.shared.settling.read();
        let mut asked = clock::boot();
        let mut result = self.probe.observe().await;
        // What is handed on was seen after the watch of its process began. So the process that is watched is that of this
        // life, also if the pid that Redis named was given to another in between.
        while let Ok(seen) = &result
            && self.watch_process(seen)
        {
            self.around.look_anew(seen.process_id).await;
            asked = clock::boot();
            result = self.probe.observe().await;
        }
        let settled = before.is_multiple_of(2) && self.shared.settling.read() == before;
        let result = match result {
            Ok(seen) => match self.writes_fail(&seen).await {
                Some(failure) => Err(failure),
                None => Ok(observation(&seen, settled, self.around.open())),
            },
            Err(failure) => {
                tracing::debug!(group = %self.shared.group, %failure, "probe failed");
                let failure = probe_failure(&failure);
                let frozen = self.shared.own_pause.frozen_at(Both::now()).is_some();
                if frozen && failure == ProbeFailure::Timeout {
                    // Our own pause holds the probe back: that says nothing of this Redis.
                    return;
                }
                Err(failure)
            }
        };
        self.shared.inbox.offer(Input::Observed {
            group: self.shared.group.clone(),
            asked,
            result,
        });
    }

    /// Why a master that answers does not take writes.
    async fn writes_fail(&mut self, seen: &Observation) -> Option<ProbeFailure> {
        if seen.role != agent::Role::Master || self.shared.own_pause.runs() {
            self.writes.forgive();
            return None;
        }
        let held = self.writes.look().await;
        match held {
            _ if seen.write_refusal().is_some() => Some(ProbeFailure::Misconfigured),
            Ok(()) => None,
            Err(RedisFailure::Misconf) => Some(ProbeFailure::Misconfigured),
            Err(failure) => {
                tracing::debug!(group = %self.shared.group, %failure, "writes are held back");
                Some(ProbeFailure::WritesHeld)
            }
        }
    }

    /// True if this life is new, and watched from now on as far as it can be.
    fn watch_process(&mut self, seen: &Observation) -> bool {
        if self
            .life
            .as_ref()
            .is_some_and(|(pid, run)| *pid == seen.process_id && *run == seen.run_id)
        {
            return false;
        }
        self.life = Some((seen.process_id, seen.run_id.clone()));
        self.watch = None;
        self.shared.watched.set(None);
        let (shared, run_id) = (Arc::clone(&self.shared), RunId::new(&seen.run_id));
        let watch = ProcessWatch::new(seen.process_id, move |event| {
            let ProcessEvent::Dying { process, evidence } = event;
            shared.inbox.redis_died(shared.group.clone(), Some(run_id));
            let _ = shared.deaths.send(process.pid);
            tracing::info!(group = %shared.group, ?process, ?evidence, "the Redis process is dying");
        });
        match watch {
            Ok(watch) => {
                tracing::info!(group = %self.shared.group, pid = seen.process_id, by_threads = watch.is_by_threads(), "watching the Redis process");
                // Its start is admitted by the driver, when the core takes this life in.
                self.shared.watched.set(Some((RunId::new(&seen.run_id), watch.process())));
                self.watch = Some(watch);
            }
            Err(error) => {
                let error = super::lock::chain(&error);
                tracing::error!(group = %self.shared.group, pid = seen.process_id, error, "the Redis process cannot be watched: its death is seen by probes only");
            }
        }
        true
    }
}

fn observation(seen: &Observation, settled: bool, bypass: &[Bypass]) -> RedisObservation {
    let previous = match (&seen.replication_id2, seen.second_repl_offset) {
        (Some(id), Some(until_offset)) => {
            Some(PreviousHistory { replication_id: id.clone(), until_offset })
        }
        (None, _) | (_, None) => None,
    };
    let role = match &seen.role {
        agent::Role::Master => RedisRole::Master,
        agent::Role::Replica(link) => RedisRole::Replica {
            master_host: link.master_host.clone(),
            master_port: link.master_port,
            link_up: link.link_up && !link.syncing,
            read_only: link.read_only,
        },
    };
    let attached = |line: &agent::ReplicaLine| {
        Some(AttachedReplica {
            addr: line.ip.parse().ok()?,
            port: line.port,
            online: line.online,
            offset: line.offset,
            lag: Span(line.lag_s.saturating_mul(1_000_000_000)),
        })
    };
    RedisObservation {
        run_id: RunId::new(&seen.run_id),
        role,
        replication_id: seen.replication_id.clone(),
        previous,
        offset: seen.offset,
        keys: seen.keys,
        backlog_from: seen.backlog_from,
        replicas: seen.replicas.iter().filter_map(attached).collect(),
        version: format!("{}.{}.{}", seen.version.major, seen.version.minor, seen.version.patch),
        append_only: seen.persistence.aof_enabled,
        settled,
        bypass: bypass.to_vec(),
    }
}

fn probe_failure(failure: &agent::RedisFailure) -> ProbeFailure {
    use agent::RedisFailure as F;
    match failure {
        F::Timeout { .. } | F::Unreachable { .. } | F::Socket { .. } => ProbeFailure::Timeout,
        F::Refused => ProbeFailure::Refused,
        F::Closed => ProbeFailure::Closed,
        F::Loading { .. } => ProbeFailure::Loading,
        F::Busy => ProbeFailure::Busy,
        F::Misconf => ProbeFailure::Misconfigured,
        F::AuthRejected | F::NoPermission { .. } | F::ProtectedMode => ProbeFailure::Denied,
        F::MaxClients | F::UnknownCommand { .. } | F::Rejected { .. } | F::Protocol { .. } => {
            ProbeFailure::Protocol
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_life_that_is_watched_has_a_process_to_be_admitted() {
        let watched = Watched::default();
        let (first, second) = (RunId::new("1"), RunId::new("2"));
        let process = |pid| ProcessId { pid, start_time_ticks: 7 };
        assert_eq!(watched.process_of(&first), None);
        watched.set(Some((first.clone(), process(10))));
        assert_eq!(watched.process_of(&first), Some(process(10)));
        watched.set(Some((second.clone(), process(11))));
        assert_eq!(watched.process_of(&first), None, "its successor is there already");
        assert_eq!(watched.process_of(&second), Some(process(11)));
        watched.set(None);
        assert_eq!(watched.process_of(&second), None);
    }

    #[test]
    fn redis_of_an_ipv6_node_is_reached_by_the_address_that_the_lock_exempts() {
        let of = |addr: &str| local_address(addr.parse().unwrap()).to_string();
        assert_eq!(of("10.99.0.1:6379"), "10.99.0.1:6379");
        assert_eq!(of("[fd99::1]:6379"), "127.0.0.1:6379");
    }

    #[test]
    fn a_command_that_came_and_went_during_a_look_unsettles_it() {
        let settling = Settling::new();
        assert_eq!(settling.read() % 2, 1, "unsettled until the control has connected");
        settling.set(true);
        let before = settling.read();
        assert_eq!(before % 2, 0);
        settling.set(true);
        assert_eq!(settling.read(), before);
        settling.set(false);
        settling.set(true);
        assert_ne!(settling.read(), before);
        assert_eq!(settling.read() % 2, 0);
    }
}
