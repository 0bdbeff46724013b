//! Two Redis that do as they are told, what their probes show, and how data gets from one to the other.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use redkeep_core::effect::ActionFailure;
use redkeep_core::observe::{AttachedReplica, Bypass, ProbeFailure, RedisObservation, RedisRole};
use redkeep_core::*;

use super::{MS, World};

#[derive(Clone, Debug)]
pub(crate) struct Redis {
    pub run: u64,
    pub alive: bool,
    pub hung: bool,
    pub master: Option<SocketAddr>,
    pub offset: u64,
    pub keys: u64,
    pub history: String,
    pub bypass: Vec<Bypass>,
    pub backlog_from: u64,
    /// Its link to the master was cut then, and waits for TCP until it is made anew.
    pub stuck_since: Option<u64>,
    /// Executed just before the next look at the final offset of a switchover.
    pub late_bytes: u64,
    /// The target of a switchover does not get as far as this master in time.
    pub target_lags: bool,
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
            Action::Promote { .. } => {
                let r = self.redis(name);
                if r.master.take().is_some() {
                    r.history = format!("h{}-{}", r.run, r.offset);
                }
            }
            Action::Follow { master } => {
                let r = self.redis(name);
                (r.master, r.stuck_since) = (Some(*master), None);
            }
            Action::Relink { .. } => self.redis(name).stuck_since = None,
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
            | Action::ShutWrites
            | Action::Announce { .. }
            | Action::ProbeRival { .. }
            | Action::DestroySockets { .. }
            | Action::VerifyVip { .. } => {}
        }
        Some(ActionOutcome::Done)
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
        let result = if me.hung {
            Err(ProbeFailure::Timeout)
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
                previous: None,
                offset: me.offset,
                keys: me.keys,
                backlog_from: NonZeroU64::new(me.backlog_from),
                replicas: if attached { vec![replica] } else { Vec::new() },
                version: "7.0.15".into(),
                settled: true,
                bypass: me.bypass.clone(),
            })
        };
        self.queue.push_back((name, Input::Observed { group, result }));
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
        (r.run, r.alive, r.hung, r.master, r.history) =
            (run, true, false, None, format!("fresh{run}"));
        if empty {
            (r.keys, r.offset) = (0, 0);
        }
        self.host(name).next_probe = 0;
    }
}
