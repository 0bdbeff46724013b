//! Redis Sentinel on `a`, `b` and `w`, and clients that ask it where the master is.
//!
//! The clients' side is generous: a thread of its own asks each Sentinel every few milliseconds,
//! and the first to name a new master is believed, as by Jedis, which listens to all of them. A
//! library that asks only after its connection broke, or listens to one, is slower.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::contender::Contender;
use super::stage::{LIMIT, Stage};
use crate::host::Host;
use crate::lab::Lab;
use crate::process::wait_until;
use crate::redis::{PASSWORD, PORT};
use crate::resp::{Connection, Reply};
use crate::writer::Directory;

pub(super) const DESCRIPTION_300: &str = "three `redis-sentinel` (a, b, w), quorum 2, \
    `down-after-milliseconds 300`, `failover-timeout 3000`, `parallel-syncs 1`; clients ask all \
    three Sentinels every 5 ms and connect to what the first names; planned: `SENTINEL FAILOVER`";
pub(super) const DESCRIPTION_1000: &str = "as sentinel-300, with `down-after-milliseconds 1000`";

const SENTINEL_PORT: u16 = 26379;
const NAME: &str = "pair";
/// Legal is anything above zero. A promotion is noticed by an INFO that is sent once a second and
/// is aborted after this time, so one second would abort good ones.
const FAILOVER_TIMEOUT_MS: u32 = 3000;
/// How often the clients ask each Sentinel.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// A Sentinel that takes longer is asked anew.
const ASK_LIMIT: Duration = Duration::from_millis(100);

const NODES: [&str; 3] = ["a", "b", "w"];

#[derive(Debug)]
pub(crate) struct Sentinel {
    /// What the client on `c` is told.
    directory: Directory,
    stop: Arc<AtomicBool>,
}

impl Sentinel {
    /// Three Sentinels over a pair whose master is on `a`, and a client on `c` that asks them.
    pub(crate) fn start(lab: &Lab, down_after_ms: u32) -> Result<Self> {
        let master = SocketAddr::new(lab.host("a")?.address(), PORT);
        for name in NODES {
            launch(lab.host(name)?, master, down_after_ms)?;
        }
        for name in NODES {
            wait_complete(lab.host(name)?)?;
        }
        let mut sentinel = Sentinel { directory: Directory::new(master), stop: Arc::default() };
        sentinel.directory = sentinel.client(lab, "c")?;
        Ok(sentinel)
    }

    /// A client more, which asks all Sentinels that it reaches; what it is told.
    pub(crate) fn client(&self, lab: &Lab, host: &str) -> Result<Directory> {
        let directory = Directory::new(self.directory.get());
        for name in NODES {
            let at = SocketAddr::new(lab.host(name)?.address(), SENTINEL_PORT);
            self.ask_always(lab.host(host)?, at, directory.clone())?;
        }
        Ok(directory)
    }

    /// What the client on `c` is told.
    pub(crate) fn named(&self) -> &Directory {
        &self.directory
    }

    /// A thread in the client's namespace that publishes each change of one Sentinel's answer.
    fn ask_always(&self, client: &Host, sentinel: SocketAddr, directory: Directory) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let net = client.net()?;
        std::thread::Builder::new().name("ask-sentinel".into()).spawn(move || {
            let entered = net.namespace().enter();
            drop(net);
            if let Err(error) = entered {
                eprintln!("sentinel: {error:#}");
                return;
            }
            let mut told = directory.get();
            let mut connection = None;
            while !stop.load(Ordering::Relaxed) {
                match ask(&mut connection, sentinel) {
                    Ok(named) if named != told => {
                        told = named;
                        directory.set(named);
                    }
                    Ok(_) => {}
                    Err(_) => connection = None,
                }
                // The pause between two questions, not a synchronisation.
                std::thread::sleep(ASK_EVERY);
            }
        })?;
        Ok(())
    }
}

