//! The control task of one group: role changes and pauses, one at a time, in the order the core asked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use redkeep_agent::redis::{
    Control, ControlError, MasterAddress, MasterAuth, OffsetPoll, OffsetReached, Outcome,
    PauseScope, RedisAddress, RedisEndpoint, RedisFailure,
};
use redkeep_core::{
    Action, ActionId, ActionOutcome, Span,
    effect::{ActionFailure, MinReplicas},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Shared,
    aside::{Aside, Quarantine},
    own_pause::Both,
};

/// How long one command may take before the core hears "not yet".
const STEP: Duration = Duration::from_millis(250);
/// The connection is used this often at least: Redis closes idle ones (`timeout` in redis.conf).
const KEEP_WARM: Duration = Duration::from_secs(10);
/// How often an unsettled or unconnected control tries again.
const RETRY: Duration = Duration::from_millis(100);
/// A link to the master over which something came within this is alive.
const QUIET: Duration = Duration::from_secs(2);
/// `min-replicas-to-write` that no Redis can meet.
const OUT_OF_REACH: u32 = 1_000_000;

pub(super) async fn run(
    (shared, quarantine): (Arc<Shared>, Arc<Quarantine>),
    auth: Option<MasterAuth>,
    mut queue: mpsc::UnboundedReceiver<(ActionId, Action)>,
    mut died: mpsc::UnboundedReceiver<u32>,
) {
    let control = Control::new(shared.endpoint.clone());
    let aside = Aside::new(Arc::clone(&shared), quarantine);
    let mut hand = Hand { shared, control, auth, aside };
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            Some(pid) = died.recv() => {
                hand.control.forget_process(pid);
                pause = RETRY;
            }
            work = queue.recv() => {
                let Some((id, action)) = work else { return };
                hand.act(id, action).await;
            }
            () = tokio::time::sleep(pause) => {
                let ready = hand.control.ready(STEP).await;
                pause = if matches!(ready, Ok(Outcome::Done(_))) { KEEP_WARM } else { RETRY };
            }
        }
        let settled = hand.control.settled();
        hand.shared.settling.set(settled);
        if !settled {
            pause = RETRY;
        }
    }
}

/// What an action came to: an outcome, or why not.
pub(super) type Acted = Result<ActionOutcome, ActionFailure>;

struct Hand {
    shared: Arc<Shared>,
    control: Control,
    auth: Option<MasterAuth>,
    aside: Aside,
}

impl Hand {
    async fn act(&mut self, id: ActionId, action: Action) {
        tracing::debug!(group = %self.shared.group, ?action, "redis action");
        let outcome = match action {
            Action::VerifyVip { vip, port } => {
                // On a connection of its own, beside the queue: it changes nothing.
                tokio::spawn(verify(Arc::clone(&self.shared), id, SocketAddr::new(vip.addr, port)));
                return;
            }
            Action::Compare { master } => return self.aside.compare(id, self.towards(master)),
            Action::KeepAside { epoch, gap } => return self.aside.keep(id, epoch, gap),
            Action::ReadOffset => self.read_offset().await,
            Action::Promote(min_replicas) => {
                self.shared.settling.set(false);
                self.aside.end();
                self.promote(min_replicas).await
            }
            Action::GoOn(min_replicas) => self.go_on(min_replicas).await,
            Action::SetMinReplicas(min_replicas) => self.set_min_replicas(min_replicas).await,
            Action::Follow { master } => {
                self.shared.settling.set(false);
                self.aside.end();
                self.follow(master).await
            }
            Action::Relink { master } => self.relink(master).await,
            Action::PauseAndCatchUp { target, limit } => {
                self.shared.settling.set(false);
                self.pause_and_catch_up(target, limit).await
            }
            Action::Unpause => {
                let unpaused = done("CLIENT UNPAUSE", self.control.unpause(STEP).await);
                self.shared.own_pause.ended();
                unpaused
            }
            Action::ShutWrites => self.shut_writes().await,
            Action::EnsureVip { .. }
            | Action::RemoveVip { .. }
            | Action::Announce { .. }
            | Action::ProbeRival { .. }
            | Action::DestroySockets { .. } => Err(failure(false, "this is for the kernel")),
        };
        self.shared.settling.set(self.control.settled());
        self.shared.done(id, outcome.unwrap_or_else(ActionOutcome::Failed));
        // What the action changed is news for the core.
        self.shared.probe_now.notify_one();
    }

