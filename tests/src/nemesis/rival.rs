//! The same plan for a pair under Redis Sentinel, judged by the same checker: it must see what is there to be seen.
//!
//! Faults that mean nothing without a VIP, an nftables table or our log are left out, and those of Sentinel's own processes
//! too. Clients are as generous as those of the benchmark: each asks all Sentinels that it reaches and believes the first that
//! names another master.

use std::path::Path;

use anyhow::{Result, ensure};

use super::course::{Active, Faults, LeftOut, Struck, carry_out};
use super::history::History;
use super::plan::{Fault, Plan, Role, Step};
use super::run::{PATIENCE, Run};
use crate::bench::sentinel::Sentinel;
use crate::bench::stage::{LIMIT, Stage};
use crate::lab::Lab;
use crate::process::wait_until;
use crate::redis::DataSet;
use crate::time::Mono;
use crate::writer::{Writer, WriterSpec};

const DOWN_AFTER_MS: u32 = 300;

struct Rival {
    stage: Stage,
    /// Its drop ends the threads that ask.
    _sentinel: Sentinel,
    faults: Faults,
}

/// Runs what of a plan applies; the files go to a directory of their own below `out`.
pub fn run_sentinel(plan: &Plan, out: &Path) -> Result<Run> {
    let mut rival = Rival::build()?;
    let origin = Mono::now();
    carry_out(&mut rival, plan, origin, |_| {})?;
    let trouble = rival.faults.deeds.iter().find(|deed| deed.done && deed.note.is_some());
    ensure!(trouble.is_none(), "the lab failed: {trouble:?}");
    let calm = Mono::now();
    let mut history = History { origin: Some(origin), ..History::default() };
    match wait_until("all to be well", PATIENCE, || rival.is_well(calm).then(Mono::now)) {
        Ok(well) => history.healed = Some(well.since(calm)),
        Err(error) => history.ailment = Some(format!("{error:#}")),
    }
    let outcome = rival.stage.finish_writers()?;
    ensure!(outcome.acked() > 0, "nothing was acknowledged");
    let pair = [rival.stage.redis("a")?, rival.stage.redis("b")?];
    history.take(outcome.writers(), outcome.lost(), pair);
    history.deeds.append(&mut rival.faults.deeds);
    Run::conclude(history, out, &format!("sentinel-seed-{}", plan.seed))
}

impl Rival {
    fn build() -> Result<Self> {
        let mut stage = Stage::build_in(Lab::builder().build()?)?;
        let sentinel = Sentinel::start(stage.lab(), DOWN_AFTER_MS)?;
        let named = sentinel.named();
        stage.start_writers(Some(named))?;
        let spec = WriterSpec::confirmed("wait", named.get(), 1).following(named.clone());
        stage.start_writer("c", spec)?;
        for name in ["na", "nb"] {
            let told = sentinel.client(stage.lab(), name)?;
            let spec = WriterSpec::held(name, told.get()).beside_victim().following(told);
            stage.start_writer(name, spec)?;
        }
        stage.writers().iter().try_for_each(|writer| writer.wait_more(100, LIMIT))?;
        Ok(Rival { stage, _sentinel: sentinel, faults: Faults::default() })
    }

    fn host_with(&self, role: Role) -> Result<String> {
        let master = self.stage.master()?;
        Ok(match role {
            Role::Master => master,
            Role::Replica => other(&master).to_owned(),
            Role::Witness => "w".to_owned(),
        })
    }

    fn replication(&self, host: &str) -> Option<String> {
        let runs = self.stage.redis(host).ok()?.process().is_running();
        if !runs || self.faults.is_going(&[Fault::FreezeRedis], host) {
            return None;
        }
        self.stage.replication(host).ok()
    }

    /// Starts it unless it runs.
    fn start_redis(&mut self, host: &str, data: DataSet) -> Result<()> {
        if !self.stage.redis(host)?.process().is_running() {
            self.stage.restart_redis(host, data)?;
        }
        Ok(())
    }

    /// Every writer was answered since, and one Redis follows the other.
    fn is_well(&self, since: Mono) -> bool {
        let answered = |writer: &Writer| writer.last_ack().is_some_and(|ack| ack.sent > since);
        let roles = ["a", "b"].map(|host| self.replication(host).unwrap_or_default());
        let masters = roles.iter().filter(|info| info.contains("role:master")).count();
        let replicas = roles.iter().filter(|info| info.contains("master_link_status:up")).count();
        self.stage.writers().iter().all(answered) && (masters, replicas) == (1, 1)
    }
}

impl Struck for Rival {
    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn host_of(&self, step: Step) -> Result<String> {
        self.host_with(step.target)
    }

    /// A fault is left out if it means nothing here, or nobody could answer for what it destroys.
    fn prepare(&mut self, step: Step, host: &str) -> Option<LeftOut> {
        match step.fault {
            Fault::KillRedis | Fault::EmptyRedis => {
                let other = other(host);
                let copy = self.replication(other).is_some_and(|info| {
                    info.contains("role:master") || info.contains("master_link_status:up")
                });
                (!copy).then(|| LeftOut(format!("{other} has no full copy now")))
            }
            Fault::FreezeRedis | Fault::Cut | Fault::Deaf | Fault::Mute | Fault::CutLink(_) => None,
            _ => Some(LeftOut("not for Sentinel".to_owned())),
        }
    }

    fn inflict(&mut self, active: &mut Active) -> Result<()> {
        let (host, lab) = (active.host.as_str(), self.stage.lab());
        match active.step.fault {
            Fault::KillRedis => drop(self.stage.redis(host)?.process().kill()?),
            Fault::EmptyRedis => {
                self.stage.redis(host)?.process().kill()?;
                self.start_redis(host, DataSet::Removed)?;
            }
            Fault::FreezeRedis => drop(self.stage.redis(host)?.process().freeze()?),
            Fault::Cut => drop(lab.cut(host)?),
            Fault::Deaf => drop(lab.deaf(host)?),
            Fault::Mute => drop(lab.mute(host)?),
            Fault::CutLink(to) => {
                active.other = self.host_with(to)?;
                lab.cut_between(host, &active.other)?;
            }
            other => anyhow::bail!("{other} was to be left out"),
        }
        Ok(())
    }

    fn give_back(&mut self, active: &Active) -> Result<()> {
        let (host, lab) = (active.host.as_str(), self.stage.lab());
        match active.step.fault {
            Fault::KillRedis => self.start_redis(host, DataSet::Kept)?,
            Fault::FreezeRedis => drop(self.stage.redis(host)?.process().thaw()?),
            Fault::Cut | Fault::Deaf | Fault::Mute => drop(lab.heal(host)?),
            Fault::CutLink(_) => drop(lab.heal_between(host, &active.other)?),
            _ => {}
        }
        Ok(())
    }
}

/// The other member.
fn other(host: &str) -> &'static str {
    if host == "a" { "b" } else { "a" }
}
