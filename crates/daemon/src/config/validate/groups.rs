//! The rules for `[[group]]` blocks.

use std::collections::BTreeMap;

use redkeep_core::{
    GroupId, NodeId,
    ids::node_id,
    spec::{Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Vip},
};
use toml::Value;

use super::{DurationKey, MS, absolute_path, check_name, check_readable, count, duration, known};
use crate::config::{
    GroupAccess,
    raw::{Problems, Section, Wanted, quoted},
    unit,
};

const PRIORITY_DEFAULT: u32 = 100;

pub(super) fn groups(
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
            max_lag_bytes: bytes(&mut block, "max_lag_bytes", p),
            min_replicas_to_write: count(&mut block, "min_replicas_to_write", 0..=64, 0, p),
            durability: block.parsed(
                Wanted {
                    name: "durability",
                    default: Durability::Async,
                    parse: |t| match t {
                        "async" => Some(Durability::Async),
                        "strict" => Some(Durability::Strict),
                        _ => None,
                    },
                    rule: "must be \"async\" or \"strict\"",
                    mend: "write one of the two",
                },
                p,
            ),
        });
        block.finish(p);
    }
    (groups, access)
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

/// A number of bytes; 0, the default, switches the rule off.
fn bytes(block: &mut Section, name: &'static str, p: &mut Problems) -> u64 {
    let Some(value) = block.integer(name, p) else { return 0 };
    u64::try_from(value).unwrap_or_else(|_| {
        let rule = "must be a number of bytes, or 0 for none";
        p.add(&block.key(name), value, rule, "the default is 0");
        0
    })
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

pub(super) fn check_groups(groups: &[GroupSpec], nodes: &[NodeSpec], p: &mut Problems) {
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
    // Zero stands for a value that was refused already.
    let owner = nodes.iter().find(|n| n.peer.ip() == addr || n.admin.ip() == addr);
    if let Some(owner) = owner.filter(|_| !addr.is_unspecified()) {
        let rule = format!("must not be an address of a node ({} has it)", owner.name);
        p.add(&key("vip"), addr, &rule, "a VIP moves between hosts: take a free address");
    }
    for node in nodes.iter().filter(|n| group.is_member(n.id)) {
        let taken = node.peer.port() == group.port || node.admin.port() == group.port;
        if taken && group.port != 0 {
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
