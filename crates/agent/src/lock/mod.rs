//! The nftables lease: permission to be reached at a port, held by the kernel and dying by itself.
//!
//! Owned by one thread for the life of the process, through one netlink socket. Each operation is one
//! kernel transaction, acknowledged before the call returns.
//!
//! Invariants:
//! - A packet to a guarded port passes only while the port is in `timer_x` and `gate_x` for the same x,
//!   or in `replica`; else it is answered with a reset. What leaves the port obeys the same, else it is
//!   dropped, so a Redis that wakes up after its lease acknowledges nothing.
//! - [`KernelLock::arm`] opens nothing; [`KernelLock::open`] never extends a timer. The kernel's timer is
//!   set two ticks short of the ttl: jiffies may be late by as much.
//! - An arming is opened at most once, and only by its own nonce.
//! - Tables made or mended here begin closed.
//!
//! The supervisor's own connections pass a closed port when they carry `mark` and come from
//! `own_source` over `lo`. Nobody else may use that address. For `::1` there is no such address: the mark
//! lets the request through, the answer is dropped. So the supervisor needs IPv4 loopback or the unix
//! socket, which no packet filter sees.
//!
//! Where the kernel has the table flags owner and persist (6.9 and later) a foreign flush does nothing,
//! and a foreign change is refused. Elsewhere see `watch`.
//!
//! A starting Redis closes its own port through a second, plain table (`start`), since the main table
//! may be owned by a supervisor that is frozen.
//!
//! Absent on purpose: ports forwarded to other network namespaces (docker-proxy, DNAT), ARP and NA in
//! VLAN tags written by hand or behind IPv6 extension headers, and kernels without the egress hook.

mod adopt;
mod error;
mod layout;
mod mend;
mod read;
mod rules;
mod start;

pub use self::error::LockError;
pub use self::read::{GenerationSnapshot, LockSnapshot};
pub use self::start::{StartNotice, close_ports};

pub(crate) use self::layout::{START_TABLE, is_lock_table};
pub(crate) use self::read::table_of;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use self::error::refused;
use self::layout::{IpVersion, TableSpec, main_set, port_key, token_key};
use self::mend::Structure;
use crate::netlink::nft::{Add, Batch, Lifetime, Tables};
use crate::vip::{LinkName, Vip};

/// One of the two sets of timers and gates that alternate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// `timer_a` and `gate_a`.
    A,
    /// `timer_b` and `gate_b`.
    B,
}

impl Generation {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that is not this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What the lock has to know about its host.
#[derive(Debug, Clone)]
pub struct LockConfig {
    /// `SO_MARK` of the supervisor's connections to Redis. Not 0, which every socket has.
    pub mark: u32,
    /// The supervisor's own loopback source, such as 127.114.107.1.
    pub own_source: Ipv4Addr,
    /// The links that carry VIPs.
    pub links: Vec<LinkName>,
    /// Guarded, closed, when the main table has to be created. An adopted table keeps its own.
    pub closed_ports: Vec<u16>,
}

/// A port under the lock, with the VIP at which it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedPort {
    /// Redis's TCP port on this host.
    pub port: u16,
    /// The group's VIP, if it has one.
    pub vip: Option<Vip>,
}

/// One group's part of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseItem {
    /// Redis's TCP port on this host.
    pub port: u16,
    /// The group's VIP: armed and opened together with the port.
    pub vip: Option<Vip>,
    /// Random, new for each arming: the grant redeems it.
    pub nonce: u64,
}

/// Who may change the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This process alone; the tables outlive it (`NFT_TABLE_F_OWNER`, `NFT_TABLE_F_PERSIST`).
    Owned,
    /// Whoever may change nftables: a foreign flush opens the ports until it is mended.
    Plain,
}

/// How the tables compare with what was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockHealth {
    /// As installed.
    Intact,
    /// The main table is gone: its ports are open.
    Missing,
    /// A chain, a rule, a flag or the guarded set of the main table differs.
    Altered,
    /// A link's table is gone or differs, perhaps together with its link: announcements are not held back.
    LinkAltered,
    /// Only the start table is gone or differs.
    StartAltered,
}

