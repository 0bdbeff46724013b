//! The one owner of the kernel's lease (lease rule L1): arms, opens and closes strictly in the order the core asked.
//!
//! The driver calls it and goes on when the kernel is done, which takes about 0.1 ms; another thread would cost more in
//! waking one another (ADR 0017). It also mends the tables when somebody else changed them, always closed, and lifts the
//! closing that a starting Redis left once the core took in the new life and its process is watched: in order with all
//! else that the core decides, so what an earlier life was permitted lies before it. What came of each is an input for the core. Deliberately absent: any judgement whether to open.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use redkeep_agent::{
    lock::{
        self as kernel, GuardedPort, KernelLock, LeaseItem, LockConfig, LockError, LockHealth,
        StartNotice,
    },
    process::ProcessId,
    vip::{LinkName, Vip},
};
use redkeep_core::{
    Generation, GroupId, HostEvent, Input, LockEvent, LockOp, RunId, effect::LockItem,
    input::LockAtStart, spec::ClusterSpec,
};

use super::{MARK, OWN_SOURCE};

/// `/proc` counts in ticks of 1/100 s on every architecture that Linux has (USER_HZ).
const NANOS_PER_TICK: u64 = 10_000_000;

/// What those who watch this host ask for.
#[derive(Debug)]
pub(crate) enum LockHint {
    /// Somebody else changed the tables, or may have: look, and mend closed.
    Verify,
    /// A link came up or was made anew.
    Link(LinkName),
    /// A starting Redis closed its port: remember it, should somebody remove that table.
    ReadStarts,
}

/// The lock of this host.
#[derive(Debug)]
pub(crate) struct Lock {
    lock: KernelLock,
    /// What was ever guarded, for putting it back.
    items: BTreeMap<u16, GuardedPort>,
    /// Links that carry VIPs.
    wanted: BTreeSet<LinkName>,
    answers: VecDeque<Input>,
}

pub(crate) fn lock_config(links: Vec<LinkName>, closed_ports: Vec<u16>) -> LockConfig {
    LockConfig { mark: MARK, own_source: OWN_SOURCE, links, closed_ports }
}

/// Links that carry the VIPs of `spec`.
pub(crate) fn links(spec: &ClusterSpec, node: redkeep_core::NodeId) -> Vec<LinkName> {
    let mut links = Vec::new();
    for group in spec.groups.iter().filter(|g| g.is_member(node)) {
        match LinkName::new(&group.interface) {
            Ok(link) if !links.contains(&link) => links.push(link),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(group = %group.id, %error, "the group's interface cannot be used");
            }
        }
    }
    links
}

impl Lock {
    /// Take or make the tables and read them back (L7).
    ///
    /// # Errors
    /// [`LockError`]; without the lock nothing may serve.
    pub(crate) fn open(
        spec: &ClusterSpec,
        node: redkeep_core::NodeId,
    ) -> Result<(Self, LockAtStart), LockError> {
        let links = links(spec, node);
        let mut lock = KernelLock::open(lock_config(links.clone(), Vec::new()))?;
        let found = lock.snapshot()?;
        let left = |generation: kernel::Generation| {
            let lease = found.generation(generation);
            let live = lease.gates.iter().filter_map(|port| lease.timers.get(port));
            live.max().copied().filter(|left| !left.is_zero())
        };
        let (a, b) = (left(kernel::Generation::A), left(kernel::Generation::B));
        let open = match (a, b) {
            (None, None) => None,
            (Some(a), Some(b)) if b > a => Some(Generation::B),
            (Some(_), _) => Some(Generation::A),
            (None, Some(_)) => Some(Generation::B),
        };
        let at_start = LockAtStart {
            open,
            guarded: found.guarded.iter().copied().collect(),
            replica: found.replica.keys().copied().collect(),
        };
        tracing::info!(adopted = lock.adopted(), ownership = ?lock.ownership(), ?at_start, "kernel lock taken");
        let wanted = links.into_iter().collect();
        let lock = Self { lock, items: BTreeMap::new(), wanted, answers: VecDeque::new() };
        Ok((lock, at_start))
    }

