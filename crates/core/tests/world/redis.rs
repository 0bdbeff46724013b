//! Two Redis that do as they are told, what their probes show, and how data gets from one to the other.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use redkeep_core::effect::{ActionFailure, Kept};
use redkeep_core::lineage::{Compared, Lineage};
use redkeep_core::observe::{
    AttachedReplica, Bypass, PreviousHistory, ProbeFailure, RedisObservation, RedisRole,
};
use redkeep_core::*;

use super::{MS, World};

/// What becomes of an attempt to keep a data set aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeping {
    Succeeds,
    /// With or without hope for the next attempt.
    Fails {
        retry: bool,
    },
    /// It goes on.
    Lasts,
}

#[derive(Clone, Debug)]
pub(crate) struct Redis {
    pub run: u64,
    pub alive: bool,
    pub hung: bool,
    /// As its probes say it, while it answers what changes its role: as a master, or as a replica, too.
    pub no_writes: Option<(ProbeFailure, bool)>,
    pub master: Option<SocketAddr>,
    pub offset: u64,
    pub keys: u64,
    pub history: String,
    /// The history before, and the first offset that is no longer of it.
    pub previous: Option<(String, u64)>,
    pub append_only: bool,
    pub bypass: Vec<Bypass>,
    pub backlog_from: u64,
    pub min_replicas: u32,
    pub min_replicas_max_lag: Option<u32>,
    /// Its link to the master was cut then, and waits for TCP until it is made anew.
    pub stuck_since: Option<u64>,
    /// Executed just before the next look at the final offset of a switchover.
    pub late_bytes: u64,
    /// The target of a switchover does not get as far as this master in time.
    pub target_lags: bool,
}

impl Redis {
    fn lineage(&self) -> Lineage {
        let previous = self.previous.clone();
        Lineage {
            replication_id: self.history.clone(),
            previous: previous.map(|(replication_id, until_offset)| PreviousHistory {
                replication_id,
                until_offset,
            }),
            offset: self.offset,
        }
    }
}

impl World {
    pub(crate) fn redis(&mut self, name: &str) -> &mut Redis {
        self.host(name).redis.as_mut().expect("member")
    }

    pub(super) fn act(&mut self, name: &'static str, action: &Action) -> Option<ActionOutcome> {
        let host = self.host(name);
        let hung = host.redis.as_ref().is_none_or(|r| r.hung || !r.alive);
        if action.is_redis() && hung {
            return None;
        }
        match action {
            Action::Promote(min) => {
                let r = self.redis(name);
                (r.min_replicas, r.min_replicas_max_lag) = (min.to_write, min.max_lag_s);
                if r.master.take().is_some() {
                    r.previous = Some((r.history.clone(), r.offset + 1));
                    r.history = format!("h{}-{}", r.run, r.offset);
                }
            }
            Action::GoOn(min) => {
                let r = self.redis(name);
                (r.min_replicas, r.min_replicas_max_lag) = (min.to_write, min.max_lag_s);
                if r.master.is_some() {
                    return Some(ActionOutcome::NotMaster);
                }
            }
            Action::Follow { master } => {
                let r = self.redis(name);
                (r.master, r.stuck_since) = (Some(*master), None);
            }
            Action::SetMinReplicas(min) => {
                let r = self.redis(name);
                (r.min_replicas, r.min_replicas_max_lag) = (min.to_write, min.max_lag_s);
            }
            Action::ShutWrites => self.redis(name).min_replicas = u32::MAX,
            Action::Relink { .. } => self.redis(name).stuck_since = None,
            Action::Compare { .. } => return Some(self.compare(name)),
            Action::KeepAside { gap, .. } => return self.keep_aside(name, *gap),
            Action::PauseAndCatchUp { .. } => {
                let r = self.redis(name);
                let text = "the target did not catch up in time".to_owned();
                let late = ActionFailure { retry: false, text };
                let got = ActionOutcome::Offset(r.offset);
                return Some(if r.target_lags { ActionOutcome::Failed(late) } else { got });
            }
            Action::ReadOffset => {
                let r = self.redis(name);
                r.offset += std::mem::take(&mut r.late_bytes);
                return Some(ActionOutcome::Offset(r.offset));
            }
            Action::EnsureVip { .. } => host.vip = true,
            Action::RemoveVip { .. } => host.vip = false,
            Action::Unpause
            | Action::Announce { .. }
            | Action::ProbeRival { .. }
            | Action::DestroySockets { .. }
            | Action::VerifyVip { .. } => {}
        }
        Some(ActionOutcome::Done)
    }

    fn compare(&mut self, name: &'static str) -> ActionOutcome {
        let other = if name == "a" { "b" } else { "a" };
        let reached = !self.cut.contains(&(name, other)) && self.is_open(other);
        let master = self.redis(other).clone();
        if !reached || !master.alive || master.hung || master.master.is_some() {
            let text = "the master does not answer".to_owned();
            return ActionOutcome::Failed(ActionFailure { retry: true, text });
        }
        let own = self.redis(name).clone();
        ActionOutcome::Compared(Box::new(Compared {
            run_id: RunId::new(&format!("run{}", own.run)),
            own: own.lineage(),
            master: master.lineage(),
            keys: own.keys,
            append_only: own.append_only,
        }))
    }

