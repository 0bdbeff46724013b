//! The kernel lock of one host: the nftables sets, which live and expire without any process.
//!
//! Every call is one batch: all of it or nothing. Time is the host's kernel clock (jiffies, at the rate of
//! CLOCK_BOOTTIME). [`LockRules`] lets a test take one rule out, to show that a checker misses it.
//! Deliberately absent: packets; the world asks [`KernelLock::passes`] where one would arrive or leave.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_core::{Generation, LockOp, Span, effect::LockItem, input::LockAtStart};

/// A value of the host's kernel clock, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KernelTime(pub u64);

/// What happens when Redis is started by its service unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StartGuard {
    /// The drop-in closes the port in a table of its own. The core's order lifts that when it has taken the new life in;
    /// the same batch closes the port in all sets.
    #[default]
    UntilTaken,
    /// The same, but lifted by whoever probed Redis, on his own: what was decided before may still be on its way.
    UntilProbed,
    /// Nothing: the sets stay as they are.
    Missing,
}

/// Rules of the kernel lock that a test may take out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LockRules {
    /// Open without looking at the one-shot token.
    pub ignore_nonce: bool,
    /// Arm without taking the ports out of the gate.
    pub keep_gate: bool,
    /// Guard requests only, not replies.
    pub input_only: bool,
    /// Never expire an armed timer.
    pub no_expiry: bool,
    pub start_guard: StartGuard,
}

#[derive(Clone, Debug, Default)]
struct Pair {
    timer: BTreeMap<u16, KernelTime>,
    gate: BTreeSet<u16>,
}

#[derive(Clone, Debug, Default)]
pub struct KernelLock {
    guarded: BTreeSet<u16>,
    a: Pair,
    b: Pair,
    ask: BTreeMap<(u16, u64), KernelTime>,
    replica: BTreeMap<u16, KernelTime>,
    /// Closed by the start of this life of Redis, which is not admitted yet. In reality a table of its own, which a
    /// starting Redis can write to whoever owns the other.
    start_closed: BTreeMap<u16, u64>,
    rules: LockRules,
}

/// One batch as it meets the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Instant {
    pub at: KernelTime,
    /// How much later (or, by rounding to ticks, earlier) than asked the timers end; nanoseconds.
    pub tick_error_ns: i64,
}

impl KernelLock {
    #[must_use]
    pub fn new(rules: LockRules) -> Self {
        Self { rules, ..Self::default() }
    }

    fn pair(&self, generation: Generation) -> &Pair {
        match generation {
            Generation::A => &self.a,
            Generation::B => &self.b,
        }
    }

    fn pair_mut(&mut self, generation: Generation) -> &mut Pair {
        match generation {
            Generation::A => &mut self.a,
            Generation::B => &mut self.b,
        }
    }

    /// The unit that runs before Redis does.
    pub fn guard(&mut self, port: u16) {
        self.guarded.insert(port);
    }

    /// Carry out one batch; false = the kernel refused all of it.
    pub fn run(&mut self, op: &LockOp, instant: Instant) -> bool {
        match op {
            LockOp::Arm { arm: _, generation, ttl, items } => {
                self.arm(*generation, *ttl, items, instant);
                true
            }
            LockOp::Open { arm: _, generation, items } => self.open(*generation, items, instant),
            LockOp::Close { item } => {
                self.a.gate.remove(&item.port);
                self.b.gate.remove(&item.port);
                true
            }
            LockOp::Guard { item } => {
                self.guarded.insert(item.port);
                true
            }
            LockOp::PermitReplica { item, ttl } => {
                self.guarded.insert(item.port);
                self.replica.insert(item.port, expiry(*ttl, instant));
                true
            }
            LockOp::ForbidReplica { item } => {
                self.replica.remove(&item.port);
                true
            }
            LockOp::Restore => {
                self.flushed();
                true
            }
            // It takes the life whose process is watched: `admit`.
            LockOp::Admit { .. } => false,
        }
    }

    fn arm(&mut self, generation: Generation, ttl: Span, items: &[LockItem], instant: Instant) {
        let keep_gate = self.rules.keep_gate;
        let pair = self.pair_mut(generation);
        if !keep_gate {
            pair.gate.clear();
        }
        pair.timer.clear();
        let ends = expiry(ttl, instant);
        pair.timer.extend(items.iter().map(|i| (i.port, ends)));
        self.ask = items.iter().map(|i| ((i.port, i.nonce), ends)).collect();
    }

