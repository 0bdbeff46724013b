//! The same plan for a pair under Redis Sentinel, judged by the same checker: it must see what is there to be seen.
//!
//! Faults that mean nothing without a VIP, an nftables table or our log are left out, and those of Sentinel's own processes
//! too. Clients are as generous as those of the benchmark: each asks all Sentinels that it reaches and believes the first that
//! names another master.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::act::wait_for;
use super::check::judge;
use super::history::{Deed, History, Reign, Write};
use super::plan::{Fault, Plan, Role, Step};
use super::run::{BOUNDS, PATIENCE, Run};
use crate::bench::sentinel::Sentinel;
use crate::lab::Lab;
use crate::process::wait_until;
use crate::redis::{DataSet, PASSWORD, PORT, Redis, RedisOptions, wait_stream};
use crate::time::{Mono, WallOffset};
use crate::verdict::Outcome;
use crate::writer::{Writer, WriterSpec};

const LIMIT: Duration = Duration::from_secs(60);
const DOWN_AFTER_MS: u32 = 300;

/// Writers first: they end before what they write to.
struct Stage {
    writers: Vec<Writer>,
    sentinel: Sentinel,
    redis: BTreeMap<String, Redis>,
    deeds: Vec<Deed>,
    active: Vec<Active>,
    lab: Lab,
}

struct Active {
    deed: usize,
    step: Step,
    host: String,
    other: String,
    until: Mono,
}

/// Runs what of a plan applies; the files go to a directory of their own below `out`.
pub fn run_sentinel(plan: &Plan, out: &Path) -> Result<Run> {
    let mut stage = Stage::build()?;
    let origin = Mono::now();
    let mut steps = plan.steps.iter().peekable();
    loop {
        let begin = steps.peek().map(|step| origin + step.at);
        let ends = stage.active.iter().map(|active| active.until).min();
        let Some(next) = begin.into_iter().chain(ends).min() else { break };
        wait_for(next)?;
        stage.end_due(false)?;
        if let Some(step) = steps.next_if(|step| origin + step.at <= Mono::now()) {
            stage.begin(*step)?;
        }
    }
    stage.end_due(true)?;
    let calm = Mono::now();
    let mut history = History { origin: Some(origin), ..History::default() };
    match wait_until("all to be well", PATIENCE, || stage.is_well(calm).then(Mono::now)) {
        Ok(well) => history.healed = Some(well.since(calm)),
        Err(error) => history.ailment = Some(format!("{error:#}")),
    }
    stage.collect(&mut history)?;
    let judgement = judge(&history, &BOUNDS);
    let dir = out.join(format!("sentinel-seed-{}-{}", plan.seed, std::process::id()));
    std::fs::create_dir_all(&dir)?;
    history.save(&dir.join("history.jsonl"))?;
    Ok(Run { history, judgement, dir })
}

impl Stage {
    fn build() -> Result<Self> {
        let lab = Lab::builder().build()?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let master = SocketAddr::new(a.address(), PORT);
        let mut redis = BTreeMap::new();
        redis.insert("a".to_owned(), Redis::start(a, RedisOptions::default())?);
        redis.insert("b".to_owned(), Redis::start(b, RedisOptions::replica_of(master))?);
        wait_stream(a, b, LIMIT)?;
        let sentinel = Sentinel::start(&lab, DOWN_AFTER_MS)?;
        let mut writers = Vec::new();
        for spec in [
            WriterSpec::fresh("fresh", master),
            WriterSpec::held("held", master),
            WriterSpec::confirmed("wait", master, 1),
        ] {
            let spec = spec.following(sentinel.named().clone());
            writers.push(Writer::start(lab.host("c")?, spec)?);
        }
        for name in ["na", "nb"] {
            let spec = WriterSpec::held(name, master).beside_victim();
            let spec = spec.following(sentinel.client(&lab, name)?);
            writers.push(Writer::start(lab.host(name)?, spec)?);
        }
        writers.iter().try_for_each(|writer| writer.wait_more(100, LIMIT))?;
        Ok(Stage { writers, sentinel, redis, deeds: Vec::new(), active: Vec::new(), lab })
    }

    fn host_with(&self, role: Role) -> Result<String> {
        let last = self.writers[0].last_server().context("no write was acknowledged")?;
        let master = if last.starts_with("a:") { "a" } else { "b" };
        let replica = if master == "a" { "b" } else { "a" };
        Ok(match role {
            Role::Master => master,
            Role::Replica => replica,
            Role::Witness => "w",
        }
        .to_owned())
    }

    fn begin(&mut self, step: Step) -> Result<()> {
        let host = self.host_with(step.target)?;
        let from = Mono::now();
        let other = match step.fault {
            Fault::CutLink(to) => self.host_with(to)?,
            _ => String::new(),
        };
        let (deed, until) = (self.deeds.len(), from + step.length);
        let active = Active { deed, step, host: host.clone(), other, until };
        let note = self.objection(step.fault, &host);
        let done = note.is_none();
        if done {
            self.inflict(&active)?;
        }
        self.deeds.push(Deed { fault: step.fault, host, from, to: Mono::now(), note, done });
        if done && step.length > Duration::ZERO {
            self.active.push(active);
        }
        Ok(())
    }

