//! What the chains of the lock's tables say.
//!
//! Order binds: the timer is looked up before the gate, because each lookup in a rule reads the kernel's
//! generation at that moment; gate first could pair an old open gate with a new timer. The last rule of
//! a direction matches the guarded ports by name, because a payload load that fails (a fragment) skips a
//! rule and must not meet a bare reject.

use std::net::Ipv4Addr;

use netlink_packet_netfilter::nftables::{Expressions, MetaKey};

use super::layout::{IpVersion, main_set, start_set};
use super::{Generation, LockConfig};
use crate::netlink::nft::{
    Header, accept, drop_packet, equal, go_back, in_set, jump, masked, meta, not_equal, not_in_set,
    payload, reject_with_reset,
};

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
            vec![port(), in_set(generation.timer()), port(), in_set(generation.gate()), verdict()]
        })
        .collect();
    rules.push(vec![port(), in_set(main_set::REPLICA), verdict()]);
    rules
}

/// Requests from outside. What came over `lo` was judged on its way out, where its mark is known.
pub(super) fn input() -> Vec<Vec<Expressions>> {
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
pub(super) fn output() -> Vec<Vec<Expressions>> {
    let mut local_request = to_loopback();
    local_request.extend([destination_port(), in_set(main_set::GUARDED), jump("request_lo")]);
    let reply = vec![source_port(), in_set(main_set::GUARDED), jump("reply")];
    vec![not_tcp(), local_request, reply]
}

/// Requests of local clients. Going back means "not refused as a request".
pub(super) fn local_request(config: &LockConfig) -> Vec<Vec<Expressions>> {
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
pub(super) fn reply(own_source: Ipv4Addr) -> Vec<Vec<Expressions>> {
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

/// The start table's requests from outside.
pub(super) fn start_input() -> Vec<Vec<Expressions>> {
    vec![
        with(from_loopback(), accept()),
        not_tcp(),
        vec![destination_port(), in_set(start_set::CLOSED), reject_with_reset()],
    ]
}

pub(super) fn start_output() -> Vec<Vec<Expressions>> {
    let mut local_request = to_loopback();
    local_request.extend([destination_port(), in_set(start_set::CLOSED), jump("request_lo")]);
    let reply = vec![source_port(), in_set(start_set::CLOSED), jump("reply")];
    vec![not_tcp(), local_request, reply]
}

pub(super) fn start_request(config: &LockConfig) -> Vec<Vec<Expressions>> {
    vec![
        vec![meta(MetaKey::Mark), equal(&config.mark.to_ne_bytes()), go_back()],
        vec![destination_port(), in_set(start_set::CLOSED), reject_with_reset()],
    ]
}

pub(super) fn start_reply(config: &LockConfig) -> Vec<Vec<Expressions>> {
    vec![
        with(is_reset(), accept()),
        reply_to_supervisor(config.own_source),
        vec![source_port(), in_set(start_set::CLOSED), drop_packet()],
    ]
}

const ETH_P_ARP: [u8; 2] = [0x08, 0x06];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
/// A neighbour solicitation tells its own link address to the neighbour, so it announces too (RFC 4861).
const NEIGHBOUR_SOLICITATION: [u8; 1] = [135];
const NEIGHBOUR_ADVERTISEMENT: [u8; 1] = [136];

pub(super) fn egress() -> Vec<Vec<Expressions>> {
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

/// ARP by its sender address.
pub(super) fn arp() -> Vec<Vec<Expressions>> {
    vip_rules(|| payload(Header::Network, 14, 4), IpVersion::V4)
}

/// Neighbour advertisements by their target.
pub(super) fn advertisement() -> Vec<Vec<Expressions>> {
    vip_rules(|| payload(Header::Network, 48, 16), IpVersion::V6)
}

/// Neighbour solicitations by their source address.
pub(super) fn solicitation() -> Vec<Vec<Expressions>> {
    vip_rules(|| payload(Header::Network, 8, 16), IpVersion::V6)
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