    /// By which notifications name this lock's own changes.
    pub(crate) fn port_id(&self) -> u32 {
        self.lock.port_id()
    }

    /// The next thing for the core to know.
    pub(crate) fn answer(&mut self) -> Option<Input> {
        self.answers.pop_front()
    }

    pub(crate) fn carry_out(&mut self, op: LockOp) {
        let event = self.done(op);
        self.answers.push_back(Input::Lock(event));
    }

    /// A new life of Redis was taken in by the core; the process that is watched for it, if one is.
    pub(crate) fn take_in(&mut self, item: LockItem, run_id: RunId, process: Option<ProcessId>) {
        let ok = process.is_some_and(|process| self.admit(&item, process));
        let event = LockEvent::Admitted { group: item.group, run_id, ok };
        self.answers.push_back(Input::Lock(event));
    }

    pub(crate) fn follow(&mut self, hint: LockHint) {
        match hint {
            LockHint::Verify => self.mend(),
            LockHint::Link(link) if self.wanted.contains(&link) => self.cover(&link),
            LockHint::Link(_) => {}
            LockHint::ReadStarts => {
                if let Err(error) = self.lock.starts() {
                    tracing::error!(error = %chain(&error), "the starts of Redis cannot be read");
                }
            }
        }
    }

    fn done(&mut self, op: LockOp) -> LockEvent {
        match op {
            LockOp::Arm { arm, generation, ttl, items } => {
                let items = self.lease_items(&items);
                let done = self.lock.arm(
                    kernel_generation(generation),
                    &items,
                    Duration::from_nanos(ttl.0),
                );
                LockEvent::Armed { arm, ok: self.settled("arm", done) }
            }
            LockOp::Open { arm, generation, items } => {
                let groups: Vec<GroupId> = items.iter().map(|i| i.group.clone()).collect();
                let items = self.lease_items(&items);
                let done = match self.lock.open_gates(kernel_generation(generation), &items) {
                    // The grant came too late for this arming, or another took its place: both are in order.
                    Err(LockError::NotArmed) => {
                        tracing::debug!("a grant came for an arming that no longer waits");
                        return LockEvent::Opened { arm, groups, ok: false };
                    }
                    done => done,
                };
                LockEvent::Opened { arm, groups, ok: self.settled("open", done) }
            }
            LockOp::Close { item } => {
                let port = self.guarded_port(&item);
                let done = self.lock.close(&[port]);
                LockEvent::Closed { group: item.group, ok: self.settled("close", done) }
            }
            LockOp::Guard { item } => {
                let port = self.guarded_port(&item);
                let done = self.lock.guard(&[port]);
                LockEvent::Guarded { group: item.group, ok: self.settled("guard", done) }
            }
            LockOp::PermitReplica { item, ttl } => {
                let port = self.guarded_port(&item);
                let done = self.lock.permit_replica(&port, Duration::from_nanos(ttl.0));
                LockEvent::ReplicaPermitted {
                    group: item.group,
                    ok: self.settled("permit replica", done),
                }
            }
            LockOp::ForbidReplica { item } => {
                let done = self.lock.forbid_replica(item.port);
                LockEvent::ReplicaForbidden {
                    group: item.group,
                    ok: self.settled("forbid replica", done),
                }
            }
            LockOp::Restore => LockEvent::Restored { ok: self.reinstall() },
            // The driver names the process with it: `take_in`.
            LockOp::Admit { item, run_id } => {
                LockEvent::Admitted { group: item.group, run_id, ok: false }
            }
        }
    }

    fn lease_items(&mut self, items: &[LockItem]) -> Vec<LeaseItem> {
        let lease = |item: &LockItem| {
            let GuardedPort { port, vip } = self.guarded_port(item);
            LeaseItem { port, vip, nonce: item.nonce }
        };
        items.iter().map(lease).collect()
    }