/// The lock of this host. See the module.
#[derive(Debug)]
pub struct KernelLock {
    tables: Tables,
    config: LockConfig,
    ownership: Ownership,
    adopted: bool,
    tick: Duration,
    main: TableSpec,
    start: TableSpec,
    /// The links whose tables are installed.
    links: BTreeMap<LinkName, TableSpec>,
    guarded: BTreeSet<u16>,
    guarded_vips: BTreeMap<LinkName, BTreeSet<IpAddr>>,
    /// The nonces of the last arming: closing a port voids its own.
    asked: Vec<(u16, u64)>,
    /// The starts that were last read and not admitted yet.
    pending_starts: Vec<StartNotice>,
    /// The tables as the kernel listed them after the last installation.
    installed: Structure,
}

/// A kernel timer shorter than this is all rounding.
const LEAST_TIMER: Duration = Duration::from_millis(10);

impl KernelLock {
    /// Adds ports and VIPs to what is guarded: closed, unless a lease or replica element says otherwise.
    ///
    /// # Errors
    /// When the kernel refuses, or a VIP's link is not covered.
    pub fn guard(&mut self, items: &[GuardedPort]) -> Result<(), LockError> {
        let mut batch = Batch::default();
        let pairs: Vec<_> = items.iter().map(|item| (item.port, item.vip.as_ref())).collect();
        self.add_guarded(&mut batch, &pairs)?;
        self.tables.commit(&batch).map_err(refused(LockError::Guard))?;
        self.remember_guarded(&pairs);
        Ok(())
    }

    /// Takes ports and VIPs out of the lock: they are open to all afterwards.
    ///
    /// # Errors
    /// When the kernel refuses, or a VIP's link is not covered.
    pub fn unguard(&mut self, items: &[GuardedPort]) -> Result<(), LockError> {
        let mut batch = Batch::default();
        let ports: Vec<_> = items.iter().map(|item| port_key(item.port)).collect();
        batch.take_out(self.main.set(main_set::GUARDED), &ports, Lifetime::Lasting);
        for vip in items.iter().filter_map(|item| item.vip.as_ref()) {
            let (table, version, key) = self.vip_key(vip)?;
            batch.take_out(table.set(version.guarded()), &[key], Lifetime::Lasting);
        }
        self.tables.commit_sure(&batch).map_err(refused(LockError::Guard))?;
        for item in items {
            self.guarded.remove(&item.port);
            if let Some(vip) = &item.vip
                && let Some(addresses) = self.guarded_vips.get_mut(&vip.link)
            {
                addresses.remove(&vip.address);
            }
        }
        Ok(())
    }

    /// Arms one generation: all of it leaves its gate, `items` enter its timer, other nonces are void.
    ///
    /// `items` are all leases of this node. The ttl runs from before this returns; the kernel's timer
    /// ends up to two ticks earlier. Opens nothing.
    ///
    /// # Errors
    /// When the ttl is too short, a VIP's link is not covered, or the kernel refuses.
    pub fn arm(
        &mut self,
        generation: Generation,
        items: &[LeaseItem],
        ttl: Duration,
    ) -> Result<(), LockError> {
        let timer = self.timer_for(ttl)?;
        let mut batch = Batch::default();
        let ports: Vec<_> = items.iter().map(|item| port_key(item.port)).collect();
        let tokens: Vec<_> = items.iter().map(|item| token_key(item.port, item.nonce)).collect();
        batch.flush(self.main.set(generation.gate()));
        batch.flush(self.main.set(generation.timer()));
        batch.flush(self.main.set(main_set::ASK));
        batch.add(self.main.set(generation.timer()), &ports, Add::Expire(timer));
        batch.add(self.main.set(main_set::ASK), &tokens, Add::Expire(timer));
        for table in self.links.values() {
            for version in IpVersion::BOTH {
                batch.flush(table.set(generation.vip_gate(version)));
                batch.flush(table.set(generation.vip_timer(version)));
            }
        }
        for vip in items.iter().filter_map(|item| item.vip.as_ref()) {
            let (table, version, key) = self.vip_key(vip)?;
            batch.add(table.set(generation.vip_timer(version)), &[key], Add::Expire(timer));
        }
        self.tables.commit(&batch).map_err(refused(LockError::Arm))?;
        self.asked = items.iter().map(|item| (item.port, item.nonce)).collect();
        Ok(())
    }

