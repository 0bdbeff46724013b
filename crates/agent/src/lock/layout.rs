//! The lock's tables, sets, chains and rules, as data.
//!
//! Order binds: the timer is looked up before the gate, because each lookup in a rule reads the kernel's
//! generation at that moment; gate first could pair an old open gate with a new timer. The last rule of
//! a direction matches the guarded ports by name, because a payload load that fails (a fragment) skips a
//! rule and must not meet a bare reject.

use std::net::Ipv4Addr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DevHookNumber, Expressions, Hook, HookNumber, InetHookNumber,
    MetaKey, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetFlags,
    SetMessage, TableAttribute, TableFlags, TableMessage,
};

use super::{Generation, LockConfig};
use crate::netlink::nft::{
    Batch, Family, Header, Lifetime, SetPath, accept, drop_packet, equal, go_back, in_set, jump,
    masked, meta, not_equal, not_in_set, payload, reject_with_reset,
};
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
            ChainSpec { name: "request_lo", base: None, rules: local_request_rules(config) },
            ChainSpec { name: "reply", base: None, rules: reply_rules(config.own_source) },
            base_chain("input", InetHookNumber::LocalIn, FILTER_PRIORITY, input_rules()),
            base_chain("output", InetHookNumber::LocalOut, FILTER_PRIORITY, output_rules()),
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

const IPPROTO_TCP: [u8; 1] = [6];
/// `lo` is link 1 of each network namespace, whatever its name.
const LOOPBACK_INDEX: u32 = 1;

fn source_port() -> Expressions {
    payload(Header::Transport, 0, 2)
}

fn destination_port() -> Expressions {
    payload(Header::Transport, 2, 2)
}

fn not_tcp() -> Vec<Expressions> {
    vec![meta(MetaKey::L4Proto), not_equal(&IPPROTO_TCP), accept()]
}

fn from_loopback() -> Vec<Expressions> {
    vec![meta(MetaKey::Iif), equal(&LOOPBACK_INDEX.to_ne_bytes())]
}

fn to_loopback() -> Vec<Expressions> {
    vec![meta(MetaKey::Oif), equal(&LOOPBACK_INDEX.to_ne_bytes())]
}

/// `ip saddr` or `ip daddr` equals the supervisor's own source.
fn own_source_at(offset: u32, own_source: Ipv4Addr) -> Vec<Expressions> {
    const NFPROTO_IPV4: [u8; 1] = [2];
    vec![
        meta(MetaKey::Nfproto),
        equal(&NFPROTO_IPV4),
        payload(Header::Network, offset, 4),
        equal(&own_source.octets()),
    ]
}

const SOURCE_ADDRESS: u32 = 12;
const DESTINATION_ADDRESS: u32 = 16;

/// The RST bit of the TCP flags byte is set.
fn is_reset() -> Vec<Expressions> {
    const RST: [u8; 1] = [0x04];
    vec![payload(Header::Transport, 13, 1), masked(&RST), equal(&RST)]
}

fn with(mut rule: Vec<Expressions>, verdict: Expressions) -> Vec<Expressions> {
    rule.push(verdict);
    rule
}

/// The three ways through: either lease generation, timer before gate, or a replica's element.
fn permitted(port: fn() -> Expressions, verdict: fn() -> Expressions) -> Vec<Vec<Expressions>> {
    let mut rules: Vec<_> = Generation::BOTH
        .into_iter()
        .map(|generation| {
            vec![
                port(),
                in_set(generation.timer()),
                port(),
                in_set(generation.gate()),
                verdict(),
            ]
        })
        .collect();
    rules.push(vec![port(), in_set(main_set::REPLICA), verdict()]);
    rules
}

/// Requests from outside. What came over `lo` was judged on its way out, where its mark is known.
fn input_rules() -> Vec<Vec<Expressions>> {
    let mut rules = vec![
        with(from_loopback(), accept()),
        not_tcp(),
        vec![destination_port(), not_in_set(main_set::GUARDED), accept()],
    ];
    rules.extend(permitted(destination_port, accept));
    rules.push(vec![destination_port(), in_set(main_set::GUARDED), reject_with_reset()]);
    rules
}

/// Sends local requests and all replies to their chains. One packet can be both.
fn output_rules() -> Vec<Vec<Expressions>> {
    let mut local_request = to_loopback();
    local_request.extend([destination_port(), in_set(main_set::GUARDED), jump("request_lo")]);
    let reply = vec![source_port(), in_set(main_set::GUARDED), jump("reply")];
    vec![not_tcp(), local_request, reply]
}

/// Requests of local clients. Going back means "not refused as a request".
fn local_request_rules(config: &LockConfig) -> Vec<Vec<Expressions>> {
    let mut rules = vec![
        vec![meta(MetaKey::Mark), equal(&config.mark.to_ne_bytes()), go_back()],
        // Replies to this address leave a closed port, so nobody else may ask from it.
        with(own_source_at(SOURCE_ADDRESS, config.own_source), reject_with_reset()),
    ];
    rules.extend(permitted(destination_port, go_back));
    rules.push(vec![destination_port(), in_set(main_set::GUARDED), reject_with_reset()]);
    rules
}

