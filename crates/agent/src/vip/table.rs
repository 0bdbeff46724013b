//! Adding, refreshing, listing and removing VIPs over rtnetlink.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::AsFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::netdevice::{index_to_name, name_to_index};

use super::{LinkName, Vip};
use crate::netlink::NetlinkError;
use crate::netlink::route::Route;

/// `IFA_PROTO` of the addresses made here. The kernel knows it since 5.18.
const OWN_PROTOCOL: u8 = 0xc7;

/// Why an operation on addresses did not happen.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// No netlink socket.
    #[error("cannot reach rtnetlink")]
    Socket(#[source] NetlinkError),
    /// The VIP's link does not exist.
    #[error("link {0} does not exist")]
    LinkAbsent(LinkName),
    /// The link could not be looked up.
    #[error("cannot look up a link")]
    Link(#[source] io::Error),
    /// The address could not be added or refreshed.
    #[error("cannot add or refresh the VIP {address}")]
    Add {
        /// The address.
        address: IpAddr,
        /// The kernel's reason.
        #[source]
        source: NetlinkError,
    },
    /// The address could not be removed.
    #[error("cannot remove the VIP {address}")]
    Remove {
        /// The address.
        address: IpAddr,
        /// The kernel's reason.
        #[source]
        source: NetlinkError,
    },
    /// The addresses could not be listed.
    #[error("cannot list addresses")]
    List(#[source] NetlinkError),
}

/// Who made an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A supervisor: it carries our `IFA_PROTO`.
    Ours,
    /// Somebody else.
    Foreign,
}

/// What to do about an address that somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Leave it.
    Keep,
    /// Remove it too.
    Remove,
}

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAddress {
    /// The address, its prefix length and its link.
    pub vip: Vip,
    /// Who made it.
    pub origin: Origin,
    /// Seconds that the kernel keeps it still; none for ever.
    pub valid_seconds: Option<u32>,
}

/// The addresses of this host. Owned by one task: see the module.
#[derive(Debug)]
pub struct VipTable {
    route: Route,
}

impl VipTable {
    /// Opens the table.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn open() -> Result<Self, VipError> {
        Ok(Self { route: Route::open().map_err(VipError::Socket)? })
    }

    /// The netlink port number by which IPv4 notifications name this table's own changes.
    #[must_use]
    pub fn port_id(&self) -> u32 {
        self.route.port_id()
    }

    /// Adds the VIP or refreshes its lifetime. The kernel removes it within `valid` + 0.75 s.
    ///
    /// A late call re-creates an address that was removed: check the permission right before.
    /// An address that somebody else made is taken over, with a finite lifetime. Linux 6.1 goes on naming
    /// its first maker where it is IPv4, so [`Foreign::Keep`] keeps it there.
    ///
    /// # Errors
    /// When the link is absent or the kernel refuses.
    pub fn ensure_present(&mut self, vip: &Vip, valid: NonZeroU32) -> Result<(), VipError> {
        let message = self.message(vip, Some(valid))?;
        let add = RouteNetlinkMessage::NewAddress(message);
        self.route
            .request(add, NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|source| VipError::Add { address: vip.address, source })
    }

    /// Removes the VIP's address from whatever link has it; how many were removed.
    ///
    /// # Errors
    /// When addresses cannot be listed, or the kernel refuses to remove one.
    pub fn ensure_absent(&mut self, address: IpAddr, foreign: Foreign) -> Result<usize, VipError> {
        let ours = |held: &HeldAddress| held.origin == Origin::Ours || foreign == Foreign::Remove;
        let held = self.list()?;
        let mut removed = 0;
        for held in held.iter().filter(|held| held.vip.address == address).filter(|h| ours(h)) {
            let message = match self.message(&held.vip, None) {
                // Gone together with its link.
                Err(VipError::LinkAbsent(_)) => continue,
                message => message?,
            };
            match self.route.request(RouteNetlinkMessage::DelAddress(message), 0) {
                Ok(()) => removed += 1,
                Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => {}
                Err(source) => return Err(VipError::Remove { address, source }),
            }
        }
        Ok(removed)
    }

    /// All addresses of this host.
    ///
    /// # Errors
    /// When the kernel cannot list them.
    pub fn list(&mut self) -> Result<Vec<HeldAddress>, VipError> {
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.route.dump(query).map_err(VipError::List)?;
        let mut held = Vec::new();
        for message in found {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            // A link that vanished during the listing has no addresses any more.
            let Ok(name) = index_to_name(self.route.as_fd(), message.header.index) else {
                continue;
            };
            let Ok(link) = LinkName::new(&name) else { continue };
            held.extend(read_address(&message, link));
        }
        Ok(held)
    }

    fn message(&self, vip: &Vip, valid: Option<NonZeroU32>) -> Result<AddressMessage, VipError> {
        let index = match name_to_index(self.route.as_fd(), vip.link.as_str()) {
            Ok(index) => index,
            Err(rustix::io::Errno::NODEV) => return Err(VipError::LinkAbsent(vip.link.clone())),
            Err(error) => return Err(VipError::Link(error.into())),
        };
        let mut message = AddressMessage::default();
        message.header.family = match vip.address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = vip.prefix_len;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(vip.address));
        message.attributes.push(AddressAttribute::Address(vip.address));
        let Some(valid) = valid else { return Ok(message) };
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = valid.get();
        lifetime.ifa_preferred = valid.get();
        // No route by prefix: the VIP says nothing about who its neighbours are. No duplicate address
        // detection: its second of silence would be a second without service.
        let flags = match vip.address {
            IpAddr::V4(_) => AddressFlags::Noprefixroute,
            IpAddr::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
        };
        message.attributes.extend([
            AddressAttribute::CacheInfo(lifetime),
            AddressAttribute::Flags(flags),
            AddressAttribute::Protocol(AddressProtocol::Other(OWN_PROTOCOL)),
        ]);
        Ok(message)
    }
}

/// An address message of the kernel's. IPv4 names the own address `IFA_LOCAL`, IPv6 `IFA_ADDRESS`.
pub(crate) fn read_address(message: &AddressMessage, link: LinkName) -> Option<HeldAddress> {
    let mut local = None;
    let mut address = None;
    let mut origin = Origin::Foreign;
    let mut valid_seconds = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Protocol(AddressProtocol::Other(OWN_PROTOCOL)) => {
                origin = Origin::Ours;
            }
            AddressAttribute::CacheInfo(info) if info.ifa_valid != u32::MAX => {
                valid_seconds = Some(info.ifa_valid);
            }
            _ => {}
        }
    }
    let address = local.or(address)?;
    let vip = Vip { address, prefix_len: message.header.prefix_len, link };
    Some(HeldAddress { vip, origin, valid_seconds })
}
