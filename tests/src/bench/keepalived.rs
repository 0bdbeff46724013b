//! keepalived on `a` and `b`, with scripts that do what the founding set-up's did.
//!
//! Its `track_process` would learn of a dead Redis from the kernel at once, but the kernel's
//! process events do not exist inside a network namespace; the founding set-up had a script.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use super::contender::Contender;
use super::stage::{LIMIT, Stage};
use crate::host::Host;
use crate::process::{Process, wait_until};
use crate::redis::{PASSWORD, PORT};

pub(super) const DESCRIPTION_SEED: &str = "two `keepalived` (a, b) with the timers of the \
    founding set-up: VRRP 2, `advert_int 1`, priorities 100 and 90, a script that sends `PING` \
    with `interval 1`, `rise 3`, `fall 3`, `weight -20`; becoming master runs `SLAVEOF NO ONE`, \
    becoming backup waits a second, then runs `SLAVEOF` the other; clients use the VIP; planned: \
    keepalived is stopped on the master";
pub(super) const DESCRIPTION_TUNED: &str = "as keepalived-seed, with VRRP 3, `advert_int 0.1`, \
    `rise 1`, `fall 1`; the script's interval stays 1 s, the shortest keepalived takes; the backup \
    script asks after its second whether the host has the VIP by now, else a keepalived that \
    starts would demote the Redis it has just promoted";

/// Which timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timers {
    Seed,
    Tuned,
}

#[derive(Debug)]
pub(super) struct Keepalived {
    on_a: Mutex<Process>,
}

impl Keepalived {
    /// The master's first, as an operator would: no role changes while the first checks run.
    pub(super) fn start(stage: &Stage, timers: Timers) -> Result<Self> {
        let on_a = launch(stage, "a", "b", timers)?;
        wait_settled(stage, "a", &on_a, "master done")?;
        let on_b = launch(stage, "b", "a", timers)?;
        wait_settled(stage, "b", &on_b, "backup done")?;
        let holds = |name: &str| stage.host(name)?.has_address(stage.vip());
        ensure!(holds("a")? && !holds("b")?, "the VIP is not on a alone");
        stage.wait_replicating("a", "b")?;
        Ok(Keepalived { on_a: Mutex::new(on_a) })
    }
}

/// Waits until the first checks are over and the notify script of the host's role has ended.
fn wait_settled(stage: &Stage, name: &str, process: &Process, role: &str) -> Result<()> {
    let host = stage.host(name)?;
    wait_until(&format!("keepalived on {name} to settle"), LIMIT, || {
        let checked = process.log_text().contains("VRRP_Script(redis) succeeded");
        (checked && said(host).contains(role)).then_some(())
    })
    .with_context(|| process.log_text())
}

impl Contender for Keepalived {
    fn switch_over(&self, _stage: &Stage, _old: &str) -> Result<()> {
        self.on_a.lock().unwrap_or_else(std::sync::PoisonError::into_inner).terminate()?;
        Ok(())
    }
}

/// What the notify scripts of a host wrote.
fn said(host: &Host) -> String {
    std::fs::read_to_string(host.dir().join("keepalived/notify.log")).unwrap_or_default()
}

fn launch(stage: &Stage, name: &str, other: &str, timers: Timers) -> Result<Process> {
    let (host, peer) = (stage.host(name)?, stage.host(other)?.address().to_string());
    let dir = host.dir().join("keepalived");
    std::fs::create_dir_all(&dir)?;
    let redis = format!("redis-cli --no-auth-warning -a {PASSWORD} -p {PORT}");
    script(&dir, "check", &format!("[ \"$({redis} PING)\" = PONG ]"))?;
    script(&dir, "master", &format!("{redis} SLAVEOF NO ONE && echo master done >> notify.log"))?;
    let follow = format!("{redis} SLAVEOF {peer} {PORT} && echo backup done >> notify.log");
    // Each keepalived starts as a backup. With adverts this close it is the master before that
    // script's second is over, and would become the other's replica: both would be replicas.
    let guard = match timers {
        Timers::Seed => String::new(),
        Timers::Tuned => format!("ip addr show dev eth0 | grep -qF ' {}/' || ", stage.vip()),
    };
    script(&dir, "backup", &format!("sleep 1\n{guard}{{ {follow}; }}"))?;
    script(&dir, "fault", "echo fault >> notify.log")?;
    script(&dir, "stop", "echo stop >> notify.log")?;
    let config = dir.join("keepalived.conf");
    std::fs::write(&config, render(name, &stage.vip().to_string(), &dir, timers))?;
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
    command.arg("--use-file").arg(&config).arg("--pid").arg(dir.join("keepalived.pid"));
    command.arg("--vrrp_pid").arg(dir.join("vrrp.pid")).current_dir(&dir);
    host.spawn("keepalived", &command).context("keepalived (Debian package keepalived)")
}

fn script(dir: &Path, name: &str, body: &str) -> Result<()> {
    let path = dir.join(format!("{name}.sh"));
    std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{body}\n", dir.display()))?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
}

fn render(name: &str, vip: &str, dir: &Path, timers: Timers) -> String {
    let (state, priority) = if name == "a" { ("MASTER", 100) } else { ("BACKUP", 90) };
    let (version, advert, count) = match timers {
        Timers::Seed => (2, "1", 3),
        Timers::Tuned => (3, "0.1", 1),
    };
    let dir = dir.display();
    let mut text = format!(
        "global_defs {{\n  router_id {name}\n  script_user root\n  vrrp_version {version}\n}}\n\
         vrrp_script redis {{\n  script \"{dir}/check.sh\"\n  interval 1\n  rise {count}\n  \
         fall {count}\n  weight -20\n}}\n\
         vrrp_instance pair {{\n  state {state}\n  interface eth0\n  virtual_router_id 52\n  \
         priority {priority}\n  advert_int {advert}\n"
    );
    if timers == Timers::Seed {
        // Version 3 has no authentication.
        text.push_str("  authentication {\n    auth_type PASS\n    auth_pass pair\n  }\n");
    }
    let _ = write!(
        text,
        "  virtual_ipaddress {{\n    {vip}/32 dev eth0\n  }}\n  track_script {{\n    redis\n  }}\n"
    );
    for event in ["master", "backup", "fault", "stop"] {
        let _ = writeln!(text, "  notify_{event} \"{dir}/{event}.sh\"");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuned_file_differs_by_its_timers_and_the_version() {
        let seed = render("a", "10.99.0.100", Path::new("/d"), Timers::Seed);
        let tuned = render("b", "10.99.0.100", Path::new("/d"), Timers::Tuned);
        assert!(seed.contains("advert_int 1\n") && seed.contains("fall 3\n"), "{seed}");
        assert!(seed.contains("auth_pass") && seed.contains("priority 100\n"), "{seed}");
        assert!(tuned.contains("advert_int 0.1\n") && tuned.contains("fall 1\n"), "{tuned}");
        assert!(!tuned.contains("auth_pass") && tuned.contains("vrrp_version 3\n"), "{tuned}");
        assert_eq!(seed.matches('{').count(), seed.matches('}').count());
    }
}
