//! One supervisor per cluster and host, for life (lease rule L1): an abstract unix socket, which belongs to the network
//! namespace like the addresses and tables it guards, and is gone with the process, however that ends.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// Held until the process ends.
#[derive(Debug)]
pub(crate) struct HostLock {
    _socket: UnixListener,
}

/// Why the host cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostLockError {
    #[error(
        "another redkeepd of cluster {cluster:?} runs on this host; stop it first (two would open each other's lease)"
    )]
    Taken { cluster: String },
    #[error("cannot bind the abstract socket of cluster {cluster:?}")]
    Bind { cluster: String, source: io::Error },
}

impl HostLock {
    /// # Errors
    /// [`HostLockError::Taken`] while another process holds it.
    pub(crate) fn take(cluster: &str) -> Result<Self, HostLockError> {
        let bind = || {
            let address = SocketAddr::from_abstract_name(format!("redkeep/{cluster}"))?;
            UnixListener::bind_addr(&address)
        };
        match bind() {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(HostLockError::Taken { cluster: cluster.to_owned() })
            }
            Err(source) => Err(HostLockError::Bind { cluster: cluster.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let cluster = format!("host-lock-{}", std::process::id());
        let first = HostLock::take(&cluster).unwrap();
        assert!(matches!(HostLock::take(&cluster), Err(HostLockError::Taken { .. })));
        drop(first);
        assert!(HostLock::take(&cluster).is_ok());
    }
}
