//! Words that must not occur: unfinished code, sleeping tests, a clock in the pure crates.

use std::path::Path;

use super::Finding;
use super::source::{Code, Function, has_word, names_after};
use super::tree::{TextFile, Tree};

/// Crates that see no clock, no file, no socket, no thread and no randomness.
const PURE: [&str; 2] = ["crates/core/src", "crates/consensus/src"];

const IMPURE: [(&str, &str); 12] = [
    ("Instant::now", "time comes in as an argument"),
    ("SystemTime", "the wall clock decides nothing"),
    ("std::fs", "writing is an effect"),
    ("TcpStream", "sending is an effect"),
    ("TcpListener", "listening is the daemon's"),
    ("UdpSocket", "sending is an effect"),
    ("ToSocketAddrs", "nothing waits for DNS"),
    ("std::thread", "one driver task owns the core"),
    ("std::env", "settings come in as arguments"),
    ("tokio", "the pure crates have no runtime"),
    ("rand", "randomness comes from an injected seed"),
    ("println", "the core says things by effects"),
];

const UNFINISHED: [(&str, &str); 3] = [
    ("todo!", "finish it or leave it out"),
    ("unimplemented!", "finish it or leave it out"),
    ("dbg!", "left over"),
];

/// Type names that say nothing.
const EMPTY_NAMES: [&str; 7] = ["Manager", "Helper", "Helpers", "Util", "Utils", "Info", "Handler"];

/// Names that would be empty if they were not the field's own: systemd is a service manager.
const FIELD_NAMES: [&str; 1] = ["ServiceManager"];

/// A sleep in a test is allowed in functions named for waiting for a condition, in a loop that
/// counts or looks at how long it has lasted, and under a comment that names the pace it sets or
/// the time that has to pass.
const WAITERS: [&str; 4] = ["wait", "until", "eventually", "poll"];

const PRESENT: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "rust-toolchain.toml",
    "clippy.toml",
    "deny.toml",
    ".ci/run",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tree.with_extension("rs").flat_map(check_rust).collect();
    for path in PRESENT {
        if !tree.exists(Path::new(path)) {
            findings.push(Finding::hard(Path::new(path), 0, "is missing"));
        }
    }
    let clippy = tree.files().iter().filter(|file| file.path.ends_with("clippy.toml"));
    findings.extend(clippy.flat_map(check_clippy));
    if let Some(changelog) = tree.find(Path::new("CHANGELOG.md"))
        && !changelog.text.contains("## ")
    {
        findings.push(Finding::hard(&changelog.path, 0, "has no section"));
    }
    findings
}

fn check_rust(file: &TextFile) -> Vec<Finding> {
    let code = Code::new(&file.text);
    let tests = code.test_spans();
    let in_test = |line: usize| {
        file.is_test() || tests.iter().any(|(first, last)| (*first..=*last).contains(&line))
    };
    let functions = code.functions();
    let pure = PURE.iter().any(|dir| file.is_below(dir));
    let mut findings = Vec::new();
    let mut refuse = |line, text: String| findings.push(Finding::hard(&file.path, line, text));
    for (number, line) in code.lines() {
        for (word, reason) in UNFINISHED {
            if line.contains(word) {
                refuse(number, format!("`{word}`: {reason}"));
            }
        }
        for (word, reason) in IMPURE {
            if pure && !in_test(number) && has_word(line, word) {
                refuse(number, format!("`{word}` in a pure crate: {reason}"));
            }
        }
        if line.contains("#[ignore") && !file.text.lines().nth(number - 1).is_some_and(is_body) {
            refuse(number, "`#[ignore`: a test that does not run proves nothing".into());
        }
        for name in empty_names(line) {
            refuse(number, format!("type name `{name}` says nothing"));
        }
        let sleeps = in_test(number) && has_word(line, "sleep");
        if sleeps && !waits(&functions, number) && !is_paced(&file.text, number) {
            refuse(number, "a test sleeps: wait for a condition with a bound".into());
        }
    }
    let documented = file.text.trim_start().starts_with("//!");
    if !documented && file.path.iter().any(|part| part == "src") {
        refuse(1, "module doc is missing: what it is for, who owns it, what holds".into());
    }
    findings
}

/// Whether an ignored test says that others run it, as a process of its own.
fn is_body(line: &str) -> bool {
    line.contains("#[ignore = \"run by ")
}

