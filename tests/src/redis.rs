//! Real `redis-server` processes with the founding configuration.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::process::{Process, wait_until};
use crate::resp::Reply;
use crate::time::{Mono, WallOffset};

/// The operators' file; only its paths are replaced at run time.
const FOUNDING_CONFIG: &str = include_str!("../fixtures/redis.conf");

/// Port and password in the founding configuration.
pub const PORT: u16 = 16465;
pub const PASSWORD: &str = "password";

/// How a Redis is to be started.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    pub port: u16,
    /// The line by which the replica's file differs: `slaveof ADDRESS PORT`.
    pub replica_of: Option<SocketAddr>,
    /// Further directives, appended last.
    pub extra: Vec<(String, String)>,
    /// Longest wait for "Ready to accept connections".
    pub ready_within: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        RedisOptions {
            port: PORT,
            replica_of: None,
            // Not in the founding file: its default lets each full synchronisation wait 5 s.
            extra: vec![("repl-diskless-sync-delay".to_owned(), "0".to_owned())],
            ready_within: Duration::from_secs(20),
        }
    }
}

impl RedisOptions {
    /// A replica of the Redis at `master`.
    pub fn replica_of(master: SocketAddr) -> Self {
        RedisOptions { replica_of: Some(master), ..Self::default() }
    }
}

/// One Redis on one host; it can be killed and started again.
#[derive(Debug)]
pub struct Redis {
    host: String,
    options: RedisOptions,
    dir: PathBuf,
    starts: u32,
    process: Process,
}

/// What a Redis finds on its disk when it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    Kept,
    Removed,
}

impl Redis {
    /// Writes the configuration, starts the server and waits until it says that it is ready.
    pub fn start(host: &Host, options: RedisOptions) -> Result<Self> {
        let dir = host.dir().join(format!("redis-{}", options.port));
        std::fs::create_dir_all(&dir)?;
        let process = launch(host, &options, &dir, 1)?;
        let name = host.name().to_owned();
        let redis = Redis { host: name, options, dir, starts: 1, process };
        redis.wait_ready()?;
        Ok(redis)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    /// Name by which writers know this start of this Redis: `HOST:PORT#START`.
    pub fn instance(&self) -> String {
        format!("{}:{}#{}", self.host, self.options.port, self.starts)
    }

    /// From its next start on its file has this line; an earlier one of the directive goes.
    pub fn set_directive(&mut self, directive: &str, value: &str) {
        self.options.extra.retain(|(name, _)| name != directive);
        self.options.extra.push((directive.to_owned(), value.to_owned()));
    }

    /// Starts the killed server again by its own file and does not wait for it.
    pub fn start_again(&mut self, host: &Host, data: DataSet) -> Result<Mono> {
        ensure!(host.name() == self.host, "this Redis belongs to {}", self.host);
        ensure!(!self.process.is_running(), "{} still runs", self.instance());
        if data == DataSet::Removed {
            std::fs::remove_dir_all(self.dir.join("data"))?;
        }
        self.starts += 1;
        let at = Mono::now();
        self.process = launch(host, &self.options, &self.dir, self.starts)?;
        Ok(at)
    }

    /// Waits until the present start accepts connections.
    ///
    /// The log says it; a connection would not do, since a guarded port may be closed.
    pub fn wait_ready(&self) -> Result<()> {
        let what = format!("{} to be ready", self.instance());
        wait_until(&what, self.options.ready_within, || {
            if !self.process.is_running() {
                return Some(false);
            }
            self.log_text().contains("Ready to accept connections").then_some(true)
        })
        .and_then(|alive| {
            ensure!(alive, "{} ended: {}", self.instance(), self.log_text());
            Ok(())
        })
    }

    /// The log of the present start.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(log_path(&self.dir, self.starts)).unwrap_or_default()
    }

    /// When this start became a master by command ("MASTER MODE enabled"), to the millisecond.
    pub fn promotions(&self, offset: WallOffset) -> Vec<Mono> {
        promotions(&self.log_text(), offset)
    }

    /// By instance, since when each start so far was a master: from its first line on if its own
    /// file makes it one, and from each promotion on.
    pub(crate) fn reigns(&self, offset: WallOffset) -> Vec<(String, Mono)> {
        let mut reigns = Vec::new();
        for start in 1..=self.starts {
            let log = std::fs::read_to_string(log_path(&self.dir, start)).unwrap_or_default();
            let instance = format!("{}:{}#{start}", self.host, self.options.port);
            if self.options.replica_of.is_none() {
                let first = log.lines().find_map(log_stamp_ns).map(|ns| offset.to_mono(ns));
                reigns.extend(first.map(|since| (instance.clone(), since)));
            }
            let promoted = promotions(&log, offset);
            reigns.extend(promoted.into_iter().map(|since| (instance.clone(), since)));
        }
        reigns
    }
}

fn promotions(log: &str, offset: WallOffset) -> Vec<Mono> {
    log.lines()
        .filter(|line| line.contains("MASTER MODE enabled"))
        .filter_map(|line| log_stamp_ns(line).map(|ns| offset.to_mono(ns)))
        .collect()
}

