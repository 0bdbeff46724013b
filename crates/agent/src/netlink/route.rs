//! `NETLINK_ROUTE`: one request, one acknowledgement; dumps.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;

use super::{NetlinkError, Wire, encode};

/// The socket of one rtnetlink user.
#[derive(Debug)]
pub(crate) struct Route {
    wire: Wire,
}

impl Route {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let wire = Wire::open(netlink_sys::protocols::NETLINK_ROUTE, &[])?;
        Ok(Self { wire })
    }

    pub(crate) fn port_id(&self) -> u32 {
        self.wire.port_id()
    }

    /// Sends one request with extra `NLM_F_*` flags and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let sequence = self.wire.reserve(1);
        let bytes = encode(message, sequence, flags | NLM_F_ACK);
        self.wire.transact::<RouteNetlinkMessage>(&bytes, sequence, sequence)
    }

    /// Lists objects.
    pub(crate) fn dump(
        &mut self,
        query: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let sequence = self.wire.reserve(1);
        let bytes = encode(query, sequence, NLM_F_DUMP);
        let found = self.wire.dump::<RouteNetlinkMessage>(&bytes, sequence)?;
        Ok(found.into_iter().map(|(_, message)| message).collect())
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