    /// Opens what was armed, for the rest of its timer, and guards it: one batch redeems the nonces.
    ///
    /// A port that was not guarded yet becomes so without an interruption: this is how a running master
    /// is adopted.
    ///
    /// # Errors
    /// [`LockError::NotArmed`] when a nonce is wrong, used, superseded or expired. Then none of the items
    /// is opened.
    pub fn open_gates(
        &mut self,
        generation: Generation,
        items: &[LeaseItem],
    ) -> Result<(), LockError> {
        let mut batch = Batch::default();
        let ports: Vec<_> = items.iter().map(|item| port_key(item.port)).collect();
        let tokens: Vec<_> = items.iter().map(|item| token_key(item.port, item.nonce)).collect();
        batch.delete(self.main.set(main_set::ASK), &tokens);
        batch.add(self.main.set(generation.gate()), &ports, Add::Keep);
        for vip in items.iter().filter_map(|item| item.vip.as_ref()) {
            let (table, version, key) = self.vip_key(vip)?;
            batch.add(table.set(generation.vip_gate(version)), &[key], Add::Keep);
        }
        let pairs: Vec<_> = items.iter().map(|item| (item.port, item.vip.as_ref())).collect();
        self.add_guarded(&mut batch, &pairs)?;
        self.tables.commit(&batch).map_err(|error| {
            match (error.errno(), error.refused_index()) {
                (Some(libc::ENOENT), Some(0)) => LockError::NotArmed,
                _ => refused(LockError::Open)(error),
            }
        })?;
        self.remember_guarded(&pairs);
        Ok(())
    }

