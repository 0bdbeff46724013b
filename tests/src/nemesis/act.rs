//! Does a plan's faults to a pair and gives everything back when they end.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::course::{Active, Faults, LeftOut, Struck, end_due, wait_for};
use super::guests::Guests;
use super::plan::{Fault, Role, Step};
use crate::disk;
use crate::expect::Assignment;
use crate::pair::{GROUP, Pair};
use crate::process::Process;
use crate::redis::{DataSet, PORT};
use crate::supervisor::{ctl_options, status};
use crate::time::Mono;
use crate::units::{boot_units, drop_in};
use crate::writer::{Ack, Writer};

pub(super) const NODES: [&str; 3] = ["a", "b", "w"];

/// Who would join, when no spare host is left.
const NOBODY: &str = "nobody";

/// A master counts as a copy if a client was answered so recently.
const RECENT: Duration = Duration::from_millis(500);
/// How often it is looked whether a node's events are still listened to.
const WATCHED: Duration = Duration::from_millis(250);

/// What goes on, and what has been done.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) pair: Pair,
    pub(super) faults: Faults,
    guests: Guests,
    /// Lives of Redis that had been eligible and are over: a committed set may name them for a while.
    over: BTreeSet<String>,
}

impl Stage {
    pub(super) fn new(pair: Pair) -> Self {
        Stage { pair, faults: Faults::default(), guests: Guests::default(), over: BTreeSet::new() }
    }

    /// Listens again to the events of nodes that are back.
    pub(super) fn watch_again(&mut self) -> Result<()> {
        let there: Vec<&str> = NODES.into_iter().filter(|node| self.answers(node)).collect();
        there.into_iter().try_for_each(|node| self.pair.watch_events(node))
    }

    /// Whatever is still missing runs again, and no link is cut.
    pub(super) fn mend_all(&mut self) -> Result<()> {
        end_due(self, true);
        self.pair.lab().heal_all()?;
        for host in NODES {
            disk::free(self.pair.host(host)?)?;
            if self.pair.host(host)?.net().is_err() {
                self.power_on(host)?;
            }
            self.pair.supervisor(host)?.process().thaw()?;
            self.start_supervisor(host)?;
            if host != "w" {
                self.pair.redis(host)?.process().thaw()?;
                self.start_redis(host, DataSet::Kept)?;
            }
        }
        self.guests.dismiss_all(&self.pair)
    }

    /// The master is who acknowledged last.
    fn host_with(&self, role: Role) -> Result<String> {
        let master = self.pair.master()?;
        Ok(match role {
            Role::Master => master,
            Role::Replica => self.pair.other(&master)?.to_owned(),
            Role::Witness => "w".to_owned(),
        })
    }

    fn is_on(&self, host: &str) -> bool {
        self.pair.host(host).is_ok_and(|host| host.net().is_ok())
    }

    fn objection(&self, step: Step, host: &str) -> Option<LeftOut> {
        if host == NOBODY {
            return Some(LeftOut("every spare host has been in the cluster".to_owned()));
        }
        if host != "all" && !self.is_on(host) {
            return Some(LeftOut("the host is off".to_owned()));
        }
        // failure-modes.md, assumption 4: a lock that is removed while nobody can put it back.
        if step.fault == Fault::FlushRules && !self.answers(host) {
            return Some(LeftOut(format!("the supervisor on {host} could not mend it")));
        }
        if !self.forgets(step.fault, host) {
            return None;
        }
        // A switchover that is under way makes no difference: whichever of the two it leaves as master, the other is eligible.
        let other = self.pair.other(host).ok()?;
        (!self.has_copy(other)).then(|| LeftOut(format!("{other} has no full copy now")))
    }

    /// Whether a fault costs the host's Redis its memory.
    fn forgets(&self, fault: Fault, host: &str) -> bool {
        let strikes = matches!(fault, Fault::KillRedis | Fault::EmptyRedis | Fault::Power);
        strikes && self.pair.redis(host).is_ok()
    }

