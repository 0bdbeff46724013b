//! The virtual IP as a finite-lived address of a link: the slow kernel lock.
//!
//! Owned by one task, since a late refresh re-creates a deleted address. Each add or refresh gives the
//! address a `valid_lft`; the kernel deletes it 1.0 to 1.6 s after the last refresh with 1 s. Addresses
//! made here carry `IFA_PROTO` 0xc7; others are never deleted unless forced. Absent on purpose: routes
//! and prefixes (`IFA_F_NOPREFIXROUTE`), and duplicate address detection, which `announce` does itself.

mod table;

pub(crate) use self::table::read_address;
pub use self::table::{Foreign, HeldAddress, Origin, VipError, VipTable};

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The name of a network link. At most 15 bytes, as the kernel allows (`IFNAMSIZ`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(Arc<str>);

/// A string that cannot name a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a network link (1 to 15 bytes, no '/', ':' or white space)")]
pub struct InvalidLinkName(String);

impl LinkName {
    /// Checks a name by the kernel's rule (`dev_valid_name` in `net/core/dev.c`).
    ///
    /// # Errors
    /// When no link can have this name.
    pub fn new(name: &str) -> Result<Self, InvalidLinkName> {
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let forbidden = |byte: u8| matches!(byte, b'/' | b':' | 0) || byte.is_ascii_whitespace();
        if fits && !name.bytes().any(forbidden) {
            Ok(Self(Arc::from(name)))
        } else {
            Err(InvalidLinkName(name.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A group's virtual IP on this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// The address that clients use.
    pub address: IpAddr,
    /// Prefix length; 32 or 128 unless the spec says otherwise.
    pub prefix_len: u8,
    /// The link that carries it.
    pub link: LinkName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_follow_the_kernels_rule() {
        for good in ["eth0", "lo", "bond0.100", "br-1234567890ab"] {
            assert_eq!(LinkName::new(good).map(|name| name.as_str().to_owned()), Ok(good.into()));
        }
        for bad in ["", ".", "..", "a b", "a/b", "eth0:1", "sixteen-bytes-xx"] {
            assert!(LinkName::new(bad).is_err(), "{bad:?}");
        }
    }
}
