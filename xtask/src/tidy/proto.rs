//! House rules for `.proto` files: what is once on the wire stays, so it is named with care.
//!
//! Plain text is enough: the files are compiled, hence well formed, by the build. Rules: package
//! = directory and ends in a version; every message, field, enum, value, service and rpc has a
//! comment; enum values carry the enum's name and begin with `_UNSPECIFIED = 0`; each rpc has a
//! request and a response of its own.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::{TextFile, Tree};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Message,
    Enum {
        name: String,
        values: usize,
    },
    Service,
    /// `oneof`, and the braces of options.
    Other {
        fields: bool,
    },
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_extension("proto").flat_map(check_file).collect()
}

struct Lint<'a> {
    file: &'a TextFile,
    blocks: Vec<Block>,
    findings: Vec<Finding>,
    messages_of_rpcs: BTreeSet<String>,
}

fn check_file(file: &TextFile) -> Vec<Finding> {
    let mut lint =
        Lint { file, blocks: Vec::new(), findings: Vec::new(), messages_of_rpcs: BTreeSet::new() };
    lint.check_package();
    let mut commented = false;
    let mut statement = String::new();
    let mut began = (0, false);
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        let code = line.split("//").next().unwrap_or_default().trim();
        if code.is_empty() {
            // A blank line parts a comment from what follows.
            commented = line.starts_with("//");
            continue;
        }
        if statement.is_empty() {
            began = (index + 1, commented);
        }
        commented = false;
        statement.push_str(code);
        statement.push(' ');
        while let Some(end) = statement.find([';', '{', '}']) {
            let rest = statement.split_off(end + 1);
            let done = std::mem::replace(&mut statement, rest.trim_start().to_owned());
            lint.take(done.trim(), began);
            began.1 = false;
        }
    }
    lint.findings
}

impl Lint<'_> {
    fn refuse(&mut self, line: usize, text: impl Into<String>) {
        self.findings.push(Finding::hard(&self.file.path, line, text));
    }

    fn check_package(&mut self) {
        let text = &self.file.text;
        if !text.contains("syntax = \"proto3\";") {
            self.refuse(0, "syntax is not proto3");
        }
        if !text.starts_with("//") {
            self.refuse(1, "the file does not begin with what it is for");
        }
        let package = text.lines().find_map(|line| line.strip_prefix("package "));
        let Some(package) = package.map(|rest| rest.trim_end_matches(';').to_owned()) else {
            self.refuse(0, "no package");
            return;
        };
        let directory = self.file.path.parent().unwrap_or(std::path::Path::new(""));
        let directory = directory.strip_prefix("proto").unwrap_or(directory);
        let expected: Vec<_> = directory.iter().map(|part| part.to_string_lossy()).collect();
        if package != expected.join(".") {
            self.refuse(0, format!("package {package} is in directory {}", directory.display()));
        }
        let version = package.rsplit('.').next().unwrap_or_default().strip_prefix('v');
        if version.is_none_or(|number| number.parse::<u32>().is_err()) {
            self.refuse(0, format!("package {package} has no version"));
        }
    }

    /// One statement, with the character that ends it; `began` is its line and whether a comment
    /// stands above.
    fn take(&mut self, statement: &str, (line, commented): (usize, bool)) {
        let words: Vec<&str> = statement
            .split(|each: char| each.is_whitespace() || "(){};=<>,".contains(each))
            .filter(|word| !word.is_empty())
            .collect();
        if statement.ends_with('}') {
            self.close(line);
            return;
        }
        let first = words.first().copied().unwrap_or_default();
        let name = words.get(1).copied().unwrap_or_default();
        let needs_comment = match first {
            "syntax" | "package" | "import" | "option" | "reserved" | "extensions" | "" => false,
            "message" | "enum" | "service" | "rpc" | "oneof" => true,
            _ => !self.blocks.is_empty(),
        };
        if needs_comment && !commented {
            self.refuse(line, format!("no comment above `{}`", words.join(" ")));
        }
        match first {
            "message" => self.require_pascal(line, name),
            "service" if !name.ends_with("Service") => {
                self.refuse(line, format!("service {name} is not named ...Service"));
            }
            "rpc" => self.check_rpc(line, &words),
            _ => {}
        }
        if statement.ends_with('{') {
            self.open(first, name);
        } else if needs_comment && first != "rpc" {
            self.check_member(line, &words);
        }
    }

    fn open(&mut self, first: &str, name: &str) {
        let block = match first {
            "message" => Block::Message,
            "enum" => Block::Enum { name: name.to_owned(), values: 0 },
            "service" => Block::Service,
            other => Block::Other { fields: other == "oneof" },
        };
        self.blocks.push(block);
    }

    fn close(&mut self, line: usize) {
        if let Some(Block::Enum { name, values: 0 }) = self.blocks.pop() {
            self.refuse(line, format!("enum {name} has no value"));
        }
    }

    /// A field or an enum value.
    fn check_member(&mut self, line: usize, words: &[&str]) {
        let in_enum = match self.blocks.last_mut() {
            Some(Block::Enum { name, values }) => {
                *values += 1;
                Some((name.clone(), *values))
            }
            Some(Block::Message | Block::Other { fields: true }) => None,
            Some(Block::Service | Block::Other { fields: false }) | None => return,
        };
        if let Some((name, count)) = in_enum {
            let prefix = screaming(&name);
            let value = words.first().copied().unwrap_or_default();
            if !value.starts_with(&format!("{prefix}_")) {
                self.refuse(line, format!("{value} does not begin with {prefix}_"));
            }
            let zero = value == format!("{prefix}_UNSPECIFIED") && words.get(1) == Some(&"0");
            if count == 1 && !zero {
                self.refuse(
                    line,
                    format!("enum {name} does not begin with {prefix}_UNSPECIFIED = 0"),
                );
            }
            return;
        }
        // `repeated string name = 1;`: the name stands before the number.
        let number = words.iter().position(|word| word.parse::<u32>().is_ok());
        let name = number.and_then(|at| words.get(at.checked_sub(1)?)).copied().unwrap_or_default();
        let snake = |each: char| each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_';
        if name.is_empty() || !name.chars().all(snake) {
            self.refuse(line, format!("field `{}` is not in snake_case", words.join(" ")));
        }
    }

    fn check_rpc(&mut self, line: usize, words: &[&str]) {
        let words: Vec<&str> = words.iter().copied().filter(|word| *word != "stream").collect();
        let [_, name, request, returns, response, ..] = words[..] else {
            self.refuse(line, "an rpc that cannot be read");
            return;
        };
        let named = (format!("{name}Request"), format!("{name}Response"));
        if returns != "returns" || request != named.0 || response != named.1 {
            self.refuse(line, format!("rpc {name} does not use {} and {}", named.0, named.1));
        }
        for message in [request, response] {
            if !self.messages_of_rpcs.insert(message.to_owned()) {
                self.refuse(line, format!("{message} belongs to two rpcs"));
            }
        }
    }

    fn require_pascal(&mut self, line: usize, name: &str) {
        let upper = name.chars().next().is_some_and(|each| each.is_ascii_uppercase());
        if !upper || name.contains('_') {
            self.refuse(line, format!("message {name} is not in PascalCase"));
        }
    }
}

