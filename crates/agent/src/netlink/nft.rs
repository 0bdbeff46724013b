//! `nf_tables` messages: expressions, sets and batches, and the four things the codec has no name for.
//!
//! Source of the numbers: kernel `include/uapi/linux/netfilter/nf_tables.h`. The codec lacks `reject`
//! and the accept and drop verdicts; both are spelt out here and nowhere else.

use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainMessage, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey,
    NfTablesMessage, Operator, Payload, Register, RuleMessage, SetElementAttribute, SetElementList,
    SetElementMessage, SetMessage, TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    none::ControlMessage,
};

use super::{NetlinkError, Wire, encode};

/// `nfgenmsg.res_id` of a batch: the subsystem it is for.
const SUBSYSTEM_NFTABLES: u16 = 10;
/// `NF_DROP` and `NF_ACCEPT` (kernel `include/uapi/linux/netfilter.h`).
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// One device's egress hook.
    Netdev,
}

impl Family {
    pub(crate) fn proto(self) -> NetfilterProtoFamily {
        match self {
            Self::Inet => NetfilterProtoFamily::Inet,
            Self::Netdev => NetfilterProtoFamily::NetDev,
        }
    }
}

/// The header a payload offset counts from (`NFT_PAYLOAD_*_HEADER`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header {
    Link,
    Network,
    Transport,
}

/// Loads a property of the packet into register 1.
pub(crate) fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

/// Loads bytes of the packet into register 1. A packet too short skips the rule.
pub(crate) fn payload(header: Header, offset: u32, length: u32) -> Expressions {
    let base = match header {
        Header::Link => 0,
        Header::Network => 1,
        Header::Transport => 2,
    };
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// Keeps the bits of `mask` in register 1.
pub(crate) fn masked(mask: &[u8]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(u32::try_from(mask.len()).unwrap_or(u32::MAX)),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
    ])
}

/// Goes on with the rule when register 1 equals `value`.
pub(crate) fn equal(value: &[u8]) -> Expressions {
    compare(Operator::Equal, value)
}

/// Goes on with the rule when register 1 differs from `value`.
pub(crate) fn not_equal(value: &[u8]) -> Expressions {
    compare(Operator::NotEqual, value)
}

fn compare(operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

/// Goes on with the rule when register 1 is in the set.
pub(crate) fn in_set(set: &str) -> Expressions {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(Register::Reg1)])
}

/// Goes on with the rule when register 1 is not in the set.
pub(crate) fn not_in_set(set: &str) -> Expressions {
    const NFT_LOOKUP_F_INV: u32 = 1;
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::Flags(NFT_LOOKUP_F_INV),
    ])
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

/// Ends this table's look at the packet; other tables still see it.
pub(crate) fn accept() -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))])
}

/// Drops the packet in silence.
pub(crate) fn drop_packet() -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])
}

/// Goes back to the chain that jumped here.
pub(crate) fn go_back() -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Return)])
}

/// Looks through another chain of the table, then comes back.
pub(crate) fn jump(chain: &str) -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain.to_owned())])
}

/// Drops the packet and answers its sender with a TCP reset.
pub(crate) fn reject_with_reset() -> Expressions {
    const NFTA_REJECT_TYPE: u16 = 1;
    const NFTA_REJECT_ICMP_CODE: u16 = 2;
    const NFT_REJECT_TCP_RST: u32 = 1;
    Expressions::Other {
        expression_type: "reject".to_owned(),
        attributes: vec![
            DefaultNla::new(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST.to_be_bytes().to_vec()),
            DefaultNla::new(NFTA_REJECT_ICMP_CODE, vec![0]),
        ],
    }
}

/// One transaction: the kernel carries out all of its messages or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    messages: Vec<(Family, NfTablesMessage, u16)>,
}

/// The name of a set together with its table's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetPath<'a> {
    pub(crate) family: Family,
    pub(crate) table: &'a str,
    pub(crate) set: &'a str,
}

/// How an element is added.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Add {
    /// For good; nothing happens when it is there.
    Keep,
    /// With this lifetime. It must not be there: kernels before 6.13 keep the old lifetime silently.
    Expire(Duration),
    /// With this lifetime, in front of a delete that must find it.
    ToDelete(Duration),
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Appends a message with extra `NLM_F_*` flags.
    pub(crate) fn push(&mut self, family: Family, message: NfTablesMessage, flags: u16) {
        self.messages.push((family, message, flags));
    }

    pub(crate) fn new_table(&mut self, family: Family, message: TableMessage) {
        self.push(family, NfTablesMessage::NewTable(message), NLM_F_CREATE);
    }

    pub(crate) fn new_set(&mut self, family: Family, message: SetMessage) {
        self.push(family, NfTablesMessage::NewSet(message), NLM_F_CREATE);
    }

    pub(crate) fn new_chain(&mut self, family: Family, message: ChainMessage) {
        self.push(family, NfTablesMessage::NewChain(message), NLM_F_CREATE);
    }

    pub(crate) fn new_rule(&mut self, family: Family, message: RuleMessage) {
        self.push(family, NfTablesMessage::NewRule(message), NLM_F_CREATE | NLM_F_APPEND);
    }

    /// Adds elements; no message when there are none.
    pub(crate) fn add(&mut self, set: SetPath<'_>, keys: &[Vec<u8>], how: Add) {
        if keys.is_empty() {
            return;
        }
        let (timeout, flags) = match how {
            Add::Keep => (None, NLM_F_CREATE),
            Add::Expire(timeout) => (Some(timeout), NLM_F_CREATE | NLM_F_EXCL),
            Add::ToDelete(timeout) => (Some(timeout), NLM_F_CREATE),
        };
        let message = NfTablesMessage::NewSetElement(elements(set, keys, timeout));
        self.push(set.family, message, flags);
    }

    /// Deletes elements. The whole batch fails with `ENOENT` when one is absent or has expired.
    pub(crate) fn delete(&mut self, set: SetPath<'_>, keys: &[Vec<u8>]) {
        if keys.is_empty() {
            return;
        }
        let message = NfTablesMessage::DeleteSetElement(elements(set, keys, None));
        self.push(set.family, message, 0);
    }

    /// Takes elements out whether they are there or not: add, then delete.
    pub(crate) fn take_out(&mut self, set: SetPath<'_>, keys: &[Vec<u8>], kind: Lifetime) {
        let how = match kind {
            Lifetime::Lasting => Add::Keep,
            // Any lifetime does that outlasts the transaction.
            Lifetime::Expiring => Add::ToDelete(Duration::from_secs(60)),
        };
        self.add(set, keys, how);
        self.delete(set, keys);
    }

    /// Empties a set. Never fails for what is in it.
    pub(crate) fn flush(&mut self, set: SetPath<'_>) {
        let attributes = vec![
            SetElementList::Table(set.table.to_owned()),
            SetElementList::Set(set.set.to_owned()),
        ];
        let message = NfTablesMessage::DeleteSetElement(SetElementMessage { attributes });
        self.push(set.family, message, 0);
    }
}

