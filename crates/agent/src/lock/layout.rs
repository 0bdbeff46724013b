//! The lock's tables, sets and chains, as data, and their messages. What the chains say is in `rules`.

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DevHookNumber, Expressions, Hook, HookNumber, InetHookNumber,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetFlags, SetMessage,
    TableAttribute, TableFlags, TableMessage,
};

use super::{Generation, LockConfig, rules};
use crate::netlink::nft::{Batch, Family, Lifetime, SetPath};
use crate::vip::LinkName;

/// The main table.
const MAIN_TABLE: &str = "redkeep";
/// The table in which a starting Redis closes its own port.
pub(crate) const START_TABLE: &str = "redkeep_start";
/// Prefix of the table that guards one link's ARP and neighbour advertisements.
const LINK_TABLE_PREFIX: &str = "redkeep_";

/// Runs before the host's own filter chains (priority 0); either side's reject is final.
const FILTER_PRIORITY: i32 = -10;
/// The start table is asked first.
const START_PRIORITY: i32 = -20;

/// What the elements of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Port,
    PortAndToken,
    V4,
    V6,
}

impl Key {
    /// Type number for `nft list`, and key length in bytes.
    fn describe(self) -> (u32, u32) {
        const INET_SERVICE: u32 = 13;
        const MARK: u32 = 19;
        match self {
            Self::Port => (INET_SERVICE, 2),
            Self::PortAndToken => ((INET_SERVICE << 12) | (MARK << 6) | MARK, 12),
            Self::V4 => (7, 4),
            Self::V6 => (8, 16),
        }
    }
}

/// One set of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetSpec {
    pub(super) name: &'static str,
    pub(super) key: Key,
    pub(super) lifetime: Lifetime,
}

/// Where a chain is hooked in.
#[derive(Debug, Clone)]
struct Base {
    hook: HookNumber,
    priority: i32,
    device: Option<LinkName>,
}

/// One chain of a table.
#[derive(Debug, Clone)]
pub(super) struct ChainSpec {
    name: &'static str,
    base: Option<Base>,
    rules: Vec<Vec<Expressions>>,
}

/// One whole table.
#[derive(Debug, Clone)]
pub(super) struct TableSpec {
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) sets: Vec<SetSpec>,
    /// A chain stands behind those that it jumps to.
    chains: Vec<ChainSpec>,
}

const fn set(name: &'static str, key: Key, lifetime: Lifetime) -> SetSpec {
    SetSpec { name, key, lifetime }
}

/// The sets of the main table.
pub(super) mod main_set {
    pub(in crate::lock) const GUARDED: &str = "guarded";
    pub(in crate::lock) const ASK: &str = "ask";
    pub(in crate::lock) const REPLICA: &str = "replica";
}

/// The sets of the start table.
pub(super) mod start_set {
    pub(in crate::lock) const CLOSED: &str = "closed";
    pub(in crate::lock) const STARTS: &str = "starts";
}

impl Generation {
    pub(super) fn timer(self) -> &'static str {
        match self {
            Self::A => "timer_a",
            Self::B => "timer_b",
        }
    }

    pub(super) fn gate(self) -> &'static str {
        match self {
            Self::A => "gate_a",
            Self::B => "gate_b",
        }
    }

    pub(super) fn vip_timer(self, version: IpVersion) -> &'static str {
        match (self, version) {
            (Self::A, IpVersion::V4) => "vtimer4_a",
            (Self::B, IpVersion::V4) => "vtimer4_b",
            (Self::A, IpVersion::V6) => "vtimer6_a",
            (Self::B, IpVersion::V6) => "vtimer6_b",
        }
    }

    pub(super) fn vip_gate(self, version: IpVersion) -> &'static str {
        match (self, version) {
            (Self::A, IpVersion::V4) => "vgate4_a",
            (Self::B, IpVersion::V4) => "vgate4_b",
            (Self::A, IpVersion::V6) => "vgate6_a",
            (Self::B, IpVersion::V6) => "vgate6_b",
        }
    }
}

/// IPv4 or IPv6: each has sets of its own, since a set has one key length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

impl IpVersion {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn guarded(self) -> &'static str {
        match self {
            Self::V4 => "vip_guarded4",
            Self::V6 => "vip_guarded6",
        }
    }
}

