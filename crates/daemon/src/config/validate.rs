//! Second stage of the configuration: the rules.
//!
//! Each rule names the key, what is written there, the rule with its numbers, and the mend. A wrong value is replaced
//! by its default for the rest of the check, so that one mistake hides no other.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use redkeep_core::{
    Span,
    ids::node_id,
    spec::{ClusterSpec, NodeSpec, Timing},
};
use toml::Table;

use super::{
    Config, LogFormat, OnStop, Problem, Transport,
    raw::{self, Document, Problems, Section, Wanted, quoted},
    unit,
};

mod groups;
mod quarantine;

use groups::{check_groups, groups};

const MS: u64 = 1_000_000;

/// Check everything; either a whole configuration or every problem.
pub(super) fn validate(file: Document) -> Result<Config, Vec<Problem>> {
    let mut problems = Problems::default();
    let p = &mut problems;
    for key in file.twice {
        p.add(&key, "(twice)", "must be given once", "remove one of the two");
    }
    let mut root = Section::new("", file.root);
    let node = root.required("node", p).unwrap_or_default();
    let data_dir = absolute_path(&mut root, "data_dir", p).unwrap_or_default();
    let join = root.boolean("join", p).unwrap_or(false);
    let transport = transport(&mut root, p);
    let log_format = root.parsed(
        Wanted {
            name: "log_format",
            default: LogFormat::Text,
            parse: |t| match t {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            },
            rule: "must be \"text\" or \"json\"",
            mend: "write one of the two",
        },
        p,
    );
    let on_stop = root.parsed(
        Wanted {
            name: "on_stop",
            default: OnStop::Keep,
            parse: |t| match t {
                "keep" => Some(OnStop::Keep),
                "switchover" => Some(OnStop::Switchover),
                _ => None,
            },
            rule: "must be \"keep\" or \"switchover\"",
            mend: "write one of the two",
        },
        p,
    );
    let quarantine = quarantine::quarantine(&mut root, &data_dir, p);
    let (name, timing, mass_failure_limit) = cluster(&mut root, p);
    let nodes = nodes(raw::blocks("node", file.nodes, p), p);
    let (groups, access) = groups(&mut root, &nodes, &node, p);
    root.finish(p);
    check_nodes(&node, &nodes, p);
    check_groups(&groups, &nodes, p);
    if problems.0.is_empty() {
        let node_id = node_id(&node);
        let spec = ClusterSpec { name, timing, mass_failure_limit, nodes, groups };
        Ok(Config {
            node,
            node_id,
            data_dir,
            join,
            transport,
            log_format,
            on_stop,
            quarantine,
            spec,
            groups: access,
        })
    } else {
        Err(problems.0)
    }
}

fn absolute_path(section: &mut Section, name: &'static str, p: &mut Problems) -> Option<PathBuf> {
    let path = PathBuf::from(section.required(name, p)?);
    if !path.is_absolute() {
        p.add(
            &section.key(name),
            quoted(&path.to_string_lossy()),
            "must be an absolute path",
            "start it with /",
        );
    }
    Some(path)
}

fn transport(root: &mut Section, p: &mut Problems) -> Transport {
    let insecure = root.boolean("insecure", p).unwrap_or(false);
    let Some(mut tls) = root.section("tls", p) else {
        if !insecure {
            p.add(
                "insecure",
                false,
                "peers and operators are spoken to by mutual TLS, or in plain text that was asked for",
                "add [tls] with ca, cert and key, or `insecure = true`",
            );
        }
        return Transport::Insecure;
    };
    if insecure {
        p.add("insecure", true, "excludes [tls]", "remove one of the two");
    }
    let mut file = |name| {
        let path = absolute_path(&mut tls, name, p).unwrap_or_default();
        if path.is_absolute() {
            check_readable(&tls.key(name), &path, p);
        }
        path
    };
    let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
    tls.finish(p);
    Transport::Tls { ca, cert, key }
}

fn check_readable(key: &str, path: &PathBuf, p: &mut Problems) {
    // Reading a pipe or a device may never end; what cannot be asked is told by the reading.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        p.add(key, path.display(), "must be a regular file", "write the secret into a file");
        return;
    }
    match std::fs::read(path) {
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => {
            p.add(key, path.display(), "must not be an empty file", "write the secret into it");
        }
        Ok(_) => {}
        Err(error) => {
            p.add(
                key,
                path.display(),
                &format!("must be readable ({error})"),
                "create it, or correct its owner and mode",
            );
        }
    }
}

/// A duration with default and bounds, all in nanoseconds.
struct DurationKey {
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
}

fn duration(section: &mut Section, key: &DurationKey, p: &mut Problems) -> Span {
    let span = section.parsed(
        Wanted {
            name: key.name,
            default: Span(key.default),
            parse: unit::duration,
            rule: "must be a duration with its unit (us, ms, s, m, h)",
            mend: "write for example \"300ms\"",
        },
        p,
    );
    if span.0 < key.min || span.0 > key.max {
        let (min, max) = (unit::show_duration(Span(key.min)), unit::show_duration(Span(key.max)));
        let default = unit::show_duration(Span(key.default));
        p.add(
            &section.key(key.name),
            quoted(&unit::show_duration(span)),
            &format!("must be between {min} and {max}"),
            &format!("the default is \"{default}\""),
        );
        return Span(key.default);
    }
    span
}