fn log_path(dir: &std::path::Path, starts: u32) -> PathBuf {
    dir.join(format!("redis-{starts}.log"))
}

/// `redis-server` of PATH, or the one that the environment names.
fn server() -> std::ffi::OsString {
    std::env::var_os("LAB_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// The line that admits `DEBUG`; servers before 7.0 do without, and do not know it.
pub fn debug_allowed() -> Result<Option<(String, String)>> {
    let output = Command::new(server()).arg("--version").output().context("ask for the version")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split(" v=").nth(1).and_then(|rest| rest.split('.').next());
    let major: u32 = version
        .and_then(|major| major.parse().ok())
        .with_context(|| format!("no version in {said:?}"))?;
    Ok((major >= 7).then(|| ("enable-debug-command".to_owned(), "yes".to_owned())))
}

fn launch(
    host: &Host,
    options: &RedisOptions,
    dir: &std::path::Path,
    start: u32,
) -> Result<Process> {
    let data = dir.join("data");
    std::fs::create_dir_all(&data)?;
    let config = dir.join("redis.conf");
    std::fs::write(&config, render(host.name(), options, dir, start))?;
    let mut command = Command::new(server());
    // Stamps in UTC, so that they convert without a time zone.
    command.arg(&config).current_dir(&data).env("TZ", "UTC");
    let name = format!("redis-{}", options.port);
    host.spawn(&name, &command).context("redis-server (Debian package redis-server)")
}

/// The founding file with its paths replaced and the lab's lines appended.
///
/// `pidfile` carries host and start: writers ask for it to learn who answered them.
fn render(host: &str, options: &RedisOptions, dir: &std::path::Path, start: u32) -> String {
    let mut text = String::new();
    let shown = dir.display();
    for line in FOUNDING_CONFIG.lines() {
        let replaced = match line.split_whitespace().next() {
            Some("daemonize") => "daemonize no".to_owned(),
            Some("pidfile") => format!("pidfile \"{shown}/{host}:{}#{start}\"", options.port),
            Some("port") => format!("port {}", options.port),
            Some("logfile") => format!("logfile \"{}\"", log_path(dir, start).display()),
            Some("dir") => format!("dir \"{shown}/data\""),
            Some(_) | None => line.to_owned(),
        };
        text.push_str(&replaced);
        text.push('\n');
    }
    // Also of servers before 6.2, which know no `*`.
    text.push_str("bind 0.0.0.0 ::\nprotected-mode no\n");
    if let Some(master) = options.replica_of {
        let _ = writeln!(text, "slaveof {} {}", master.ip(), master.port());
    }
    for (directive, value) in &options.extra {
        let _ = writeln!(text, "{directive} {value}");
    }
    text
}

/// Nanoseconds since the epoch of `PID:ROLE DD Mon YYYY HH:MM:SS.mmm ...`, taken as UTC.
fn log_stamp_ns(line: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, day, month, year, clock, ..] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    crate::time::parse_rfc3339_utc(&format!("{year}-{month}-{day}T{clock}Z"))
}

/// Waits until what is written at the Redis of `master` comes to that of `replica` by the stream.
///
/// A link that is up and an acknowledgement are too early: after a diskless synchronisation the master
/// sends its stream only when an acknowledgement has come after it reaped its child. One that came
/// before counts for WAIT, and the next comes up to 1 s later. So a second value is written when the
/// replica has loaded the first.
pub fn wait_stream(master: &Host, replica: &Host, limit: Duration) -> Result<()> {
    const KEY: &str = "lab-stream";
    let here = SocketAddr::from(([127, 0, 0, 1], PORT));
    let mut connection = master.connect(here, PASSWORD)?;
    for _ in 0..2 {
        let value = format!("{:?}", Mono::now());
        connection.call(&["SET", KEY, &value])?;
        let wanted = Reply::Bulk(Some(value.clone().into_bytes()));
        wait_until("a write to reach the replica", limit, || {
            let found = replica.redis(here, PASSWORD, &["GET", KEY]).ok()?;
            (found == wanted).then_some(())
        })?;
    }
    // Tests count keys.
    connection.call(&["DEL", KEY])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founding_directives_survive_but_for_paths() {
        let options = RedisOptions::replica_of(SocketAddr::from(([10, 99, 0, 1], PORT)));
        let text = render("a", &options, std::path::Path::new("/x"), 3);
        let changed = ["daemonize", "pidfile", "port", "logfile", "dir"];
        for line in FOUNDING_CONFIG.lines().filter(|line| !line.is_empty()) {
            let word = line.split_whitespace().next().expect("a word");
            assert!(changed.contains(&word) || text.contains(line), "{line} is missing");
        }
        assert!(text.contains("slaveof 10.99.0.1 16465\n"));
        assert!(text.contains("pidfile \"/x/a:16465#3\"\n"));
    }

    #[test]
    fn log_stamp_is_read_as_utc() {
        let line = "35:M 31 Jan 2026 10:20:30.123 * MASTER MODE enabled (user request)";
        assert_eq!(log_stamp_ns(line), Some(1_769_854_830_123_000_000));
    }
}