impl Contender for Sentinel {
    fn directory(&self) -> Option<&Directory> {
        Some(self.named())
    }

    fn switch_over(&self, stage: &Stage, _old: &str) -> Result<()> {
        let reply = sentinel_command(stage.host("w")?, &["SENTINEL", "FAILOVER", NAME])?;
        ensure!(matches!(reply, Reply::Simple(_)), "SENTINEL FAILOVER: {reply:?}");
        Ok(())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn launch(host: &Host, master: SocketAddr, down_after_ms: u32) -> Result<()> {
    let dir = host.dir().join("sentinel");
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("sentinel.conf");
    let text = format!(
        "port {SENTINEL_PORT}\ndir \"{}\"\nprotected-mode no\ndaemonize no\n\
         sentinel monitor {NAME} {} {} 2\n\
         sentinel auth-pass {NAME} {PASSWORD}\n\
         sentinel down-after-milliseconds {NAME} {down_after_ms}\n\
         sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}\n\
         sentinel parallel-syncs {NAME} 1\n",
        dir.display(),
        master.ip(),
        master.port()
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new("redis-sentinel");
    command.arg(&config).current_dir(&dir);
    host.spawn("sentinel", &command).context("redis-sentinel (Debian package redis-sentinel)")?;
    Ok(())
}

/// Waits until a Sentinel knows the replica and the two others, and would find a majority.
fn wait_complete(host: &Host) -> Result<()> {
    wait_until(&format!("the Sentinel on {} to know all", host.name()), LIMIT, || {
        let reply = sentinel_command(host, &["SENTINEL", "MASTER", NAME]).ok()?;
        let quorum = sentinel_command(host, &["SENTINEL", "CKQUORUM", NAME]).ok()?;
        let complete = field(&reply, "num-slaves")? == "1"
            && field(&reply, "num-other-sentinels")? == "2"
            && field(&reply, "flags")? == "master"
            && matches!(quorum, Reply::Simple(_));
        complete.then_some(())
    })
}

/// Of a map that comes as keys and values in turn.
fn field(reply: &Reply, name: &str) -> Option<String> {
    let pairs = reply.elements().chunks_exact(2);
    let found = pairs.into_iter().find(|pair| pair[0].text().as_deref() == Some(name))?;
    found[1].text()
}

/// One command to a host's own Sentinel.
fn sentinel_command(host: &Host, words: &[&str]) -> Result<Reply> {
    let at = SocketAddr::from(([127, 0, 0, 1], SENTINEL_PORT));
    let connect = move || Connection::open_without_password(at, Duration::from_secs(2));
    host.in_namespace(connect)??.call(words)
}

fn ask(connection: &mut Option<Connection>, sentinel: SocketAddr) -> Result<SocketAddr> {
    if connection.is_none() {
        *connection = Some(Connection::open_without_password(sentinel, ASK_LIMIT)?);
    }
    let open = connection.as_mut().context("no connection")?;
    let reply = open.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
    named(&reply).with_context(|| format!("{reply:?}"))
}

fn named(reply: &Reply) -> Option<SocketAddr> {
    let [ip, port] = reply.elements() else { return None };
    Some(SocketAddr::new(ip.text()?.parse().ok()?, port.text()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(Some(text.as_bytes().to_vec()))
    }

    #[test]
    fn answers_of_a_sentinel_are_read() {
        let address = Reply::Array(vec![bulk("10.99.0.2"), bulk("16465")]);
        assert_eq!(named(&address), Some(SocketAddr::from(([10, 99, 0, 2], 16465))));
        assert_eq!(named(&Reply::Array(Vec::new())), None);
        let map = Reply::Array(vec![bulk("flags"), bulk("master"), bulk("num-slaves"), bulk("1")]);
        assert_eq!(field(&map, "num-slaves").as_deref(), Some("1"));
        assert_eq!(field(&map, "master"), None);
    }
}
