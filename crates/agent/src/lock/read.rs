//! Reading the tables back: what is armed, what is open, and how the rules look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ListAttribute, NfTablesMessage, RuleAttribute,
    RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetMessage,
    TableAttribute, TableFlags, TableMessage,
};

use super::error::refused;
use super::layout::{IpVersion, TableSpec, main_set, parse_port_key};
use super::{Generation, KernelLock, LockError};
use crate::netlink::NetlinkError;
use crate::netlink::nft::{SetPath, Tables};
use crate::vip::LinkName;

/// One generation as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GenerationSnapshot {
    /// Armed ports and the time their kernel timers have left.
    pub timers: BTreeMap<u16, Duration>,
    /// Ports whose gate is open. Worth nothing without the timer.
    pub gates: BTreeSet<u16>,
    /// Armed VIPs and the time left.
    pub vip_timers: BTreeMap<(LinkName, IpAddr), Duration>,
    /// VIPs whose gate is open.
    pub vip_gates: BTreeSet<(LinkName, IpAddr)>,
}

/// The lock as the kernel holds it. Expired elements are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockSnapshot {
    /// Ports under the lock.
    pub guarded: BTreeSet<u16>,
    /// VIPs under the lock.
    pub guarded_vips: BTreeSet<(LinkName, IpAddr)>,
    /// Generation A.
    pub a: GenerationSnapshot,
    /// Generation B.
    pub b: GenerationSnapshot,
    /// Replica elements and the time left.
    pub replica: BTreeMap<u16, Duration>,
}

impl LockSnapshot {
    /// One generation.
    #[must_use]
    pub fn generation(&self, generation: Generation) -> &GenerationSnapshot {
        match generation {
            Generation::A => &self.a,
            Generation::B => &self.b,
        }
    }

    /// Whether clients reach the port by a lease now.
    #[must_use]
    pub fn leased(&self, port: u16) -> bool {
        [&self.a, &self.b]
            .into_iter()
            .any(|lease| lease.timers.contains_key(&port) && lease.gates.contains(&port))
    }
}

impl KernelLock {
    /// Reads all sets back.
    ///
    /// Set by set, so not one instant; between this process's own operations nothing but expiry moves.
    ///
    /// # Errors
    /// When the kernel cannot list them.
    pub fn snapshot(&mut self) -> Result<LockSnapshot, LockError> {
        let read = refused(LockError::Read);
        let mut found = LockSnapshot {
            guarded: ports(&mut self.tables, self.main.set(main_set::GUARDED)).map_err(&read)?,
            replica: port_timers(&mut self.tables, self.main.set(main_set::REPLICA))
                .map_err(&read)?,
            ..LockSnapshot::default()
        };
        for generation in Generation::BOTH {
            let timer = self.main.set(generation.timer());
            let gate = self.main.set(generation.gate());
            let mut lease = GenerationSnapshot {
                timers: port_timers(&mut self.tables, timer).map_err(&read)?,
                gates: ports(&mut self.tables, gate).map_err(&read)?,
                ..GenerationSnapshot::default()
            };
            for (link, table) in &self.links {
                for version in IpVersion::BOTH {
                    let timer = table.set(generation.vip_timer(version));
                    for element in elements(&mut self.tables, timer).map_err(&read)? {
                        if let Some(address) = address(&element.key) {
                            lease.vip_timers.insert((link.clone(), address), element.left());
                        }
                    }
                    let gate = table.set(generation.vip_gate(version));
                    for element in elements(&mut self.tables, gate).map_err(&read)? {
                        lease.vip_gates.extend(address(&element.key).map(|a| (link.clone(), a)));
                    }
                }
            }
            match generation {
                Generation::A => found.a = lease,
                Generation::B => found.b = lease,
            }
        }
        for (link, table) in &self.links {
            for version in IpVersion::BOTH {
                let guarded = table.set(version.guarded());
                for element in elements(&mut self.tables, guarded).map_err(&read)? {
                    found.guarded_vips.extend(address(&element.key).map(|a| (link.clone(), a)));
                }
            }
        }
        Ok(found)
    }
}

/// A table that the kernel lists.
#[derive(Debug, Clone)]
pub(super) struct FoundTable {
    family: NetfilterProtoFamily,
    name: String,
    pub(super) flags: TableFlags,
}

impl FoundTable {
    pub(super) fn is(&self, spec: &TableSpec) -> bool {
        self.family == spec.family.proto() && self.name == spec.name
    }
}

/// All tables of the network namespace.
pub(super) fn tables(tables: &mut Tables) -> Result<Vec<FoundTable>, NetlinkError> {
    let query = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
    let mut found = Vec::new();
    for (family, message) in tables.dump(NetfilterProtoFamily::Unspec, query)? {
        let NfTablesMessage::NewTable(table) = message else { continue };
        let mut entry = FoundTable { family, name: String::new(), flags: TableFlags::empty() };
        for attribute in table.attributes {
            match attribute {
                TableAttribute::Name(name) => entry.name = name,
                TableAttribute::Flags(flags) => entry.flags = flags,
                _ => {}
            }
        }
        found.push(entry);
    }
    Ok(found)
}

/// An element that the kernel lists.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    expiration: Option<u64>,
}

impl Element {
    /// The time left; none for an element without a timeout.
    fn left(&self) -> Duration {
        Duration::from_millis(self.expiration.unwrap_or_default())
    }
}

