//! Where a Redis is and how the supervisor's own socket to it must look.
//!
//! The kernel's lock on the Redis port exempts exactly the sockets of the supervisor: by `SO_MARK`, and on loopback
//! by the source address. So every socket to Redis is made here, and nowhere else. A unix socket passes the lock
//! by nature; `process::listeners` judges whether it may exist.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::failure::RedisFailure;
use super::secret::Secret;

/// Address of a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// IPv4 or IPv6 and port.
    Tcp(SocketAddr),
    /// Path of `unixsocket`.
    Unix(PathBuf),
}

/// How to reach one Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisEndpoint {
    /// Where it listens.
    pub address: RedisAddress,
    /// Source address for IPv4 targets; the kernel lock lets this one pass on loopback.
    pub source: Option<Ipv4Addr>,
    /// `SO_MARK` of the socket. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// ACL user (Redis 6 and later); absent: the default user.
    pub username: Option<String>,
    /// Password of the user, or `requirepass`.
    pub password: Option<Secret>,
    /// Bound for connect and AUTH together.
    pub connect_timeout: Duration,
    /// Bound for one probe, and for control commands that are given none.
    pub command_timeout: Duration,
    /// `rename-command` of this Redis: upper-case command to the name it has there.
    pub renamed: BTreeMap<String, String>,
}

impl RedisEndpoint {
    /// An endpoint without mark, source address, password or renamed commands.
    #[must_use]
    pub fn new(address: RedisAddress) -> Self {
        Self {
            address,
            source: None,
            mark: None,
            username: None,
            password: None,
            connect_timeout: Duration::from_millis(200),
            command_timeout: Duration::from_millis(200),
            renamed: BTreeMap::new(),
        }
    }

    /// The name of `command` (upper case) at this Redis.
    #[must_use]
    pub fn command_name<'a>(&'a self, command: &'a str) -> &'a str {
        self.renamed.get(command).map_or(command, String::as_str)
    }

    /// Connects a socket that carries mark and source. Not bounded in time: the caller does that.
    pub(super) async fn connect(&self) -> Result<RedisStream, RedisFailure> {
        match &self.address {
            RedisAddress::Tcp(address) => self.connect_tcp(*address).await.map(RedisStream::Tcp),
            RedisAddress::Unix(path) => UnixStream::connect(path)
                .await
                .map(RedisStream::Unix)
                .map_err(|error| RedisFailure::from_connect(&error)),
        }
    }

    async fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream, RedisFailure> {
        let socket = self.tcp_socket(address)?;
        TcpSocket::from_std_stream(socket.into())
            .connect(address)
            .await
            .map_err(|error| RedisFailure::from_connect(&error))
    }

    fn tcp_socket(&self, address: SocketAddr) -> Result<Socket, RedisFailure> {
        let failed = |step: &'static str| {
            move |error: io::Error| RedisFailure::Socket { step, kind: error.kind() }
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
            .map_err(failed("socket"))?;
        socket.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
        socket.set_tcp_nodelay(true).map_err(failed("TCP_NODELAY"))?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark).map_err(failed("SO_MARK"))?;
        }
        if let (Some(source), SocketAddr::V4(_)) = (self.source, address) {
            let source = SocketAddr::from((source, 0));
            socket.bind(&source.into()).map_err(failed("bind"))?;
        }
        Ok(socket)
    }
}

/// A connected socket, before anything was said on it.
#[derive(Debug)]
pub(super) enum RedisStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn socket_carries_source_and_mark() {
        let mut endpoint =
            RedisEndpoint::new(RedisAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 6379))));
        endpoint.source = Some(Ipv4Addr::new(127, 114, 107, 1));
        let target = SocketAddr::from(([127, 0, 0, 1], 6379));
        let socket = endpoint.tcp_socket(target).unwrap();
        let source = socket.local_addr().unwrap().as_socket_ipv4().unwrap();
        assert_eq!(*source.ip(), Ipv4Addr::new(127, 114, 107, 1));
        assert!(socket.tcp_nodelay().unwrap());
        // IPv6 has no such source.
        endpoint.tcp_socket("[::1]:6379".parse().unwrap()).unwrap();
        endpoint.mark = Some(0x7265_646b);
        match endpoint.tcp_socket(target) {
            Ok(socket) => assert_eq!(socket.mark().unwrap(), 0x7265_646b),
            Err(failure) => assert_eq!(
                failure,
                RedisFailure::Socket { step: "SO_MARK", kind: io::ErrorKind::PermissionDenied }
            ),
        }
    }

    #[test]
    fn debug_of_an_endpoint_hides_the_password() {
        let mut endpoint = RedisEndpoint::new(RedisAddress::Unix(PathBuf::from("/run/r.sock")));
        endpoint.password = Some(Secret::new("hunter2"));
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }
}