/// The name of a link's table.
pub(super) fn link_table_name(link: &LinkName) -> String {
    format!("{LINK_TABLE_PREFIX}{link}")
}

/// Whether a table is one of the lock's.
pub(crate) fn is_lock_table(family: NetfilterProtoFamily, name: &str) -> bool {
    if family == Family::Inet.proto() {
        name == MAIN_TABLE || name == START_TABLE
    } else {
        family == Family::Netdev.proto() && name.starts_with(LINK_TABLE_PREFIX)
    }
}

pub(super) fn main_table(config: &LockConfig) -> TableSpec {
    let mut sets = vec![
        set(main_set::GUARDED, Key::Port, Lifetime::Lasting),
        set(main_set::ASK, Key::PortAndToken, Lifetime::Expiring),
        set(main_set::REPLICA, Key::Port, Lifetime::Expiring),
    ];
    for generation in Generation::BOTH {
        sets.push(set(generation.timer(), Key::Port, Lifetime::Expiring));
        sets.push(set(generation.gate(), Key::Port, Lifetime::Lasting));
    }
    TableSpec {
        family: Family::Inet,
        name: MAIN_TABLE.to_owned(),
        sets,
        chains: vec![
            ChainSpec { name: "request_lo", base: None, rules: rules::local_request(config) },
            ChainSpec { name: "reply", base: None, rules: rules::reply(config.own_source) },
            base_chain("input", InetHookNumber::LocalIn, FILTER_PRIORITY, rules::input()),
            base_chain("output", InetHookNumber::LocalOut, FILTER_PRIORITY, rules::output()),
        ],
    }
}

fn base_chain(
    name: &'static str,
    hook: InetHookNumber,
    priority: i32,
    rules: Vec<Vec<Expressions>>,
) -> ChainSpec {
    let base = Base { hook: HookNumber::Inet(hook), priority, device: None };
    ChainSpec { name, base: Some(base), rules }
}

/// The start table: a port in `closed` passes nothing but the supervisor's own connections.
pub(super) fn start_table(config: &LockConfig) -> TableSpec {
    TableSpec {
        family: Family::Inet,
        name: START_TABLE.to_owned(),
        sets: vec![
            set(start_set::CLOSED, Key::Port, Lifetime::Lasting),
            set(start_set::STARTS, Key::PortAndToken, Lifetime::Lasting),
        ],
        chains: vec![
            ChainSpec { name: "request_lo", base: None, rules: rules::start_request(config) },
            ChainSpec { name: "reply", base: None, rules: rules::start_reply(config) },
            base_chain("input", InetHookNumber::LocalIn, START_PRIORITY, rules::start_input()),
            base_chain("output", InetHookNumber::LocalOut, START_PRIORITY, rules::start_output()),
        ],
    }
}

/// A link's table: announcements of a VIP leave only under its lease.
///
/// Two rules for each kind: by `meta protocol`, which misses frames that lie about their protocol, and by
/// the link header, which is not there for frames that bypass the queueing discipline.
pub(super) fn link_table(link: &LinkName) -> TableSpec {
    let mut sets = Vec::new();
    for (version, key) in IpVersion::BOTH.into_iter().zip([Key::V4, Key::V6]) {
        sets.push(set(version.guarded(), key, Lifetime::Lasting));
        for generation in Generation::BOTH {
            sets.push(set(generation.vip_timer(version), key, Lifetime::Expiring));
            sets.push(set(generation.vip_gate(version), key, Lifetime::Lasting));
        }
    }
    let base = Base {
        hook: HookNumber::Dev(DevHookNumber::Egress),
        priority: 0,
        device: Some(link.clone()),
    };
    TableSpec {
        family: Family::Netdev,
        name: link_table_name(link),
        sets,
        chains: vec![
            ChainSpec { name: "arp", base: None, rules: rules::arp() },
            ChainSpec { name: "na", base: None, rules: rules::advertisement() },
            ChainSpec { name: "ns", base: None, rules: rules::solicitation() },
            ChainSpec { name: "egress", base: Some(base), rules: rules::egress() },
        ],
    }
}

