//! A host of the lab: a namespace with `eth0` on the switch, a directory, and its processes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::{Namespace, NamespaceThread, run_ip};
use crate::process::Process;
use crate::resp::{Connection, Reply};
use crate::tempo::slowed;
use crate::time::Mono;
use crate::writer::StopFlag;

/// Where a host stands on the network.
#[derive(Clone, Debug)]
pub(crate) struct HostSpec {
    pub(crate) name: String,
    /// Last byte of its addresses: 10.99.0.N and fd99::N.
    pub(crate) number: u8,
    /// The host on whose side of every cut this one stays; itself for most.
    pub(crate) side: String,
    pub(crate) family: Family,
}

/// By which of its two addresses a host is known to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// A machine; its network can be torn down and built anew, as a reboot does.
#[derive(Debug)]
pub struct Host {
    spec: HostSpec,
    namespace_name: String,
    switch_name: String,
    dir: PathBuf,
    net: Mutex<Option<Arc<HostNet>>>,
    processes: Mutex<Vec<Process>>,
    writers: Mutex<Vec<StopFlag>>,
}

#[derive(Debug)]
pub(crate) struct HostNet {
    namespace: Namespace,
    thread: NamespaceThread,
}

impl HostNet {
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs a closure on the thread of the namespace.
    pub(crate) fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.thread.run(job)
    }
}

impl Host {
    pub(crate) fn create(
        spec: HostSpec,
        prefix: &str,
        switch_name: &str,
        dir: PathBuf,
    ) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let host = Host {
            namespace_name: format!("{prefix}-{}", spec.name),
            switch_name: switch_name.to_owned(),
            spec,
            dir,
            net: Mutex::new(None),
            processes: Mutex::new(Vec::new()),
            writers: Mutex::new(Vec::new()),
        };
        host.boot()?;
        Ok(host)
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Address of `eth0` in the family that the lab's cluster speaks.
    pub fn address(&self) -> IpAddr {
        match self.spec.family {
            Family::V4 => IpAddr::V4(self.address_v4()),
            Family::V6 => IpAddr::V6(self.address_v6()),
        }
    }