    /// Whether a Redis has all that was acknowledged but for a bounded tail: it answers clients, or this very life of
    /// it may be promoted.
    fn has_copy(&self, host: &str) -> bool {
        let Ok(redis) = self.pair.redis(host) else { return false };
        if !redis.process().is_running() {
            return false;
        }
        let instance = redis.instance();
        let last = self.pair.writers().first().and_then(Writer::last_ack);
        let answers = |ack: Ack| *ack.server == *instance && Mono::now().since(ack.seen) < RECENT;
        let lives = self.eligible_lives(host);
        last.is_some_and(answers) || lives.iter().any(|life| !self.over.contains(life))
    }

    /// Run ids under which a host's Redis may be promoted.
    fn eligible_lives(&self, host: &str) -> Vec<String> {
        // Each node answers what it knows; who has seen the latest decision knows best.
        let answers = NODES.iter().filter(|node| self.answers(node));
        let known = answers.filter_map(|node| status(self.pair.lab(), node).ok());
        let rank = |status: &Value| {
            let epoch = Assignment::of(status).map_or(0, |assignment| assignment.epoch);
            (epoch, status["applied"].as_u64().unwrap_or(0))
        };
        let Some(status) = known.max_by_key(rank) else { return Vec::new() };
        let eligible = status["groups"][0]["eligible"].as_array().map_or(&[][..], Vec::as_slice);
        let own = eligible.iter().filter(|member| member["node"] == *host);
        own.filter_map(|member| member["run_id"].as_str().map(str::to_owned)).collect()
    }

    /// Whether a question to the node's supervisor would not hang.
    fn answers(&self, node: &str) -> bool {
        let frozen = [Fault::FreezeSupervisor, Fault::FreezeHost];
        self.is_on(node)
            && !self.faults.is_going(&frozen, node)
            && self.pair.supervisor(node).is_ok_and(|s| s.process().is_running())
    }

    /// A node whose supervisor answers.
    fn someone(&self) -> Option<&'static str> {
        NODES.into_iter().find(|node| self.answers(node))
    }
}

impl Struck for Stage {
    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn host_of(&self, step: Step) -> Result<String> {
        if step.fault.is_everywhere() {
            return Ok("all".to_owned());
        }
        if step.fault == Fault::Join {
            return Ok(self.guests.next_name().unwrap_or_else(|| NOBODY.to_owned()));
        }
        self.host_with(step.target)
    }

    fn prepare(&mut self, step: Step, host: &str) -> Option<LeftOut> {
        let objection = self.objection(step, host);
        if objection.is_none() && self.forgets(step.fault, host) {
            let lives = self.eligible_lives(host);
            self.over.extend(lives);
        }
        objection
    }

    fn inflict(&mut self, active: &mut Active) -> Result<()> {
        let host = active.host.as_str();
        let pair = &self.pair;
        match active.step.fault {
            Fault::KillRedis => drop(pair.redis(host)?.process().kill()?),
            Fault::EmptyRedis => {
                pair.redis(host)?.process().kill()?;
                self.start_redis(host, DataSet::Removed)?;
            }
            Fault::FreezeRedis => drop(pair.redis(host)?.process().freeze()?),
            Fault::KillSupervisor => drop(pair.supervisor(host)?.process().kill()?),
            Fault::FreezeSupervisor => drop(pair.supervisor(host)?.process().freeze()?),
            Fault::FreezeHost => {
                pair.supervisor(host)?.process().freeze()?;
                pair.redis(host)?.process().freeze()?;
            }
            Fault::Cut => drop(pair.lab().cut(host)?),
            Fault::Deaf => drop(pair.lab().deaf(host)?),
            Fault::Mute => drop(pair.lab().mute(host)?),
            Fault::CutLink(to) => {
                active.other = self.host_with(to)?;
                pair.lab().cut_between(host, &active.other)?;
            }
            Fault::FilterPort => drop(pair.host(host)?.filter_port(PORT, &[])?),
            Fault::DeleteVip => drop(pair.host(host)?.remove_address(pair.vip().ip())?),
            Fault::FlushRules | Fault::Sabotage => {
                drop(pair.host(host)?.run_ok(&["nft", "flush", "ruleset"])?);
            }
            Fault::Power => drop(pair.lab().power_off(host)?),
            Fault::Switchover => self.ask_switchover()?,
            Fault::KillAllSupervisors => {
                for node in NODES.iter().filter(|node| self.is_on(node)) {
                    pair.supervisor(node)?.process().kill()?;
                }
            }
            Fault::Starve => active.burner = Some(self.burn()?),
            Fault::FullDisk => disk::fill(pair.host(host)?)?,
            Fault::Join => {
                let to = self.someone().context("no supervisor could be asked")?;
                self.guests.invite(pair, host, to)?;
            }
        }
        Ok(())
    }

