//! `redkeepd` on a host, and `redkeepctl` to speak to it, as an operator would use them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binaries::{redkeepctl, redkeepd};
use crate::host::Host;
use crate::lab::Lab;
use crate::process::{Process, wait_until};
use crate::tempo::{slowdown, times};
use crate::time::Mono;

/// Port of the peers' traffic.
pub const PEER_PORT: u16 = 7600;
/// Port of the admin API.
pub const ADMIN_PORT: u16 = 7601;

/// One `[[group]]` of the file.
#[derive(Clone, Debug)]
pub struct GroupBlock {
    pub name: String,
    pub port: u16,
    pub vip: IpAddr,
    pub members: Vec<String>,
    pub password: String,
    /// Further lines of the block, as they stand in the file.
    pub extra: String,
}

/// The supervisors' file, the same on all hosts but for `node`, `data_dir` and the password file.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    pub name: String,
    pub lease_ttl: Option<String>,
    pub nodes: Vec<(String, IpAddr)>,
    pub groups: Vec<GroupBlock>,
    /// Further lines of `[cluster]`.
    pub extra: String,
    /// With `[tls]`, by the node's files in [`tls_dir`]; else `insecure`.
    pub tls: bool,
    /// A node that joins a running cluster.
    pub joining: Option<String>,
    /// `[quarantine] dir` on the disk of Redis and not below `data_dir`.
    pub quarantine_beside_redis: bool,
}

/// Where a host's `ca.pem`, `node.pem`, `node.key`, `operator.pem` and `operator.key` lie, if it has any.
///
/// The lab makes none; a test of TLS does. `redkeepctl` speaks TLS on a host that has them.
pub fn tls_dir(host: &Host) -> PathBuf {
    host.dir().join("tls")
}

impl ClusterFile {
    /// Nodes `a`, `b` and witness `w` of the lab, one group `pair` at [`Lab::vip`].
    pub fn founding(lab: &Lab, lease_ttl: &str) -> Result<Self> {
        let mut nodes = Vec::new();
        for name in ["a", "b", "w"] {
            nodes.push((name.to_owned(), lab.host(name)?.address()));
        }
        let group = GroupBlock {
            name: "pair".to_owned(),
            port: crate::redis::PORT,
            vip: lab.vip(),
            members: vec!["a".to_owned(), "b".to_owned()],
            password: crate::redis::PASSWORD.to_owned(),
            extra: slow_lines(&[("probe_interval", "100ms"), ("probe_timeout", "250ms")]),
        };
        Ok(ClusterFile {
            name: "demo".to_owned(),
            lease_ttl: Some(times(lease_ttl, slowdown())),
            nodes,
            groups: vec![group],
            extra: slow_lines(&[("takeover_timeout", "2s"), ("switchover_timeout", "2s")]),
            tls: false,
            joining: None,
            quarantine_beside_redis: false,
        })
    }

    /// Text of the file for one node; its own files are below `dir`.
    pub fn render(&self, node: &str, dir: &Path) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "node = \"{node}\"");
        let _ = writeln!(text, "data_dir = \"{}\"", dir.join("redkeep").display());
        if self.joining.as_deref() == Some(node) {
            text.push_str("join = true\n");
        }
        if self.tls {
            let file = |name| dir.join("tls").join(name);
            let _ = writeln!(text, "\n[tls]\nca = {:?}", file("ca.pem"));
            let _ = writeln!(text, "cert = {:?}\nkey = {:?}", file("node.pem"), file("node.key"));
        } else {
            let _ = writeln!(text, "insecure = true");
        }
        if self.quarantine_beside_redis {
            let _ = writeln!(text, "\n[quarantine]\ndir = {:?}", dir.join("quarantine"));
        }
        let _ = writeln!(text, "\n[cluster]\nname = \"{}\"", self.name);
        if let Some(ttl) = &self.lease_ttl {
            let _ = writeln!(text, "lease_ttl = \"{ttl}\"");
        }
        text.push_str(&self.extra);
        for (name, address) in &self.nodes {
            let _ = writeln!(text, "\n[[node]]\nname = \"{name}\"");
            let at = |port| SocketAddr::new(*address, port);
            let _ = writeln!(text, "peer = \"{}\"", at(PEER_PORT));
            let _ = writeln!(text, "admin = \"{}\"", at(ADMIN_PORT));
        }
        for group in &self.groups {
            let length = if group.vip.is_ipv4() { 32 } else { 128 };
            let members: Vec<String> =
                group.members.iter().map(|name| format!("\"{name}\"")).collect();
            let password = dir.join(format!("{}.password", group.name));
            let _ = writeln!(text, "\n[[group]]\nname = \"{}\"", group.name);
            let _ = writeln!(text, "port = {}\nvip = \"{}/{length}\"", group.port, group.vip);
            let _ = writeln!(text, "interface = \"eth0\"");
            let _ = writeln!(text, "password_file = \"{}\"", password.display());
            let _ = writeln!(text, "members = [{}]", members.join(", "));
            text.push_str(&group.extra);
        }
        text
    }
}

/// On a slow machine the lines that lengthen these defaults; elsewhere none, so that the defaults are tested.
fn slow_lines(defaults: &[(&str, &str)]) -> String {
    let slow = slowdown();
    let line = |(key, span): &(&str, &str)| format!("{key} = \"{}\"\n", times(span, slow));
    if slow == 1 { String::new() } else { defaults.iter().map(line).collect() }
}

/// One supervisor; it can be killed and started again with its data.
#[derive(Debug)]
pub struct Supervisor {
    host: String,
    config: PathBuf,
    process: Process,
}

