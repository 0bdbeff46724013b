//! The founding set-up, running: a pair of Redis on `a` and `b`, supervised there and on
//! witness `w`, with writers through the VIP.
//!
//! Redis runs before the supervisors, so each start is an adoption of a running pair.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::address_watch::AddressWatch;
use crate::host::Host;
use crate::lab::Lab;
use crate::redis::{DataSet, PORT, Redis, RedisOptions};
use crate::supervisor::{ClusterFile, CtlOutcome, Supervisor, ctl, wait_status};
use crate::tempo::slowed;
use crate::time::Mono;
use crate::timeline::{EventWatch, Moment};
use crate::units::{boot_units, drop_in};
use crate::verdict::Outcome;
use crate::writer::{Ack, Record, Writer, WriterSpec};

/// Name of the group in the founding cluster file.
pub const GROUP: &str = "pair";
/// Its virtual address, and the one of a lab that speaks IPv6.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x100);

/// Longest wait of this module for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// Everything that runs. Fields are dropped in order: the lab last, so that it removes all.
#[derive(Debug)]
pub struct Pair {
    writers: Vec<Writer>,
    redis: BTreeMap<String, Redis>,
    supervisors: BTreeMap<String, Supervisor>,
    events: Vec<EventWatch>,
    addresses: Vec<AddressWatch>,
    lab: Lab,
}

impl Pair {
    /// Master on `a`, replica on `b`, three supervisors; waits until the pair is healthy.
    pub fn start(lease_ttl: &str) -> Result<Self> {
        let lab = Lab::builder().build()?;
        let file = ClusterFile::founding(&lab, lease_ttl)?;
        Self::start_in(lab, &file, &RedisOptions::default())
    }

    /// As [`Pair::start`], in a lab and with a file and Redis options of the caller's.
    ///
    /// Members of the file's first group get a Redis, the first of them as master.
    pub fn start_in(lab: Lab, file: &ClusterFile, options: &RedisOptions) -> Result<Self> {
        let mut pair = Pair {
            writers: Vec::new(),
            redis: BTreeMap::new(),
            supervisors: BTreeMap::new(),
            events: Vec::new(),
            addresses: Vec::new(),
            lab,
        };
        let members = &file.groups.first().context("no group")?.members;
        let first = members.first().context("no member")?;
        let master = SocketAddr::from((pair.lab.host(first)?.address(), options.port));
        for name in members {
            let host = pair.lab.host(name)?;
            let replica_of = (name != first).then_some(master);
            let redis = Redis::start(host, RedisOptions { replica_of, ..options.clone() })?;
            pair.redis.insert(name.clone(), redis);
            pair.addresses.push(AddressWatch::start(host)?);
        }
        for (name, _) in &file.nodes {
            let supervisor = Supervisor::start(pair.lab.host(name)?, file)?;
            pair.supervisors.insert(name.clone(), supervisor);
        }
        pair.wait_healthy()?;
        for (name, _) in &file.nodes {
            pair.events.push(EventWatch::start(pair.lab.host(name)?)?);
        }
        Ok(pair)
    }

    /// Starts both kinds of writer on `c`, and one on each host of `beside` (`na`, `nb`, or a
    /// member itself) that counts for loss and two masters only; waits until all write.
    pub fn start_writers(&mut self, beside: &[&str]) -> Result<()> {
        let client = self.lab.host("c")?;
        self.writers.push(Writer::start(client, WriterSpec::fresh("fresh", self.vip()))?);
        self.writers.push(Writer::start(client, WriterSpec::held("held", self.vip()))?);
        for name in beside {
            let spec = WriterSpec::held(name, self.vip()).beside_victim();
            self.writers.push(Writer::start(self.lab.host(name)?, spec)?);
        }
        self.writers.iter().try_for_each(|writer| writer.wait_more(100, slowed(LIMIT)))
    }

    /// Starts a writer more on a host; does not wait for it.
    pub fn start_writer(&mut self, host: &str, spec: WriterSpec) -> Result<()> {
        self.writers.push(Writer::start(self.lab.host(host)?, spec)?);
        Ok(())
    }

    /// Listens again to a node whose stream of events has ended, as it does with its supervisor.
    pub(crate) fn watch_events(&mut self, node: &str) -> Result<()> {
        let lab = &self.lab;
        let watch = self.events.iter_mut().find(|watch| watch.node() == node);
        let watch = watch.with_context(|| format!("no events of {node}"))?;
        if !watch.is_running() {
            *watch = EventWatch::start(lab.host(node)?)?;
        }
        Ok(())
    }

    /// Listens to a member's kernel again, whose notifications ended with its power.
    pub(crate) fn watch_addresses(&mut self, host: &str) -> Result<()> {
        self.addresses.push(AddressWatch::start(self.lab.host(host)?)?);
        Ok(())
    }

