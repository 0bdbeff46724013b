//! Telling the segment where a VIP is, and asking whether somebody else has it.
//!
//! Owned by the task that owns the VIP. Frames are sent by hand on a packet socket, so they need no
//! address on the link. IPv4: gratuitous ARP in request and reply form, since devices differ in which
//! they believe (RFC 5227 section 3). IPv6: an unsolicited neighbour advertisement with the override
//! flag (RFC 4861 section 7.2.6). A frame that the lock dropped is [`AnnounceError::Locked`]: the VIP's
//! lease is dead. Absent on purpose: the schedule of repetitions, which the caller keeps.

mod frame;

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use socket2::{Domain, Socket, Type};

use self::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV6, Mac};
use crate::netlink::NetlinkError;
use crate::netlink::route::Route;
use crate::sys;
use crate::vip::LinkName;

/// Why an announcement did not leave, or a probe could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The link does not exist, or was created anew since.
    #[error("link {0} does not exist")]
    LinkAbsent(LinkName),
    /// The link has no Ethernet address.
    #[error("link {0} is not Ethernet")]
    NotEthernet(LinkName),
    /// The link is down.
    #[error("link {0} is down")]
    LinkDown(LinkName),
    /// The kernel lock dropped the frame: the lease for this VIP is dead.
    #[error("the lease for the announced VIP is dead")]
    Locked,
    /// Links could not be listed.
    #[error("cannot look up a link")]
    Lookup(#[source] NetlinkError),
    /// No packet socket.
    #[error("cannot open a packet socket")]
    Open(#[source] io::Error),
    /// The frame did not leave.
    #[error("cannot send a frame")]
    Send(#[source] io::Error),
    /// Frames could not be read.
    #[error("cannot read frames")]
    Receive(#[source] io::Error),
}

/// Somebody else who answers for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// Its link address.
    pub mac: [u8; 6],
    /// How long the answer took.
    pub after: Duration,
}

/// Sends announcements and probes on one link.
#[derive(Debug)]
pub struct Announcer {
    link: LinkName,
    index: u32,
    mac: Mac,
    /// Bound to no protocol, so it receives nothing.
    sender: Socket,
}

impl Announcer {
    /// Opens a link for announcements. Open it anew when the link was created anew.
    ///
    /// # Errors
    /// When the link is absent or not Ethernet, or there is no packet socket (`CAP_NET_RAW`).
    pub fn open(link: &LinkName) -> Result<Self, AnnounceError> {
        let (index, mac) = find_link(link)?;
        let sender = packet_socket().map_err(AnnounceError::Open)?;
        Ok(Self { link: link.clone(), index, mac, sender })
    }

    /// The link's own address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Announces the address once, in both forms for IPv4.
    ///
    /// # Errors
    /// [`AnnounceError::Locked`] when the lease is dead, else when a frame does not leave.
    pub fn announce(&self, address: IpAddr) -> Result<(), AnnounceError> {
        match address {
            IpAddr::V4(address) => {
                self.send(ETHERTYPE_ARP, &frame::gratuitous_arp_request(self.mac, address))?;
                self.send(ETHERTYPE_ARP, &frame::gratuitous_arp_reply(self.mac, address))
            }
            IpAddr::V6(address) => {
                self.send(ETHERTYPE_IPV6, &frame::unsolicited_advertisement(self.mac, address))
            }
        }
    }

    /// Asks once whether somebody else has the address, and waits at most `wait` for an answer.
    ///
    /// IPv4: ARP probe (RFC 5227). IPv6: the solicitation of duplicate address detection (RFC 4862).
    /// This host's own holding of the address is no answer. The lock lets probes pass.
    ///
    /// # Errors
    /// When the probe does not leave or answers cannot be read.
    pub fn probe(&self, address: IpAddr, wait: Duration) -> Result<Option<Rival>, AnnounceError> {
        let (ethertype, probe) = match address {
            IpAddr::V4(v4) => (ETHERTYPE_ARP, frame::arp_probe(self.mac, v4)),
            IpAddr::V6(v6) => (ETHERTYPE_IPV6, frame::duplicate_solicitation(self.mac, v6)),
        };
        // Listens before it asks.
        let receiver = packet_socket().map_err(AnnounceError::Open)?;
        let bound = sys::link_address(self.index, ethertype).map_err(AnnounceError::Open)?;
        receiver.bind(&bound).map_err(|error| self.sort(error, AnnounceError::Open))?;
        let asked = Instant::now();
        self.send(ethertype, &probe)?;
        loop {
            let left = wait.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            receiver.set_read_timeout(Some(left)).map_err(AnnounceError::Receive)?;
            let mut buffer = [0; 128];
            let length = match (&receiver).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_transient(&error) => continue,
                Err(error) => return Err(self.sort(error, AnnounceError::Receive)),
            };
            let answer = buffer.get(..length).unwrap_or_default();
            if let Some(mac) = frame::claimant(answer, address)
                && mac != self.mac
            {
                return Ok(Some(Rival { mac, after: asked.elapsed() }));
            }
        }
    }

    fn send(&self, ethertype: u16, frame: &[u8]) -> Result<(), AnnounceError> {
        let to = sys::link_address(self.index, ethertype).map_err(AnnounceError::Send)?;
        match self.sender.send_to(frame, &to) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.sort(error, AnnounceError::Send)),
        }
    }

    fn sort(&self, error: io::Error, otherwise: fn(io::Error) -> AnnounceError) -> AnnounceError {
        match error.raw_os_error() {
            // What an egress drop gives. A full queue gives the same, and is as good as dropped.
            Some(libc::ENOBUFS) => AnnounceError::Locked,
            Some(libc::ENODEV | libc::ENXIO) => AnnounceError::LinkAbsent(self.link.clone()),
            Some(libc::ENETDOWN) => AnnounceError::LinkDown(self.link.clone()),
            _ => otherwise(error),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn packet_socket() -> io::Result<Socket> {
    // Protocol 0: nothing is received before the socket is bound to a link and a protocol.
    Socket::new(Domain::PACKET, Type::RAW, Some(0.into()))
}

fn find_link(link: &LinkName) -> Result<(u32, Mac), AnnounceError> {
    let mut route = Route::open().map_err(AnnounceError::Lookup)?;
    let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
    for message in route.dump(query).map_err(AnnounceError::Lookup)? {
        let RouteNetlinkMessage::NewLink(message) = message else { continue };
        let mut named = false;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => named = name == link.as_str(),
                LinkAttribute::Address(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
                _ => {}
            }
        }
        if named {
            let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
            return match mac {
                Some(mac) if ethernet => Ok((message.header.index, mac)),
                Some(_) | None => Err(AnnounceError::NotEthernet(link.clone())),
            };
        }
    }
    Err(AnnounceError::LinkAbsent(link.clone()))
}