/// The elements of a set that have not expired.
pub(super) fn elements(
    tables: &mut Tables,
    set: SetPath<'_>,
) -> Result<Vec<Element>, NetlinkError> {
    let attributes =
        vec![SetElementList::Table(set.table.to_owned()), SetElementList::Set(set.set.to_owned())];
    let query = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    let mut found = Vec::new();
    for (_, message) in tables.dump(set.family.proto(), query)? {
        let NfTablesMessage::NewSetElement(list) = message else { continue };
        for attribute in list.attributes {
            let SetElementList::Elements(items) = attribute else { continue };
            found.extend(items.iter().filter_map(parse_element));
        }
    }
    Ok(found)
}

fn parse_element(item: &ListAttribute<SetElementAttribute>) -> Option<Element> {
    let ListAttribute::Element(attributes) = item else { return None };
    let mut key = None;
    let mut expiration = None;
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => key = Some(bytes.clone()),
            SetElementAttribute::Expiration(millis) => expiration = Some(*millis),
            _ => {}
        }
    }
    Some(Element { key: key?, expiration })
}

/// A set of ports.
pub(super) fn ports(tables: &mut Tables, set: SetPath<'_>) -> Result<BTreeSet<u16>, NetlinkError> {
    let found = elements(tables, set)?;
    Ok(found.iter().filter_map(|element| parse_port_key(&element.key)).collect())
}

fn port_timers(
    tables: &mut Tables,
    set: SetPath<'_>,
) -> Result<BTreeMap<u16, Duration>, NetlinkError> {
    let found = elements(tables, set)?;
    let timer = |element: &Element| Some((parse_port_key(&element.key)?, element.left()));
    Ok(found.iter().filter_map(timer).collect())
}

/// An address key.
pub(super) fn address(key: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(key) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(key).ok().map(IpAddr::from)
}

/// The table, its sets, chains and rules, without what changes by itself. Nothing when it is not there.
pub(super) fn structure(
    tables: &mut Tables,
    spec: &TableSpec,
) -> Result<Vec<NfTablesMessage>, NetlinkError> {
    let queries = [
        NfTablesMessage::GetTable(TableMessage { attributes: vec![] }),
        NfTablesMessage::GetSet(SetMessage { attributes: vec![] }),
        NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }),
        NfTablesMessage::GetRule(RuleMessage { attributes: vec![] }),
    ];
    let mut found = Vec::new();
    for query in queries {
        for (family, message) in tables.dump(NetfilterProtoFamily::Unspec, query)? {
            if family == spec.family.proto() && table_of(&message) == Some(spec.name.as_str()) {
                found.extend(lasting_part(message));
            }
        }
    }
    Ok(found)
}

/// The name of the table that an object is in, or is.
pub(crate) fn table_of(message: &NfTablesMessage) -> Option<&str> {
    match message {
        NfTablesMessage::NewTable(m) | NfTablesMessage::DeleteTable(m) => {
            m.attributes.iter().find_map(|attribute| match attribute {
                TableAttribute::Name(name) => Some(name.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewSet(m) | NfTablesMessage::DeleteSet(m) => {
            m.attributes.iter().find_map(|attribute| match attribute {
                SetAttribute::Table(name) => Some(name.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewChain(m) | NfTablesMessage::DeleteChain(m) => {
            m.attributes.iter().find_map(|attribute| match attribute {
                ChainAttribute::Table(name) => Some(name.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewRule(m) | NfTablesMessage::DeleteRule(m) => {
            m.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Table(name) => Some(name.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewSetElement(m) | NfTablesMessage::DeleteSetElement(m) => {
            m.attributes.iter().find_map(|attribute| match attribute {
                SetElementList::Table(name) => Some(name.as_str()),
                _ => None,
            })
        }
        _ => None,
    }
}

/// A listed object without handles, use counts and the like.
fn lasting_part(message: NfTablesMessage) -> Option<NfTablesMessage> {
    match message {
        NfTablesMessage::NewTable(mut m) => {
            m.attributes.retain(|attribute| {
                matches!(attribute, TableAttribute::Name(_) | TableAttribute::Flags(_))
            });
            Some(NfTablesMessage::NewTable(m))
        }
        NfTablesMessage::NewSet(mut m) => {
            m.attributes.retain(|attribute| {
                matches!(
                    attribute,
                    SetAttribute::Table(_)
                        | SetAttribute::Name(_)
                        | SetAttribute::Flags(_)
                        | SetAttribute::KeyLen(_)
                )
            });
            Some(NfTablesMessage::NewSet(m))
        }
        NfTablesMessage::NewChain(mut m) => {
            m.attributes.retain(|attribute| {
                matches!(
                    attribute,
                    ChainAttribute::Table(_)
                        | ChainAttribute::Name(_)
                        | ChainAttribute::Hook(_)
                        | ChainAttribute::Policy(_)
                        | ChainAttribute::Type(_)
                )
            });
            Some(NfTablesMessage::NewChain(m))
        }
        NfTablesMessage::NewRule(mut m) => {
            m.attributes.retain(|attribute| {
                matches!(
                    attribute,
                    RuleAttribute::Table(_)
                        | RuleAttribute::Chain(_)
                        | RuleAttribute::Expressions(_)
                )
            });
            Some(NfTablesMessage::NewRule(m))
        }
        _ => None,
    }
}
