//! What every contender gets: hosts `a`, `b`, `w`, a running Redis pair, and writers on `c` and,
//! where a host is cut off, on its neighbour `na`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::lab::{Builder, Lab};
use crate::process::wait_until;
use crate::redis::{DataSet, PASSWORD, PORT, Redis, RedisOptions, wait_stream};
use crate::resp::Reply;
use crate::time::Mono;
use crate::verdict::Outcome;
use crate::writer::{Directory, Writer, WriterSpec};

/// Longest wait for anything; the slowest contender needs about ten seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Writers first: they end before what they write to.
#[derive(Debug)]
pub(crate) struct Stage {
    writers: Vec<Writer>,
    redis: BTreeMap<String, Redis>,
    lab: Lab,
}

impl Drop for Stage {
    /// The lab kills what is left, but only a wait frees the numbers of this process's children,
    /// and a measurement has thousands of them.
    fn drop(&mut self) {
        for host in self.lab.hosts() {
            if let Err(error) = host.end_processes() {
                eprintln!("bench: {error:#}");
            }
        }
    }
}

impl Stage {
    /// Master on `a`, replica on `b`, in step; nobody supervises them and nobody has the VIP.
    pub(super) fn build() -> Result<Self> {
        let builder = Builder::empty().host("a", 1).host("b", 2).host("w", 3).host("c", 50);
        Self::build_in(builder.neighbour("na", 51, "a").build()?)
    }

    /// The same in a lab of the caller's.
    pub(crate) fn build_in(lab: Lab) -> Result<Self> {
        let master = SocketAddr::new(lab.host("a")?.address(), PORT);
        let mut redis = BTreeMap::new();
        redis.insert("a".to_owned(), Redis::start(lab.host("a")?, RedisOptions::default())?);
        let options = RedisOptions::replica_of(master);
        redis.insert("b".to_owned(), Redis::start(lab.host("b")?, options)?);
        let stage = Stage { writers: Vec::new(), redis, lab };
        stage.wait_replicating("a", "b")?;
        Ok(stage)
    }

    /// Waits until `master` is one, `replica` has a link to it, and what is written flows.
    pub(super) fn wait_replicating(&self, master: &str, replica: &str) -> Result<()> {
        wait_until(&format!("{replica} to replicate {master}"), LIMIT, || {
            let at_master = self.replication(master).ok()?;
            let at_replica = self.replication(replica).ok()?;
            let good = at_master.contains("role:master")
                && at_replica.contains("role:slave")
                && at_replica.contains("master_link_status:up");
            good.then_some(())
        })?;
        wait_stream(self.host(master)?, self.host(replica)?, LIMIT)
    }

    pub(crate) fn replication(&self, host: &str) -> Result<String> {
        let reply = self.command(host, &["INFO", "replication"])?;
        reply.text().context("INFO is no text")
    }

    /// One command to a host's Redis, from that host.
    pub(super) fn command(&self, host: &str, words: &[&str]) -> Result<Reply> {
        self.host(host)?.redis(SocketAddr::from(([127, 0, 0, 1], PORT)), PASSWORD, words)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn host(&self, name: &str) -> Result<&Host> {
        self.lab.host(name)
    }

    pub(crate) fn redis(&self, host: &str) -> Result<&Redis> {
        self.redis.get(host).with_context(|| format!("no Redis on {host}"))
    }

    /// Starts a Redis that has ended by its own file again; waits until it is ready.
    pub(crate) fn restart_redis(&mut self, host: &str, data: DataSet) -> Result<()> {
        let redis = self.redis.get_mut(host).with_context(|| format!("no Redis on {host}"))?;
        redis.start_again(self.lab.host(host)?, data)?;
        redis.wait_ready()
    }

    pub(super) fn vip(&self) -> IpAddr {
        self.lab.vip()
    }

    /// Both kinds of writer on `c`; waits until both write.
    pub(crate) fn start_writers(&mut self, directory: Option<&Directory>) -> Result<()> {
        let vip = SocketAddr::new(self.vip(), PORT);
        for spec in [WriterSpec::fresh("fresh", vip), WriterSpec::held("held", vip)] {
            let spec = match directory {
                Some(directory) => spec.following(directory.clone()),
                None => spec,
            };
            self.start_writer("c", spec)?;
        }
        self.wait_more(100)
    }

    /// A writer more on a host; does not wait for it.
    pub(crate) fn start_writer(&mut self, host: &str, spec: WriterSpec) -> Result<()> {
        self.writers.push(Writer::start(self.lab.host(host)?, spec)?);
        Ok(())
    }

    /// A writer that stays on the side of `a` when that is cut off; waits until it writes.
    ///
    /// It uses the VIP, or what a Sentinel on that side goes on naming.
    pub(super) fn start_neighbour(&mut self, directory: Option<&Directory>) -> Result<()> {
        let target = match directory {
            Some(directory) => directory.get(),
            None => SocketAddr::new(self.vip(), PORT),
        };
        let spec = WriterSpec::fresh("beside", target).beside_victim();
        let writer = Writer::start(self.lab.host("na")?, spec)?;
        writer.wait_more(100, LIMIT)?;
        self.writers.push(writer);
        Ok(())
    }

    /// All writers, those of [`Stage::start_writers`] first.
    pub(crate) fn writers(&self) -> &[Writer] {
        &self.writers
    }

    /// The writers on `c`.
    fn clients(&self) -> &[Writer] {
        &self.writers[..self.writers.len().min(2)]
    }

    /// Waits until each client has `count` acknowledgements more.
    pub(super) fn wait_more(&self, count: usize) -> Result<()> {
        self.clients().iter().try_for_each(|writer| writer.wait_more(count, LIMIT))
    }

    /// Waits until each client was answered by another Redis than the one of `old`.
    pub(super) fn wait_taken_over(&self, old: &str, fault: Mono) -> Result<()> {
        let instance = self.redis(old)?.instance();
        for writer in self.clients() {
            writer.wait_other_server(&instance, fault, LIMIT)?;
        }
        Ok(())
    }

    /// Host whose Redis acknowledged a write last.
    pub(crate) fn master(&self) -> Result<String> {
        let writer = self.writers.first().context("no writer runs")?;
        let server = writer.last_server().context("no write was acknowledged yet")?;
        Ok(server.split(':').next().unwrap_or_default().to_owned())
    }

    /// Ends the writers and looks for all they had acknowledged where they would now write.
    pub(crate) fn finish_writers(&mut self) -> Result<Outcome> {
        let aim = self.writers.first().context("no writer runs")?.spec().aim();
        let records = self.writers.drain(..).map(Writer::finish).collect();
        Outcome::collect(records, self.lab.host("c")?, aim)
    }
}
