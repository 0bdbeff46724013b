//! Several groups on the same nodes: what happens to one does not touch the others.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, DataSet, Figure, GroupBlock, Lab, Mono, Outcome, PASSWORD, PORT, Redis,
    RedisOptions, Supervisor, Writer, WriterSpec, ctl, repetitions, wait_status,
};
use serde_json::Value;

/// How far back an unreplicated tail may reach: `max_lag` (3 s) and one lease.
const TAIL: Duration = Duration::from_millis(3300);
const LIMIT: Duration = Duration::from_secs(60);
/// Name and first master of each group; the n-th has the n-th port and VIP.
const GROUPS: [(&str, &str); 3] = [("one", "a"), ("two", "b"), ("three", "a")];
const MEMBERS: [&str; 2] = ["a", "b"];

fn target(index: usize) -> SocketAddr {
    let number = u8::try_from(index).expect("three groups");
    let vip = Ipv4Addr::new(10, 99, 0, 100 + number);
    SocketAddr::from((vip, PORT + u16::from(number)))
}

/// Everything that runs; the lab is dropped last.
struct Stage {
    writers: Vec<Writer>,
    redis: BTreeMap<(usize, &'static str), Redis>,
    _supervisors: Vec<Supervisor>,
    lab: Lab,
}

impl Stage {
    fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// With further lines of `[cluster]`.
    fn start_with(extra: &str) -> Result<Self> {
        let lab = Lab::builder().build()?;
        let mut file = ClusterFile::founding(&lab, "300ms")?;
        file.extra.push_str(extra);
        file.groups = GROUPS.into_iter().enumerate().map(group_block).collect();
        let mut redis = BTreeMap::new();
        for (index, (_, first)) in GROUPS.into_iter().enumerate() {
            let port = target(index).port();
            let master = SocketAddr::from((lab.host(first)?.address(), port));
            let mut members = MEMBERS;
            members.sort_by_key(|name| *name != first);
            for name in members {
                let replica_of = (name != first).then_some(master);
                let options = RedisOptions { port, replica_of, ..RedisOptions::default() };
                redis.insert((index, name), Redis::start(lab.host(name)?, options)?);
            }
        }
        let start = |name: &str| Supervisor::start(lab.host(name)?, &file);
        let supervisors = ["a", "b", "w"].into_iter().map(start).collect::<Result<_>>()?;
        let mut stage = Stage { writers: Vec::new(), redis, _supervisors: supervisors, lab };
        stage.wait_settled()?;
        stage.start_writers()?;
        Ok(stage)
    }

    /// Both kinds of writer on `c` for each group; waits until all write.
    fn start_writers(&mut self) -> Result<()> {
        let client = self.lab.host("c")?;
        for (index, (name, _)) in GROUPS.into_iter().enumerate() {
            let fresh = WriterSpec::fresh(&format!("{name}-fresh"), target(index));
            let held = WriterSpec::held(&format!("{name}-held"), target(index));
            self.writers.push(Writer::start(client, fresh)?);
            self.writers.push(Writer::start(client, held)?);
        }
        self.writers.iter().try_for_each(|writer| writer.wait_more(50, LIMIT))
    }

    /// Waits until each group serves and its other member may be promoted.
    fn wait_settled(&self) -> Result<Value> {
        wait_status(&self.lab, "w", "all groups to be healthy", LIMIT, |status| {
            let groups = status["groups"].as_array().map_or(&[][..], Vec::as_slice);
            let settled = |group: &Value| {
                let eligible = group["eligible"].as_array().map_or(&[][..], Vec::as_slice);
                let other = |it: &Value| it["node"].as_str() != group["master"].as_str();
                group["serving"].as_bool() == Some(true) && eligible.iter().any(other)
            };
            groups.len() == GROUPS.len() && groups.iter().all(settled)
        })
    }

    /// Name of the host whose Redis answered the group's held writer last.
    fn master(&self, index: usize) -> Result<&'static str> {
        let server = self.writers[index * 2 + 1].last_server().context("no answer yet")?;
        let name = server.split(':').next().unwrap_or_default();
        MEMBERS.into_iter().find(|member| *member == name).context("a member")
    }

    /// What the group's writers saw, looked for at its VIP.
    fn outcome(&self, index: usize) -> Result<Outcome> {
        let writers = &self.writers[index * 2..index * 2 + 2];
        let records = writers.iter().map(|it| (it.spec().clone(), it.record())).collect();
        Outcome::collect(records, self.lab.host("c")?, target(index))
    }

    fn write_on(&self, count: usize) -> Result<()> {
        self.writers.iter().try_for_each(|writer| writer.wait_more(count, LIMIT))
    }

    /// Fails if a writer of another group than `failed` had any error or another master.
    fn ensure_others_undisturbed(&self, failed: usize, from: Mono, to: Mono) -> Result<()> {
        for (index, (name, _)) in GROUPS.into_iter().enumerate() {
            if index == failed {
                continue;
            }
            let outcome = self.outcome(index)?.since(from);
            for kind in ["fresh", "held"] {
                let writer = format!("{name}-{kind}");
                let refusals = outcome.refusals(&writer, from, to);
                ensure!(refusals.is_empty(), "{writer} was disturbed: {refusals:?}");
            }
            let verdict = outcome.verdict(from, to);
            println!("  group {name}: {verdict}");
            ensure!(verdict.service_back.is_none(), "{name} moved: {verdict}");
            ensure!(verdict.lost == 0, "{name} lost writes: {verdict}");
        }
        Ok(())
    }
}