fn cluster(root: &mut Section, p: &mut Problems) -> (String, Timing, u32) {
    let mut section =
        root.section("cluster", p).unwrap_or_else(|| Section::new("cluster", Table::new()));
    let s = &mut section;
    let name = s.required("name", p).unwrap_or_default();
    check_name("cluster.name", &name, p);
    let max_clock_drift_ppm = s.parsed(
        Wanted {
            name: "max_clock_drift",
            default: 100_000,
            parse: |t| unit::percent_ppm(t).filter(|ppm| (1_000..=500_000).contains(ppm)),
            rule: "must be a percentage between 0.1% and 50%",
            mend: "the default is \"10%\"; chrony may slew by 8 %",
        },
        p,
    );
    let mut span = |name, default, min, max| {
        duration(s, &DurationKey { name, default: default * MS, min: min * MS, max: max * MS }, p)
    };
    let timing = Timing {
        lease_ttl: span("lease_ttl", 1_000, 100, 60_000),
        max_clock_drift_ppm,
        margin: span("margin", 25, 25, 10_000),
        switchover_timeout: span("switchover_timeout", 2_000, 100, 60_000),
        takeover_timeout: span("takeover_timeout", 2_000, 200, 600_000),
        cold_start_wait: span("cold_start_wait", 30_000, 0, 3_600_000),
        failover_cooldown: span("failover_cooldown", 0, 0, 86_400_000),
    };
    let mass_failure_limit = count(s, "mass_failure_limit", 0..=1_000, 0, p);
    section.finish(p);
    (name, timing, mass_failure_limit)
}

/// Names go into metrics, paths and kernel object names: one plain alphabet for all.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=63).contains(&text.len()) && text.chars().all(plain)
}

/// A supervisor can answer there.
pub(crate) fn is_place(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

fn check_name(key: &str, name: &str, p: &mut Problems) {
    if !name.is_empty() && !is_name(name) {
        p.add(
            key,
            quoted(name),
            "must be at most 63 letters, digits, '-', '_' or '.'",
            "choose another name",
        );
    }
}

fn nodes(blocks: Vec<Section>, p: &mut Problems) -> Vec<NodeSpec> {
    let mut nodes = Vec::new();
    for mut block in blocks {
        let name = block.required("name", p).unwrap_or_default();
        check_name(&block.key("name"), &name, p);
        let peer = address(&mut block, "peer", p);
        let admin = address(&mut block, "admin", p);
        block.finish(p);
        nodes.push(NodeSpec { id: node_id(&name), name, peer, admin, added: false });
    }
    nodes
}

fn address(block: &mut Section, name: &'static str, p: &mut Problems) -> SocketAddr {
    let fallback = SocketAddr::from(([0, 0, 0, 0], 0));
    let Some(text) = block.required(name, p) else { return fallback };
    text.parse::<SocketAddr>().ok().filter(is_place).unwrap_or_else(|| {
        p.add(
            &block.key(name),
            quoted(&text),
            "must be ADDRESS:PORT of this host; names are not looked up on the failover path",
            "write for example \"10.99.0.1:7600\" or \"[fd99::1]:7600\"",
        );
        fallback
    })
}

fn count(
    block: &mut Section,
    name: &'static str,
    range: std::ops::RangeInclusive<u32>,
    default: u32,
    p: &mut Problems,
) -> u32 {
    let Some(value) = block.integer(name, p) else { return default };
    match u32::try_from(value).ok().filter(|v| range.contains(v)) {
        Some(value) => value,
        None => {
            let rule = format!("must be between {} and {}", range.start(), range.end());
            p.add(&block.key(name), value, &rule, &format!("the default is {default}"));
            default
        }
    }
}

fn known(nodes: &[NodeSpec]) -> String {
    let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
    format!("nodes: {}", names.join(", "))
}

fn check_nodes(host: &str, nodes: &[NodeSpec], p: &mut Problems) {
    if nodes.len() < 3 {
        let mend = "add a witness: a node that no group names as a member";
        p.add(
            "node",
            nodes.len(),
            "at least three [[node]] blocks make a quorum that survives one",
            mend,
        );
    } else if nodes.len().is_multiple_of(2) {
        let mend = "add or remove one; an even number survives no more failures than one less";
        p.add("node", nodes.len(), "the number of nodes must be odd", mend);
    }
    if !host.is_empty() && !nodes.iter().any(|n| n.name == host) {
        p.add("node", quoted(host), "must be the name of a [[node]]", &known(nodes));
    }
    let mut seen: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for (name, addr) in [("peer", node.peer), ("admin", node.admin)] {
            let key = format!("node[{at}].{name}");
            if addr.port() == 0 {
                continue;
            }
            if let Some(other) = seen.insert(addr, key.clone()) {
                p.add(&key, addr, &format!("must differ from {other}"), "give each its own port");
            }
        }
        for (before, other) in nodes[..at].iter().enumerate() {
            check_identity(&format!("node[{at}].name"), node, (before, other), p);
        }
    }
}

fn check_identity(
    key: &str,
    node: &NodeSpec,
    (before, other): (usize, &NodeSpec),
    p: &mut Problems,
) {
    if node.name.is_empty() || other.name.is_empty() {
        return;
    }
    if node.name == other.name {
        p.add(
            key,
            quoted(&node.name),
            &format!("must differ from node[{before}].name"),
            "rename one",
        );
    } else if node.id == other.id {
        let rule = format!("its id (a hash of the name) must differ from that of {:?}", other.name);
        p.add(key, quoted(&node.name), &rule, "rename one");
    }
}
