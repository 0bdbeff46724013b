//! The host's TCP sockets by port: resetting them at a release, listing those that listen.
//!
//! Each call is complete in itself; nobody owns sockets found here. `SOCK_DESTROY` (kernel
//! `CONFIG_INET_DIAG_DESTROY`, `CAP_NET_ADMIN`) ends a connection with a reset to the peer, including
//! those that Redis has not accepted yet. The reset leaves only while the local address is still on the
//! host: destroy before the VIP goes, and again after, for what slipped in between. Absent on purpose:
//! which process has a socket; see `process`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};

use crate::netlink::{NetlinkError, Wire, encode};

/// Why sockets could not be listed or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// No netlink socket.
    #[error("cannot reach sock_diag")]
    Socket(#[source] NetlinkError),
    /// Sockets could not be listed.
    #[error("cannot list TCP sockets")]
    List(#[source] NetlinkError),
    /// The kernel was built without `CONFIG_INET_DIAG_DESTROY`.
    #[error("this kernel cannot destroy sockets")]
    Unsupported,
    /// A socket could not be destroyed.
    #[error("cannot destroy a TCP socket")]
    Destroy(#[source] NetlinkError),
    /// The connection to try it on could not be made.
    #[error("cannot make a connection to test on")]
    Test(#[source] std::io::Error),
}

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where it listens. `::` may take IPv4 connections too.
    pub address: SocketAddr,
    /// Its inode: the number in `/proc/PID/fd`.
    pub inode: u32,
}

/// The TCP sockets of this network namespace.
#[derive(Debug)]
pub struct SocketTable {
    wire: Wire,
}

impl SocketTable {
    /// Opens the table.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn open() -> Result<Self, SockDiagError> {
        let wire = Wire::open(netlink_sys::protocols::NETLINK_SOCK_DIAG, &[])
            .map_err(SockDiagError::Socket)?;
        Ok(Self { wire })
    }

    /// Resets every connection whose local port is `port`; how many there were.
    ///
    /// With `spare`, connections from or to that address stay: the supervisor's own.
    ///
    /// # Errors
    /// When sockets cannot be listed, or one cannot be destroyed; the others are destroyed all the same.
    pub fn destroy(&mut self, port: u16, spare: Option<Ipv4Addr>) -> Result<usize, SockDiagError> {
        let connected =
            StateFlags::all() - StateFlags::LISTEN - StateFlags::TIME_WAIT - StateFlags::CLOSE;
        let mut found = self.list(port, &connected)?;
        found.retain(|found| {
            let id = &found.socket_id;
            let is_spared = |address: IpAddr| spare.is_some_and(|s| address.to_canonical() == s);
            !is_spared(id.source_address) && !is_spared(id.destination_address)
        });
        self.destroy_all(found)
    }

    fn destroy_all(&mut self, found: Vec<InetResponseHeader>) -> Result<usize, SockDiagError> {
        let mut destroyed = 0;
        let mut failed = None;
        for found in found {
            match self.destroy_one(found) {
                Ok(()) => destroyed += 1,
                // Gone by itself since it was listed.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(destroyed),
            Some(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                Err(SockDiagError::Unsupported)
            }
            Some(error) => Err(SockDiagError::Destroy(error)),
        }
    }

    /// All listening sockets.
    ///
    /// # Errors
    /// When the kernel cannot list them.
    pub fn listening(&mut self) -> Result<Vec<Listener>, SockDiagError> {
        let found = self.list(0, &StateFlags::LISTEN)?;
        let listener = |found: &InetResponseHeader| Listener {
            address: SocketAddr::new(found.socket_id.source_address, found.socket_id.source_port),
            inode: found.inode,
        };
        Ok(found.iter().map(listener).collect())
    }

    /// Tries `SOCK_DESTROY` on a connection of its own over loopback.
    ///
    /// # Errors
    /// [`SockDiagError::Unsupported`] when the kernel cannot; else when the test could not be made.
    pub fn check_destroy(&mut self) -> Result<(), SockDiagError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(SockDiagError::Test)?;
        let server = listener.local_addr().map_err(SockDiagError::Test)?;
        let client = TcpStream::connect(server).map_err(SockDiagError::Test)?;
        let port = client.local_addr().map_err(SockDiagError::Test)?.port();
        match self.destroy(port, None)? {
            0 => Err(SockDiagError::Unsupported),
            _ => Ok(()),
        }
    }

    /// The sockets of both families in these states; port 0 for all ports.
    ///
    /// A server bound to `::` has its IPv4 connections in the IPv6 table, as mapped addresses.
    fn list(
        &mut self,
        port: u16,
        states: &StateFlags,
    ) -> Result<Vec<InetResponseHeader>, SockDiagError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut socket_id =
                if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
            socket_id.source_port = port;
            let request = request(family, states.clone(), socket_id);
            let sequence = self.wire.reserve(1);
            let bytes = encode(request, sequence, NLM_F_DUMP);
            let answer =
                self.wire.dump::<SockDiagMessage>(&bytes, sequence).map_err(SockDiagError::List)?;
            for (_, message) in answer {
                if let SockDiagMessage::InetResponse(response) = message
                    && (port == 0 || response.header.socket_id.source_port == port)
                {
                    found.push(response.header);
                }
            }
        }
        Ok(found)
    }

    fn destroy_one(&mut self, found: InetResponseHeader) -> Result<(), NetlinkError> {
        let request = request(found.family, StateFlags::all(), found.socket_id);
        let sequence = self.wire.reserve(1);
        let mut bytes = encode(request, sequence, NLM_F_ACK);
        // The codec knows one message type only; the layout is the same.
        if let Some(message_type) = bytes.get_mut(4..6) {
            message_type.copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
        }
        self.wire.transact::<SockDiagMessage>(&bytes, sequence, sequence)
    }
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    })
}