    fn open(&mut self, generation: Generation, items: &[LockItem], instant: Instant) -> bool {
        let redeemable =
            |i: &LockItem| self.ask.get(&(i.port, i.nonce)).is_some_and(|ends| instant.at < *ends);
        if !self.rules.ignore_nonce && !items.iter().all(redeemable) {
            return false;
        }
        for item in items {
            self.ask.remove(&(item.port, item.nonce));
            self.guarded.insert(item.port);
            self.pair_mut(generation).gate.insert(item.port);
        }
        true
    }

    /// The port is open to clients by a lease: timer and gate of the same generation.
    #[must_use]
    pub fn leased(&self, port: u16, at: KernelTime) -> bool {
        let live = |g| self.timer_runs(g, port, at) && self.gate_is_open(g, port);
        self.is_guarded(port)
            && !self.start_closed.contains_key(&port)
            && [Generation::A, Generation::B].into_iter().any(live)
    }

    /// This generation's timer for the port has not ended.
    #[must_use]
    pub fn timer_runs(&self, generation: Generation, port: u16, at: KernelTime) -> bool {
        let ends = self.pair(generation).timer.get(&port);
        ends.is_some_and(|ends| self.rules.no_expiry || at < *ends)
    }

    /// The port is in this generation's gate, whatever its timer says.
    #[must_use]
    pub fn gate_is_open(&self, generation: Generation, port: u16) -> bool {
        self.pair(generation).gate.contains(&port)
    }

    /// A client's packet to the port, or an answer from it, passes.
    #[must_use]
    pub fn passes(&self, port: u16, at: KernelTime) -> bool {
        if self.start_closed.contains_key(&port) {
            return false;
        }
        if !self.is_guarded(port) {
            return true;
        }
        self.leased(port, at) || self.replica.get(&port).is_some_and(|ends| at < *ends)
    }

    /// An answer from the port leaves the host.
    #[must_use]
    pub fn answer_leaves(&self, port: u16, at: KernelTime) -> bool {
        self.rules.input_only || self.passes(port, at)
    }

    #[must_use]
    pub fn is_guarded(&self, port: u16) -> bool {
        self.guarded.contains(&port)
    }

    /// The service unit's drop-in, before this life of Redis is started.
    pub fn redis_starts(&mut self, port: u16, life: u64) {
        match self.rules.start_guard {
            StartGuard::UntilTaken | StartGuard::UntilProbed => {
                self.start_closed.insert(port, life);
            }
            StartGuard::Missing => {}
        }
    }

    /// This life is watched: what an earlier one was granted is void. The start of a later one stays closed.
    pub fn admit(&mut self, port: u16, life: u64) {
        if self.start_closed.get(&port).is_none_or(|started| *started > life) {
            return;
        }
        self.start_closed.remove(&port);
        self.guarded.insert(port);
        self.a.gate.remove(&port);
        self.b.gate.remove(&port);
        self.replica.remove(&port);
        self.ask.retain(|(p, _), _| *p != port);
    }

    /// Somebody flushed the table, and it has been put back: closed.
    pub fn flushed(&mut self) {
        self.close_all(self.guarded.clone());
    }

    /// The boot unit makes the table after a start of the host: closed.
    pub fn close_all(&mut self, guarded: BTreeSet<u16>) {
        *self = Self { guarded, ..Self::new(self.rules) };
    }

    /// What a starting supervisor reads back. The open questions of its predecessor are taken out.
    pub fn adopt(&mut self, at: KernelTime) -> LockAtStart {
        self.ask.clear();
        let live = |p: &Pair| p.gate.iter().any(|port| p.timer.get(port).is_some_and(|e| at < *e));
        let open = [Generation::A, Generation::B].into_iter().find(|g| live(self.pair(*g)));
        LockAtStart {
            open,
            guarded: self.guarded.iter().copied().collect(),
            replica: self.replica.iter().filter(|(_, e)| at < **e).map(|(p, _)| *p).collect(),
        }
    }
}

