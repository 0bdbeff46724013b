//! The service manager's notification socket (sd_notify(3)), by hand: one datagram a message.
//!
//! Absent or unreachable sockets are no error: the service may run by hand.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// Where to tell the service manager how it goes.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub(crate) fn from_env() -> Self {
        let watchdog = std::env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|t| t.parse().ok())
            .map(Duration::from_micros);
        let path = std::env::var_os("NOTIFY_SOCKET").map(|p| p.to_string_lossy().into_owned());
        Self { socket: path.as_deref().and_then(open), watchdog }
    }

    /// How often [`Self::alive`] must be called; none = the manager does not ask.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.socket.as_ref().and(self.watchdog).map(|limit| limit / 3)
    }

    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }
    pub(crate) fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager did not take a notification");
        }
    }
}

fn open(path: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name.as_bytes()),
        None => SocketAddr::from_pathname(path),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_an_abstract_socket() {
        let name = format!("redkeep-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let service = ServiceManager {
            socket: open(&format!("@{name}")),
            watchdog: Some(Duration::from_secs(3)),
        };
        service.ready();
        service.stopping();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
        assert_eq!(service.watchdog_interval(), Some(Duration::from_secs(1)));
    }
}
