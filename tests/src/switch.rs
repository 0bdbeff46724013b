//! The lab's Ethernet switch: a bridge in a namespace of its own, whose ports can be cut in any
//! direction.
//!
//! What is cut is a set of ordered port pairs `(from, to)`; one rule in nftables family `bridge`
//! drops what goes from the one to the other. A change replaces the whole set in one netlink
//! transaction, so it takes effect at once and the instant is known. Ports keep their carrier:
//! a host that is cut off is not told.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::netns::{Namespace, NamespaceThread};
use crate::time::Mono;

/// Frames from the first port to the second.
pub(crate) type Direction = (String, String);

const TABLE: &str = "lab";
const SET: &str = "dropped";
const IFNAME_LEN: usize = 16;

/// The bridge and the socket through which its rules change.
#[derive(Debug)]
pub(crate) struct Switch {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    sequence: u32,
    dropped: BTreeSet<Direction>,
}

impl Switch {
    /// Creates namespace, bridge and rule.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        // No spanning tree and no snooping: a port forwards from its first frame.
        namespace.ip_batch(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set br0 up\n",
        )?;
        let thread = NamespaceThread::start(&namespace)?;
        let rules = format!(
            "table bridge {TABLE} {{\n\
               set {SET} {{ type ifname . ifname; }}\n\
               chain forward {{\n\
                 type filter hook forward priority 0; policy accept;\n\
                 iifname . oifname @{SET} drop\n\
               }}\n\
             }}\n"
        );
        thread.run(move || load_rules(&rules))??;
        let socket = thread.run(open_socket)??;
        let state = State { socket, sequence: 1, dropped: BTreeSet::new() };
        Ok(Switch { state: Mutex::new(state) })
    }

    /// Changes the set of dropped directions; returns when the kernel had taken it.
    ///
    /// The change took effect between the call and the returned instant, some 20 us.
    pub(crate) fn change(&self, edit: impl FnOnce(&mut BTreeSet<Direction>)) -> Result<Mono> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut wanted = state.dropped.clone();
        edit(&mut wanted);
        state.replace(&wanted)?;
        state.dropped = wanted;
        Ok(Mono::now())
    }
}

impl State {
    fn replace(&mut self, wanted: &BTreeSet<Direction>) -> Result<()> {
        self.sequence += 1;
        let batch = encode_replace(wanted, self.sequence)?;
        let sent = self.socket.send(&batch, 0).context("send the batch to nf_tables")?;
        ensure!(sent == batch.len(), "nf_tables took {sent} of {} bytes", batch.len());
        self.read_answer()
    }

    /// The transaction runs inside `send`, so its answers are already there.
    fn read_answer(&self) -> Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full().context("answer of nf_tables")?;
            let mut rest = &bytes[..];
            while rest.len() >= 20 {
                let length = u32_at(rest, 0) as usize;
                let error = i32::from_ne_bytes(u32_at(rest, 16).to_ne_bytes());
                if u16::from_ne_bytes([rest[4], rest[5]]) == NLMSG_ERROR {
                    if error != 0 {
                        bail!("nf_tables: {}", std::io::Error::from_raw_os_error(-error));
                    }
                    return Ok(());
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }
}

fn load_rules(rules: &str) -> Result<()> {
    use std::io::Write;
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run nft (nftables)")?;
    child.stdin.take().context("no stdin")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn open_socket() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER).context("netlink socket")?;
    socket.bind_auto().context("bind the netlink socket")?;
    socket.connect(&SocketAddr::new(0, 0)).context("connect the netlink socket")?;
    Ok(socket)
}

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYS_NFTABLES: u16 = 10;
const NEWSETELEM: u16 = SUBSYS_NFTABLES << 8 | 12;
const DELSETELEM: u16 = SUBSYS_NFTABLES << 8 | 14;
const NFPROTO_BRIDGE: u8 = 7;
const NLA_F_NESTED: u16 = 0x8000;

/// Batch: empty the set, then add what is wanted (linux/netfilter/nf_tables.h).
///
/// Deleting with no element list empties a set and never fails for absence.
fn encode_replace(wanted: &BTreeSet<Direction>, sequence: u32) -> Result<Vec<u8>> {
    let mut batch = Vec::new();
    let names = [attribute(1, &c_string(TABLE)), attribute(2, &c_string(SET))].concat();
    message(&mut batch, (BATCH_BEGIN, NLM_F_REQUEST, sequence), (0, SUBSYS_NFTABLES), &[]);
    let acknowledge_delete = if wanted.is_empty() { NLM_F_ACK } else { 0 };
    let flags = NLM_F_REQUEST | acknowledge_delete;
    message(&mut batch, (DELSETELEM, flags, sequence), (NFPROTO_BRIDGE, 0), &names);
    if !wanted.is_empty() {
        let mut elements = Vec::new();
        for (from, to) in wanted {
            let key = [padded_ifname(from)?, padded_ifname(to)?].concat();
            let key = attribute(1 | NLA_F_NESTED, &attribute(1, &key));
            elements.extend(attribute(1 | NLA_F_NESTED, &key));
        }
        let payload = [names, attribute(3 | NLA_F_NESTED, &elements)].concat();
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        message(&mut batch, (NEWSETELEM, flags, sequence), (NFPROTO_BRIDGE, 0), &payload);
    }
    message(&mut batch, (BATCH_END, NLM_F_REQUEST, sequence), (0, SUBSYS_NFTABLES), &[]);
    Ok(batch)
}

fn message(
    batch: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    (family, resource): (u8, u16),
    payload: &[u8],
) {
    let length = u32::try_from(20 + payload.len()).unwrap_or(u32::MAX);
    batch.extend(length.to_ne_bytes());
    batch.extend(kind.to_ne_bytes());
    batch.extend(flags.to_ne_bytes());
    batch.extend(sequence.to_ne_bytes());
    batch.extend(0_u32.to_ne_bytes());
    batch.extend([family, 0]);
    batch.extend(resource.to_be_bytes());
    batch.extend(payload);
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn padded_ifname(name: &str) -> Result<Vec<u8>> {
    ensure!(name.len() < IFNAME_LEN, "interface name {name} is too long");
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME_LEN, 0);
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
