//! A Redis that can be reached around the lock: refused with a reason, and told when it serves already.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, CtlOutcome, DataSet, EventWatch, Lab, PORT, Redis, RedisOptions, Supervisor, ctl,
    wait_status, wait_until,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// A master on `a` with a unix socket of a mode, a replica on `b`, and three supervisors.
struct Around {
    master: Redis,
    socket: PathBuf,
    supervisors: Vec<Supervisor>,
    _replica: Redis,
    lab: Lab,
}

impl Around {
    fn start(mode: &str) -> Result<Self> {
        let lab = Lab::builder().build()?;
        let a = lab.host("a")?;
        let socket = a.dir().join("redis.sock");
        let mut options = RedisOptions::default();
        for (directive, value) in
            [("unixsocket", socket.display().to_string().as_str()), ("unixsocketperm", mode)]
        {
            options.extra.push((directive.to_owned(), value.to_owned()));
        }
        let master = Redis::start(a, options)?;
        let of = RedisOptions::replica_of((a.address(), PORT).into());
        let replica = Redis::start(lab.host("b")?, of)?;
        let file = ClusterFile::founding(&lab, "300ms")?;
        let start = |name: &&str| Supervisor::start(lab.host(name)?, &file);
        let supervisors = ["a", "b", "w"].iter().map(start).collect::<Result<_>>()?;
        Ok(Around { master, socket, supervisors, _replica: replica, lab })
    }

    fn wait(&self, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_status(&self.lab, "w", what, LIMIT, good)
    }

    fn ctl(&self, words: &[&str]) -> Result<CtlOutcome> {
        ctl(&self.lab, "w", "w", words)
    }

    fn chmod(&self, mode: u32) -> Result<()> {
        Ok(std::fs::set_permissions(&self.socket, std::fs::Permissions::from_mode(mode))?)
    }
}

fn hold(status: &Value) -> &str {
    status["groups"][0]["hold"]["reason"].as_str().unwrap_or_default()
}

fn healthy(status: &Value) -> bool {
    let group = &status["groups"][0];
    group["serving"] == true && group["eligible"].as_array().is_some_and(|set| !set.is_empty())
}

/// The problem that names the socket, if it is there.
fn problem<'a>(status: &'a Value, socket: &Path) -> Option<&'a Value> {
    let names = socket.display().to_string();
    let all = status["problems"].as_array()?;
    all.iter().find(|p| {
        let text = p["text"].as_str().unwrap_or_default();
        text.contains("Redis at a can be reached around the lock") && text.contains(&names)
    })
}

#[test]
fn a_pair_with_a_socket_for_everybody_is_adopted_once_it_is_mended() -> Result<()> {
    let mut it = Around::start("777")?;
    let status = it.wait("the hold", |s| hold(s) == "bypass")?;
    ensure!(status["groups"][0]["master"].is_null(), "{status:#}");
    let told = problem(&status, &it.socket).context("no problem names the socket")?;
    let mend = format!("chmod 700 {}", it.socket.display());
    ensure!(told["severity"] == "critical", "nobody serves: {told:#}");
    ensure!(told["help"].as_str().is_some_and(|help| help.contains(&mend)), "{told:#}");
    let explained = it.ctl(&["explain", "pair"])?;
    let text = &explained.stdout;
    ensure!(explained.code == Some(0), "{explained:?}");
    ensure!(text.contains("Redis at a can be reached around the lock"), "{text}");
    ensure!(text.contains(&mend) && text.contains("unixsocketperm 700"), "{text}");
    println!("{text}");
    let refused = it.ctl(&["failover", "pair", "--to", "a", "--allow-data-loss"])?;
    ensure!(refused.code == Some(1), "no order skips it: {refused:?}");
    ensure!(refused.stderr.contains(&mend), "{refused:?}");
    it.master.process().kill()?;
    it.master.set_directive("unixsocketperm", "700");
    it.master.start_again(it.lab.host("a")?, DataSet::Kept)?;
    it.master.wait_ready()?;
    let status = it.wait("the pair to be adopted", healthy)?;
    ensure!(status["groups"][0]["master"] == "a", "{status:#}");
    ensure!(problem(&status, &it.socket).is_none(), "{status:#}");
    Ok(())
}

#[test]
fn a_master_that_is_opened_at_run_time_serves_on_and_is_not_replaced_when_cut_off() -> Result<()> {
    let it = Around::start("700")?;
    it.wait("the pair to be healthy", healthy)?;
    let watch = EventWatch::start(it.lab.host("a")?)?;
    it.chmod(0o777)?;
    let status = it.wait("the problem", |s| problem(s, &it.socket).is_some())?;
    ensure!(healthy(&status) && status["groups"][0]["master"] == "a", "{status:#}");
    let refused = it.ctl(&["switchover", "pair"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains("Redis at a can be reached around the lock"), "{refused:?}");
    let cut = it.lab.cut("a")?;
    it.wait("the hold", |s| hold(s) == "bypass")?;
    println!("held {:.0} ms after the cut", redkeep_lab::Mono::now().millis_from(cut));
    it.lab.heal("a")?;
    let status = it.wait("a to serve again", |s| healthy(s) && hold(s).is_empty())?;
    ensure!(status["groups"][0]["master"] == "a", "{status:#}");
    it.chmod(0o700)?;
    it.wait("the problem to go", |s| problem(s, &it.socket).is_none())?;
    let count = |kind: &str| watch.events().iter().filter(|(_, e)| e["kind"] == kind).count();
    wait_until("the event of the end", LIMIT, || (count("bypass_closed") == 1).then_some(()))?;
    ensure!(count("bypass") == 1, "told {} times", count("bypass"));
    ensure!(it.supervisors.iter().all(|s| s.process().is_running()), "a supervisor ended");
    Ok(())
}