/// What leaves a guarded port. Resets may: they acknowledge nothing.
fn reply_rules(own_source: Ipv4Addr) -> Vec<Vec<Expressions>> {
    let mut rules = permitted(source_port, accept);
    rules.push(with(is_reset(), accept()));
    rules.push(reply_to_supervisor(own_source));
    rules.push(vec![source_port(), in_set(main_set::GUARDED), drop_packet()]);
    rules
}

fn reply_to_supervisor(own_source: Ipv4Addr) -> Vec<Expressions> {
    let mut rule = to_loopback();
    rule.extend(own_source_at(DESTINATION_ADDRESS, own_source));
    with(rule, accept())
}

/// The start table: a port in `closed` passes nothing but the supervisor's own connections.
pub(super) fn start_table(config: &LockConfig) -> TableSpec {
    let closed = start_set::CLOSED;
    let input = vec![
        with(from_loopback(), accept()),
        not_tcp(),
        vec![destination_port(), in_set(closed), reject_with_reset()],
    ];
    let request = vec![
        vec![meta(MetaKey::Mark), equal(&config.mark.to_ne_bytes()), go_back()],
        vec![destination_port(), in_set(closed), reject_with_reset()],
    ];
    let reply = vec![
        with(is_reset(), accept()),
        reply_to_supervisor(config.own_source),
        vec![source_port(), in_set(closed), drop_packet()],
    ];
    let mut local_request = to_loopback();
    local_request.extend([destination_port(), in_set(closed), jump("request_lo")]);
    let output =
        vec![not_tcp(), local_request, vec![source_port(), in_set(closed), jump("reply")]];
    TableSpec {
        family: Family::Inet,
        name: START_TABLE.to_owned(),
        sets: vec![
            set(closed, Key::Port, Lifetime::Lasting),
            set(start_set::STARTS, Key::PortAndToken, Lifetime::Lasting),
        ],
        chains: vec![
            ChainSpec { name: "request_lo", base: None, rules: request },
            ChainSpec { name: "reply", base: None, rules: reply },
            base_chain("input", InetHookNumber::LocalIn, START_PRIORITY, input),
            base_chain("output", InetHookNumber::LocalOut, START_PRIORITY, output),
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
            ChainSpec { name: "arp", base: None, rules: vip_rules(arp_sender, IpVersion::V4) },
            ChainSpec { name: "na", base: None, rules: vip_rules(na_target, IpVersion::V6) },
            ChainSpec { name: "ns", base: None, rules: vip_rules(ip6_source, IpVersion::V6) },
            ChainSpec { name: "egress", base: Some(base), rules: egress_rules() },
        ],
    }
}

const ETH_P_ARP: [u8; 2] = [0x08, 0x06];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
/// A neighbour solicitation tells its own link address to the neighbour, so it announces too (RFC 4861).
const NEIGHBOUR_SOLICITATION: [u8; 1] = [135];
const NEIGHBOUR_ADVERTISEMENT: [u8; 1] = [136];

fn egress_rules() -> Vec<Vec<Expressions>> {
    let by_protocol = || meta(MetaKey::EtherTypeProtocol);
    let by_link_header = || payload(Header::Link, 12, 2);
    let mut rules = Vec::new();
    for kind in [by_protocol as fn() -> Expressions, by_link_header] {
        rules.push(vec![kind(), equal(&ETH_P_ARP), jump("arp")]);
        for (message, chain) in [(NEIGHBOUR_ADVERTISEMENT, "na"), (NEIGHBOUR_SOLICITATION, "ns")] {
            let mut rule = vec![kind(), equal(&ETH_P_IPV6)];
            rule.extend(icmpv6_is(message));
            rules.push(with(rule, jump(chain)));
        }
    }
    rules
}

/// The packet is this ICMPv6 message, directly behind the IPv6 header.
fn icmpv6_is(message: [u8; 1]) -> Vec<Expressions> {
    const IPPROTO_ICMPV6: [u8; 1] = [58];
    vec![
        payload(Header::Network, 6, 1),
        equal(&IPPROTO_ICMPV6),
        payload(Header::Network, 40, 1),
        equal(&message),
    ]
}

fn arp_sender() -> Expressions {
    payload(Header::Network, 14, 4)
}

fn na_target() -> Expressions {
    payload(Header::Network, 48, 16)
}

fn ip6_source() -> Expressions {
    payload(Header::Network, 8, 16)
}

fn vip_rules(address: fn() -> Expressions, version: IpVersion) -> Vec<Vec<Expressions>> {
    let mut rules = vec![vec![address(), not_in_set(version.guarded()), go_back()]];
    for generation in Generation::BOTH {
        rules.push(vec![
            address(),
            in_set(generation.vip_timer(version)),
            address(),
            in_set(generation.vip_gate(version)),
            go_back(),
        ]);
    }
    rules.push(vec![address(), in_set(version.guarded()), drop_packet()]);
    rules
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
