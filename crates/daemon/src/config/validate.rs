//! Second stage of the configuration: the rules.
//!
//! Each rule names the key, what is written there, the rule with its numbers, and the mend. A wrong value is replaced
//! by its default for the rest of the check, so that one mistake hides no other.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use redkeep_core::{
    GroupId, NodeId, Span,
    ids::node_id,
    spec::{ClusterSpec, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
};
use toml::{Table, Value};

use super::{
    Config, GroupAccess, LogFormat, OnStop, Problem, Transport,
    raw::{self, Document, Problems, Section, Wanted, quoted},
    unit,
};

const MS: u64 = 1_000_000;
const PRIORITY_DEFAULT: u32 = 100;

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
    let (name, timing) = cluster(&mut root, p);
    let nodes = nodes(raw::blocks("node", file.nodes, p), p);
    let (groups, access) = groups(&mut root, &nodes, &node, p);
    root.finish(p);
    check_nodes(&node, &nodes, p);
    check_groups(&groups, &nodes, p);
    if problems.0.is_empty() {
        let node_id = node_id(&node);
        let spec = ClusterSpec { name, timing, nodes, groups };
        Ok(Config { node, node_id, data_dir, transport, log_format, on_stop, spec, groups: access })
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

fn cluster(root: &mut Section, p: &mut Problems) -> (String, Timing) {
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
    section.finish(p);
    (name, timing)
}

/// Names go into metrics, paths and kernel object names: one plain alphabet for all.
fn check_name(key: &str, name: &str, p: &mut Problems) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && (name.len() > 63 || !name.chars().all(plain)) {
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
        nodes.push(NodeSpec { id: node_id(&name), name, peer, admin });
    }
    nodes
}

fn address(block: &mut Section, name: &'static str, p: &mut Problems) -> SocketAddr {
    let fallback = SocketAddr::from(([0, 0, 0, 0], 0));
    let Some(text) = block.required(name, p) else { return fallback };
    let fits = |a: &SocketAddr| a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast();
    text.parse::<SocketAddr>().ok().filter(fits).unwrap_or_else(|| {
        p.add(
            &block.key(name),
            quoted(&text),
            "must be ADDRESS:PORT of this host; names are not looked up on the failover path",
            "write for example \"10.99.0.1:7600\" or \"[fd99::1]:7600\"",
        );
        fallback
    })
}

