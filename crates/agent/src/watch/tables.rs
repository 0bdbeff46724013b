//! nf_tables notifications about the lock's tables.

use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

use super::{HostEvent, NetlinkError, Reader, Reading, Source, WatchError, Wire, deliver};
use crate::lock::{START_TABLE, is_lock_table, table_of};
use crate::netlink::Group;

/// `NFNLGRP_NFTABLES` (kernel `include/uapi/linux/netfilter/nfnetlink.h`).
const GROUP_NFTABLES: Group = Group(7);

pub(super) struct TableReader {
    own: u32,
}

pub(super) fn subscribe(own: u32) -> Result<(Wire, TableReader), WatchError> {
    let wire = Wire::open(netlink_sys::protocols::NETLINK_NETFILTER, &[GROUP_NFTABLES])
        .map_err(WatchError::Subscribe)?;
    wire.ignore(own).map_err(WatchError::Subscribe)?;
    Ok((wire, TableReader { own }))
}

impl Reader for TableReader {
    const SOURCE: Source = Source::Tables;

    fn read(
        &mut self,
        wire: &mut Wire,
        sink: &mut dyn FnMut(HostEvent),
    ) -> Result<bool, NetlinkError> {
        match wire.listen::<NetfilterMessage>()? {
            Reading::Empty => return Ok(false),
            Reading::Overrun => sink(HostEvent::Overrun(Self::SOURCE)),
            Reading::Messages(messages) => {
                let foreign = messages.iter().filter(|(header, _)| header.port_number != self.own);
                deliver(foreign.filter_map(|(_, message)| event(message)).collect(), sink);
            }
        }
        Ok(true)
    }
}

fn event(message: &NetfilterMessage) -> Option<HostEvent> {
    let NetfilterMessageInner::NfTables(inner) = &message.inner else { return None };
    let table = table_of(inner)?;
    if !is_lock_table(message.header.family, table) {
        return None;
    }
    let table = table.to_owned();
    Some(match inner {
        NfTablesMessage::DeleteTable(_) => HostEvent::LockLost { table },
        NfTablesMessage::NewSetElement(_) if table == START_TABLE => HostEvent::StartNoticed,
        _ => HostEvent::LockChanged { table },
    })
}
