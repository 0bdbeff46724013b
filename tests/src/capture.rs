//! What a host's `eth0` carried: `tcpdump` to a file, and a reader of just what tests ask for.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use crate::host::Host;
use crate::process::{Process, wait_until};
use crate::time::{Mono, WallOffset};

/// A running `tcpdump`.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    offset: WallOffset,
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub at: Mono,
    pub bytes: Vec<u8>,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub at: Mono,
    /// 1 request, 2 reply (RFC 826).
    pub operation: u16,
    pub sender_link: [u8; 6],
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

impl Arp {
    /// Whether it announces the sender's address (RFC 5227, section 3): sender is target.
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }

    /// Whether it is a probe (RFC 5227, section 2.1): nobody asks.
    pub fn is_probe(&self) -> bool {
        self.sender.is_unspecified()
    }
}

/// An IPv6 neighbour advertisement (RFC 4861, section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    pub at: Mono,
    /// Sender of the Ethernet frame.
    pub sender_link: [u8; 6],
    /// Whether it answers somebody who asked.
    pub solicited: bool,
    /// Whether caches are to be overwritten.
    pub overrides: bool,
    pub target: Ipv6Addr,
}

/// A TCP segment with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub at: Mono,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
}

impl Segment {
    /// Whether the payload holds `REPLICAOF` or `SLAVEOF`.
    pub fn repoints(&self) -> bool {
        let upper = self.payload.to_ascii_uppercase();
        let holds = |word: &[u8]| upper.windows(word.len()).any(|part| part == word);
        holds(b"REPLICAOF") || holds(b"SLAVEOF")
    }
}

impl Capture {
    /// Starts capturing `eth0` of a host, or `lo` for what the supervisor says to its own Redis.
    pub fn start(host: &Host, interface: &str, filter: &str) -> Result<Self> {
        // A name of its own for each: an earlier one's log says that it listens.
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcpdump-{interface}-{number}");
        let file = host.dir().join(format!("{interface}-{number}.pcap"));
        let mut command = Command::new("tcpdump");
        command.args(["-i", interface, "-n", "-U", "--immediate-mode", "-Z", "root", "-w"]);
        command.arg(&file).arg(filter);
        let offset = WallOffset::measure();
        let process = host.spawn(&name, &command).context("tcpdump (Debian package tcpdump)")?;
        wait_until("tcpdump to listen", Duration::from_secs(10), || {
            process.log_text().contains("listening on").then_some(())
        })
        .with_context(|| process.log_text())?;
        Ok(Capture { process, file, offset })
    }

    /// Ends the capture and returns its frames.
    pub fn finish(self) -> Result<Vec<Frame>> {
        self.drain()?;
        self.process.interrupt()?;
        self.process.wait(Duration::from_secs(10))?;
        read_pcap(&self.file, self.offset)
    }

    /// Waits until what the kernel had matched by now is written: SIGINT would end it before.
    ///
    /// Traffic goes on, so what is matched later is not waited for.
    fn drain(&self) -> Result<()> {
        let mut goal = None;
        wait_until("tcpdump to write what it got", Duration::from_secs(10), || {
            let before = self.process.log_text().len();
            self.process.report().ok()?;
            let line = wait_until("tcpdump's counts", Duration::from_secs(1), || {
                let text = self.process.log_text();
                text.get(before..)?
                    .lines()
                    .find(|line| line.contains("received by"))
                    .map(str::to_owned)
            });
            let (captured, received) = counts(&line.ok()?)?;
            (captured >= *goal.get_or_insert(received)).then_some(())
        })
        .with_context(|| self.process.log_text())
    }
}

/// Packets captured and packets received, of a line "tcpdump: N packets captured, M packets received by
/// filter, ...".
fn counts(line: &str) -> Option<(u64, u64)> {
    let mut parts =
        line.trim_start_matches("tcpdump: ").split(", ").map(|part| part.split_whitespace().next());
    Some((parts.next()??.parse().ok()?, parts.next()??.parse().ok()?))
}

/// ARP packets among the frames.
pub fn arp_packets(frames: &[Frame]) -> Vec<Arp> {
    let parse = |frame: &Frame| {
        let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
        let Some(NetSlice::Arp(arp)) = packet.net else { return None };
        let sender: [u8; 4] = arp.sender_protocol_addr().try_into().ok()?;
        let target: [u8; 4] = arp.target_protocol_addr().try_into().ok()?;
        Some(Arp {
            at: frame.at,
            operation: arp.operation().0,
            sender_link: arp.sender_hw_addr().try_into().ok()?,
            sender: Ipv4Addr::from(sender),
            target: Ipv4Addr::from(target),
        })
    };
    frames.iter().filter_map(parse).collect()
}

/// Neighbour advertisements among the frames.
pub fn advertisements(frames: &[Frame]) -> Vec<Advertisement> {
    let parse = |frame: &Frame| {
        let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { return None };
        let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else { return None };
        let target: [u8; 16] = icmp.payload().get(..16)?.try_into().ok()?;
        Some(Advertisement {
            at: frame.at,
            sender_link: frame.bytes.get(6..12)?.try_into().ok()?,
            solicited: flags.solicited,
            overrides: flags.r#override,
            target: Ipv6Addr::from(target),
        })
    };
    frames.iter().filter_map(parse).collect()
}

/// TCP segments that carry data, of IPv4 and IPv6.
pub fn tcp_segments(frames: &[Frame]) -> Vec<Segment> {
    let parse = |frame: &Frame| {
        let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
        let (from, to) = match packet.net? {
            NetSlice::Ipv4(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            NetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            NetSlice::Arp(_) => return None,
        };
        Some(Segment {
            at: frame.at,
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            payload: tcp.payload().to_vec(),
        })
    };
    frames.iter().filter_map(parse).filter(|segment| !segment.payload.is_empty()).collect()
}

/// Reads the classic format, microsecond stamps, host byte order
/// (<https://www.tcpdump.org/manpages/pcap-savefile.5.html>).
fn read_pcap(file: &Path, offset: WallOffset) -> Result<Vec<Frame>> {
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    ensure!(bytes.len() >= 24, "capture is empty");
    let word = |at: usize| -> Option<u32> {
        bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    };
    ensure!(word(0) == Some(0xa1b2_c3d4), "not a capture with microsecond stamps");
    let mut frames = Vec::new();
    let mut at = 24;
    // A record cut off at the end of the file is one that tcpdump had not finished.
    while let (Some(seconds), Some(micros), Some(length)) = (word(at), word(at + 4), word(at + 8)) {
        let start = at + 16;
        let Some(frame) = bytes.get(start..start + length as usize) else { break };
        let wall_ns = u64::from(seconds) * 1_000_000_000 + u64::from(micros) * 1000;
        frames.push(Frame { at: offset.to_mono(wall_ns), bytes: frame.to_vec() });
        at = start + length as usize;
    }
    Ok(frames)
}