fn empty_names(line: &str) -> Vec<String> {
    let keywords = ["struct", "enum", "trait", "type"];
    let names = keywords.iter().flat_map(|keyword| names_after(line, keyword));
    let says_nothing = |name: &String| {
        let ours = !FIELD_NAMES.contains(&name.as_str());
        ours && EMPTY_NAMES.iter().any(|empty| name.ends_with(empty))
    };
    names.filter(says_nothing).collect()
}

/// Whether the line is inside a function named for waiting, or only names one.
fn waits(functions: &[Function], line: usize) -> bool {
    let mut around =
        functions.iter().filter(|each| (each.first..=each.last).contains(&line)).peekable();
    // Outside of all functions the word is an import.
    around.peek().is_none()
        || around.any(|function| WAITERS.iter().any(|word| function.name.contains(word)))
}

/// Whether the four lines above a line show a bounded loop, or a comment that says why time passes.
fn is_paced(text: &str, line: usize) -> bool {
    let above = text.lines().skip(line.saturating_sub(5)).take(line.saturating_sub(1).min(4));
    let paced = |line: &str| {
        let line = line.trim_start();
        let speaks = line.contains("pace") || line.contains("passing of time");
        line.starts_with("for ") || (line.starts_with("//") && speaks)
    };
    let bounded = |line: &str| line.contains("elapsed()") || line.contains("Instant::now() ");
    above.into_iter().any(|line| bounded(line) || paced(line))
}

/// Every ban tells its reason.
fn check_clippy(file: &TextFile) -> Vec<Finding> {
    let lines = file.text.lines().enumerate();
    lines
        .filter(|(_, line)| line.contains("path =") && !line.contains("reason ="))
        .map(|(index, _)| Finding::hard(&file.path, index + 1, "a ban without its reason"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let text = format!("//! Doc.\n{text}");
        check_rust(&TextFile::new(path, &text)).into_iter().map(|found| found.text).collect()
    }

    #[test]
    fn clock_in_the_core_is_refused_but_for_its_tests() {
        let path = "crates/core/src/lease.rs";
        assert_eq!(findings(path, "let t = std::time::Instant::now();").len(), 1);
        assert_eq!(findings(path, "// Instant::now is banned\nlet s = \"tokio\";").len(), 0);
        assert_eq!(findings("crates/daemon/src/a.rs", "let t = Instant::now();").len(), 0);
        let test = "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(findings(path, test).len(), 0);
    }

    #[test]
    fn unfinished_code_is_refused_everywhere() {
        assert_eq!(findings("xtask/src/a.rs", "fn f() { todo!() }").len(), 1);
        assert_eq!(findings("crates/x/tests/a.rs", "#[ignore]\nfn f() {}").len(), 1);
        let body = "#[ignore = \"run by the tests below\"]\nfn f() {}";
        assert_eq!(findings("crates/x/tests/a.rs", body).len(), 0);
    }

    #[test]
    fn test_sleeps_only_where_it_waits_for_a_condition() {
        let path = "crates/agent/tests/kernel.rs";
        assert_eq!(findings(path, "fn claim() {\n    std::thread::sleep(x);\n}").len(), 1);
        assert_eq!(findings(path, "fn wait_for() {\n    std::thread::sleep(x);\n}").len(), 0);
        assert_eq!(findings("crates/agent/src/a.rs", "fn f() { sleep(x) }").len(), 0);
        let bounded =
            "fn claim() {\n  while !done() {\n    assert!(t.elapsed() < x);\n    sleep(y);\n  }\n}";
        assert_eq!(findings(path, bounded).len(), 0);
        let paced = "fn claim() {\n  // The pace of renewals.\n  sleep(y);\n}";
        assert_eq!(findings(path, paced).len(), 0);
    }

    #[test]
    fn empty_type_name_is_refused() {
        assert_eq!(findings("crates/x/src/a.rs", "pub struct LeaseManager;").len(), 1);
        assert_eq!(findings("crates/x/src/a.rs", "pub struct DataSet;").len(), 0);
    }

    #[test]
    fn module_without_doc_is_refused() {
        let file = TextFile::new("crates/x/src/a.rs", "fn f() {}\n");
        assert_eq!(check_rust(&file).len(), 1);
    }

    #[test]
    fn ban_without_reason_is_refused() {
        let text =
            "disallowed-methods = [\n  { path = \"a\", reason = \"b\" },\n  { path = \"c\" },\n]\n";
        assert_eq!(check_clippy(&TextFile::new("clippy.toml", text)).len(), 1);
    }
}
