//! The rules of the configuration, one case each.

use std::path::Path;

use super::*;

/// A password file of this test's own.
fn password_file(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("redkeep-config-{test}-{}", std::process::id()));
    std::fs::write(&path, "secret\n").unwrap();
    path
}

fn example(password_file: &Path) -> String {
    format!(
        r#"node = "a"                          # the only line that differs between hosts
data_dir = "/var/lib/redkeep"
insecure = true                     # or [tls] ca/cert/key

[cluster]
name = "demo"
lease_ttl = "300ms"                 # default "1s"

[[node]]
name = "a"
peer = "10.99.0.1:7600"
admin = "10.99.0.1:7601"
[[node]]
name = "b"
peer = "10.99.0.2:7600"
admin = "10.99.0.2:7601"
[[node]]
name = "w"                          # a witness: no group names it as a member
peer = "10.99.0.3:7600"
admin = "10.99.0.3:7601"

[[group]]
name = "pair"
port = 16465
vip = "10.99.0.100/32"
interface = "eth0"
password_file = "{}"
members = ["a", "b"]                # Redis answers at the host of the node's peer address
"#,
        password_file.display()
    )
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("redkeep.toml"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn the_documented_file_works_as_it_stands() {
    let config = parse(&example(&password_file("as-it-stands"))).unwrap();
    assert_eq!(config.node, "a");
    assert_eq!(config.spec.nodes.len(), 3);
    assert_eq!(config.spec.timing.lease_ttl, redkeep_core::Span(300_000_000));
    assert_eq!(config.spec.timing.max_clock_drift_ppm, 100_000);
    assert_eq!(config.spec.groups[0].members.len(), 2);
    assert_eq!(config.spec.groups[0].probe.fall, 3);
    assert_eq!(config.local_groups().count(), 1);
    assert_eq!(config.transport, Transport::Insecure);
    assert_eq!(config.on_stop, OnStop::Keep);
}

#[test]
fn the_effective_file_reads_back_to_the_same() {
    let mut text = example(&password_file("effective"));
    text.push_str(
        "priority = { a = 100, b = 0 }\nrename_commands = { config = \"x\" }\nmax_lag = \"1.5s\"\n",
    );
    let config = parse(&text).unwrap();
    let shown = effective(&config);
    let again = parse(&shown).unwrap();
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    assert_eq!(shown, effective(&again));
}

#[test]
fn the_data_safety_keys_are_read_shown_and_off_unless_asked_for() {
    let text = example(&password_file("safety"));
    let plain = parse(&text).unwrap();
    let group = &plain.spec.groups[0];
    assert_eq!((plain.spec.mass_failure_limit, group.max_lag_bytes), (0, 0));
    assert_eq!(group.durability, redkeep_core::spec::Durability::Async);
    let asked = text.replacen("name = \"demo\"", "name = \"demo\"\nmass_failure_limit = 3", 1)
        + "max_lag_bytes = 5000000000\ndurability = \"strict\"\n";
    let config = parse(&asked).unwrap();
    let group = &config.spec.groups[0];
    assert_eq!((config.spec.mass_failure_limit, group.max_lag_bytes), (3, 5_000_000_000));
    assert_eq!(group.durability, redkeep_core::spec::Durability::Strict);
    assert_eq!(parse(&effective(&config)).unwrap().spec, config.spec);
    let told = consequences(&config);
    assert!(told.contains("durability strict") && told.contains("5000000000 bytes"), "{told}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = example(&password_file("all"))
        .replace("300ms", "50")
        .replace("insecure = true", "")
        .replace("10.99.0.100/32", "10.99.0.1/32")
        .replace("\"b\"]", "\"c\"]")
        .replace("interface =", "interfaec =");
    let keys: Vec<String> = problems(&text).into_iter().map(|p| p.key).collect();
    for key in [
        "cluster.lease_ttl",
        "insecure",
        "group[0].vip",
        "group[0].members[1]",
        "group[0].interfaec",
        "group[0].interface",
    ] {
        assert!(keys.iter().any(|k| k == key), "{key} is not among {keys:?}");
    }
}

/// What stands in for a wrong value breaks no other rule.
#[test]
fn a_wrong_value_is_one_problem() {
    for (right, wrong, key) in [
        ("10.99.0.100/32", "10.99.0.100", "group[0].vip"),
        ("port = 16465", "port = \"16465\"", "group[0].port"),
        ("\"10.99.0.1:7600\"", "\"host:7600\"", "node[0].peer"),
    ] {
        let text = example(&password_file("one"));
        assert!(text.contains(right), "{right}");
        for broken in [
            text.replace(right, wrong),
            // Two stand-ins do not meet either.
            text.replace(right, wrong).replace("\"10.99.0.2:7600\"", "\"host:7600\""),
        ] {
            let mut keys: Vec<String> = problems(&broken).into_iter().map(|p| p.key).collect();
            keys.retain(|k| k != "node[1].peer");
            assert_eq!(keys, [key], "{broken}");
        }
    }
}

/// (what is replaced, by what, key of the problem)
const WRONG: &[(&str, &str, &str)] = &[
    ("node = \"a\"", "node = \"z\"", "node"),
    ("\"/var/lib/redkeep\"", "\"var\"", "data_dir"),
    ("insecure = true", "insecure = \"yes\"", "insecure"),
    ("name = \"demo\"", "name = \"de mo\"", "cluster.name"),
    ("lease_ttl = \"300ms\"", "lease_ttl = \"99ms\"", "cluster.lease_ttl"),
    ("lease_ttl = \"300ms\"", "lease_ttl = 300", "cluster.lease_ttl"),
    ("lease_ttl = \"300ms\"", "margin = \"24ms\"", "cluster.margin"),
    ("lease_ttl = \"300ms\"", "max_clock_drift = \"0%\"", "cluster.max_clock_drift"),
    ("lease_ttl = \"300ms\"", "leasettl = \"300ms\"", "cluster.leasettl"),
    ("name = \"b\"\npeer", "name = \"a\"\npeer", "node[1].name"),
    ("peer = \"10.99.0.2:7600\"", "peer = \"host-b:7600\"", "node[1].peer"),
    ("admin = \"10.99.0.2:7601\"", "admin = \"10.99.0.2:7600\"", "node[1].admin"),
    ("port = 16465", "port = 0", "group[0].port"),
    ("port = 16465", "port = 70000", "group[0].port"),
    ("port = 16465", "", "group[0].port"),
    ("port = 16465", "port = 7600", "group[0].port"),
    ("10.99.0.100/32", "10.99.0.100", "group[0].vip"),
    ("10.99.0.100/32", "10.99.0.100/33", "group[0].vip"),
    ("10.99.0.100/32", "127.0.0.1/32", "group[0].vip"),
    ("\"eth0\"", "\"a-name-that-is-too-long\"", "group[0].interface"),
    ("[\"a\", \"b\"]", "[\"a\"]", "group[0].members"),
    ("[\"a\", \"b\"]", "[\"a\", \"a\"]", "group[0].members[1]"),
    ("[\"a\", \"b\"]", "\"a\"", "group[0].members"),
    ("interface =", "fall = 0\ninterface =", "group[0].fall"),
    ("interface =", "priority = { z = 1 }\ninterface =", "group[0].priority.z"),
    ("interface =", "priority = { a = -1 }\ninterface =", "group[0].priority.a"),
    ("interface =", "probe_interval = \"1ms\"\ninterface =", "group[0].probe_interval"),
    ("interface =", "max_lag_bytes = -1\ninterface =", "group[0].max_lag_bytes"),
    ("interface =", "max_lag_bytes = \"1m\"\ninterface =", "group[0].max_lag_bytes"),
    ("interface =", "durability = \"sync\"\ninterface =", "group[0].durability"),
    ("lease_ttl = \"300ms\"", "mass_failure_limit = -1", "cluster.mass_failure_limit"),
    ("interface =", "unix_socket = \"redis.sock\"\ninterface =", "group[0].unix_socket"),
    (
        "interface =",
        "rename_commands = { CONFIG = \"\" }\ninterface =",
        "group[0].rename_commands.CONFIG",
    ),
    ("insecure = true", "insecure = true\non_stop = \"leave\"", "on_stop"),
    ("[cluster]", "[quarantine]\ndir = \"kept\"\n[cluster]", "quarantine.dir"),
    ("[cluster]", "[quarantine]\nmax_files = 0\n[cluster]", "quarantine.max_files"),
    ("[cluster]", "[quarantine]\nmax_bytes = 100\n[cluster]", "quarantine.max_bytes"),
    ("[cluster]", "[quarantine]\nmax_bytes = \"1GB\"\n[cluster]", "quarantine.max_bytes"),
    ("[cluster]", "[quarantine]\ntimeout = \"10ms\"\n[cluster]", "quarantine.timeout"),
    ("[cluster]", "[quarantine]\nmax_file = 1\n[cluster]", "quarantine.max_file"),
    (
        "insecure = true",
        "insecure = true\ntls = { ca = \"/a\", cert = \"/b\", key = \"/c\" }",
        "insecure",
    ),
    ("insecure = true", "tls = { ca = \"/nonexistent\", cert = \"/b\", key = \"/c\" }", "tls.ca"),
];

#[test]
fn each_rule_names_its_key() {
    let good = example(&password_file("rules"));
    for (from, to, key) in WRONG {
        assert!(good.contains(from), "{from} is not in the example");
        let found = problems(&good.replacen(from, to, 1));
        assert!(found.iter().any(|p| p.key == *key), "{from} -> {to}: {found:?}");
        assert!(found.iter().all(|p| !p.rule.is_empty() && !p.mend.is_empty()));
    }
}

#[test]
fn a_quorum_needs_three_nodes_and_an_odd_number() {
    let good = example(&password_file("quorum"));
    let block = "[[node]]\nname = \"w\"";
    let two = good.replace("peer = \"10.99.0.3:7600\"\nadmin = \"10.99.0.3:7601\"", "");
    let two = two
        .replace(block, "")
        .replace("                          # a witness: no group names it as a member", "");
    assert!(problems(&two).iter().any(|p| p.rule.contains("three")));
    let mut four = good;
    four.push_str(
        "[[node]]\nname = \"x\"\npeer = \"10.99.0.4:7600\"\nadmin = \"10.99.0.4:7601\"\n",
    );
    assert!(problems(&four).iter().any(|p| p.rule.contains("odd")));
}

#[test]
fn groups_of_one_host_need_their_own_ports_and_vips() {
    let mut text = example(&password_file("ports"));
    let second = text[text.find("[[group]]").unwrap()..].replace("\"pair\"", "\"second\"");
    text.push_str(&second);
    let keys: Vec<String> = problems(&text).into_iter().map(|p| p.key).collect();
    assert!(
        keys.contains(&"group[1].port".to_owned()) && keys.contains(&"group[1].vip".to_owned()),
        "{keys:?}"
    );
}

#[test]
fn a_witness_needs_no_password_file() {
    let text = example(Path::new("/nonexistent/password"));
    assert!(problems(&text).iter().any(|p| p.key == "group[0].password_file"));
    let witness = text.replacen("node = \"a\"", "node = \"w\"", 1);
    assert!(parse(&witness).is_ok());
}

#[test]
fn a_syntax_error_names_the_line_of_the_file() {
    let text = example(&password_file("syntax")).replace("port = 16465", "port = = 1");
    let Err(error @ ConfigError::Syntax { .. }) = parse(&text) else {
        panic!("must be a syntax error")
    };
    let line = text.lines().position(|l| l.contains("= =")).unwrap() + 1;
    let ConfigError::Syntax { source, .. } = &error else { unreachable!() };
    assert!(source.to_string().contains(&format!("line {line}")), "{source}");
    assert!(!error.to_string().contains("line"), "whoever prints adds the source: {error}");
}

#[test]
fn a_key_in_both_parts_is_refused() {
    let mut text = example(&password_file("twice"));
    text.push_str("[insecure]\n");
    assert!(problems(&text).iter().any(|p| p.rule.contains("once")));
}

#[test]
fn the_consequences_name_the_wait_for_a_silent_holder() {
    let config = parse(&example(&password_file("consequences"))).unwrap();
    let text = consequences(&config);
    assert!(text.contains("338.5ms (lease 285ms as armed"), "{text}");
    assert!(text.contains("850ms"), "{text}");
}

#[test]
fn what_is_kept_of_an_old_master_has_defaults_and_can_be_switched_off() {
    let text = example(&password_file("quarantine"));
    let config = parse(&text).unwrap();
    let Quarantine { dir, max_files, max_bytes, timeout } = &config.quarantine;
    assert_eq!(dir, Path::new("/var/lib/redkeep/quarantine"));
    assert_eq!((*max_files, *max_bytes, timeout.0), (4, 20 << 30, 60_000_000_000));
    assert!(
        consequences(&config).contains("/var/lib/redkeep/quarantine: 4 files of a group and 20GiB")
    );
    let own = "[quarantine]\ndir = \"/kept\"\nmax_files = 9\nmax_bytes = \"0\"\ntimeout = \"5m\"\n[cluster]";
    let config = parse(&text.replace("[cluster]", own)).unwrap();
    let Quarantine { dir, max_files, max_bytes, timeout } = &config.quarantine;
    assert_eq!(dir, Path::new("/kept"));
    assert_eq!((*max_files, *max_bytes, timeout.0), (9, 0, 300_000_000_000));
    assert!(consequences(&config).contains("are not kept"));
    let again = parse(&effective(&config)).unwrap();
    assert_eq!(again.quarantine, config.quarantine);
}

#[test]
fn odd_but_allowed_values_read_back_from_the_effective_file() {
    let odd = [
        ("lease_ttl = \"300ms\"", "lease_ttl = \"300.000001ms\""),
        ("data_dir = \"/var/lib/redkeep\"", "data_dir = \"/var/a\\n[b]\\u007f\\\"'\""),
        ("interface =", "username = \"a\\n[group]\"\ninterface ="),
        (
            "interface =",
            "rename_commands = { \"FT.SEARCH\" = \"x y\", \"a b\" = \"\\t\" }\ninterface =",
        ),
    ];
    let good = example(&password_file("odd"));
    for (from, to) in odd {
        assert!(good.contains(from), "{from} is not in the example");
        let config = parse(&good.replacen(from, to, 1)).unwrap();
        let again = parse(&effective(&config)).unwrap_or_else(|e| panic!("{to}: {e:?}"));
        assert_eq!(format!("{again:?}"), format!("{config:?}"), "{to}");
    }
}

#[test]
fn a_secret_in_a_pipe_or_device_is_refused_without_reading_it() {
    let good = example(Path::new("/dev/zero"));
    assert!(problems(&good).iter().any(|p| p.rule.contains("regular file")));
}

#[test]
fn the_shipped_example_is_valid_and_so_is_every_default_it_shows() {
    let text =
        include_str!("../../../../deploy/redkeep.toml").replacen("node = \"a\"", "node = \"w\"", 1);
    let config = parse(&text).unwrap();
    // Its comments show keys with their defaults: uncommented, they must change nothing.
    let shown = |line: &str| {
        let key = line.strip_prefix("# ")?;
        let known = key
            .split_once(" = ")
            .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let secret = ["username", "unix_socket", "rename_commands", "ca", "cert", "key"];
        (known && !secret.iter().any(|s| key.starts_with(&format!("{s} ="))))
            .then(|| key.to_owned())
    };
    let uncommented: String =
        text.lines().map(|l| shown(l).unwrap_or_else(|| l.to_owned()) + "\n").collect();
    assert_ne!(
        uncommented.lines().filter(|l| l.starts_with('#')).count(),
        text.lines().filter(|l| l.starts_with('#')).count()
    );
    assert_eq!(effective(&parse(&uncommented).unwrap()), effective(&config));
}

#[test]
fn the_shipped_units_call_what_there_is() {
    let units = [
        include_str!("../../../../deploy/systemd/redkeepd.service"),
        include_str!("../../../../deploy/systemd/redkeep-guard.service"),
        include_str!("../../../../deploy/systemd/redis-server.service.d/redkeep.conf"),
    ];
    let mut calls = 0;
    for line in units.iter().flat_map(|u| u.lines()) {
        let Some((_, call)) = line
            .split_once("=/usr/bin/redkeepd ")
            .or_else(|| line.split_once("=+/usr/bin/redkeepd "))
        else {
            continue;
        };
        crate::parses(call.split_whitespace()).unwrap();
        calls += 1;
    }
    assert_eq!(calls, 3);
    assert!(units[0].contains("RestartPreventExitStatus=2 3"));
}