/// Whether a set's elements have a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Lasting,
    Expiring,
}

fn elements(set: SetPath<'_>, keys: &[Vec<u8>], timeout: Option<Duration>) -> SetElementMessage {
    let element = |key: &Vec<u8>| {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(key.clone()))];
        if let Some(timeout) = timeout {
            let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            attributes.push(SetElementAttribute::Timeout(millis));
        }
        netlink_packet_netfilter::nftables::ListAttribute::Element(attributes)
    };
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(set.table.to_owned()),
            SetElementList::Set(set.set.to_owned()),
            SetElementList::Elements(keys.iter().map(element).collect()),
        ],
    }
}

/// The socket of one `nf_tables` user.
#[derive(Debug)]
pub(crate) struct Tables {
    wire: Wire,
}

impl Tables {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let wire = Wire::open(netlink_sys::protocols::NETLINK_NETFILTER, &[])?;
        Ok(Self { wire })
    }

    /// The socket's netlink port number: the owner of the tables it owns.
    pub(crate) fn port_id(&self) -> u32 {
        self.wire.port_id()
    }

    /// Carries out a batch and waits for the kernel's acknowledgement.
    ///
    /// `ENOENT` from a delete that follows its own add is a lost race with an expiry on old kernels:
    /// callers whose batch has no other delete repeat it once, see [`Tables::commit_sure`].
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        let count = u32::try_from(batch.len()).map_err(|_| NetlinkError::Malformed)?;
        if count == 0 {
            return Ok(());
        }
        let begin = self.wire.reserve(count + 2);
        let last = begin + count;
        let mut bytes = Vec::with_capacity(1024);
        emit(&mut bytes, control(ControlMessage::BatchBegin), begin, 0);
        for (place, (family, message, flags)) in batch.messages.iter().enumerate() {
            let sequence = begin + 1 + u32::try_from(place).unwrap_or(u32::MAX);
            let acknowledge = if sequence == last { NLM_F_ACK } else { 0 };
            let header = NetfilterHeader::new(family.proto(), 0, 0);
            let message = NetfilterMessage::new(header, message.clone());
            emit(&mut bytes, message, sequence, flags | acknowledge);
        }
        emit(&mut bytes, control(ControlMessage::BatchEnd), last + 1, 0);
        self.wire.transact::<NetfilterMessage>(&bytes, begin, last).map_err(number_from_first)
    }

    /// As [`Tables::commit`], repeated once after `ENOENT`.
    pub(crate) fn commit_sure(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        match self.commit(batch) {
            Err(error) if error.errno() == Some(libc::ENOENT) => self.commit(batch),
            done => done,
        }
    }

    /// Lists objects: the answers' messages in order.
    pub(crate) fn dump(
        &mut self,
        family: NetfilterProtoFamily,
        query: NfTablesMessage,
    ) -> Result<Vec<(NetfilterProtoFamily, NfTablesMessage)>, NetlinkError> {
        let sequence = self.wire.reserve(1);
        let mut bytes = Vec::new();
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), query);
        emit(&mut bytes, message, sequence, NLM_F_DUMP);
        let found = self.wire.dump::<NetfilterMessage>(&bytes, sequence)?;
        Ok(found
            .into_iter()
            .filter_map(|(_, message)| match message.inner {
                NetfilterMessageInner::NfTables(inner) => Some((message.header.family, inner)),
                _ => None,
            })
            .collect())
    }
}

/// `BATCH_BEGIN` has a number of its own, which callers do not count.
fn number_from_first(error: NetlinkError) -> NetlinkError {
    match error {
        NetlinkError::Refused { index, source } => {
            NetlinkError::Refused { index: index.saturating_sub(1), source }
        }
        other => other,
    }
}

fn control(message: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    NetfilterMessage::new(header, message)
}

fn emit(bytes: &mut Vec<u8>, message: NetfilterMessage, sequence: u32, flags: u16) {
    bytes.extend(encode(message, sequence, flags));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
