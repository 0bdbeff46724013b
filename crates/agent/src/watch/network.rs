//! rtnetlink notifications about addresses and links.

use std::collections::BTreeMap;

use netlink_packet_core::NetlinkHeader;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::{HostEvent, NetlinkError, Reader, Reading, Source, WatchError, Wire, deliver};
use crate::netlink::Group;
use crate::netlink::route::Route;
use crate::vip::{LinkName, Origin, read_address};

/// `RTNLGRP_*` (kernel `include/uapi/linux/rtnetlink.h`).
const GROUP_LINK: Group = Group(1);
const GROUP_IPV4_ADDRESS: Group = Group(5);
const GROUP_IPV6_ADDRESS: Group = Group(9);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: LinkName,
    up: bool,
}

pub(super) struct NetworkReader {
    own: u32,
    route: Route,
    links: BTreeMap<u32, Link>,
}

pub(super) fn subscribe(own: u32) -> Result<(Wire, NetworkReader), WatchError> {
    let groups = [GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS];
    // Subscribed before the listing, so that nothing falls in between.
    let wire = Wire::open(netlink_sys::protocols::NETLINK_ROUTE, &groups)
        .map_err(WatchError::Subscribe)?;
    let route = Route::open().map_err(WatchError::List)?;
    let mut reader = NetworkReader { own, route, links: BTreeMap::new() };
    reader.links = reader.list().map_err(WatchError::List)?;
    Ok((wire, reader))
}

impl Reader for NetworkReader {
    const SOURCE: Source = Source::Network;

    fn read(
        &mut self,
        wire: &mut Wire,
        sink: &mut dyn FnMut(HostEvent),
    ) -> Result<bool, NetlinkError> {
        match wire.listen::<RouteNetlinkMessage>()? {
            Reading::Empty => return Ok(false),
            Reading::Overrun => {
                // The links first, so that later events find their names.
                self.links = self.list()?;
                sink(HostEvent::Overrun(Self::SOURCE));
            }
            Reading::Messages(messages) => {
                let mut events = Vec::new();
                for (header, message) in &messages {
                    self.take(header, message, &mut events);
                }
                deliver(events, sink);
            }
        }
        Ok(true)
    }
}

impl NetworkReader {
    fn list(&mut self) -> Result<BTreeMap<u32, Link>, NetlinkError> {
        let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = BTreeMap::new();
        for message in self.route.dump(query)? {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.extend(read_link(&message).map(|link| (message.header.index, link)));
            }
        }
        Ok(links)
    }

    fn take(
        &mut self,
        header: &NetlinkHeader,
        message: &RouteNetlinkMessage,
        events: &mut Vec<HostEvent>,
    ) {
        match message {
            RouteNetlinkMessage::NewAddress(message) => {
                let Some(held) = self.address(message) else { return };
                let own = held.origin == Origin::Ours;
                if header.port_number != self.own && !(own && held.vip.address.is_ipv6()) {
                    events.push(HostEvent::AddressAdded(held));
                }
            }
            RouteNetlinkMessage::DelAddress(message) if header.port_number != self.own => {
                events.extend(self.address(message).map(HostEvent::AddressRemoved));
            }
            RouteNetlinkMessage::NewLink(message) => self.link_changed(message, events),
            RouteNetlinkMessage::DelLink(message) => {
                // A bridge says so too when a port leaves it; then the link is still there.
                let bridge =
                    message.header.interface_family == netlink_packet_route::AddressFamily::Bridge;
                if !bridge && let Some(link) = self.links.remove(&message.header.index) {
                    events.push(HostEvent::LinkRemoved(link.name));
                }
            }
            _ => {}
        }
    }

    fn address(&self, message: &AddressMessage) -> Option<crate::vip::HeldAddress> {
        let link = self.links.get(&message.header.index)?;
        read_address(message, link.name.clone())
    }

    fn link_changed(&mut self, message: &LinkMessage, events: &mut Vec<HostEvent>) {
        let Some(now) = read_link(message) else { return };
        let before = self.links.insert(message.header.index, now.clone());
        let was_up = match before {
            Some(before) if before.name == now.name => before.up,
            Some(before) => {
                events.push(HostEvent::LinkRemoved(before.name));
                events.push(HostEvent::LinkAppeared(now.name.clone()));
                false
            }
            None => {
                events.push(HostEvent::LinkAppeared(now.name.clone()));
                false
            }
        };
        match (was_up, now.up) {
            (false, true) => events.push(HostEvent::LinkUp(now.name)),
            (true, false) => events.push(HostEvent::LinkDown(now.name)),
            (true, true) | (false, false) => {}
        }
    }
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => LinkName::new(name).ok(),
        _ => None,
    })?;
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    Some(Link { name, up })
}
