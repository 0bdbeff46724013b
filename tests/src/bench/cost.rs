//! What a contender's processes use while nothing happens, by host.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::contender::Kind;
use super::stage::Stage;
use crate::netns::pids_in;
use crate::time::Mono;

/// Long enough for the 10 ms steps of the kernel's accounts.
const SPAN: Duration = Duration::from_secs(10);

/// Of one contender on one host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Share of a core; ended children (keepalived's scripts) count with their parents.
    pub(super) cpu: f64,
    pub(super) resident: u64,
}

/// Starts the contender without clients and looks at it for a while.
pub(super) fn measure(kind: Kind) -> Result<BTreeMap<String, Cost>> {
    let stage = Stage::build()?;
    let contender = kind.start(&stage)?;
    drop(contender);
    let hosts = ["a", "b", "w"];
    let look = |host: &str| used_on(&stage, host);
    let before: Vec<Used> = hosts.into_iter().map(look).collect::<Result<_>>()?;
    let began = Mono::now();
    // The passing of time is what is measured; there is no condition to wait for.
    std::thread::sleep(SPAN);
    let after: Vec<Used> = hosts.into_iter().map(look).collect::<Result<_>>()?;
    let span = Mono::now().since(began).as_secs_f64();
    let costs = hosts.into_iter().zip(before.iter().zip(&after)).map(|(host, (before, after))| {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / span;
        (host.to_owned(), Cost { cpu, resident: after.resident })
    });
    Ok(costs.collect())
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu: Duration,
    resident: u64,
}

/// Sum over the host's processes without its Redis.
fn used_on(stage: &Stage, host: &str) -> Result<Used> {
    let redis = stage.redis(host).ok().map(|redis| redis.process().pid());
    let mut sum = Used::default();
    for pid in pids_in(stage.host(host)?.namespace())? {
        if Some(pid) == redis || pid == std::process::id() {
            continue;
        }
        // A script may have ended since it was listed; its time is its parent's by then.
        if let Ok(used) = used_by(pid) {
            sum.cpu += used.cpu;
            sum.resident += used.resident;
        }
    }
    Ok(sum)
}

fn used_by(pid: u32) -> Result<Used> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(dir.join("stat"))?;
    let status = std::fs::read_to_string(dir.join("status"))?;
    parse(&stat, &status).context("unreadable")
}

/// Of proc_pid_stat(5): `utime`, `stime`, `cutime`, `cstime` in ticks of USER_HZ, 100 on Linux;
/// of proc_pid_status(5): `VmRSS` in kB.
fn parse(stat: &str, status: &str) -> Option<Used> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 =
        fields.get(11..15)?.iter().map(|field| field.parse::<u64>()).sum::<Result<_, _>>().ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Used { cpu: Duration::from_millis(ticks * 10), resident: kilobytes * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_children_count() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194560 9 0 0 0 12 30 5 3 20 0 1 0 5 6 7";
        let used = parse(stat, "VmRSS:\t 2048 kB\n").expect("readable");
        assert_eq!((used.cpu, used.resident), (Duration::from_millis(500), 2 << 20));
    }
}
