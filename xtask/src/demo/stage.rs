//! The demo's hosts, processes and writers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use redkeep_lab::{
    ADMIN_PORT, AddressWatch, ClusterFile, CtlOutcome, DataSet, EventWatch, Host, Lab, Mono, PORT,
    Record, Redis, RedisOptions, Supervisor, Writer, WriterSpec, ctl, redkeepctl, wait_status,
};
use serde_json::Value;

use super::LIMIT;

pub(super) const GROUP: &str = "pair";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const NODES: [&str; 3] = ["a", "b", "w"];

/// Everything that runs. Fields are dropped in order: the lab last, so that it removes all.
#[derive(Debug)]
pub(super) struct Stage {
    writers: Vec<Writer>,
    redis: BTreeMap<String, Redis>,
    _supervisors: Vec<Supervisor>,
    events: Vec<EventWatch>,
    addresses: Vec<AddressWatch>,
    /// The host that is cut off now.
    pub(super) cut_host: Option<String>,
    lab: Lab,
}

impl Stage {
    /// Two hosts with Redis and one witness, supervised; waits until the pair is healthy.
    pub(super) fn build(lease: Duration) -> Result<Self> {
        let lab = Lab::builder().build()?;
        let mut redis = BTreeMap::new();
        let master = SocketAddr::from((lab.host("a")?.address(), PORT));
        let first = Redis::start(lab.host("a")?, RedisOptions::default())?;
        let second = Redis::start(lab.host("b")?, RedisOptions::replica_of(master))?;
        redis.insert("a".to_owned(), first);
        redis.insert("b".to_owned(), second);
        let addresses: Result<Vec<_>> =
            ["a", "b"].iter().map(|name| AddressWatch::start(lab.host(name)?)).collect();
        let file = ClusterFile::founding(&lab, &format!("{}ms", lease.as_millis()))?;
        let supervisors: Result<Vec<_>> =
            NODES.iter().map(|name| Supervisor::start(lab.host(name)?, &file)).collect();
        let mut stage = Stage {
            writers: Vec::new(),
            redis,
            _supervisors: supervisors?,
            events: Vec::new(),
            addresses: addresses?,
            cut_host: None,
            lab,
        };
        stage.wait_healthy()?;
        for name in NODES {
            stage.events.push(EventWatch::start(stage.lab.host(name)?)?);
        }
        stage.start_writers()?;
        Ok(stage)
    }

    fn start_writers(&mut self) -> Result<()> {
        let client = self.lab.host("c")?;
        self.writers.push(Writer::start(client, WriterSpec::fresh("fresh", self.vip()))?);
        self.writers.push(Writer::start(client, WriterSpec::held("held", self.vip()))?);
        for name in ["na", "nb"] {
            let spec = WriterSpec::held(name, self.vip()).beside_victim();
            self.writers.push(Writer::start(self.lab.host(name)?, spec)?);
        }
        self.writers.iter().try_for_each(|writer| writer.wait_more(100, LIMIT))
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The host from which the clients write and read.
    pub(super) fn client(&self) -> Result<&Host> {
        self.lab.host("c")
    }

    /// The writer that opens a connection every 5 ms.
    pub(super) fn clients(&self) -> &Writer {
        &self.writers[0]
    }

    pub(super) fn vip(&self) -> SocketAddr {
        SocketAddr::from((VIP, PORT))
    }

    pub(super) fn records(&self) -> Vec<(WriterSpec, Record)> {
        self.writers.iter().map(|writer| (writer.spec().clone(), writer.record())).collect()
    }

    pub(super) fn stop_writers(&mut self) {
        self.writers.clear();
    }

    pub(super) fn events(&self) -> &[EventWatch] {
        &self.events
    }

    /// When kernels had the VIP, and when no more.
    pub(super) fn address_moments(&self) -> Vec<redkeep_lab::Moment> {
        self.addresses.iter().flat_map(|watch| watch.moments(IpAddr::V4(VIP))).collect()
    }

    pub(super) fn redis(&self, host: &str) -> Result<&Redis> {
        self.redis.get(host).with_context(|| format!("no Redis on {host}"))
    }

    pub(super) fn restart_redis(&mut self, host: &str, data: DataSet) -> Result<()> {
        let redis = self.redis.get_mut(host).with_context(|| format!("no Redis on {host}"))?;
        redis.start_again(self.lab.host(host)?, data)?;
        redis.wait_ready()
    }

    /// Name of the host whose Redis answered the clients last.
    pub(super) fn master(&self) -> Result<String> {
        let server = self.clients().last_server().context("no write was acknowledged yet")?;
        let host = server.split(':').next().unwrap_or_default();
        Ok(host.to_owned())
    }

    /// Waits until another host's Redis acknowledges the clients' writes.
    pub(super) fn wait_taken_over(&self, old: &str, fault: Mono) -> Result<()> {
        let instance = self.redis(old)?.instance();
        for writer in &self.writers[..2] {
            writer.wait_other_server(&instance, fault, LIMIT)?;
        }
        Ok(())
    }

    /// Waits until the pair serves and its replica may be promoted.
    pub(super) fn wait_healthy(&self) -> Result<()> {
        wait_status(&self.lab, "w", "the pair to be healthy", LIMIT, is_healthy)?;
        Ok(())
    }

    /// `redkeepctl`, asked at the witness.
    pub(super) fn ctl(&self, words: &[&str]) -> Result<CtlOutcome> {
        ctl(&self.lab, "w", "w", words)
    }

    pub(super) fn describe(&self, lease: Duration) -> String {
        format!(
            "hosts a and b with Redis on port {PORT}, witness w, clients on c (and na beside a, \
             nb beside b)\nVIP {VIP}, lease {} ms; writers: one opens a connection every 5 ms, \
             one holds its own",
            lease.as_millis()
        )
    }

    /// Commands for another terminal.
    pub(super) fn commands(&self) -> Result<Vec<String>> {
        let program = redkeepctl()?;
        let witness = self.lab.host("w")?;
        let start = format!(
            "ip netns exec {} {} --endpoint {}:{ADMIN_PORT}",
            witness.namespace(),
            program.display(),
            witness.address()
        );
        let switchover = format!("switchover {GROUP} --wait");
        let explain = format!("explain {GROUP}");
        let verbs = ["status", "history", &explain, "events", &switchover];
        Ok(verbs.iter().map(|verb| format!("{start} {verb}")).collect())
    }
}

fn is_healthy(status: &Value) -> bool {
    let Some(groups) = status["groups"].as_array() else { return false };
    let healthy = |group: &Value| {
        let eligible = group["eligible"].as_array().map_or(0, Vec::len);
        group["serving"].as_bool() == Some(true) && eligible > 0
    };
    !groups.is_empty() && groups.iter().all(healthy)
}
