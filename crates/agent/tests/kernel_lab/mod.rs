//! Two network namespaces joined by a cable, a TCP echo server, clients, and bounded waits.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redkeep_agent::lock::{GuardedPort, KernelLock, LeaseItem, LockConfig};
use redkeep_agent::vip::{LinkName, Vip};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const MARK: u32 = 0x7265_646b;
pub const OWN_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 114, 107, 1);
pub const HOST4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const PEER4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
pub const HOST6: &str = "fd99::1";
pub const VIP6: &str = "fd99::100";
pub const PORT: u16 = 7400;

/// A network namespace, deleted with its value.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new(tag: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rkagent{}x{number}{tag}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    /// Moves the calling thread in; threads that it starts later follow.
    pub fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs a closure on a thread inside.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                act()
            });
            inside.join().unwrap()
        })
    }

    /// Runs a program inside; it must succeed.
    pub fn exec(&self, command: &[&str]) -> String {
        let mut whole = vec!["ip", "netns", "exec", &self.name];
        whole.extend(command);
        run(&whole)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A host under the lock and a peer, both with a link `eth0`. The calling thread stands in the host.
#[derive(Debug)]
pub struct Lab {
    pub host: Netns,
    pub peer: Netns,
}

impl Lab {
    pub fn new() -> Self {
        let host = Netns::new("h");
        let peer = Netns::new("p");
        run(&[
            "ip", "link", "add", "eth0", "netns", &host.name, "type", "veth", "peer", "name",
            "eth0", "netns", &peer.name,
        ]);
        for (ns, last) in [(&host, 1), (&peer, 2)] {
            let name = ns.name.as_str();
            run(&["ip", "-n", name, "addr", "add", &format!("10.99.0.{last}/24"), "dev", "eth0"]);
            let v6 = format!("fd99::{last}/64");
            run(&["ip", "-n", name, "addr", "add", &v6, "dev", "eth0", "nodad"]);
            run(&["ip", "-n", name, "link", "set", "eth0", "up"]);
        }
        // Before the carrier is up frames are lost without a trace.
        for ns in [&host, &peer] {
            wait_for("carrier", Duration::from_secs(10), || {
                run(&["ip", "-n", &ns.name, "-o", "link", "show", "eth0"]).contains("state UP")
            });
        }
        host.enter();
        Self { host, peer }
    }
}

/// Runs a program that must succeed; its output.
pub fn run(command: &[&str]) -> String {
    let done = Command::new(command[0]).args(&command[1..]).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub fn eth0() -> LinkName {
    LinkName::new("eth0").unwrap()
}

pub fn config() -> LockConfig {
    LockConfig { mark: MARK, own_source: OWN_SOURCE, links: vec![eth0()], closed_ports: vec![PORT] }
}

pub fn vip4() -> Vip {
    Vip { address: VIP4.into(), prefix_len: 32, link: eth0() }
}

pub fn vip6() -> Vip {
    Vip { address: VIP6.parse().unwrap(), prefix_len: 128, link: eth0() }
}

pub fn port_only(port: u16) -> GuardedPort {
    GuardedPort { port, vip: None }
}

pub fn item(port: u16, nonce: u64) -> LeaseItem {
    LeaseItem { port, vip: None, nonce }
}

/// A server of one-byte echoes on all addresses of the calling thread's namespace.
pub fn serve_echo(port: u16) {
    let listener = TcpListener::bind(("::", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}

/// Connects, with a bound so long that only a lost packet or answer reaches it.
pub fn connect(to: impl Into<IpAddr>, port: u16) -> io::Result<TcpStream> {
    connect_within(to, port, Duration::from_secs(10))
}

/// Connects, with this bound on connecting and on each answer: where silence is expected.
pub fn connect_within(to: impl Into<IpAddr>, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let to = SocketAddr::new(to.into(), port);
    let stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    Ok(stream)
}

/// Counts packets to and from the port in front of the lock and behind it.
pub fn tally(host: &Netns) {
    let mut table = String::from("table inet tally {\n");
    for (hook, port) in [("input", "dport"), ("output", "sport")] {
        for (place, priority) in [("before", -15), ("behind", -5)] {
            let hooked = format!("type filter hook {hook} priority {priority}; policy accept;");
            let count = format!("tcp {port} {PORT} counter");
            writeln!(table, "chain {hook}_{place} {{\n{hooked}\n{count}\n}}").unwrap();
        }
    }
    table.push_str("}\n");
    let file = std::env::temp_dir().join(format!("{}.nft", host.name));
    std::fs::write(&file, table).unwrap();
    host.exec(&["nft", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
}

/// The packets that the lock kept: (to the port, from the port), of how many.
pub fn kept(host: &Netns) -> ((u64, u64), u64) {
    let listed = host.exec(&["nft", "list", "table", "inet", "tally"]);
    let after = |word: &str| word.split(' ').next().unwrap().parse::<u64>().unwrap();
    let counts: Vec<u64> = listed.split("counter packets ").skip(1).map(after).collect();
    let [in_before, in_behind, out_before, out_behind] = counts[..] else { panic!("{listed}") };
    ((in_before - in_behind, out_before - out_behind), in_before + out_before)
}

/// One byte there and back.
pub fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)
}

/// A connection of its own, one byte there and back.
pub fn ask_once(to: impl Into<IpAddr>, port: u16) -> io::Result<()> {
    ask(&mut connect(to, port)?)
}

/// Whether a reset answered. Silence or another error fails the test: it would hide a broken rule.
#[track_caller]
pub fn is_refused(result: &io::Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => true,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
        Err(error) => panic!("neither an answer nor a reset: {error:?}"),
    }
}

/// A local client with the supervisor's mark, its source address, both or neither.
pub fn local(mark: Option<u32>, source: Option<Ipv4Addr>, to: IpAddr) -> io::Result<()> {
    let domain = if to.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    let to = SocketAddr::new(to, PORT);
    socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    ask(&mut socket.into())
}

/// Waits for a condition, at most `limit`; how long it took.
pub fn wait_for(what: &str, limit: Duration, mut met: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

/// Arms and opens one generation.
pub fn lease(
    lock: &mut KernelLock,
    generation: redkeep_agent::lock::Generation,
    items: &[LeaseItem],
    ttl: Duration,
) {
    lock.arm(generation, items, ttl).unwrap();
    lock.open_gates(generation, items).unwrap();
}

/// Sets `PACKET_QDISC_BYPASS` on a packet socket.
#[allow(unsafe_code)]
pub fn bypass_queueing(socket: &socket2::Socket) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the call, and the option is one `int` that outlives it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0);
}