    async fn promote(&mut self, min_replicas: MinReplicas) -> Acted {
        // A pause or a shut write gate may be left from an earlier life; the spec says what holds, not Redis.
        self.optional("CLIENT UNPAUSE", false).await?;
        self.set_min_replicas(min_replicas).await?;
        done("REPLICAOF NO ONE", self.control.promote(STEP).await)
    }

    async fn go_on(&mut self, min_replicas: MinReplicas) -> Acted {
        self.optional("CLIENT UNPAUSE", false).await?;
        self.set_min_replicas(min_replicas).await?;
        match self.control.is_master(STEP).await {
            Ok(Outcome::Done(false)) => Ok(ActionOutcome::NotMaster),
            other => done("ROLE", other),
        }
    }

    /// Where nothing is asked for, an ACL that forbids to say so is no reason to stop.
    async fn set_min_replicas(&mut self, min_replicas: MinReplicas) -> Acted {
        let MinReplicas { to_write, max_lag_s } = min_replicas;
        // First: with 0 there the number would mean nothing.
        if let Some(seconds) = max_lag_s {
            let set = self.control.set_min_replicas_max_lag(seconds, STEP).await;
            self.set_or_unneeded("min-replicas-max-lag", to_write, set)?;
        }
        let set = self.control.set_min_replicas_to_write(to_write, STEP).await;
        self.set_or_unneeded("min-replicas-to-write", to_write, set)
    }

    fn set_or_unneeded(
        &self,
        what: &'static str,
        to_write: u32,
        set: Result<Outcome<()>, ControlError>,
    ) -> Acted {
        match set {
            Err(error) if not_permitted(&error) && to_write == 0 => {
                tracing::warn!(group = %self.shared.group, %error, "{what} cannot be set: redis.conf rules");
                Ok(ActionOutcome::Done)
            }
            other => done(what, other),
        }
    }

    async fn follow(&mut self, master: SocketAddr) -> Acted {
        self.optional("CLIENT UNPAUSE", true).await?;
        let address = MasterAddress { host: master.ip(), port: master.port() };
        done("REPLICAOF", self.control.replica_of(&address, self.auth.as_ref(), STEP).await)
    }

    async fn relink(&mut self, master: SocketAddr) -> Acted {
        let address = MasterAddress { host: master.ip(), port: master.port() };
        let relinked = self.control.relink(&address, QUIET, STEP).await;
        tracing::info!(group = %self.shared.group, %master, ?relinked, "link to the master");
        done("REPLICAOF", relinked)
    }

    /// `CLIENT UNPAUSE`, where the ACL lets us; a refusal in words is no reason to stop.
    async fn optional(
        &mut self,
        what: &'static str,
        best_effort: bool,
    ) -> Result<(), ActionFailure> {
        match self.control.unpause(STEP).await {
            Err(error) if best_effort || not_permitted(&error) => {
                tracing::warn!(group = %self.shared.group, error = %crate::executor::lock::chain(&error), what, "skipped");
                Ok(())
            }
            other => done(what, other).map(|_| ()),
        }
    }

