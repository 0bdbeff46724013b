//! The crate's only `unsafe` besides `process`: socket addresses that no safe constructor makes.
//!
//! Owned by nobody, holds no state. Each block says why it is sound.
#![allow(unsafe_code)]

use std::io;
use std::mem;

use socket2::SockAddr;

/// The address of a link for a packet socket (`sockaddr_ll`, packet(7)).
///
/// `protocol` is an EtherType in host order; 0 binds without receiving anything.
///
/// # Errors
/// When the index does not fit the kernel's type.
pub fn link_address(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let ((), address) = {
        // SAFETY: `try_init` hands out a zeroed storage that is larger than `sockaddr_ll` and aligned
        // for every socket address. All fields are plain integers, of which zero is a valid value. The
        // length is set to the size of what was written.
        unsafe {
            SockAddr::try_init(|storage, length| {
                let address = storage.cast::<libc::sockaddr_ll>();
                (*address).sll_family = libc::AF_PACKET as libc::sa_family_t;
                (*address).sll_protocol = protocol.to_be();
                (*address).sll_ifindex = index;
                *length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                Ok(())
            })
        }?
    };
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_address_has_the_kernels_layout() {
        let address = link_address(7, 0x0806).unwrap();
        assert_eq!(address.family(), libc::AF_PACKET as libc::sa_family_t);
        assert_eq!(address.len() as usize, mem::size_of::<libc::sockaddr_ll>());
    }
}