impl Supervisor {
    /// Writes configuration and password files, then starts `redkeepd`.
    pub fn start(host: &Host, file: &ClusterFile) -> Result<Self> {
        let config = host.dir().join("redkeep.toml");
        std::fs::write(&config, file.render(host.name(), host.dir()))?;
        for group in &file.groups {
            let path = host.dir().join(format!("{}.password", group.name));
            std::fs::write(&path, format!("{}\n", group.password))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        }
        let process = launch(host, &config)?;
        Ok(Supervisor { host: host.name().to_owned(), config, process })
    }

    /// Starts the ended supervisor again with its data.
    pub fn start_again(&mut self, host: &Host) -> Result<Mono> {
        ensure!(host.name() == self.host, "this supervisor belongs to {}", self.host);
        ensure!(!self.process.is_running(), "the supervisor on {} still runs", self.host);
        let at = Mono::now();
        self.process = launch(host, &self.config)?;
        Ok(at)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The configuration file as written.
    pub fn config_path(&self) -> &Path {
        &self.config
    }
}

fn launch(host: &Host, config: &Path) -> Result<Process> {
    let mut command = Command::new(redkeepd()?);
    command.arg("--config").arg(config).current_dir(host.dir());
    host.spawn("redkeepd", &command)
}

/// What `redkeepctl` said.
#[derive(Clone, Debug)]
pub struct CtlOutcome {
    /// 0 done, 1 refused, 2 usage, 3 unreachable, 4 outcome unknown; none: killed by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CtlOutcome {
    /// Stdout as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("code {:?}: {}{}", self.code, self.stdout, self.stderr))
    }
}

/// Runs `redkeepctl --endpoint HOST:7601 WORDS...` on a host of the lab, by TLS if that host has files for it.
pub fn ctl(lab: &Lab, on: &str, endpoint: &str, words: &[&str]) -> Result<CtlOutcome> {
    ctl_with(lab.host(on)?, &ctl_options(lab.host(on)?, lab.host(endpoint)?), words)
}

/// How `redkeepctl` on one host reaches the supervisor of another.
pub(crate) fn ctl_options(on: &Host, endpoint: &Host) -> Vec<String> {
    let address = SocketAddr::new(endpoint.address(), ADMIN_PORT);
    let mut options = vec!["--endpoint".to_owned(), address.to_string()];
    let dir = tls_dir(on);
    if dir.exists() {
        for (option, file) in
            [("--ca", "ca.pem"), ("--cert", "operator.pem"), ("--key", "operator.key")]
        {
            options.extend([option.to_owned(), dir.join(file).display().to_string()]);
        }
        options.extend(["--server-name".to_owned(), endpoint.name().to_owned()]);
    }
    options
}

/// Runs `redkeepctl OPTIONS... WORDS...` on a host of the lab.
pub fn ctl_with(on: &Host, options: &[String], words: &[&str]) -> Result<CtlOutcome> {
    let program = redkeepctl()?.display().to_string();
    let mut all = vec![program.as_str()];
    all.extend(options.iter().map(String::as_str));
    all.extend(words);
    let output = on.run(&all)?;
    Ok(CtlOutcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Status of a cluster by `redkeepctl -o json status`, asked at one node.
pub fn status(lab: &Lab, endpoint: &str) -> Result<Value> {
    ctl(lab, endpoint, endpoint, &["-o", "json", "status"])?.json()
}

/// Waits until `good` holds of the status that `endpoint` answers; the error shows the last one.
pub fn wait_status(
    lab: &Lab,
    endpoint: &str,
    what: &str,
    limit: Duration,
    good: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut last = String::new();
    let found = wait_until(what, limit, || match status(lab, endpoint) {
        Ok(value) if good(&value) => Some(value),
        Ok(value) => {
            last = value.to_string();
            None
        }
        Err(error) => {
            last = format!("{error:#}");
            None
        }
    });
    found.with_context(|| format!("last status of {endpoint}: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_the_interface_of_the_product() {
        let group = GroupBlock {
            name: "pair".to_owned(),
            port: 16465,
            vip: IpAddr::from([10, 99, 0, 100]),
            members: vec!["a".to_owned(), "b".to_owned()],
            password: "secret".to_owned(),
            extra: String::new(),
        };
        let file = ClusterFile {
            name: "demo".to_owned(),
            lease_ttl: Some("300ms".to_owned()),
            nodes: vec![("a".to_owned(), IpAddr::from([10, 99, 0, 1]))],
            groups: vec![group],
            extra: String::new(),
            tls: false,
            joining: None,
            quarantine_beside_redis: false,
        };
        let expected = "node = \"a\"\ndata_dir = \"/d/redkeep\"\ninsecure = true\n\n[cluster]\n\
            name = \"demo\"\nlease_ttl = \"300ms\"\n\n[[node]]\nname = \"a\"\n\
            peer = \"10.99.0.1:7600\"\nadmin = \"10.99.0.1:7601\"\n\n[[group]]\n\
            name = \"pair\"\nport = 16465\nvip = \"10.99.0.100/32\"\ninterface = \"eth0\"\n\
            password_file = \"/d/pair.password\"\nmembers = [\"a\", \"b\"]\n";
        assert_eq!(file.render("a", Path::new("/d")), expected);
        let aside = ClusterFile { quarantine_beside_redis: true, ..file };
        let block = "\n[quarantine]\ndir = \"/d/quarantine\"\n\n[cluster]\n";
        assert_eq!(aside.render("a", Path::new("/d")), expected.replace("\n[cluster]\n", block));
    }
}