    /// Writes stop for at most `limit`; done when the target has everything.
    async fn pause_and_catch_up(&mut self, target: SocketAddr, limit: Span) -> Acted {
        let limit = Duration::from_nanos(limit.0);
        let deadline = Instant::now() + limit;
        let poll = self.open_poll(self.towards(target), limit).await?;
        // The pause begins within the first step, and a probe may see its end a little late.
        self.shared.own_pause.begins(deadline + STEP * 2);
        let asked = Both::now();
        let paused = match self.control.pause_writes(limit, STEP).await {
            Ok(Outcome::Done(paused)) => paused,
            other => return done("CLIENT PAUSE", other),
        };
        if paused.scope == PauseScope::Everything {
            self.shared.own_pause.holds_everything(paused.offset, asked, limit);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let reached = poll.until_applied(paused.offset, left).await;
        match reached {
            // The target may have more than was asked for: what it has of ours ends at our own offset.
            Ok(OffsetReached::Yes { .. }) => Ok(ActionOutcome::Offset(paused.offset)),
            Ok(OffsetReached::No { offset }) => {
                self.optional("CLIENT UNPAUSE", true).await?;
                Err(failure(
                    false,
                    format!("the target is at {offset:?}, not at {} in time", paused.offset),
                ))
            }
            Err(error) => {
                self.optional("CLIENT UNPAUSE", true).await?;
                Err(failure(false, format!("the target does not answer: {error}")))
            }
        }
    }

    /// Behind our own pause of everything it is executed when that ends: then it is not waited for.
    async fn shut_writes(&mut self) -> Acted {
        let frozen = self.shared.own_pause.frozen_at(Both::now()).is_some();
        let within = if frozen { Duration::from_millis(1) } else { STEP };
        match self.control.set_min_replicas_to_write(OUT_OF_REACH, within).await {
            Ok(Outcome::Pending) if frozen => Ok(ActionOutcome::Done),
            other => done("min-replicas-to-write", other),
        }
    }

    async fn read_offset(&self) -> Acted {
        if let Some(offset) = self.shared.own_pause.frozen_at(Both::now()) {
            return Ok(ActionOutcome::Offset(offset));
        }
        let poll = self.open_poll(self.shared.endpoint.clone(), STEP).await?;
        match timeout(STEP, poll.replication()).await {
            Ok(Ok(view)) => Ok(ActionOutcome::Offset(view.offset)),
            Ok(Err(error)) => Err(failure(true, error.to_string())),
            Err(_elapsed) => Err(failure(true, "INFO was not answered in time")),
        }
    }

    async fn open_poll(
        &self,
        endpoint: RedisEndpoint,
        within: Duration,
    ) -> Result<OffsetPoll, ActionFailure> {
        match timeout(within, OffsetPoll::open(endpoint)).await {
            Ok(Ok(poll)) => Ok(poll),
            Ok(Err(error)) => Err(failure(true, error.to_string())),
            Err(_elapsed) => Err(failure(true, "no connection in time")),
        }
    }

    /// The Redis of another host: an ordinary client there.
    fn towards(&self, addr: SocketAddr) -> RedisEndpoint {
        let mut endpoint = self.shared.endpoint.clone();
        endpoint.address = RedisAddress::Tcp(addr);
        endpoint.source = None;
        endpoint.mark = None;
        endpoint
    }
}

/// Whether Redis answers `PING` at the VIP, by the supervisor's own way in.
async fn verify(shared: Arc<Shared>, id: ActionId, addr: SocketAddr) {
    let mut endpoint = shared.endpoint.clone();
    endpoint.address = RedisAddress::Tcp(addr);
    let opened = timeout(STEP, async {
        let poll = OffsetPoll::open(endpoint).await?;
        poll.replication().await
    });
    match opened.await {
        Ok(Ok(_)) => shared.done(id, ActionOutcome::Done),
        Ok(Err(RedisFailure::Refused)) => {
            let text =
                format!("Redis does not listen at {addr}: its `bind` names other addresses only");
            shared.failed(id, true, text);
        }
        Ok(Err(error)) => shared.failed(id, true, error.to_string()),
        Err(_elapsed) => shared.failed(id, true, format!("no answer at {addr} in time")),
    }
}

pub(super) fn failure(retry: bool, text: impl Into<String>) -> ActionFailure {
    ActionFailure { retry, text: text.into() }
}

fn not_permitted(error: &ControlError) -> bool {
    let ControlError::Redis { source, .. } = error else { return false };
    matches!(source, RedisFailure::NoPermission { .. } | RedisFailure::UnknownCommand { .. })
}

fn done<T>(what: &'static str, result: Result<Outcome<T>, ControlError>) -> Acted {
    match result {
        Ok(Outcome::Done(_)) => Ok(ActionOutcome::Done),
        Ok(Outcome::Pending) => {
            Err(failure(true, format!("{what} was sent and is not answered yet")))
        }
        Err(error) => Err(failure(true, crate::executor::lock::chain(&error))),
    }
}
