//! The lower limit: one program with hands on both hosts that acts at once and asks nobody.
//!
//! It is no solution: it takes a closed connection for a dead master, it is one process, and of
//! the loss of a host it is told by the benchmark itself. What it needs at the moment of the
//! fault was started before: connections to both Redis, and an `ip -batch` on each host.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::contender::Contender;
use super::stage::{LIMIT, Stage};
use crate::host::Host;
use crate::process::wait_until;
use crate::redis::{PASSWORD, PORT};
use crate::resp::{Connection, Reply};

pub(super) const DESCRIPTION: &str = "one program with open connections to both Redis and an \
    `ip -batch` waiting on both hosts; when the master's connection closes it sends \
    `REPLICAOF NO ONE` to the replica, moves the VIP and announces it by gratuitous ARP; of the \
    loss of a host the benchmark tells it, and its hand reaches a host that is cut off; planned: pause writes, wait until the replica has all, \
    promote, move; unsafe by design, the lower limit";

#[derive(Debug)]
pub(super) struct Oracle {
    hands: Arc<Mutex<Hands>>,
    /// Whether the first loss has been acted on, or the run is over.
    done: Arc<AtomicBool>,
}

/// What it holds of both hosts.
#[derive(Debug)]
struct Hands {
    old: Connection,
    new: Connection,
    at_old: IpBatch,
    at_new: IpBatch,
    announcer: Announcer,
    vip: String,
}

impl Oracle {
    /// Puts the VIP on `a`, and watches the master there.
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let (old, new) = (stage.host("a")?, stage.host("b")?);
        let vip = stage.vip();
        old.add_address(vip)?;
        let here = SocketAddr::from(([127, 0, 0, 1], PORT));
        let hands = Hands {
            old: old.connect(here, PASSWORD)?,
            new: new.connect(here, PASSWORD)?,
            at_old: IpBatch::start(old)?,
            at_new: IpBatch::start(new)?,
            announcer: Announcer { namespace: new.net()?, started: Vec::new() },
            vip: vip.to_string(),
        };
        let oracle = Oracle { hands: Arc::new(Mutex::new(hands)), done: Arc::default() };
        let mut watched = old.connect(here, PASSWORD)?;
        let (hands, done) = (Arc::clone(&oracle.hands), Arc::clone(&oracle.done));
        // It ends when the lab does, which ends the watched Redis.
        std::thread::Builder::new().name("oracle".into()).spawn(move || {
            if watched.wait_closed().is_err() || done.swap(true, Ordering::SeqCst) {
                return;
            }
            if let Err(error) = lock(&hands).take_over(true) {
                eprintln!("oracle: {error:#}");
            }
        })?;
        Ok(oracle)
    }
}

impl Contender for Oracle {
    fn host_lost(&self, it_lives: bool) -> Result<()> {
        if self.done.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        lock(&self.hands).take_over(it_lives)
    }

    fn switch_over(&self, stage: &Stage, old: &str) -> Result<()> {
        ensure!(!self.done.swap(true, Ordering::SeqCst), "it has acted already");
        let replica_of = stage.host(if old == "a" { "b" } else { "a" })?.address().to_string();
        lock(&self.hands).switch_over(&replica_of)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
    }
}

impl Hands {
    fn take_over(&mut self, old_lives: bool) -> Result<()> {
        self.new.send(&["REPLICAOF", "NO", "ONE"])?;
        self.move_address(old_lives)?;
        expect_ok(&self.new.receive()?)
    }

    /// Nothing is lost: the master takes no write from the pause to its being a replica.
    fn switch_over(&mut self, new_address: &str) -> Result<()> {
        expect_ok(&self.old.call(&["CLIENT", "PAUSE", "5000", "WRITE"])?)?;
        let goal = offset(&mut self.old, "master_repl_offset:")?;
        wait_until("the replica to have all", LIMIT, || {
            let reached = offset(&mut self.new, "slave_repl_offset:").ok()?;
            (reached >= goal).then_some(())
        })?;
        self.take_over(true)?;
        expect_ok(&self.old.call(&["REPLICAOF", new_address, &PORT.to_string()])?)?;
        expect_ok(&self.old.call(&["CLIENT", "UNPAUSE"])?)
    }

    fn move_address(&mut self, old_lives: bool) -> Result<()> {
        let vip = &self.vip;
        if old_lives {
            self.at_old.send(&format!("addr del {vip}/32 dev eth0\n"))?;
        }
        // The listing's line tells that the address is there, without which `arping` refuses.
        self.at_new.send(&format!("addr add {vip}/32 dev eth0\naddr show dev eth0 to {vip}\n"))?;
        self.at_new.receive()?;
        self.announcer.announce(vip)
    }
}

fn expect_ok(reply: &Reply) -> Result<()> {
    match reply {
        Reply::Simple(_) => Ok(()),
        other => bail!("Redis answered {other:?}"),
    }
}

fn offset(connection: &mut Connection, field: &str) -> Result<u64> {
    let text = connection.call(&["INFO", "replication"])?.text().context("INFO is no text")?;
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    Ok(value.with_context(|| format!("INFO has no {field}"))?.trim().parse()?)
}

/// `ip -batch -`, waiting for lines.
#[derive(Debug)]
struct IpBatch {
    child: Child,
    lines: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl IpBatch {
    fn start(host: &Host) -> Result<Self> {
        let mut child = host.in_namespace(|| {
            let mut command = Command::new("ip");
            command.args(["-o", "-force", "-batch", "-"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        })??;
        let lines = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(IpBatch { child, lines, answers })
    }

    fn send(&mut self, lines: &str) -> Result<()> {
        let pipe = self.lines.as_mut().context("no stdin")?;
        pipe.write_all(lines.as_bytes()).and_then(|()| pipe.flush()).context("write to ip")
    }

    fn receive(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "ip has ended");
        Ok(line)
    }
}

impl Drop for IpBatch {
    fn drop(&mut self) {
        // It ends at the end of its input.
        drop(self.lines.take());
        let _ = self.child.wait();
    }
}

/// Sends gratuitous ARP by `arping`, whose start is a part of the oracle's time.
#[derive(Debug)]
struct Announcer {
    namespace: Arc<crate::host::HostNet>,
    started: Vec<Child>,
}

impl Announcer {
    fn announce(&mut self, vip: &str) -> Result<()> {
        let mut command = Command::new("arping");
        command.args(["-q", "-c", "1", "-U", "-I", "eth0", vip]).stdin(Stdio::null());
        self.started.push(self.namespace.run(move || command.spawn())?.context("run arping")?);
        Ok(())
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        for child in &mut self.started {
            let ended = wait_until("arping to end", Duration::from_secs(5), || {
                child.try_wait().ok().flatten()
            });
            if ended.is_err() {
                // Its namespace goes with the lab, and it with that.
                let _ = child.kill();
            }
        }
    }
}

fn lock(hands: &Mutex<Hands>) -> std::sync::MutexGuard<'_, Hands> {
    hands.lock().unwrap_or_else(PoisonError::into_inner)
}