    /// IPv4 address of `eth0`.
    pub fn address_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.spec.number)
    }

    /// IPv6 address of `eth0`.
    pub fn address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::from(self.spec.number))
    }

    /// The host's own directory; it survives a reboot.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name for `ip netns exec NAME`.
    pub fn namespace(&self) -> &str {
        &self.namespace_name
    }

    /// Name of the host's port on the switch.
    pub(crate) fn port(&self) -> String {
        format!("p-{}", self.spec.name)
    }

    pub(crate) fn side(&self) -> &str {
        &self.spec.side
    }

    /// Namespace, link and addresses of a host that has just started.
    pub(crate) fn boot(&self) -> Result<()> {
        let namespace = Namespace::create(&self.namespace_name)?;
        let (port, switch) = (self.port(), &self.switch_name);
        let number = self.spec.number;
        namespace.ip_batch(&format!(
            "link add eth0 address 02:63:00:00:00:{number:02x} type veth \
             peer name {port} netns {switch}\n"
        ))?;
        let bridge = format!("link set {port} master br0\nlink set {port} up\n");
        Namespace::borrowed(switch).ip_batch(&bridge)?;
        namespace.ip_batch(&format!(
            "link set eth0 up\n\
             addr add {}/24 dev eth0\n\
             addr add {}/64 dev eth0 nodad\n",
            self.address_v4(),
            self.address_v6()
        ))?;
        let thread = NamespaceThread::start(&namespace)?;
        thread.run(|| {
            // Clients that open a connection every few milliseconds use up the default range.
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10240 65000")
        })??;
        *self.lock_net() = Some(Arc::new(HostNet { namespace, thread }));
        Ok(())
    }

    /// Kills all processes and writers of the host, without waiting for their end.
    pub(crate) fn kill_all(&self) -> Result<()> {
        for writer in lock(&self.writers).drain(..) {
            writer.stop();
        }
        for process in lock(&self.processes).iter() {
            process.kill_without_waiting()?;
        }
        Ok(())
    }

    /// Kills all processes and writers of the host and waits for their end.
    pub(crate) fn end_processes(&self) -> Result<()> {
        self.kill_all()?;
        let processes: Vec<Process> = lock(&self.processes).drain(..).collect();
        processes.iter().try_for_each(|process| process.wait(Duration::from_secs(30)).map(drop))
    }

    /// Waits for the killed processes and removes link, namespace and all that was in it.
    pub(crate) fn tear_down(&self) -> Result<()> {
        let processes: Vec<Process> = lock(&self.processes).drain(..).collect();
        for process in processes {
            process.wait(Duration::from_secs(30))?;
        }
        // The port goes first: the namespace itself is freed later, by a worker of the kernel.
        run_ip(&["-n", &self.switch_name, "link", "del", &self.port()])?;
        let net = self.lock_net().take().context("host is already down")?;
        net.namespace.delete()
    }

    pub(crate) fn net(&self) -> Result<Arc<HostNet>> {
        self.lock_net().clone().with_context(|| format!("host {} is off", self.spec.name))
    }

    /// Starts a process on the host; its output goes to `NAME.log` in the host's directory.
    pub fn spawn(&self, name: &str, command: &Command) -> Result<Process> {
        let log = self.dir.join(format!("{name}.log"));
        let name = format!("{}/{name}", self.spec.name);
        let process = Process::start(&self.net()?.thread, &name, command, &log)?;
        lock(&self.processes).push(process.clone());
        Ok(process)
    }

    /// Runs a program on the host to its end.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.dir);
        let output = self.net()?.thread.run(move || command.output())?;
        output.with_context(|| format!("run {program} on {}", self.spec.name))
    }

    /// As [`Host::run`]; an error unless the program succeeds. Returns its stdout.
    pub fn run_ok(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} on {}: {}", words.join(" "), self.spec.name, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a closure on a thread in the host's namespace.
    pub fn in_namespace<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.net()?.thread.run(job)
    }

    /// A connection to a Redis, made from this host.
    pub fn connect(&self, to: SocketAddr, password: &str) -> Result<Connection> {
        let password = password.to_owned();
        self.in_namespace(move || Connection::open(to, &password, slowed(Duration::from_secs(2))))?
    }

    /// One command to a Redis, from this host, on a connection of its own.
    pub fn redis(&self, to: SocketAddr, password: &str, words: &[&str]) -> Result<Reply> {
        self.connect(to, password)?.call(words)
    }

    /// Adds an address to `eth0` and announces it, as an operator would by hand.
    pub fn add_address(&self, address: IpAddr) -> Result<Mono> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let text = format!("{address}/{length}");
        self.run_ok(&["ip", "addr", "replace", &text, "dev", "eth0"])?;
        let added = Mono::now();
        if address.is_ipv4() {
            let target = address.to_string();
            let output = self.run(&["arping", "-q", "-c", "1", "-U", "-I", "eth0", &target])?;
            ensure!(output.status.code().is_some(), "arping was killed");
        }
        Ok(added)
    }

    /// Removes an address from `eth0`.
    pub fn remove_address(&self, address: IpAddr) -> Result<Mono> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let text = format!("{address}/{length}");
        self.run_ok(&["ip", "addr", "del", &text, "dev", "eth0"])?;
        Ok(Mono::now())
    }

    /// Whether the host has an address at this instant.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        let listing = self.run_ok(&["ip", "-o", "addr", "show", "dev", "eth0"])?;
        let text = format!(" {address}/");
        Ok(listing.contains(&text))
    }

    /// Drops what comes over the wire to a TCP port: from these addresses, or from all if none is named.
    pub fn filter_port(&self, port: u16, from: &[IpAddr]) -> Result<Mono> {
        let from: Vec<String> = from.iter().map(IpAddr::to_string).collect();
        let family = if self.address().is_ipv4() { "ip" } else { "ip6" };
        let who = match from.join(", ") {
            all if all.is_empty() => all,
            some => format!("{family} saddr {{ {some} }}"),
        };
        let rules = format!(
            "add table inet lab; add chain inet lab in {{ type filter hook input priority -200; }}; \
             add rule inet lab in iifname eth0 tcp dport {port} {who} drop"
        );
        self.run_ok(&["nft", &rules])?;
        Ok(Mono::now())
    }

    /// Ends what [`Host::filter_port`] began; a flush of the ruleset may have done so before.
    pub fn lift_filters(&self) -> Result<Mono> {
        self.run_ok(&["nft", "add table inet lab; delete table inet lab"])?;
        Ok(Mono::now())
    }

    pub(crate) fn register_writer(&self, flag: StopFlag) {
        lock(&self.writers).push(flag);
    }

    fn lock_net(&self) -> std::sync::MutexGuard<'_, Option<Arc<HostNet>>> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