fn groups(
    root: &mut Section,
    nodes: &[NodeSpec],
    host: &str,
    p: &mut Problems,
) -> (Vec<GroupSpec>, BTreeMap<GroupId, GroupAccess>) {
    let mut groups = Vec::new();
    let mut access = BTreeMap::new();
    for mut block in root.blocks("group", p) {
        let name = block.required("name", p).unwrap_or_default();
        check_name(&block.key("name"), &name, p);
        let id = GroupId::new(&name);
        let members = members(&mut block, nodes, p);
        let local = members.iter().any(|m| m.node == node_id(host));
        access.insert(id.clone(), group_access(&mut block, local, p));
        groups.push(GroupSpec {
            id,
            port: port(&mut block, p),
            vip: block.required_vip(p),
            interface: interface(&mut block, p),
            members,
            probe: probe(&mut block, p),
            max_lag: duration(
                &mut block,
                &DurationKey {
                    name: "max_lag",
                    default: 3_000 * MS,
                    min: 1_000 * MS,
                    max: 600_000 * MS,
                },
                p,
            ),
            min_replicas_to_write: count(&mut block, "min_replicas_to_write", 0..=64, 0, p),
        });
        block.finish(p);
    }
    (groups, access)
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

fn port(block: &mut Section, p: &mut Problems) -> u16 {
    if !block.has("port") {
        let mend = "write the `port` of its redis.conf, without quotes";
        p.add(&block.key("port"), "(missing)", "must be given", mend);
        return 0;
    }
    let Some(value) = block.integer("port", p) else { return 0 };
    match u16::try_from(value) {
        Ok(port) if port != 0 => port,
        Ok(_) | Err(_) => {
            p.add(
                &block.key("port"),
                value,
                "must be between 1 and 65535",
                "write the `port` of its redis.conf",
            );
            0
        }
    }
}

fn interface(block: &mut Section, p: &mut Problems) -> String {
    let name = block.required("interface", p).unwrap_or_default();
    // IFNAMSIZ is 16 with the closing NUL (net/if.h).
    if name.len() > 15 || name.contains(['/', ' ', ':']) {
        let rule = "must be the name of a link, at most 15 bytes";
        p.add(&block.key("interface"), quoted(&name), rule, "`ip link` lists the names");
    }
    name
}

fn probe(block: &mut Section, p: &mut Problems) -> ProbeTiming {
    let mut span = |name, default, min, max| {
        duration(
            block,
            &DurationKey { name, default: default * MS, min: min * MS, max: max * MS },
            p,
        )
    };
    ProbeTiming {
        interval: span("probe_interval", 100, 10, 10_000),
        timeout: span("probe_timeout", 250, 10, 60_000),
        loading_timeout: span("loading_timeout", 60_000, 0, 86_400_000),
        fall: count(block, "fall", 1..=100, 3, p),
    }
}

fn members(block: &mut Section, nodes: &[NodeSpec], p: &mut Problems) -> Vec<Member> {
    let names = block.strings("members", p);
    let key = block.key("members");
    let given = names.is_some();
    let names = names.unwrap_or_default();
    for (at, name) in names.iter().enumerate() {
        if !nodes.iter().any(|n| n.name == *name) {
            p.add(
                &format!("{key}[{at}]"),
                quoted(name),
                "must be the name of a [[node]]",
                &known(nodes),
            );
        }
        if names[..at].contains(name) {
            p.add(
                &format!("{key}[{at}]"),
                quoted(name),
                "must be named once",
                "remove one of the two",
            );
        }
    }
    if given && names.len() < 2 {
        p.add(
            &key,
            names.len(),
            "must name at least two nodes",
            "a group of one has nobody to fail over to",
        );
    }
    let priorities = priorities(block, &names, p);
    let priority = |name: &String| priorities.get(name).copied().unwrap_or(PRIORITY_DEFAULT);
    names.iter().map(|name| Member { node: node_id(name), priority: priority(name) }).collect()
}

fn known(nodes: &[NodeSpec]) -> String {
    let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
    format!("nodes: {}", names.join(", "))
}

fn priorities(block: &mut Section, members: &[String], p: &mut Problems) -> BTreeMap<String, u32> {
    let mut priorities = BTreeMap::new();
    let key = block.key("priority");
    for (name, value) in block.entries("priority", p) {
        let key = format!("{key}.{name}");
        if !members.contains(&name) {
            p.add(
                &key,
                &value,
                "must belong to a member of the group",
                &format!("members: {}", members.join(", ")),
            );
        }
        match value.as_integer().and_then(|v| u32::try_from(v).ok()).filter(|v| *v <= 1_000) {
            Some(number) => {
                priorities.insert(name, number);
            }
            None => p.add(
                &key,
                &value,
                "must be between 0 and 1000",
                &format!("the default is {PRIORITY_DEFAULT}; 0 is never promoted"),
            ),
        }
    }
    priorities
}

/// `local`: this host has the Redis, so the files named must be there.
fn group_access(block: &mut Section, local: bool, p: &mut Problems) -> GroupAccess {
    let username = block.string("username", p);
    let mut path =
        |name: &'static str| block.has(name).then(|| absolute_path(block, name, p)).flatten();
    let password_file = path("password_file");
    let unix_socket = path("unix_socket");
    if username.is_some() && password_file.is_none() {
        let key = block.key("password_file");
        p.add(
            &key,
            "(missing)",
            "must be given with a username",
            "name the file with its password",
        );
    }
    if let Some(file) = password_file.as_ref().filter(|f| local && f.is_absolute()) {
        check_readable(&block.key("password_file"), file, p);
    }
    let key = block.key("rename_commands");
    let mut rename_commands = BTreeMap::new();
    for (name, value) in block.entries("rename_commands", p) {
        match value {
            Value::String(renamed) if !renamed.is_empty() => {
                rename_commands.insert(name.to_ascii_uppercase(), renamed);
            }
            other => p.add(
                &format!("{key}.{name}"),
                &other,
                "must be the command's name in this Redis",
                "a command that redis.conf removed (\"\") cannot be used: rename it instead",
            ),
        }
    }
    GroupAccess { username, password_file, unix_socket, rename_commands }
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

fn check_groups(groups: &[GroupSpec], nodes: &[NodeSpec], p: &mut Problems) {
    if groups.is_empty() {
        p.add(
            "group",
            "(missing)",
            "at least one [[group]] must be given",
            "describe the pair in a [[group]] block",
        );
    }
    for (at, group) in groups.iter().enumerate() {
        let key = |name: &str| format!("group[{at}].{name}");
        for (before, other) in groups[..at].iter().enumerate() {
            let named = !group.id.as_str().is_empty();
            if named && group.id == other.id {
                let rule = format!("must differ from group[{before}].name");
                p.add(&key("name"), quoted(group.id.as_str()), &rule, "rename one");
            }
            if group.port != 0 && group.port == other.port && share_host(group, other) {
                let rule = format!("must differ from group[{before}].port: both run on one host");
                p.add(
                    &key("port"),
                    group.port,
                    &rule,
                    "the lock is by port: give each Redis of a host its own",
                );
            }
            if group.vip.addr == other.vip.addr && !group.vip.addr.is_unspecified() {
                let rule = format!("must differ from group[{before}].vip");
                p.add(
                    &key("vip"),
                    group.vip.addr,
                    &rule,
                    "groups fail over by themselves: give each its own VIP",
                );
            }
        }
        check_against_nodes(&key, group, nodes, p);
    }
}

fn share_host(a: &GroupSpec, b: &GroupSpec) -> bool {
    let host = |id: NodeId| move |m: &Member| m.node == id;
    a.members.iter().any(|m| b.members.iter().any(host(m.node)))
}

fn check_against_nodes(
    key: &impl Fn(&str) -> String,
    group: &GroupSpec,
    nodes: &[NodeSpec],
    p: &mut Problems,
) {
    let Vip { addr, .. } = group.vip;
    if let Some(owner) = nodes.iter().find(|n| n.peer.ip() == addr || n.admin.ip() == addr) {
        let rule = format!("must not be an address of a node ({} has it)", owner.name);
        p.add(&key("vip"), addr, &rule, "a VIP moves between hosts: take a free address");
    }
    for node in nodes.iter().filter(|n| group.is_member(n.id)) {
        if node.peer.port() == group.port || node.admin.port() == group.port {
            let rule = format!("must differ from the supervisor's ports at {}", node.name);
            p.add(
                &key("port"),
                group.port,
                &rule,
                "the lock would close them too: take another port",
            );
        }
        if !addr.is_unspecified() && node.peer.is_ipv6() && addr.is_ipv4() && node.peer.port() != 0
        {
            let rule = format!("must be of the family of the peer address of {}", node.name);
            p.add(&key("vip"), addr, &rule, "Redis answers peers and clients at one family");
        }
    }
}

impl Section {
    fn required_vip(&mut self, p: &mut Problems) -> Vip {
        let fallback = Vip { addr: std::net::Ipv4Addr::UNSPECIFIED.into(), prefix: 32 };
        let Some(text) = self.required("vip", p) else { return fallback };
        let fits =
            |v: &Vip| !v.addr.is_unspecified() && !v.addr.is_loopback() && !v.addr.is_multicast();
        unit::vip(&text).filter(fits).unwrap_or_else(|| {
            p.add(
                &self.key("vip"),
                quoted(&text),
                "must be ADDRESS/PREFIX (prefix up to 32, for IPv6 up to 128)",
                "write for example \"10.99.0.100/32\" or \"fd99::100/128\"",
            );
            fallback
        })
    }
}
