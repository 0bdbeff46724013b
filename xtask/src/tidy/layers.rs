//! Dependencies point one way. A crate uses only lower layers, and of those only what its row
//! allows; the pure crates do not even name a runtime.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Finding;

/// What a crate of the workspace may use.
struct Row {
    package: &'static str,
    /// Crates of the workspace.
    may_use: &'static [&'static str],
    /// Crates from outside that would break its one reason to exist.
    must_not_see: &'static [&'static str],
}

const RUNTIMES: &[&str] = &["tokio", "tonic", "redis", "rtnetlink", "rustix", "libc", "rand"];

const ROWS: [Row; 11] = [
    Row { package: "redkeep-proto", may_use: &[], must_not_see: &["raft", "redis", "rtnetlink"] },
    Row { package: "redkeep-consensus", may_use: &[], must_not_see: RUNTIMES },
    Row {
        package: "redkeep-core",
        may_use: &["redkeep-consensus", "redkeep-proto"],
        must_not_see: RUNTIMES,
    },
    Row {
        package: "redkeep-wal",
        may_use: &["redkeep-consensus"],
        must_not_see: &["tokio", "tonic", "redis", "rtnetlink"],
    },
    Row {
        package: "redkeep-agent",
        may_use: &["redkeep-core"],
        must_not_see: &["raft", "tonic", "redb"],
    },
    Row {
        package: "redkeep-daemon",
        may_use: &[
            "redkeep-proto",
            "redkeep-consensus",
            "redkeep-core",
            "redkeep-wal",
            "redkeep-agent",
        ],
        must_not_see: &[],
    },
    Row {
        package: "redkeep-ctl",
        may_use: &["redkeep-proto"],
        must_not_see: &["raft", "redis", "rtnetlink", "redb"],
    },
    Row {
        package: "redkeep-sim",
        may_use: &["redkeep-core", "redkeep-consensus", "redkeep-wal"],
        must_not_see: &["tokio", "tonic", "redis", "rtnetlink"],
    },
    Row {
        package: "redkeep-fuzz",
        may_use: &[
            "redkeep-proto",
            "redkeep-consensus",
            "redkeep-core",
            "redkeep-wal",
            "redkeep-agent",
            "redkeep-daemon",
        ],
        must_not_see: &[],
    },
    Row { package: "redkeep-lab", may_use: &[], must_not_see: &["raft", "tonic"] },
    Row { package: "xtask", may_use: &["redkeep-lab"], must_not_see: &[] },
];

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(check_metadata(&metadata))
}

fn check_metadata(metadata: &Value) -> Vec<Finding> {
    let manifest = Path::new("Cargo.toml");
    let mut findings = Vec::new();
    let none = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&none) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(row) = ROWS.iter().find(|row| row.package == name) else {
            let text = format!("{name} has no row in the table of layers");
            findings.push(Finding::hard(manifest, 0, text));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap_or(&none) {
            let used = dependency["name"].as_str().unwrap_or_default();
            let ours = ROWS.iter().any(|row| row.package == used);
            // Tests may run on a runtime; they may not reach up a layer.
            let in_tests = dependency["kind"].as_str() == Some("dev");
            if ours && used != name && !row.may_use.contains(&used) {
                let text = format!("{name} must not depend on {used}");
                findings.push(Finding::hard(manifest, 0, text));
            } else if !in_tests && row.must_not_see.contains(&used) {
                let text = format!("{name} must not see {used}");
                findings.push(Finding::hard(manifest, 0, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(package: &str, dependency: &str, kind: &Value) -> usize {
        let metadata = json!({ "packages": [
            { "name": package, "dependencies": [{ "name": dependency, "kind": kind }] }
        ]});
        check_metadata(&metadata).len()
    }

    #[test]
    fn dependencies_point_down_only() {
        let normal = Value::Null;
        assert_eq!(findings("redkeep-core", "redkeep-consensus", &normal), 0);
        assert_eq!(findings("redkeep-consensus", "redkeep-core", &normal), 1);
        assert_eq!(findings("redkeep-agent", "redkeep-daemon", &json!("dev")), 1);
        assert_eq!(findings("redkeep-new", "anyhow", &normal), 1);
    }

    #[test]
    fn pure_crates_see_no_runtime_but_in_tests() {
        assert_eq!(findings("redkeep-core", "tokio", &Value::Null), 1);
        assert_eq!(findings("redkeep-core", "tokio", &json!("dev")), 0);
        assert_eq!(findings("redkeep-daemon", "tokio", &Value::Null), 0);
    }

    #[test]
    fn rows_never_form_a_cycle() {
        for row in &ROWS {
            let mut reached: Vec<&str> = row.may_use.to_vec();
            let mut next = 0;
            while let Some(used) = reached.get(next).copied() {
                assert_ne!(used, row.package, "{} reaches itself", row.package);
                let below = ROWS.iter().find(|each| each.package == used).expect("a row");
                reached.extend(
                    below
                        .may_use
                        .iter()
                        .filter(|name| !reached.contains(name))
                        .copied()
                        .collect::<Vec<_>>(),
                );
                next += 1;
            }
        }
    }
}