    /// Where the group's clients connect.
    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip(), PORT)
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    pub fn host(&self, name: &str) -> Result<&Host> {
        self.lab.host(name)
    }

    pub fn redis(&self, host: &str) -> Result<&Redis> {
        self.redis.get(host).with_context(|| format!("no Redis on {host}"))
    }

    /// Every host is powered off, and comes back with Redis as its files make it, a master at `a`. When all were off, and when
    /// the supervisors began to start.
    pub fn restart_all_hosts(&mut self) -> Result<(Mono, Mono)> {
        // The master at a last: however slowly the others go, nobody is left to take over from it.
        for host in ["w", "b", "a"] {
            self.lab.power_off(host)?;
        }
        let off = Mono::now();
        for host in ["a", "b", "w"] {
            self.lab.power_on(host)?;
        }
        for host in ["a", "b"] {
            boot_units(self.host(host)?)?;
            drop_in(self.host(host)?)?;
            self.restart_redis(host, DataSet::Kept)?;
        }
        let started = Mono::now();
        for host in ["w", "b", "a"] {
            self.restart_supervisor(host)?;
        }
        Ok((off, started))
    }

    pub fn redis_mut(&mut self, host: &str) -> Result<&mut Redis> {
        self.redis.get_mut(host).with_context(|| format!("no Redis on {host}"))
    }

    pub fn supervisor(&self, host: &str) -> Result<&Supervisor> {
        self.supervisors.get(host).with_context(|| format!("no supervisor on {host}"))
    }

    /// Starts a Redis that has ended by its own file again; waits until it is ready.
    pub fn restart_redis(&mut self, host: &str, data: DataSet) -> Result<Mono> {
        let redis = self.redis.get_mut(host).with_context(|| format!("no Redis on {host}"))?;
        let at = redis.start_again(self.lab.host(host)?, data)?;
        redis.wait_ready()?;
        Ok(at)
    }

    /// Starts a supervisor that has ended again.
    pub fn restart_supervisor(&mut self, host: &str) -> Result<Mono> {
        let supervisor =
            self.supervisors.get_mut(host).with_context(|| format!("no supervisor on {host}"))?;
        supervisor.start_again(self.lab.host(host)?)
    }

    /// All writers, those on `c` first.
    pub fn writers(&self) -> &[Writer] {
        &self.writers
    }

    pub fn events(&self) -> &[EventWatch] {
        &self.events
    }

    /// When the members' kernels had the VIP, and when no more.
    pub fn address_moments(&self) -> Vec<Moment> {
        self.addresses.iter().flat_map(|watch| watch.moments(self.vip().ip())).collect()
    }

    /// Name of the host whose Redis acknowledged a client's write last.
    pub fn master(&self) -> Result<String> {
        let writer = self.writers.first().context("no writer runs")?;
        let server = writer.last_server().context("no write was acknowledged yet")?;
        Ok(server.split(':').next().unwrap_or_default().to_owned())
    }

    /// Another member, the first by name.
    pub fn other(&self, member: &str) -> Result<&str> {
        let mut names = self.redis.keys().map(String::as_str);
        names.find(|name| *name != member).context("there is one member only")
    }

    /// Waits until every client on `c` had a write acknowledged by another Redis than `old`'s
    /// present start, after `fault`; returns the first such acknowledgement.
    pub fn wait_taken_over(&self, old: &str, fault: Mono) -> Result<Ack> {
        let instance = self.redis(old)?.instance();
        let clients = self.writers.iter().take(2);
        let acks: Result<Vec<Ack>> = clients
            .map(|writer| writer.wait_other_server(&instance, fault, slowed(LIMIT)))
            .collect();
        acks?.into_iter().min_by_key(|ack| ack.seen).context("no writer runs")
    }

    /// Waits until each group serves, as committed, and has a replica that may be promoted.
    pub fn wait_healthy(&self) -> Result<Value> {
        self.wait_healthy_at("w")
    }

    /// As [`Pair::wait_healthy`], asked at a node of the caller's choice.
    pub fn wait_healthy_at(&self, endpoint: &str) -> Result<Value> {
        wait_status(&self.lab, endpoint, "the pair to be healthy", slowed(LIMIT), is_healthy)
    }

    /// `redkeepctl`, run on `w` against the node there.
    pub fn ctl(&self, words: &[&str]) -> Result<CtlOutcome> {
        ctl(&self.lab, "w", "w", words)
    }

    /// What the writers have seen so far.
    pub fn records(&self) -> Vec<(WriterSpec, Record)> {
        self.writers.iter().map(|writer| (writer.spec().clone(), writer.record())).collect()
    }

    /// Looks at the VIP for everything acknowledged so far; writers go on.
    pub fn outcome(&self) -> Result<Outcome> {
        Outcome::collect(self.records(), self.lab.host("c")?, self.vip())
    }

    /// Ends all writers and looks at the VIP for everything they had acknowledged.
    pub fn finish_writers(&mut self) -> Result<Outcome> {
        let records = self.end_writers();
        self.outcome_of(records)
    }

    /// Ends all writers and says what they saw.
    pub(crate) fn end_writers(&mut self) -> Vec<(WriterSpec, Record)> {
        self.writers.drain(..).map(Writer::finish).collect()
    }

    /// Looks at the VIP for everything that was acknowledged.
    pub(crate) fn outcome_of(&self, records: Vec<(WriterSpec, Record)>) -> Result<Outcome> {
        Outcome::collect(records, self.lab.host("c")?, self.vip())
    }
}

/// Each group serves, as committed, and has a replica that may be promoted.
pub(crate) fn is_healthy(status: &Value) -> bool {
    let Some(groups) = status["groups"].as_array() else { return false };
    let healthy = |group: &Value| {
        let eligible = group["eligible"].as_array().map_or(0, Vec::len);
        group["serving"].as_bool() == Some(true) && eligible > 0
    };
    !groups.is_empty() && groups.iter().all(healthy)
}
