//! One supervisor per cluster and host, for life (lease rule L1): an abstract unix socket, which belongs to the network
//! namespace like the addresses and tables it guards, and is gone with the process, however that ends.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    time::{Duration, Instant},
};

/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(2);

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
    /// Waits up to `patience` for another holder to end: a supervisor that was killed takes a moment to be gone, and
    /// its successor has one lease's time.
    ///
    /// # Errors
    /// [`HostLockError::Taken`] while another process holds it.
    pub(crate) fn take(cluster: &str, patience: Duration) -> Result<Self, HostLockError> {
        let until = Instant::now() + patience;
        loop {
            match Self::try_take(cluster) {
                Err(HostLockError::Taken { .. }) if Instant::now() < until => {
                    std::thread::sleep(RETRY);
                }
                taken => return taken,
            }
        }
    }

    fn try_take(cluster: &str) -> Result<Self, HostLockError> {
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
        let take = |patience| HostLock::take(&cluster, patience);
        let first = take(Duration::ZERO).unwrap();
        assert!(matches!(take(Duration::ZERO), Err(HostLockError::Taken { .. })));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| take(Duration::from_secs(10)));
            drop(first);
            assert!(waiting.join().unwrap().is_ok());
        });
    }
}