    fn give_back(&mut self, active: &Active) -> Result<()> {
        let host = active.host.as_str();
        match active.step.fault {
            Fault::Power => return self.power_on(host),
            Fault::Starve => {
                return active.burner.iter().try_for_each(|burner| burner.kill().map(drop));
            }
            Fault::KillAllSupervisors => {
                return NODES.iter().try_for_each(|node| self.start_supervisor(node));
            }
            Fault::FullDisk => {
                disk::free(self.pair.host(host)?)?;
                // As systemd would: it ends when its log cannot be written.
                return self.start_supervisor(host);
            }
            Fault::Join => {
                let to = self.someone().context("no supervisor could be asked")?;
                return self.guests.dismiss(&self.pair, host, to);
            }
            // What was frozen or killed is gone with the power, and starts with it again.
            _ if !self.is_on(host) => return Ok(()),
            _ => {}
        }
        match active.step.fault {
            Fault::KillRedis => self.start_redis(host, DataSet::Kept)?,
            Fault::FreezeRedis => drop(self.pair.redis(host)?.process().thaw()?),
            Fault::KillSupervisor => self.start_supervisor(host)?,
            Fault::FreezeSupervisor => drop(self.pair.supervisor(host)?.process().thaw()?),
            Fault::FreezeHost => {
                self.pair.redis(host)?.process().thaw()?;
                self.pair.supervisor(host)?.process().thaw()?;
            }
            Fault::Cut | Fault::Deaf | Fault::Mute => drop(self.pair.lab().heal(host)?),
            Fault::CutLink(_) => drop(self.pair.lab().heal_between(host, &active.other)?),
            Fault::FilterPort => drop(self.pair.host(host)?.lift_filters()?),
            Fault::EmptyRedis | Fault::DeleteVip | Fault::Switchover => {}
            Fault::FlushRules | Fault::Sabotage => {}
            Fault::Power | Fault::Starve | Fault::KillAllSupervisors => {}
            Fault::FullDisk | Fault::Join => {}
        }
        Ok(())
    }

    fn wait_for(&mut self, at: Mono) -> Result<()> {
        while Mono::now() < at {
            self.watch_again()?;
            wait_for(at.min(Mono::now() + WATCHED))?;
        }
        Ok(())
    }
}

impl Stage {
    fn power_on(&mut self, host: &str) -> Result<()> {
        self.pair.lab().power_on(host)?;
        boot_units(self.pair.host(host)?)?;
        if self.pair.redis(host).is_ok() {
            self.pair.watch_addresses(host)?;
            self.start_redis(host, DataSet::Kept)?;
        }
        self.start_supervisor(host)
    }

    /// As systemd would, drop-in included; nothing if it runs.
    fn start_redis(&mut self, host: &str, data: DataSet) -> Result<()> {
        if self.is_on(host) && !self.pair.redis(host)?.process().is_running() {
            drop_in(self.pair.host(host)?)?;
            self.pair.restart_redis(host, data)?;
        }
        Ok(())
    }

    fn start_supervisor(&mut self, host: &str) -> Result<()> {
        if self.is_on(host) && !self.pair.supervisor(host)?.process().is_running() {
            self.pair.restart_supervisor(host)?;
        }
        Ok(())
    }

    /// Asked and left alone: it may take its time, be refused, or be overtaken by the next fault.
    fn ask_switchover(&self) -> Result<()> {
        let (client, witness) = (self.pair.host("c")?, self.pair.host("w")?);
        let mut command = Command::new(crate::binaries::redkeepctl()?);
        command.args(ctl_options(client, witness)).args(["switchover", GROUP, "--wait", "--yes"]);
        client.spawn("switchover", &command).map(drop)
    }

    /// Two workers for each core, so that everybody else has a third of it at most.
    fn burn(&self) -> Result<Process> {
        let cores = std::thread::available_parallelism().context("count the cores")?.get();
        let mut busy = Command::new("stress-ng");
        busy.args(["--cpu", &(cores * 2).to_string()]);
        self.pair.host("c")?.spawn("stress-ng", &busy)
    }
}