fn expiry(ttl: Span, instant: Instant) -> KernelTime {
    KernelTime(instant.at.0.saturating_add(ttl.0).saturating_add_signed(instant.tick_error_ns))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use redkeep_core::{ArmId, GroupId, spec::Vip};

    use super::*;

    const PORT: u16 = 6379;
    const TTL: Span = Span(300);

    fn item(nonce: u64) -> LockItem {
        LockItem {
            group: GroupId::new("pair"),
            port: PORT,
            vip: Vip { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 32 },
            interface: "eth0".into(),
            nonce,
        }
    }
    fn id(counter: u64) -> ArmId {
        ArmId { incarnation: 1, counter }
    }
    fn arm(n: u64) -> LockOp {
        LockOp::Arm { arm: id(n), generation: Generation::A, ttl: TTL, items: vec![item(n)] }
    }
    fn open(n: u64) -> LockOp {
        LockOp::Open { arm: id(n), generation: Generation::A, items: vec![item(n)] }
    }
    fn at(lock: &mut KernelLock, time: u64, op: &LockOp) -> bool {
        lock.run(op, Instant { at: KernelTime(time), tick_error_ns: 0 })
    }
    fn guarded(rules: LockRules) -> KernelLock {
        let mut lock = KernelLock::new(rules);
        lock.close_all(BTreeSet::from([PORT]));
        lock
    }

    #[test]
    fn a_guarded_port_is_closed_until_granted_and_closes_by_itself() {
        let mut lock = guarded(LockRules::default());
        assert!(!lock.passes(PORT, KernelTime(0)));
        assert!(at(&mut lock, 0, &arm(1)));
        assert!(!lock.passes(PORT, KernelTime(1)));
        assert!(at(&mut lock, 10, &open(1)));
        assert!(lock.passes(PORT, KernelTime(299)));
        assert!(!lock.passes(PORT, KernelTime(300)));
    }

    #[test]
    fn a_used_or_superseded_token_opens_nothing() {
        let mut lock = guarded(LockRules::default());
        assert!(at(&mut lock, 0, &arm(1)));
        assert!(at(&mut lock, 1, &arm(2)));
        assert!(!at(&mut lock, 2, &open(1)));
        assert!(!lock.passes(PORT, KernelTime(3)));
        assert!(at(&mut lock, 3, &open(2)));
        assert!(!at(&mut lock, 4, &open(2)));
    }

    #[test]
    fn a_late_open_never_extends_the_time() {
        let mut lock = guarded(LockRules::default());
        assert!(at(&mut lock, 0, &arm(1)));
        assert!(!at(&mut lock, 301, &open(1)));
        assert!(!lock.passes(PORT, KernelTime(301)));
    }

    #[test]
    fn a_started_redis_meets_a_closed_port_until_its_life_is_admitted() {
        let mut lock = guarded(LockRules::default());
        at(&mut lock, 0, &arm(1));
        at(&mut lock, 1, &open(1));
        lock.redis_starts(PORT, 2);
        let permit = LockOp::PermitReplica { item: item(0), ttl: TTL };
        at(&mut lock, 2, &permit);
        assert!(!lock.passes(PORT, KernelTime(3)));
        lock.admit(PORT, 1);
        assert!(!lock.passes(PORT, KernelTime(3)), "an earlier life");
        lock.admit(PORT, 2);
        assert!(!lock.passes(PORT, KernelTime(3)), "what was permitted before is void");
        at(&mut lock, 4, &permit);
        assert!(lock.passes(PORT, KernelTime(5)));
    }

    /// Why the one who probes must not admit by himself.
    #[test]
    fn what_is_permitted_after_the_admission_opens_whatever_it_was_decided_from() {
        let mut lock = guarded(LockRules::default());
        let permit_of_an_earlier_life = LockOp::PermitReplica { item: item(0), ttl: TTL };
        lock.redis_starts(PORT, 2);
        lock.admit(PORT, 2);
        at(&mut lock, 1, &permit_of_an_earlier_life);
        assert!(lock.passes(PORT, KernelTime(2)));
    }

    #[test]
    fn a_flush_leaves_the_port_guarded_and_closed() {
        let mut lock = guarded(LockRules::default());
        at(&mut lock, 0, &arm(1));
        at(&mut lock, 1, &open(1));
        lock.flushed();
        assert!(lock.is_guarded(PORT));
        assert!(!lock.passes(PORT, KernelTime(2)));
    }
}
