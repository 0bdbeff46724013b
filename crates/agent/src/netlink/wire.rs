//! One blocking netlink socket: send, read the acknowledgement, dump, listen.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};

use super::NetlinkError;

/// The largest datagram the kernel builds for a dump is 32 KiB.
const READ_BYTES: usize = 64 * 1024;
/// A dump is repeated this often when the kernel says that it changed underneath.
const DUMP_ATTEMPTS: usize = 8;

/// A multicast group of a netlink family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group(pub(crate) u32);

/// What one read of a listening socket gave.
#[derive(Debug)]
pub(crate) enum Reading<M> {
    /// Messages with their headers, in order.
    Messages(Vec<(NetlinkHeader, M)>),
    /// The kernel dropped messages since the last read (`ENOBUFS`).
    Overrun,
    /// Nothing is there now.
    Empty,
}

/// A request as it goes to the kernel.
pub(crate) fn encode<M: NetlinkSerializable>(message: M, sequence: u32, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A netlink socket and what is needed to tell its own answers from others.
pub(crate) struct Wire {
    socket: Socket,
    port_id: u32,
    sequence: u32,
    read: Vec<u8>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("port_id", &self.port_id).finish_non_exhaustive()
    }
}

impl Wire {
    /// Opens a socket of a netlink protocol (`NETLINK_*`) and joins the groups.
    pub(crate) fn open(protocol: isize, groups: &[Group]) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(NetlinkError::Open)?;
        let address = socket.bind_auto().map_err(NetlinkError::Open)?;
        for group in groups {
            socket.add_membership(group.0).map_err(NetlinkError::Open)?;
        }
        let read = Vec::with_capacity(READ_BYTES);
        Ok(Self { socket, port_id: address.port_number(), sequence: 0, read })
    }

    /// Lets the kernel drop what the socket `port` caused before it wakes this one: by the port of the first message,
    /// since a transaction's messages come together and those of two never do (`nft_commit_notify`).
    pub(crate) fn ignore(&self, port: u32) -> Result<(), NetlinkError> {
        /// Where `nlmsg_pid` stands in a message (`include/uapi/linux/netlink.h`).
        const NLMSG_PID: u32 = 12;
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let answer = (libc::BPF_RET | libc::BPF_K) as u16;
        // The load takes the bytes as a big-endian number; netlink has them as the host does.
        let port = u32::from_be_bytes(port.to_ne_bytes());
        let filter = [
            SockFilter::new(load, 0, 0, NLMSG_PID),
            SockFilter::new(equal, 0, 1, port),
            SockFilter::new(answer, 0, 0, 0),
            SockFilter::new(answer, 0, 0, u32::MAX),
        ];
        SockRef::from(&self.socket).attach_filter(&filter).map_err(NetlinkError::Open)
    }

    /// The number by which the kernel names this socket in notifications.
    pub(crate) fn port_id(&self) -> u32 {
        self.port_id
    }

    /// Asks for a larger receive buffer, beyond the system's limit where privilege allows.
    pub(crate) fn grow_receive_buffer(&self, bytes: usize) {
        use rustix::net::sockopt::{
            set_socket_recv_buffer_size, set_socket_recv_buffer_size_force,
        };
        // Failure leaves the default buffer: an overrun is then likelier, and is reported as such.
        if set_socket_recv_buffer_size_force(&self.socket, bytes).is_err() {
            let _ = set_socket_recv_buffer_size(&self.socket, bytes);
        }
    }

    /// The sequence number for the next `messages` messages; they count up from it.
    pub(crate) fn reserve(&mut self, messages: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(messages);
        first
    }

    /// Sends bytes in which messages are numbered from `first`, and reads until `acked` is answered.
    ///
    /// The first refusal wins: in a batch the kernel carries out all or nothing.
    pub(crate) fn transact<M>(
        &mut self,
        bytes: &[u8],
        first: u32,
        acked: u32,
    ) -> Result<(), NetlinkError>
    where
        M: NetlinkDeserializable,
    {
        self.send(bytes)?;
        loop {
            self.read.clear();
            match self.socket.recv_from(&mut self.read, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(NetlinkError::NoAcknowledgement);
                }
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
            for message in Messages::<M>::of(&self.read) {
                let message = message?;
                let sequence = message.header.sequence_number;
                let index = sequence.wrapping_sub(first) as usize;
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                if index > acked.wrapping_sub(first) as usize + 1 {
                    continue; // The answer to an earlier request whose reader gave up.
                }
                if answer.code.is_some() {
                    self.drain();
                    return Err(NetlinkError::Refused { index, source: answer.to_io() });
                }
                if sequence == acked {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a dump request and collects its whole answer.
    pub(crate) fn dump<M>(
        &mut self,
        bytes: &[u8],
        sequence: u32,
    ) -> Result<Vec<(NetlinkHeader, M)>, NetlinkError>
    where
        M: NetlinkDeserializable + std::fmt::Debug,
    {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(bytes)?;
            if let Some(found) = self.collect(sequence)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::DumpInterrupted)
    }

    /// One pass of a dump; `None` when the objects changed while they were listed.
    fn collect<M>(&mut self, wanted: u32) -> Result<Option<Vec<(NetlinkHeader, M)>>, NetlinkError>
    where
        M: NetlinkDeserializable + std::fmt::Debug,
    {
        let mut found = Vec::new();
        let mut torn = false;
        loop {
            self.read.clear();
            self.socket.recv_from(&mut self.read, 0).map_err(NetlinkError::Receive)?;
            for message in Messages::<M>::of(&self.read) {
                let message = message?;
                if message.header.sequence_number != wanted {
                    continue;
                }
                torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Done(_) if torn => return Ok(None),
                    NetlinkPayload::Done(_) => return Ok(Some(found)),
                    NetlinkPayload::Error(answer) if answer.code.is_some() => {
                        return Err(NetlinkError::Refused { index: 0, source: answer.to_io() });
                    }
                    NetlinkPayload::InnerMessage(inner) => found.push((message.header, inner)),
                    _ => {}
                }
            }
        }
    }

    /// Reads what is waiting on a listening socket, without blocking.
    pub(crate) fn listen<M>(&mut self) -> Result<Reading<M>, NetlinkError>
    where
        M: NetlinkDeserializable,
    {
        self.read.clear();
        match self.socket.recv_from(&mut self.read, libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Empty),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Reading::Overrun);
            }
            Err(error) => return Err(NetlinkError::Receive(error)),
        }
        let mut messages = Vec::new();
        for message in Messages::<M>::of(&self.read) {
            // A kind that this codec cannot read is no reason to lose those beside it.
            let Ok(message) = message else { continue };
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => messages.push((message.header, inner)),
                NetlinkPayload::Overrun(_) => return Ok(Reading::Overrun),
                _ => {}
            }
        }
        Ok(Reading::Messages(messages))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NetlinkError> {
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(bytes, &kernel, 0).map_err(NetlinkError::Send)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(NetlinkError::Send(io::Error::from(io::ErrorKind::WriteZero)))
        }
    }

    /// Throws away the rest of a refused batch's answers.
    fn drain(&mut self) {
        loop {
            self.read.clear();
            if self.socket.recv_from(&mut self.read, libc::MSG_DONTWAIT).is_err() {
                return;
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The messages packed into one datagram.
struct Messages<'a, M> {
    rest: &'a [u8],
    kind: std::marker::PhantomData<M>,
}

impl<'a, M> Messages<'a, M> {
    fn of(datagram: &'a [u8]) -> Self {
        Self { rest: datagram, kind: std::marker::PhantomData }
    }
}

impl<M: NetlinkDeserializable> Iterator for Messages<'_, M> {
    type Item = Result<NetlinkMessage<M>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        const HEADER_BYTES: usize = 16;
        let length: [u8; 4] = self.rest.get(..4)?.try_into().ok()?;
        let length = u32::from_ne_bytes(length) as usize;
        if length < HEADER_BYTES || length > self.rest.len() {
            self.rest = &[];
            return Some(Err(NetlinkError::Malformed));
        }
        let (message, _) = self.rest.split_at(length);
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message).map_err(|_| NetlinkError::Malformed))
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::NetfilterMessage;

    use super::*;

    #[test]
    fn a_length_beyond_the_datagram_is_malformed_and_ends_the_walk() {
        let mut bytes = vec![0_u8; 20];
        bytes[..4].copy_from_slice(&64_u32.to_ne_bytes());
        let read: Vec<_> = Messages::<NetfilterMessage>::of(&bytes).collect();
        assert!(matches!(read.as_slice(), [Err(NetlinkError::Malformed)]));
    }

    #[test]
    fn a_length_below_the_header_is_malformed_and_ends_the_walk() {
        let bytes = vec![0_u8; 32];
        let read: Vec<_> = Messages::<NetfilterMessage>::of(&bytes).collect();
        assert!(matches!(read.as_slice(), [Err(NetlinkError::Malformed)]));
    }
}