    fn keep_aside(&mut self, name: &'static str, gap: Option<u64>) -> Option<ActionOutcome> {
        match self.keeping {
            Keeping::Succeeds => {
                let offset = self.redis(name).offset;
                self.host(name).kept.push((offset, gap));
                Some(ActionOutcome::Kept(Kept { path: format!("/kept/{offset}"), size: 100 }))
            }
            Keeping::Fails { retry } => {
                let text = "no room".to_owned();
                Some(ActionOutcome::Failed(ActionFailure { retry, text }))
            }
            Keeping::Lasts => None,
        }
    }

    /// A replica whose master's port is open follows it at once.
    pub(super) fn replicate(&mut self) {
        for (x, y) in [("a", "b"), ("b", "a")] {
            let open = self.is_open(x);
            let master = self.host(x).redis.clone().expect("member");
            let up = self.host(x).up && !self.cut.contains(&(x, y)) && !self.no_replication;
            let addr = SocketAddr::from(([10, 99, 0, if x == "a" { 1 } else { 2 }], 16465));
            let r = self.redis(y);
            if up
                && open
                && master.alive
                && master.master.is_none()
                && r.alive
                && r.master == Some(addr)
                && r.stuck_since.is_none()
            {
                (r.offset, r.keys, r.history) = (master.offset, master.keys, master.history);
                r.previous = master.previous;
            }
        }
    }

    pub(crate) fn is_open(&mut self, name: &str) -> bool {
        let t = self.t;
        let l = &self.host(name).lock;

        [Generation::A, Generation::B].into_iter().any(|g| {
            l.gate.contains(&(g, 16465)) && l.timer.get(&(g, 16465)).is_some_and(|until| t < *until)
        })
    }

    /// What a new client at `from` meets at the port of `target`.
    pub(super) fn look(&mut self, from: &'static str, target: SocketAddr) -> Result<(), String> {
        let to = if target.ip().to_string() == "10.99.0.1" { "a" } else { "b" };
        let t = self.t;
        let replica =
            self.host(to).lock.replica.get(&target.port()).is_some_and(|until| t < *until);
        let cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        let well = (self.is_open(to) || replica) && self.redis(to).alive && !self.redis(to).hung;
        match well && !cut && !self.filtered.contains(&(from, to)) {
            true => Ok(()),
            false => Err("refused".to_owned()),
        }
    }

    /// A host that clients can write to.
    pub(crate) fn writable(&mut self, name: &str) -> bool {
        let open = self.is_open(name);
        let r = self.redis(name);
        open && r.alive && !r.hung && r.master.is_none()
    }

    pub(super) fn probe(&mut self, name: &'static str) {
        let t = self.t;
        let other = if name == "a" { "b" } else { "a" };
        let Some(me) = self.host(name).redis.clone() else { return };
        let group = GroupId::new("pair");
        if !me.alive {
            if !self.host(name).died_told {
                self.host(name).died_told = true;
                let run_id = Some(RunId::new(&format!("run{}", me.run)));
                self.queue.push_back((name, Input::RedisDied { group, run_id }));
            }
            return;
        }
        if t < self.host(name).next_probe {
            return;
        }
        self.host(name).next_probe = t + 50 * MS;
        let peer = self.host(other).redis.clone().expect("member");
        let own = SocketAddr::from(([10, 99, 0, if name == "a" { 1 } else { 2 }], 16465));
        let links = !self.no_replication;
        let attached = links
            && peer.alive
            && peer.master == Some(own)
            && me.master.is_none()
            && self.is_open(name);
        let link_up = links && me.master.is_some() && self.is_open(other) && peer.alive;
        let replica = AttachedReplica {
            addr: if name == "a" { [10, 99, 0, 2].into() } else { [10, 99, 0, 1].into() },
            port: 16465,
            online: true,
            offset: peer.offset,
            lag: Span::from_secs(peer.stuck_since.map_or(0, |since| (t - since) / (1000 * MS))),
        };
        let no_writes = me.no_writes.filter(|(_, always)| *always || me.master.is_none());
        let result = if me.hung {
            Err(ProbeFailure::Timeout)
        } else if let Some((failure, _)) = no_writes {
            Err(failure)
        } else {
            Ok(RedisObservation {
                run_id: RunId::new(&format!("run{}", me.run)),
                role: match me.master {
                    None => RedisRole::Master,
                    Some(m) => RedisRole::Replica {
                        master_host: m.ip().to_string(),
                        master_port: m.port(),
                        link_up,
                        read_only: true,
                    },
                },
                replication_id: me.history.clone(),
                previous: me.lineage().previous,
                offset: me.offset,
                keys: me.keys,
                backlog_from: NonZeroU64::new(me.backlog_from),
                replicas: if attached { vec![replica] } else { Vec::new() },
                version: "7.0.15".into(),
                append_only: me.append_only,
                settled: true,
                bypass: me.bypass.clone(),
            })
        };
        let asked = self.now().boot;
        self.queue.push_back((name, Input::Observed { group, asked, result }));
    }

    pub(crate) fn kill_redis(&mut self, name: &str) {
        self.redis(name).alive = false;
        self.host(name).died_told = false;
    }

    /// Start it again as a master by its file, with or without its data.
    pub(crate) fn start_redis(&mut self, name: &str, empty: bool) {
        self.runs += 1;
        let run = self.runs;
        let r = self.redis(name);
        (r.run, r.alive, r.hung, r.master, r.history, r.previous) =
            (run, true, false, None, format!("fresh{run}"), None);
        if empty {
            (r.keys, r.offset) = (0, 0);
        }
        self.host(name).next_probe = 0;
    }
}