/// `HoldReason` as `HOLD_REASON`.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for (index, each) in name.chars().enumerate() {
        if each.is_ascii_uppercase() && index > 0 {
            text.push('_');
        }
        text.push(each.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "// What it is for.\nsyntax = \"proto3\";\n\npackage redkeep.peer.v1;\n\n\
        // A service.\nservice PeerService {\n  // A call.\n\
        \x20 rpc Ask(AskRequest) returns (stream AskResponse);\n}\n\
        // Asks.\nmessage AskRequest {\n  // Why.\n  Why why = 1;\n  // One of two.\n  oneof body {\n\
        \x20   // Text.\n    string text_body = 2;\n  }\n}\n\
        // Why.\nenum Why {\n  // Never sent.\n  WHY_UNSPECIFIED = 0;\n  // So.\n  WHY_SO = 1;\n}\n";

    fn findings(path: &str, text: &str) -> Vec<String> {
        let file = TextFile::new(path, text);
        check_file(&file).into_iter().map(|found| found.text).collect()
    }

    fn broken_by(from: &str, to: &str) -> Vec<String> {
        assert!(GOOD.contains(from), "{from}");
        findings("proto/redkeep/peer/v1/peer.proto", &GOOD.replace(from, to))
    }

    #[test]
    fn good_file_passes() {
        assert_eq!(findings("proto/redkeep/peer/v1/peer.proto", GOOD), [""; 0]);
    }

    #[test]
    fn package_is_the_directory_with_a_version() {
        assert_eq!(findings("proto/redkeep/peer/v2/peer.proto", GOOD).len(), 1);
        assert_eq!(findings("proto/redkeep/peer/peer.proto", &GOOD.replace(".v1", "")).len(), 1);
    }

    #[test]
    fn each_part_needs_its_comment() {
        for comment in
            ["// A service.", "// A call.", "// Asks.", "// Text.", "// Never sent.", "// So."]
        {
            assert_eq!(broken_by(comment, "").len(), 1, "{comment}");
        }
    }

    #[test]
    fn enum_values_carry_its_name_and_begin_unspecified() {
        assert_eq!(broken_by("WHY_SO", "SO").len(), 1);
        assert_eq!(broken_by("WHY_UNSPECIFIED", "WHY_NONE").len(), 1);
    }

    #[test]
    fn names_have_their_case() {
        assert_eq!(broken_by("string text_body", "string textBody").len(), 1);
        assert_eq!(broken_by("service PeerService", "service Peer").len(), 1);
    }

    #[test]
    fn each_rpc_has_its_own_messages() {
        assert_eq!(broken_by("(AskRequest)", "(OtherRequest)").len(), 1);
        let twice = "  // A call.\n  rpc Ask(AskRequest) returns (AskResponse);\n}\n// Asks.";
        assert_eq!(broken_by("}\n// Asks.", twice).len(), 2);
    }
}
