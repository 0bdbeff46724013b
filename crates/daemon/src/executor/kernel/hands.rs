//! The kernel's interfaces behind one small face, with errors as text for operators.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, time::Duration};

use redkeep_agent::{
    announce::{AnnounceError, Announcer},
    sockdiag::SocketTable,
    vip::{Foreign, LinkName, Vip, VipTable},
};

use crate::executor::{OWN_SOURCE, lock::chain};

/// How long a rival may take to answer (RFC 5227 asks for seconds; a kernel on the same link answers in microseconds).
const RIVAL_WAIT: Duration = Duration::from_millis(100);

/// A VIP on its link.
#[derive(Clone, Debug)]
pub(super) struct Place(Vip);

impl Place {
    pub(super) fn new(address: IpAddr, prefix_len: u8, interface: &str) -> Result<Self, String> {
        let link = LinkName::new(interface).map_err(|e| e.to_string())?;
        Ok(Self(Vip { address, prefix_len, link }))
    }

    pub(super) fn addr(&self) -> IpAddr {
        self.0.address
    }
}

/// The open sockets.
#[derive(Debug)]
pub(super) struct Hands {
    addresses: VipTable,
    announcers: BTreeMap<LinkName, Announcer>,
    sockets: SocketTable,
}

impl Hands {
    pub(super) fn open() -> Result<Self, String> {
        let addresses = VipTable::open().map_err(|e| chain(&e))?;
        let mut sockets = SocketTable::open().map_err(|e| chain(&e))?;
        if let Err(error) = sockets.check_destroy() {
            tracing::warn!(error = %chain(&error), "connections cannot be reset at a fence: clients notice by their own timeouts");
        }
        Ok(Self { addresses, announcers: BTreeMap::new(), sockets })
    }

    /// By which notifications name our own changes.
    pub(super) fn port_id(&self) -> u32 {
        self.addresses.port_id()
    }

    pub(super) fn ensure_vip(&mut self, place: &Place, valid_seconds: u32) -> Result<(), String> {
        let valid = NonZeroU32::new(valid_seconds).unwrap_or(NonZeroU32::MIN);
        self.addresses.ensure_present(&place.0, valid).map_err(|e| chain(&e))
    }

    /// Whoever made it: without a lease nobody's may stay.
    pub(super) fn remove_vip(&mut self, place: &Place) -> Result<(), String> {
        self.addresses
            .ensure_absent(place.0.address, Foreign::Remove)
            .map(|_| ())
            .map_err(|e| chain(&e))
    }

    pub(super) fn announce(&mut self, place: &Place) -> Result<(), String> {
        let link = &place.0.link;
        if !self.announcers.contains_key(link) {
            let announcer = Announcer::open(link).map_err(|e| chain(&e))?;
            self.announcers.insert(link.clone(), announcer);
        }
        let Some(announcer) = self.announcers.get(link) else { return Ok(()) };
        announcer.announce(place.0.address).map_err(|error| {
            // A link that was made anew needs a new socket; a dead lease does not.
            if !matches!(error, AnnounceError::Locked) {
                self.announcers.remove(link);
            }
            chain(&error)
        })
    }

    pub(super) fn destroy_sockets(&mut self, port: u16) -> Result<usize, String> {
        self.sockets.destroy(port, Some(OWN_SOURCE)).map_err(|e| chain(&e))
    }

    pub(super) fn addresses(&mut self) -> Result<Vec<IpAddr>, String> {
        let held = self.addresses.list().map_err(|e| chain(&e))?;
        Ok(held.into_iter().map(|h| h.vip.address).collect())
    }
}

/// Who else answers for the VIP, as text.
pub(super) fn probe_rival(place: &Place) -> Result<Option<String>, String> {
    let announcer = Announcer::open(&place.0.link).map_err(|e| chain(&e))?;
    let rival = announcer.probe(place.0.address, RIVAL_WAIT).map_err(|e| chain(&e))?;
    Ok(rival.map(|r| r.mac.map(|b| format!("{b:02x}")).join(":")))
}
