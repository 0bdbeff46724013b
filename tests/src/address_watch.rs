//! When a host's kernel had an address and when no more, by its own netlink notifications.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::Host;
use crate::time::Mono;
use crate::timeline::Moment;
use crate::writer::StopFlag;

/// linux/rtnetlink.h: RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x10 | 0x100;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// `struct nlmsghdr` and `struct ifaddrmsg`.
const HEADERS: usize = 16 + 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// An address was set (or renewed), or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    at: Mono,
    address: IpAddr,
    present: bool,
}

/// A subscription, made before [`AddressWatch::start`] returns; its drop ends it.
#[derive(Debug)]
pub struct AddressWatch {
    host: String,
    changes: Arc<Mutex<Vec<Change>>>,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

impl AddressWatch {
    pub fn start(host: &Host) -> Result<Self> {
        let socket = host.in_namespace(open_socket)??;
        let changes = Arc::new(Mutex::new(Vec::new()));
        let stop = StopFlag::default();
        host.register_writer(stop.clone());
        let shared = (Arc::clone(&changes), stop.clone());
        let thread = std::thread::Builder::new()
            .name(format!("{}-addresses", host.name()))
            .spawn(move || watch(&socket, &shared.0, &shared.1))?;
        Ok(AddressWatch { host: host.name().to_owned(), changes, stop, thread: Some(thread) })
    }

    /// Appearances and disappearances of `address`; renewals of what is there are left out.
    pub fn moments(&self, address: IpAddr) -> Vec<Moment> {
        let mut moments = Vec::new();
        let mut present = None;
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter().filter(|change| change.address == address) {
            if present == Some(change.present) {
                continue;
            }
            present = Some(change.present);
            let verb = if change.present { "has" } else { "lost" };
            moments.push(Moment {
                at: change.at,
                witness: format!("kernel {}", self.host),
                what: format!("{verb} {address}"),
            });
        }
        moments
    }
}

impl Drop for AddressWatch {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; what it saw stands.
            let _ = thread.join();
        }
    }
}

fn open_socket() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("netlink socket")?;
    socket.bind(&SocketAddr::new(0, GROUPS)).context("subscribe to addresses")?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn watch(socket: &Socket, changes: &Mutex<Vec<Change>>, stop: &StopFlag) {
    let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while !stop.is_set() {
        let mut set = [PollFd::new(socket, PollFlags::IN)];
        // An interrupted poll is followed by the next.
        let _ = poll(&mut set, Some(&pause));
        let at = Mono::now();
        while let Ok((bytes, _)) = socket.recv_from_full() {
            let found = parse(&bytes, at);
            changes.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        }
    }
}

fn parse(bytes: &[u8], at: Mono) -> Vec<Change> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(length) = u32_at(rest).filter(|length| *length >= HEADERS) {
        let Some(message) = rest.get(..length) else { break };
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        if kind == RTM_NEWADDR || kind == RTM_DELADDR {
            let present = kind == RTM_NEWADDR;
            let address = address_of(&message[HEADERS..]);
            found.extend(address.map(|address| Change { at, address, present }));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// IFA_LOCAL where there is one: on point-to-point links IFA_ADDRESS is the peer's.
fn address_of(mut attributes: &[u8]) -> Option<IpAddr> {
    let mut address = None;
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let value = attributes.get(4..length)?;
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = ip_of(value).or(address);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    address
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::V4(Ipv4Addr::from(four)));
    }
    <[u8; 16]>::try_from(value).ok().map(|sixteen| IpAddr::V6(Ipv6Addr::from(sixteen)))
}

fn u32_at(bytes: &[u8]) -> Option<usize> {
    let word = bytes.get(..4)?.try_into().ok()?;
    usize::try_from(u32::from_ne_bytes(word)).ok()
}