impl TableSpec {
    /// Creates what is missing and replaces the rules; elements stay as they are.
    pub(super) fn ensure(&self, batch: &mut Batch, flags: TableFlags) {
        batch.new_table(self.family, self.table_message(flags));
        for (set, id) in self.sets.iter().zip(1..) {
            batch.new_set(self.family, self.set_message(set, id));
        }
        for chain in &self.chains {
            batch.new_chain(self.family, self.chain_message(chain));
        }
        // A base chain refers to the others, so all are emptied before any is filled.
        for chain in &self.chains {
            let attributes = vec![
                RuleAttribute::Table(self.name.clone()),
                RuleAttribute::Chain(chain.name.to_owned()),
            ];
            let flush = NfTablesMessage::DeleteRule(RuleMessage { attributes });
            batch.push(self.family, flush, 0);
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                batch.new_rule(self.family, self.rule_message(chain.name, rule));
            }
        }
    }

    /// Removes the table, there or not, and creates it anew, empty.
    pub(super) fn replace(&self, batch: &mut Batch, present: bool, flags: TableFlags) {
        if present {
            self.remove(batch);
        }
        self.ensure(batch, flags);
    }

    /// Removes a table that is there.
    pub(super) fn remove(&self, batch: &mut Batch) {
        let attributes = vec![TableAttribute::Name(self.name.clone())];
        batch.push(self.family, NfTablesMessage::DeleteTable(TableMessage { attributes }), 0);
    }

    /// A set's path.
    pub(super) fn set<'a>(&'a self, name: &'a str) -> SetPath<'a> {
        SetPath { family: self.family, table: &self.name, set: name }
    }

    fn table_message(&self, flags: TableFlags) -> TableMessage {
        let attributes =
            vec![TableAttribute::Name(self.name.clone()), TableAttribute::Flags(flags)];
        TableMessage { attributes }
    }

    fn set_message(&self, set: &SetSpec, id: u32) -> SetMessage {
        let (key_type, key_len) = set.key.describe();
        let flags = match set.lifetime {
            Lifetime::Lasting => SetFlags::empty(),
            Lifetime::Expiring => SetFlags::Timeout,
        };
        let attributes = vec![
            SetAttribute::Table(self.name.clone()),
            SetAttribute::Name(set.name.to_owned()),
            SetAttribute::Flags(flags),
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(key_len),
            SetAttribute::Id(id),
        ];
        SetMessage { attributes }
    }

    fn chain_message(&self, chain: &ChainSpec) -> ChainMessage {
        const POLICY_ACCEPT: u32 = 1;
        let mut attributes = vec![
            ChainAttribute::Table(self.name.clone()),
            ChainAttribute::Name(chain.name.to_owned()),
        ];
        if let Some(base) = &chain.base {
            let mut hook =
                vec![Hook::Number(base.hook), Hook::Priority(base.priority.cast_unsigned())];
            if let Some(device) = &base.device {
                hook.push(Hook::NetDeviceName(device.as_str().to_owned()));
            }
            attributes.push(ChainAttribute::Hook(hook));
            attributes.push(ChainAttribute::Policy(POLICY_ACCEPT));
            attributes.push(ChainAttribute::Type("filter".to_owned()));
        }
        ChainMessage { attributes }
    }

    fn rule_message(&self, chain: &str, rule: &[Expressions]) -> RuleMessage {
        let expressions = rule.iter().cloned().map(Into::into).collect();
        RuleMessage {
            attributes: vec![
                RuleAttribute::Table(self.name.clone()),
                RuleAttribute::Chain(chain.to_owned()),
                RuleAttribute::Expressions(expressions),
            ],
        }
    }
}

/// A port as a set key.
pub(super) fn port_key(port: u16) -> Vec<u8> {
    port.to_be_bytes().to_vec()
}

/// A port and a one-shot token as a set key: two bytes, padding to four, eight bytes.
pub(super) fn token_key(port: u16, token: u64) -> Vec<u8> {
    let mut key = vec![0; 12];
    key[..2].copy_from_slice(&port.to_be_bytes());
    key[4..].copy_from_slice(&token.to_be_bytes());
    key
}

/// Reads [`token_key`] back.
pub(super) fn parse_token_key(key: &[u8]) -> Option<(u16, u64)> {
    let port = key.get(..2)?.try_into().ok()?;
    let token = key.get(4..12)?.try_into().ok()?;
    Some((u16::from_be_bytes(port), u64::from_be_bytes(token)))
}

/// Reads a port key back.
pub(super) fn parse_port_key(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(..2)?.try_into().ok()?))
}
