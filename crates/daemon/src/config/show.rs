//! What a configuration means: the effective file with its defaults, and the outage it promises.

use std::fmt::Write as _;

use redkeep_core::{
    Span,
    spec::{Durability, GroupSpec, Timing},
};

use super::{
    Config, GroupAccess, LogFormat, OnStop, Quarantine, Transport,
    unit::{show_bytes, show_duration, show_ppm},
};

/// The whole file, defaults written out; it reads back to the same configuration.
pub(crate) fn effective(config: &Config) -> String {
    let mut out = String::new();
    let o = &mut out;
    line(o, "node", &quote(&config.node));
    line(o, "data_dir", &quote(&config.data_dir.to_string_lossy()));
    line(o, "join", if config.join { "true" } else { "false" });
    line(o, "log_format", &quote(log_format(config.log_format)));
    line(o, "on_stop", &quote(on_stop(config.on_stop)));
    match &config.transport {
        Transport::Insecure => line(o, "insecure", "true"),
        Transport::Tls { ca, cert, key } => {
            o.push_str("\n[tls]\n");
            for (name, path) in [("ca", ca), ("cert", cert), ("key", key)] {
                line(o, name, &quote(&path.to_string_lossy()));
            }
        }
    }
    o.push_str("\n[quarantine]\n");
    line(o, "dir", &quote(&config.quarantine.dir.to_string_lossy()));
    line(o, "max_files", &config.quarantine.max_files.to_string());
    line(o, "max_bytes", &quote(&show_bytes(config.quarantine.max_bytes)));
    span(o, "timeout", config.quarantine.timeout);
    o.push_str("\n[cluster]\n");
    line(o, "name", &quote(&config.spec.name));
    timing(o, &config.spec.timing);
    line(o, "mass_failure_limit", &config.spec.mass_failure_limit.to_string());
    for node in &config.spec.nodes {
        o.push_str("\n[[node]]\n");
        line(o, "name", &quote(&node.name));
        line(o, "peer", &quote(&node.peer.to_string()));
        line(o, "admin", &quote(&node.admin.to_string()));
    }
    let none = GroupAccess::default();
    for group in &config.spec.groups {
        show_group(o, config, group, config.groups.get(&group.id).unwrap_or(&none));
    }
    out
}

fn line(out: &mut String, key: &str, value: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{key} = {value}");
}

/// In one line: a line that begins with `[` would be taken for a header.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn span(out: &mut String, key: &str, value: Span) {
    line(out, key, &quote(&show_duration(value)));
}

fn timing(out: &mut String, timing: &Timing) {
    span(out, "lease_ttl", timing.lease_ttl);
    line(out, "max_clock_drift", &quote(&show_ppm(timing.max_clock_drift_ppm)));
    span(out, "margin", timing.margin);
    span(out, "switchover_timeout", timing.switchover_timeout);
    span(out, "takeover_timeout", timing.takeover_timeout);
    span(out, "cold_start_wait", timing.cold_start_wait);
    span(out, "failover_cooldown", timing.failover_cooldown);
}

fn show_group(out: &mut String, config: &Config, group: &GroupSpec, access: &GroupAccess) {
    out.push_str("\n[[group]]\n");
    line(out, "name", &quote(group.id.as_str()));
    line(out, "port", &group.port.to_string());
    line(out, "vip", &quote(&format!("{}/{}", group.vip.addr, group.vip.prefix)));
    line(out, "interface", &quote(&group.interface));
    let name = |node| config.spec.node_name(node);
    let members: Vec<String> = group.members.iter().map(|m| quote(&name(m.node))).collect();
    line(out, "members", &format!("[{}]", members.join(", ")));
    let priority: Vec<String> = group
        .members
        .iter()
        .map(|m| format!("{} = {}", quote(&name(m.node)), m.priority))
        .collect();
    line(out, "priority", &format!("{{ {} }}", priority.join(", ")));
    span(out, "probe_interval", group.probe.interval);
    span(out, "probe_timeout", group.probe.timeout);
    line(out, "fall", &group.probe.fall.to_string());
    span(out, "loading_timeout", group.probe.loading_timeout);
    span(out, "max_lag", group.max_lag);
    line(out, "max_lag_bytes", &group.max_lag_bytes.to_string());
    line(out, "min_replicas_to_write", &group.min_replicas_to_write.to_string());
    line(out, "durability", &quote(durability(group.durability)));
    if let Some(username) = &access.username {
        line(out, "username", &quote(username));
    }
    for (key, path) in
        [("password_file", &access.password_file), ("unix_socket", &access.unix_socket)]
    {
        if let Some(path) = path {
            line(out, key, &quote(&path.to_string_lossy()));
        }
    }
    if !access.rename_commands.is_empty() {
        let renamed: Vec<String> = access
            .rename_commands
            .iter()
            .map(|(from, to)| format!("{} = {}", quote(from), quote(to)))
            .collect();
        line(out, "rename_commands", &format!("{{ {} }}", renamed.join(", ")));
    }
}

const fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

const fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Async => "async",
        Durability::Strict => "strict",
    }
}

const fn on_stop(on_stop: OnStop) -> &'static str {
    match on_stop {
        OnStop::Keep => "keep",
        OnStop::Switchover => "switchover",
    }
}

/// What the numbers promise, for `config check`: upper bounds by the protocol, before election and promotion.
pub(crate) fn consequences(config: &Config) -> String {
    let timing = &config.spec.timing;
    let armed = timing.armed_ttl();
    let silent = timing.wait_for(armed);
    let mut out = String::new();
    let mut say = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    say(format!(
        "cluster {}: {} nodes, survives the loss of {}",
        config.spec.name,
        config.spec.nodes.len(),
        (config.spec.nodes.len() - 1) / 2
    ));
    say(format!(
        "a silent holder's lease is waited out for {} (lease {} as armed + clock drift {} + margin {})",
        in_words(silent),
        in_words(armed),
        show_ppm(timing.max_clock_drift_ppm),
        show_duration(timing.margin),
    ));
    say(format!(
        "writes acknowledged by a master that is cut off can be lost for at most {} before the cut is fenced by its kernel",
        in_words(armed)
    ));
    say(quarantine(&config.quarantine));
    for group in &config.spec.groups {
        say(format!("group {}:", group.id));
        say("  Redis dies:           no timer is waited for".to_owned());
        say(format!(
            "  Redis hangs:          down after at most {}",
            show_duration(group.probe.hung_after())
        ));
        say(format!(
            "  host lost or cut off: writes stop for at most {} plus promotion; add an election if the leader is lost too",
            in_words(silent)
        ));
        say(format!(
            "  a replica that lags:  out of the eligible set after {}; the tail that can be lost is at most lease + max_lag = {}",
            show_duration(group.max_lag),
            in_words(Span(armed.0 + group.max_lag.0))
        ));
        if group.durability == Durability::Strict {
            say("  durability strict:    writes are refused while an eligible replica is not attached".to_owned());
        }
        if group.max_lag_bytes > 0 {
            say(format!(
                "  and one that lacks:   more than {} bytes of what the master had two seconds before",
                group.max_lag_bytes
            ));
        }
    }
    out
}

fn quarantine(quarantine: &Quarantine) -> String {
    let Quarantine { dir, max_files, max_bytes, timeout } = quarantine;
    if *max_bytes == 0 {
        return "writes that only a returning old master holds are not kept (quarantine.max_bytes is 0)".to_owned();
    }
    format!(
        "writes that only a returning old master holds are kept in {}: {max_files} files of a group and {} in all at most; it waits for that up to {} before it follows",
        dir.display(),
        show_bytes(*max_bytes),
        show_duration(*timeout),
    )
}

/// For sentences: a tenth of a millisecond is enough, and no unit below it.
fn in_words(span: Span) -> String {
    if span.0.is_multiple_of(1_000_000) {
        return show_duration(span);
    }
    let tenths = span.0.div_ceil(100_000);
    format!("{}.{}ms", tenths / 10, tenths % 10)
}
