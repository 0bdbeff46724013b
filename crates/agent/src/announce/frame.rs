//! The frames, byte by byte: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861, RFC 4862).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

const BROADCAST: Mac = [0xff; 6];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// "Who has `address`? Tell `address`": request form of the announcement.
pub(super) fn gratuitous_arp_request(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(ARP_REQUEST, (mac, address), ([0; 6], address))
}

/// "`address` is at `mac`", unasked. The target link address is the sender's own: with any other, Linux
/// neighbours ignore most replies that come within a second of another (`locktime`).
pub(super) fn gratuitous_arp_reply(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(ARP_REPLY, (mac, address), (mac, address))
}

/// "Who has `address`?" from nobody: changes no neighbour's cache.
pub(super) fn arp_probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(ARP_REQUEST, (mac, Ipv4Addr::UNSPECIFIED), ([0; 6], address))
}

fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, sender.0, ETHERTYPE_ARP);
    // Ethernet addresses of 6 bytes for IPv4 addresses of 4.
    frame.extend([0x00, 0x01, 0x08, 0x00, 6, 4]);
    frame.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        frame.extend(mac);
        frame.extend(address.octets());
    }
    frame
}

/// An unsolicited neighbour advertisement to all nodes, with the override flag.
pub(super) fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend(TARGET_LINK_ADDRESS);
    message.extend(mac);
    icmpv6(mac, address, ALL_NODES, &message)
}

/// The solicitation of duplicate address detection: from nobody, to the address's own group.
pub(super) fn duplicate_solicitation(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    icmpv6(mac, Ipv6Addr::UNSPECIFIED, solicited_node_group(address), &message)
}

fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = address.octets();
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&[x, y, z]);
    Ipv6Addr::from(group)
}

fn icmpv6(mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    // Neighbour discovery must come from the same link, which 255 proves.
    const HOP_LIMIT: u8 = 255;
    let [.., a, b, c, d] = destination.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], mac, ETHERTYPE_IPV6);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    let mut covered = Vec::with_capacity(IPV6_BYTES + message.len());
    covered.extend(source.octets());
    covered.extend(destination.octets());
    covered.extend(u32::from(length).to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(message);
    let checksum = internet_checksum(&covered);
    frame.extend(message);
    frame[ETHERNET_BYTES + IPV6_BYTES + 2..][..2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Who claims the address in this frame, if anybody: the ARP sender, or an advertisement's link address.
pub(super) fn claimant(frame: &[u8], address: IpAddr) -> Option<Mac> {
    let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let packet = frame.get(ETHERNET_BYTES..)?;
    match address {
        IpAddr::V4(address) => {
            let claims = ethertype == ETHERTYPE_ARP && packet.get(14..18)? == address.octets();
            claims.then(|| packet.get(8..14)?.try_into().ok()).flatten()
        }
        IpAddr::V6(address) => {
            let message = packet.get(IPV6_BYTES..)?;
            let claims = ethertype == ETHERTYPE_IPV6
                && *packet.get(6)? == ICMPV6
                && *message.first()? == ADVERTISEMENT
                && message.get(8..24)? == address.octets();
            // Without the option the frame's own source has to do.
            let option = match message.get(24..26) {
                Some([2, 1]) => message.get(26..32),
                Some(_) | None => frame.get(6..12),
            };
            claims.then(|| option?.try_into().ok()).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{ArpOperation, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];
    const VIP4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
    const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0x1234, 0x5678);

    fn check_arp(frame: &[u8], operation: ArpOperation, sender: Ipv4Addr, target_mac: Mac) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("not ARP") };
        assert_eq!(arp.operation(), operation);
        assert_eq!(arp.sender_hw_addr(), MAC);
        assert_eq!(arp.sender_protocol_addr(), sender.octets());
        assert_eq!(arp.target_hw_addr(), target_mac);
        assert_eq!(arp.target_protocol_addr(), VIP4.octets());
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], BROADCAST);
    }

    #[test]
    fn arp_frames_are_what_an_independent_parser_reads() {
        check_arp(&gratuitous_arp_request(MAC, VIP4), ArpOperation::REQUEST, VIP4, [0; 6]);
        check_arp(&gratuitous_arp_reply(MAC, VIP4), ArpOperation::REPLY, VIP4, MAC);
        let nobody = Ipv4Addr::UNSPECIFIED;
        check_arp(&arp_probe(MAC, VIP4), ArpOperation::REQUEST, nobody, [0; 6]);
    }

    #[test]
    fn neighbour_discovery_frames_have_right_checksums_and_groups() {
        let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
        let group = [0x33, 0x33, 0xff, 0x34, 0x56, 0x78];
        let advertisement = unsolicited_advertisement(MAC, VIP6);
        let solicitation = duplicate_solicitation(MAC, VIP6);
        assert_eq!((advertisement.len(), solicitation.len()), (86, 78));
        for (frame, destination) in [(advertisement, all_nodes), (solicitation, group)] {
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
            let header = ip.header();
            assert_eq!(header.hop_limit(), 255);
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            assert_eq!(frame[..6], destination);
            match icmp.icmp_type() {
                Icmpv6Type::NeighborAdvertisement(flags) => {
                    assert!(flags.r#override && !flags.solicited && !flags.router);
                }
                Icmpv6Type::NeighborSolicitation => {
                    assert_eq!(header.source(), [0; 16]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_announcement_claims_its_address_and_a_probe_claims_nothing() {
        for announcement in [gratuitous_arp_request(MAC, VIP4), gratuitous_arp_reply(MAC, VIP4)] {
            assert_eq!(claimant(&announcement, VIP4.into()), Some(MAC));
            assert_eq!(claimant(&announcement, Ipv4Addr::LOCALHOST.into()), None);
        }
        assert_eq!(claimant(&arp_probe(MAC, VIP4), VIP4.into()), None);
        assert_eq!(claimant(&unsolicited_advertisement(MAC, VIP6), VIP6.into()), Some(MAC));
        assert_eq!(claimant(&duplicate_solicitation(MAC, VIP6), VIP6.into()), None);
    }

    #[test]
    fn cut_frames_claim_nothing_and_do_not_panic() {
        for whole in [gratuitous_arp_reply(MAC, VIP4), unsolicited_advertisement(MAC, VIP6)] {
            for length in 0..whole.len() {
                for address in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
                    let _ = claimant(&whole[..length], address);
                }
            }
        }
        assert_eq!(claimant(&gratuitous_arp_reply(MAC, VIP4)[..31], VIP4.into()), None);
    }
}