    /// The VIP is left out where its link is absent: then there is nobody to announce it to, and the port counts.
    fn guarded_port(&mut self, item: &LockItem) -> GuardedPort {
        let link = LinkName::new(&item.interface).ok();
        if let Some(link) = link.as_ref().filter(|l| !self.lock.covered_links().any(|c| c == *l))
            && self.wanted.insert(link.clone())
        {
            self.cover(link);
        }
        let covered = link.filter(|l| self.lock.covered_links().any(|c| c == l));
        let vip =
            covered.map(|link| Vip { address: item.vip.addr, prefix_len: item.vip.prefix, link });
        let port = GuardedPort { port: item.port, vip };
        self.items.insert(item.port, port.clone());
        port
    }

    fn cover(&mut self, link: &LinkName) {
        if let Err(error) = self.lock.ensure_link(link) {
            tracing::warn!(%link, error = %chain(&error), "the lock does not cover the link: ARP for its VIPs is not fenced");
        }
    }

    /// A failed operation may mean that the tables are gone: look at once, they may be open.
    fn settled(&mut self, what: &'static str, done: Result<(), LockError>) -> bool {
        let Err(error) = done else { return true };
        tracing::error!(what, error = %chain(&error), "the kernel lock refused");
        self.mend();
        false
    }

    fn mend(&mut self) {
        match self.lock.verify() {
            Ok(LockHealth::Intact) => return,
            // No lease is in it: nobody need be disturbed.
            Ok(LockHealth::StartAltered) => {
                tracing::warn!(
                    "the table by which a starting Redis closes its port was changed by somebody else: put back"
                );
                match self.lock.mend_start() {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "it cannot be put back: all tables are made anew");
                    }
                }
            }
            Ok(health) => tracing::error!(
                ?health,
                "the lock's tables were changed by somebody else: made anew, closed"
            ),
            Err(error) => {
                tracing::error!(error = %chain(&error), "the lock's tables cannot be read: made anew, closed");
            }
        }
        // Ports that may be open and cannot be closed here: the core shuts what else there is, and asks to try again.
        let event = if self.reinstall() { HostEvent::LockLost } else { HostEvent::LockBroken };
        self.answers.push_back(Input::Host(event));
    }

    /// Makes all tables anew, closed for all that was guarded.
    fn reinstall(&mut self) -> bool {
        let items: Vec<GuardedPort> = self.items.values().cloned().collect();
        let done = self.lock.reinstall(&items);
        if let Err(error) = &done {
            tracing::error!(error = %chain(error), "the lock cannot be made anew: its ports may be open to all");
        }
        done.is_ok()
    }

    /// True when no start of this process keeps the port closed any more. A start that closed the port after the process
    /// began is about another one, which is yet to come.
    fn admit(&mut self, item: &LockItem, process: ProcessId) -> bool {
        // Where nothing is admitted, nothing becomes guarded: a pair that is being adopted stays as it is.
        let known = self.items.get(&item.port).and_then(|known| known.vip.clone());
        let port = GuardedPort { port: item.port, vip: known };
        let began_before_ns = (process.start_time_ticks + 1).saturating_mul(NANOS_PER_TICK);
        let starts = match self.lock.starts() {
            Ok(starts) => starts,
            Err(error) => {
                tracing::error!(port = port.port, error = %chain(&error), "the starts of Redis cannot be read");
                return false;
            }
        };
        let mine = |s: &StartNotice| s.port == port.port && s.closed_at_ns <= began_before_ns;
        let mut ok = true;
        for start in starts.into_iter().filter(mine) {
            match self.lock.admit_start(start, port.vip.as_ref()) {
                Ok(()) => tracing::info!(
                    port = port.port,
                    "the closing of a started Redis was lifted; its port waits for a grant"
                ),
                // Its own process will be watched in turn.
                Err(LockError::StartSuperseded) => {}
                Err(error) => {
                    ok = false;
                    tracing::error!(port = port.port, error = %chain(&error), "a start cannot be admitted");
                }
            }
        }
        ok
    }
}

const fn kernel_generation(generation: Generation) -> kernel::Generation {
    match generation {
        Generation::A => kernel::Generation::A,
        Generation::B => kernel::Generation::B,
    }
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
