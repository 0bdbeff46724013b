//! Where a process listens: its TCP ports and unix sockets.
//!
//! Used for two questions. Is this process the Redis of that port (INFO's `process_id` may come from another pid
//! namespace)? And does it listen anywhere that the kernel lock does not guard: another port, `tls-port`, a port set at run
//! time, or a unix socket, which passes every lock?
//!
//! Read from `/proc/PID/fd` and `/proc/PID/net/{tcp,tcp6,unix}`; needs the right to ptrace the process (root, or
//! CAP_SYS_PTRACE). A port that another host process forwards here is not seen.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// `TCP_LISTEN` in `/proc/net/tcp`.
const STATE_LISTEN: &str = "0A";
/// `__SO_ACCEPTCON` in `/proc/net/unix`.
const UNIX_ACCEPTING: u32 = 1 << 16;

/// The listening sockets of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// Addresses and ports, sorted.
    pub tcp: Vec<SocketAddr>,
    /// Unix sockets, sorted by path.
    pub unix: Vec<UnixListener>,
    /// Effective user id of the process.
    pub uid: u32,
}

/// One unix socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixListener {
    /// Path as the process bound it.
    pub path: PathBuf,
    /// Who may connect.
    pub reach: UnixReach,
    /// Permission bits of the socket file; 0 where it is gone.
    pub mode: u32,
    /// Its owner; 0 where it is gone.
    pub uid: u32,
}

/// Who may connect to a unix socket by its own mode (connect(2) needs write permission); root always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnixReach {
    /// Its path is gone, so nobody new.
    Unlinked,
    /// The owner alone.
    Owner {
        /// User id.
        uid: u32,
    },
    /// The owner and a group.
    Group {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Everybody on the host.
    Everyone,
}

/// A file of `/proc` could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ListenersError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Listeners {
    /// Reads the listening sockets of `pid`.
    ///
    /// # Errors
    /// [`ListenersError`] names the file.
    pub fn of(pid: u32) -> Result<Self, ListenersError> {
        let base = PathBuf::from(format!("/proc/{pid}"));
        let inodes = socket_inodes(&base.join("fd"))?;
        let mut tcp = parse_tcp(&read(&base.join("net/tcp"))?, &inodes);
        // Absent where IPv6 is off.
        match std::fs::read_to_string(base.join("net/tcp6")) {
            Ok(text) => tcp.extend(parse_tcp(&text, &inodes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ListenersError { path: base.join("net/tcp6"), source }),
        }
        tcp.sort_unstable();
        tcp.dedup();
        let mut unix: Vec<_> = parse_unix(&read(&base.join("net/unix"))?, &inodes)
            .into_iter()
            .map(|path| UnixListener::look(&base, path))
            .collect();
        unix.sort_unstable();
        Ok(Self { tcp, unix, uid: effective_uid(&base)? })
    }

    /// Looks at the modes of the known unix sockets again; whether one changed.
    pub fn look_at_modes(&mut self, pid: u32) -> bool {
        let base = PathBuf::from(format!("/proc/{pid}"));
        let mut changed = false;
        for unix in &mut self.unix {
            let now = UnixListener::look(&base, unix.path.clone());
            changed |= now != *unix;
            *unix = now;
        }
        changed
    }

    /// The unix sockets that others than root, the process's own user and those in `uids` may connect to.
    pub fn open_to_others(&self, uids: &[u32]) -> impl Iterator<Item = &UnixListener> {
        let known: Vec<u32> = uids.iter().copied().chain([self.uid]).collect();
        self.unix.iter().filter(move |unix| !unix.reach.admits_only(&known))
    }

    /// Whether the process listens on `port` at any address.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.tcp.iter().any(|address| address.port() == port)
    }

    /// The TCP listeners on other ports than `guarded`.
    #[must_use]
    pub fn unguarded(&self, guarded: &BTreeSet<u16>) -> Vec<SocketAddr> {
        self.tcp.iter().filter(|address| !guarded.contains(&address.port())).copied().collect()
    }
}

impl UnixListener {
    /// Looks at the socket file where the process sees it: it may live in another mount namespace.
    fn look(process: &Path, path: PathBuf) -> Self {
        let seen = match path.strip_prefix("/") {
            Ok(relative) => process.join("root").join(relative),
            Err(_) => process.join("cwd").join(&path),
        };
        let Ok(metadata) = std::fs::metadata(seen) else {
            return Self { path, reach: UnixReach::Unlinked, mode: 0, uid: 0 };
        };
        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o777);
        let reach = if mode & 0o002 != 0 {
            UnixReach::Everyone
        } else if mode & 0o020 != 0 {
            UnixReach::Group { uid, gid }
        } else {
            UnixReach::Owner { uid }
        };
        Self { path, reach, mode, uid }
    }
}

impl UnixReach {
    /// Whether none but root and the users in `uids` can connect.
    #[must_use]
    pub fn admits_only(self, uids: &[u32]) -> bool {
        match self {
            Self::Unlinked => true,
            Self::Owner { uid } => uid == 0 || uids.contains(&uid),
            Self::Group { .. } | Self::Everyone => false,
        }
    }
}

