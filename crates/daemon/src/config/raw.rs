//! First stage of the configuration: TOML tables, read key by key.
//!
//! Serde stops at the first wrong key; an operator wants all of them. So a [`Section`] takes each key out of its
//! table, notes what is wrong with it, and at the end every key left over is unknown. Nothing here knows a rule
//! beyond "this key holds that kind of value".

use std::fmt;

use toml::{Table, Value};

/// One thing wrong with the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// Path of the key, as `group[0].vip`.
    pub(crate) key: String,
    /// What is written there; none where the key is missing.
    pub(crate) value: Option<String>,
    pub(crate) rule: String,
    /// What to do about it.
    pub(crate) mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref().unwrap_or("(missing)");
        write!(f, "{} = {value}\n    rule: {}\n    mend: {}", self.key, self.rule, self.mend)
    }
}

/// All that is wrong, in the order it was met.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &str, value: impl fmt::Display, rule: &str, mend: &str) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: Some(value.to_string()),
            rule: rule.to_owned(),
            mend: mend.to_owned(),
        });
    }

    fn missing(&mut self, key: &str, rule: &str, mend: &str) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: None,
            rule: rule.to_owned(),
            mend: mend.to_owned(),
        });
    }
}

/// The file in two parts. TOML itself forbids `node = "a"` beside `[[node]]`; here the first is a fact of this
/// host and the second describes the cluster, so the lines before the first table header are read by themselves.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) root: Table,
    /// The `[[node]]` blocks.
    pub(super) nodes: Option<Value>,
    /// Keys of both parts.
    pub(super) twice: Vec<String>,
}

impl Document {
    /// # Errors
    /// The text is not TOML; line numbers are those of the file.
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let is_header = |line: &str| line.trim_start().starts_with('[');
        let host_lines = text.lines().take_while(|line| !is_header(line)).count();
        let head: String = text.split_inclusive('\n').take(host_lines).collect();
        let blank = "\n".repeat(host_lines);
        let tail: String = text.split_inclusive('\n').skip(host_lines).collect();
        let mut document = Self { root: head.parse()?, ..Self::default() };
        for (key, value) in (blank + &tail).parse::<Table>()? {
            if key == "node" {
                document.nodes = Some(value);
            } else if document.root.contains_key(&key) {
                document.twice.push(key);
            } else {
                document.root.insert(key, value);
            }
        }
        Ok(document)
    }
}

/// The blocks `[[name]]` in `value`.
pub(super) fn blocks(name: &str, value: Option<Value>, problems: &mut Problems) -> Vec<Section> {
    let Some(value) = value else { return Vec::new() };
    let Value::Array(items) = value else {
        problems.add(name, &value, "must be a list of blocks", &format!("write `[[{name}]]`"));
        return Vec::new();
    };
    let mut sections = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        let path = format!("{name}[{at}]");
        match item {
            Value::Table(table) => sections.push(Section::new(&path, table)),
            other => problems.add(&path, &other, "must be a block", &format!("write `[[{name}]]`")),
        }
    }
    sections
}

/// One table, from which keys are taken until none is left.
#[derive(Debug)]
pub(super) struct Section {
    path: String,
    table: Table,
    known: Vec<&'static str>,
}

impl Section {
    pub(super) fn new(path: &str, table: Table) -> Self {
        Self { path: path.to_owned(), table, known: Vec::new() }
    }

    /// Full path of a key of this section.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.table.remove(name)
    }

    pub(super) fn string(&mut self, name: &'static str, problems: &mut Problems) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                problems.add(
                    &self.key(name),
                    &other,
                    "must be a string",
                    "put the value in quotes",
                );
                None
            }
        }
    }

    /// A string that must be there; the empty one is as bad as none.
    pub(super) fn required(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
    ) -> Option<String> {
        let absent = !self.table.contains_key(name);
        let text = self.string(name, problems);
        if absent || text.as_deref() == Some("") {
            problems.missing(&self.key(name), "must be given", &format!("add `{name} = \"...\"`"));
            return None;
        }
        text
    }

    pub(super) fn boolean(&mut self, name: &'static str, problems: &mut Problems) -> Option<bool> {
        match self.take(name)? {
            Value::Boolean(value) => Some(value),
            other => {
                problems.add(
                    &self.key(name),
                    &other,
                    "must be true or false",
                    "write it without quotes",
                );
                None
            }
        }
    }

    pub(super) fn integer(&mut self, name: &'static str, problems: &mut Problems) -> Option<i64> {
        match self.take(name)? {
            Value::Integer(value) => Some(value),
            other => {
                problems.add(
                    &self.key(name),
                    &other,
                    "must be a whole number",
                    "write it without quotes",
                );
                None
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// The sub-table `name`; none if it is absent.
    pub(super) fn section(&mut self, name: &'static str, problems: &mut Problems) -> Option<Self> {
        match self.take(name)? {
            Value::Table(table) => Some(Self::new(&self.key(name), table)),
            other => {
                problems.add(
                    &self.key(name),
                    &other,
                    "must be a table",
                    &format!("write `[{name}]`"),
                );
                None
            }
        }
    }

    /// The blocks `[[name]]`.
    pub(super) fn blocks(&mut self, name: &'static str, problems: &mut Problems) -> Vec<Self> {
        let value = self.take(name);
        blocks(name, value, problems)
    }

    pub(super) fn strings(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
    ) -> Option<Vec<String>> {
        let key = self.key(name);
        let Some(value) = self.take(name) else {
            problems.missing(&key, "must be given", &format!("add `{name} = [\"...\"]`"));
            return None;
        };
        let texts = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            problems.add(&key, &value, "must be a list of strings", "write `[\"a\", \"b\"]`");
        }
        texts
    }

    /// A table of free names, as `priority = { a = 100 }`.
    pub(super) fn entries(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
    ) -> Vec<(String, Value)> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::Table(table)) => table.into_iter().collect(),
            Some(other) => {
                problems.add(
                    &self.key(name),
                    &other,
                    "must be a table",
                    "write `{ name = value }`",
                );
                Vec::new()
            }
        }
    }

    /// A value read by `parse`, or `default` when absent or wrong.
    pub(super) fn parsed<T>(&mut self, want: Wanted<T>, problems: &mut Problems) -> T {
        let Wanted { name, default, parse, rule, mend } = want;
        let Some(text) = self.string(name, problems) else { return default };
        parse(&text).unwrap_or_else(|| {
            problems.add(&self.key(name), quoted(&text), rule, mend);
            default
        })
    }

    /// Every key nobody asked for is unknown.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (name, value) in &self.table {
            let mend = match nearest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            problems.add(&self.key(name), short(value), "is not a known key", &mend);
        }
    }
}

/// What a key should hold.
pub(super) struct Wanted<T> {
    pub(super) name: &'static str,
    pub(super) default: T,
    pub(super) parse: fn(&str) -> Option<T>,
    pub(super) rule: &'static str,
    pub(super) mend: &'static str,
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn short(value: &Value) -> String {
    match value {
        Value::Table(_) => "{...}".to_owned(),
        Value::Array(_) => "[...]".to_owned(),
        other => other.to_string(),
    }
}

/// The known name that differs by at most two edits.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().map(|k| (edits(name, k), *k)).filter(|(d, _)| *d <= 2).min().map(|(_, k)| k)
}

/// Levenshtein distance; names are short.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