    /// Closes ports and VIPs at once: out of both gates and the replica set; their nonces are void.
    ///
    /// Other ports are untouched. Never fails for something that was closed before. A link's table that
    /// is gone does not keep the ports open: they are closed without it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn close(&mut self, items: &[GuardedPort]) -> Result<(), LockError> {
        let mut batch = Batch::default();
        self.add_closing_ports(&mut batch, items);
        let ports_alone = batch.clone();
        self.add_closing_vips(&mut batch, items);
        match self.tables.commit_sure(&batch).map_err(refused(LockError::Close)) {
            Err(LockError::Missing) => {
                tracing::warn!("a table is gone: the ports are closed without their VIPs");
                self.tables.commit_sure(&ports_alone).map_err(refused(LockError::Close))
            }
            done => done,
        }
    }

    /// Lets clients reach a replica's port for at most `ttl`, and guards it in the same batch.
    ///
    /// # Errors
    /// When the ttl is too short, a VIP's link is not covered, or the kernel refuses.
    pub fn permit_replica(&mut self, item: &GuardedPort, ttl: Duration) -> Result<(), LockError> {
        let timer = self.timer_for(ttl)?;
        let mut batch = Batch::default();
        let replica = self.main.set(main_set::REPLICA);
        let keys = [port_key(item.port)];
        batch.take_out(replica, &keys, Lifetime::Expiring);
        batch.add(replica, &keys, Add::Expire(timer));
        let pairs = [(item.port, item.vip.as_ref())];
        self.add_guarded(&mut batch, &pairs)?;
        self.tables.commit_sure(&batch).map_err(refused(LockError::Replica))?;
        self.remember_guarded(&pairs);
        Ok(())
    }

    /// Takes a replica's permission away; it is gone when this returns.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forbid_replica(&mut self, port: u16) -> Result<(), LockError> {
        let mut batch = Batch::default();
        let replica = self.main.set(main_set::REPLICA);
        batch.take_out(replica, &[port_key(port)], Lifetime::Expiring);
        self.tables.commit_sure(&batch).map_err(refused(LockError::Replica))
    }

    /// Whether the tables were there already, with their timers and gates.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Who may change the tables on this kernel.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// The netlink port number by which notifications name this lock's own changes.
    #[must_use]
    pub fn port_id(&self) -> u32 {
        self.tables.port_id()
    }

    /// The links whose VIPs can be armed now.
    pub fn covered_links(&self) -> impl Iterator<Item = &LinkName> {
        self.links.keys()
    }

    /// The shortest ttl that [`KernelLock::arm`] accepts on this kernel.
    #[must_use]
    pub fn least_ttl(&self) -> Duration {
        LEAST_TIMER + self.tick * 2
    }

    /// The kernel's timer for a ttl: two ticks short of it.
    fn timer_for(&self, ttl: Duration) -> Result<Duration, LockError> {
        let timer = ttl.saturating_sub(self.tick * 2);
        if timer < LEAST_TIMER {
            let least_ms = self.least_ttl().as_millis();
            return Err(LockError::TtlTooShort { ttl_ms: ttl.as_millis(), least_ms });
        }
        Ok(timer)
    }

    fn vip_key(&self, vip: &Vip) -> Result<(&TableSpec, IpVersion, Vec<u8>), LockError> {
        let table =
            self.links.get(&vip.link).ok_or_else(|| LockError::LinkNotCovered(vip.link.clone()))?;
        Ok(match vip.address {
            IpAddr::V4(address) => (table, IpVersion::V4, address.octets().to_vec()),
            IpAddr::V6(address) => (table, IpVersion::V6, address.octets().to_vec()),
        })
    }

    fn add_guarded(
        &self,
        batch: &mut Batch,
        items: &[(u16, Option<&Vip>)],
    ) -> Result<(), LockError> {
        let ports: Vec<_> = items.iter().map(|(port, _)| port_key(*port)).collect();
        batch.add(self.main.set(main_set::GUARDED), &ports, Add::Keep);
        for vip in items.iter().filter_map(|(_, vip)| *vip) {
            let (table, version, key) = self.vip_key(vip)?;
            batch.add(table.set(version.guarded()), &[key], Add::Keep);
        }
        Ok(())
    }

    fn remember_guarded(&mut self, items: &[(u16, Option<&Vip>)]) {
        for (port, vip) in items {
            self.guarded.insert(*port);
            if let Some(vip) = vip {
                self.guarded_vips.entry(vip.link.clone()).or_default().insert(vip.address);
            }
        }
    }

    fn add_closing_ports(&self, batch: &mut Batch, items: &[GuardedPort]) {
        let ports: Vec<_> = items.iter().map(|item| port_key(item.port)).collect();
        let ours = |(port, _): &&(u16, u64)| items.iter().any(|item| item.port == *port);
        let tokens: Vec<_> =
            self.asked.iter().filter(ours).map(|(port, nonce)| token_key(*port, *nonce)).collect();
        for generation in Generation::BOTH {
            batch.take_out(self.main.set(generation.gate()), &ports, Lifetime::Lasting);
        }
        batch.take_out(self.main.set(main_set::REPLICA), &ports, Lifetime::Expiring);
        batch.take_out(self.main.set(main_set::ASK), &tokens, Lifetime::Expiring);
    }

    /// A VIP on a link that is not covered has no gate to leave.
    fn add_closing_vips(&self, batch: &mut Batch, items: &[GuardedPort]) {
        for vip in items.iter().filter_map(|item| item.vip.as_ref()) {
            let Ok((table, version, key)) = self.vip_key(vip) else { continue };
            for generation in Generation::BOTH {
                let gate = table.set(generation.vip_gate(version));
                batch.take_out(gate, std::slice::from_ref(&key), Lifetime::Lasting);
            }
        }
    }
}

/// Installs the lock, closed for `ports`: what a boot unit does before Redis starts.
///
/// A lock that is there is adopted; its gates and timers stay. The process may exit afterwards.
///
/// # Errors
/// As [`KernelLock::open`]; [`LockError::OwnedByAnother`] when a supervisor runs, which guards by itself.
pub fn install_closed(config: &LockConfig, ports: &[u16]) -> Result<(), LockError> {
    let mut config = config.clone();
    config.closed_ports.extend_from_slice(ports);
    let mut lock = KernelLock::open(config)?;
    let items: Vec<_> = ports.iter().map(|port| GuardedPort { port: *port, vip: None }).collect();
    lock.guard(&items)
}