    /// Why a fault is left out: it means nothing here, or nobody could answer for what it destroys.
    fn objection(&self, fault: Fault, host: &str) -> Option<String> {
        match fault {
            Fault::KillRedis | Fault::EmptyRedis => {
                let other = if host == "a" { "b" } else { "a" };
                let copy = self.replication(other).is_some_and(|info| {
                    info.contains("role:master") || info.contains("master_link_status:up")
                });
                (!copy).then(|| format!("{other} has no full copy now"))
            }
            Fault::FreezeRedis | Fault::Cut | Fault::Deaf | Fault::Mute | Fault::CutLink(_) => None,
            _ => Some("not for Sentinel".to_owned()),
        }
    }

    fn replication(&self, host: &str) -> Option<String> {
        let here = SocketAddr::from(([127, 0, 0, 1], PORT));
        let frozen =
            |active: &Active| active.host == host && active.step.fault == Fault::FreezeRedis;
        if !self.redis.get(host)?.process().is_running() || self.active.iter().any(frozen) {
            return None;
        }
        let words = ["INFO", "replication"];
        self.lab.host(host).ok()?.redis(here, PASSWORD, &words).ok()?.text()
    }

    fn inflict(&mut self, active: &Active) -> Result<()> {
        let host = active.host.as_str();
        let redis = self.redis.get(host);
        match active.step.fault {
            Fault::KillRedis => drop(redis.context("no Redis")?.process().kill()?),
            Fault::EmptyRedis => {
                redis.context("no Redis")?.process().kill()?;
                self.start_redis(host, DataSet::Removed)?;
            }
            Fault::FreezeRedis => drop(redis.context("no Redis")?.process().freeze()?),
            Fault::Cut => drop(self.lab.cut(host)?),
            Fault::Deaf => drop(self.lab.deaf(host)?),
            Fault::Mute => drop(self.lab.mute(host)?),
            Fault::CutLink(_) => drop(self.lab.cut_between(host, &active.other)?),
            other => anyhow::bail!("{other} was to be left out"),
        }
        Ok(())
    }

    fn end_due(&mut self, all: bool) -> Result<()> {
        let now = Mono::now();
        let due = |active: &Active| all || active.until <= now;
        let (over, going): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(due);
        self.active = going;
        for active in over {
            let host = active.host.as_str();
            match active.step.fault {
                Fault::KillRedis => self.start_redis(host, DataSet::Kept)?,
                Fault::FreezeRedis => drop(self.redis[host].process().thaw()?),
                Fault::Cut | Fault::Deaf | Fault::Mute => drop(self.lab.heal(host)?),
                Fault::CutLink(_) => drop(self.lab.heal_between(host, &active.other)?),
                _ => {}
            }
            self.deeds[active.deed].to = Mono::now();
        }
        Ok(())
    }

    fn start_redis(&mut self, host: &str, data: DataSet) -> Result<()> {
        let redis = self.redis.get_mut(host).context("no Redis")?;
        if !redis.process().is_running() {
            redis.start_again(self.lab.host(host)?, data)?;
            redis.wait_ready()?;
        }
        Ok(())
    }

    /// Every writer was answered since, and one Redis follows the other.
    fn is_well(&self, since: Mono) -> bool {
        let answered = |writer: &Writer| writer.last_ack().is_some_and(|ack| ack.sent > since);
        let roles = ["a", "b"].map(|host| self.replication(host).unwrap_or_default());
        let masters = roles.iter().filter(|info| info.contains("role:master")).count();
        let replicas = roles.iter().filter(|info| info.contains("master_link_status:up")).count();
        self.writers.iter().all(answered) && (masters, replicas) == (1, 1)
    }

    fn collect(&mut self, history: &mut History) -> Result<()> {
        let master = self.sentinel.named().get();
        let records: Vec<_> = self.writers.drain(..).map(Writer::finish).collect();
        let outcome = Outcome::collect(records.clone(), self.lab.host("c")?, master)?;
        let lost: std::collections::BTreeSet<&str> =
            outcome.lost().iter().map(|lost| lost.key.as_str()).collect();
        for (spec, record) in records {
            for ack in record.acks {
                let lost = lost.contains(spec.key(ack.sequence).as_str());
                history.writes.push(Write { writer: spec.name.clone(), ack, lost });
            }
        }
        ensure!(!history.writes.is_empty(), "nothing was acknowledged");
        let offset = WallOffset::measure();
        for redis in self.redis.values() {
            let reigns = redis.reigns(offset);
            history
                .reigns
                .extend(reigns.into_iter().map(|(server, since)| Reign { server, since }));
        }
        history.deeds.append(&mut self.deeds);
        Ok(())
    }
}