fn group_block((index, (name, first)): (usize, (&str, &str))) -> GroupBlock {
    let mut members = MEMBERS;
    members.sort_by_key(|member| *member != first);
    GroupBlock {
        name: name.to_owned(),
        port: target(index).port(),
        vip: target(index).ip(),
        members: members.into_iter().map(str::to_owned).collect(),
        password: PASSWORD.to_owned(),
        extra: String::new(),
    }
}

/// Kills the group's master and waits until its Redis is a replica again.
fn fail_over(stage: &mut Stage, index: usize) -> Result<Duration> {
    let name = GROUPS[index].0;
    let old = stage.master(index)?;
    let redis = stage.redis.get(&(index, old)).context("a Redis")?;
    let instance = redis.instance();
    let begun = Mono::now();
    let fault = redis.process().kill()?;
    for writer in &stage.writers[index * 2..index * 2 + 2] {
        writer.wait_other_server(&instance, fault, LIMIT)?;
    }
    stage.write_on(50)?;
    let redis = stage.redis.get_mut(&(index, old)).context("a Redis")?;
    redis.start_again(stage.lab.host(old)?, DataSet::Kept)?;
    redis.wait_ready()?;
    stage.wait_settled()?;
    stage.write_on(50)?;
    let end = Mono::now();
    let outcome = stage.outcome(index)?.of_reign(&instance, fault);
    let verdict = outcome.verdict(fault, end);
    println!("group {name}, {old} killed: {verdict}");
    verdict.ensure_one_master()?;
    outcome.ensure_only_tail_lost(&instance, fault, TAIL)?;
    stage.ensure_others_undisturbed(index, begun, end)?;
    verdict.service_back.context("nobody took over")
}

#[test]
fn failover_of_one_group_leaves_the_others_connections_undisturbed() -> Result<()> {
    let mut stage = Stage::start()?;
    let masters: Vec<_> = (0..3).map(|index| stage.master(index)).collect::<Result<_>>()?;
    ensure!(masters == ["a", "b", "a"], "adopted elsewhere than found: {masters:?}");
    let mut back = Figure::new("service back, one group of three");
    for run in 0..repetitions(3, 12) {
        let index = run % GROUPS.len();
        let span = fail_over(&mut stage, index).with_context(|| format!("run {run}"))?;
        back.add(span);
    }
    back.print();
    Ok(())
}

#[test]
fn switchover_of_one_group_leaves_the_others_connections_undisturbed() -> Result<()> {
    let stage = Stage::start()?;
    for (index, (name, first)) in GROUPS.into_iter().enumerate() {
        let instance = stage.redis.get(&(index, first)).context("a Redis")?.instance();
        let begun = Mono::now();
        let said = ctl(&stage.lab, "w", "w", &["switchover", name, "--wait", "--yes"])?;
        ensure!(said.code == Some(0), "{name}: {said:?}");
        for writer in &stage.writers[index * 2..index * 2 + 2] {
            writer.wait_other_server(&instance, begun, LIMIT)?;
        }
        stage.write_on(50)?;
        let end = Mono::now();
        let verdict = stage.outcome(index)?.since(begun).verdict(begun, end);
        println!("group {name} switched over: {verdict}");
        verdict.ensure_one_master()?;
        ensure!(verdict.lost == 0, "{name} lost writes: {verdict}");
        stage.ensure_others_undisturbed(index, begun, end)?;
        stage.wait_settled()?;
    }
    Ok(())
}

/// `a` holds two of the three masters: with a limit of 1 both wait, and none is failed over first.
#[test]
fn masters_of_a_lost_host_wait_above_the_limit_until_somebody_has_looked() -> Result<()> {
    let stage = Stage::start_with("mass_failure_limit = 1\n")?;
    let lost = [0, 2];
    let instances: Vec<String> = lost
        .iter()
        .map(|index| Ok(stage.redis.get(&(*index, "a")).context("a Redis")?.instance()))
        .collect::<Result<_>>()?;
    let held = |status: &Value| {
        lost.iter().all(|index| of(status, *index)["hold"]["reason"] == "mass_failure")
    };
    let fault = stage.lab.power_off("a")?;
    let status = wait_status(&stage.lab, "w", "the brake", LIMIT, held)?;
    ensure!(of(&status, 1)["master"] == "b", "{status:#}");
    let order = |words: &[&str]| ctl(&stage.lab, "w", "w", words);
    let dry = order(&["acknowledge", "--dry-run"])?;
    ensure!(
        dry.code == Some(0) && dry.stdout.contains("the failure of one counts no more"),
        "{dry:?}"
    );
    wait_status(&stage.lab, "w", "the brake still", LIMIT, held)?;
    let asked = Mono::now();
    let said = order(&["acknowledge"])?;
    ensure!(said.code == Some(0), "{said:?}");
    let mut back = Figure::new("service back, from the acknowledgement");
    for (index, instance) in lost.iter().zip(&instances) {
        let writer = &stage.writers[index * 2 + 1];
        let ack = writer.wait_other_server(instance, fault, LIMIT)?;
        ensure!(ack.seen > asked, "group {} did not wait", GROUPS[*index].0);
        back.add(ack.seen.since(asked));
    }
    back.print();
    let history = order(&["history"])?;
    ensure!(history.stdout.contains("failures acknowledged by an operator"), "{history:?}");
    stage.writers[3].wait_more(50, LIMIT)
}

fn of(status: &Value, index: usize) -> &Value {
    let groups = status["groups"].as_array().map_or(&[][..], Vec::as_slice);
    groups.iter().find(|group| group["name"] == GROUPS[index].0).unwrap_or(&Value::Null)
}