fn read(path: &Path) -> Result<String, ListenersError> {
    // A unix socket's path may be no UTF-8.
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|source| ListenersError { path: path.to_path_buf(), source })
}

fn socket_inodes(directory: &Path) -> Result<BTreeSet<u64>, ListenersError> {
    let entries = std::fs::read_dir(directory)
        .map_err(|source| ListenersError { path: directory.to_path_buf(), source })?;
    Ok(entries
        .filter_map(|entry| {
            // A descriptor closed meanwhile is no error.
            let target = std::fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect())
}

fn parse_tcp(table: &str, inodes: &BTreeSet<u64>) -> Vec<SocketAddr> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let inode: u64 = fields.get(9)?.parse().ok()?;
            if *fields.get(3)? != STATE_LISTEN || !inodes.contains(&inode) {
                return None;
            }
            parse_address(fields.get(1)?)
        })
        .collect()
}

/// `0100007F:1F90`: the kernel prints the address as 32-bit words of its own byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut bytes = [0_u8; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(address.get(index * 8..index * 8 + 8)?)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// `Num RefCount Protocol Flags Type St Inode Path`; the inode is padded, and the path may hold spaces.
fn parse_unix(table: &str, inodes: &BTreeSet<u64>) -> Vec<PathBuf> {
    table.lines().skip(1).filter_map(|line| parse_unix_line(line, inodes)).collect()
}

fn parse_unix_line(line: &str, inodes: &BTreeSet<u64>) -> Option<PathBuf> {
    let mut rest = line;
    let mut field = || {
        let (field, behind) = rest.trim_start().split_once(' ')?;
        rest = behind;
        Some(field)
    };
    let flags = (field()?, field()?, field()?, field()?).3;
    let inode = (field()?, field()?, field()?).2;
    let accepting = u32::from_str_radix(flags, 16).ok()? & UNIX_ACCEPTING != 0;
    let owned = inodes.contains(&inode.parse().ok()?);
    (accepting && owned).then(|| PathBuf::from(rest))
}

/// The second number of the line `Uid:` (proc(5)).
fn effective_uid(process: &Path) -> Result<u32, ListenersError> {
    let path = process.join("status");
    let text = read(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|uids| uids.split_ascii_whitespace().nth(1)?.parse().ok());
    uid.ok_or_else(|| ListenersError { path, source: io::ErrorKind::InvalidData.into() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn addresses_of_both_families_are_read() {
        assert_eq!(parse_address("0100007F:1F90"), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(
            parse_address("00000000000000000000000001000000:4051"),
            Some("[::1]:16465".parse().unwrap())
        );
        assert_eq!(parse_address("0100007F"), None);
        assert_eq!(parse_address("01:1F90"), None);
    }

    #[test]
    fn own_listeners_are_found_with_the_reach_of_their_socket_files() {
        let v4 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = std::net::TcpListener::bind("[::1]:0").unwrap();
        let path = std::env::temp_dir().join(format!("redkeep listen {}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let reach_with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = Listeners::of(std::process::id()).unwrap();
            let unix = found.unix.iter().find(|unix| unix.path == path).unwrap();
            assert_eq!(unix.mode, mode);
            let others: Vec<_> = found.open_to_others(&[]).map(|unix| &unix.path).collect();
            assert_eq!(others.contains(&&path), mode & 0o022 != 0, "{mode:o}");
            unix.reach
        };
        let own = std::fs::metadata(&path).unwrap();
        assert_eq!(reach_with(0o755), UnixReach::Owner { uid: own.uid() });
        assert_eq!(reach_with(0o770), UnixReach::Group { uid: own.uid(), gid: own.gid() });
        assert_eq!(reach_with(0o777), UnixReach::Everyone);
        let mut found = Listeners::of(std::process::id()).unwrap();
        assert_eq!(found.uid, own.uid());
        assert!(!found.look_at_modes(std::process::id()));
        std::fs::remove_file(&path).unwrap();
        assert!(found.look_at_modes(std::process::id()));
        let gone = found.unix.iter().find(|unix| unix.path == path).unwrap();
        assert_eq!(gone.reach, UnixReach::Unlinked);
        for listener in [&v4, &v6] {
            let address = listener.local_addr().unwrap();
            assert!(found.tcp.contains(&address) && found.has_port(address.port()));
            assert!(!found.unguarded(&BTreeSet::new()).is_empty());
        }
        drop(v4);
        drop(v6);
    }

    #[test]
    fn only_the_owner_s_socket_is_for_the_supervisor_alone() {
        assert!(UnixReach::Owner { uid: 0 }.admits_only(&[]));
        assert!(UnixReach::Owner { uid: 7 }.admits_only(&[7]));
        assert!(!UnixReach::Owner { uid: 8 }.admits_only(&[7]));
        assert!(!UnixReach::Group { uid: 7, gid: 7 }.admits_only(&[7]));
        assert!(!UnixReach::Everyone.admits_only(&[7]));
        assert!(UnixReach::Unlinked.admits_only(&[]));
    }
}
