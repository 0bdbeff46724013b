//! Links between documents lead somewhere: to a file of the tree, and to a heading of it.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use super::tree::{TextFile, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_extension("md").flat_map(|file| check_file(tree, file)).collect()
}

fn check_file(tree: &Tree, file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in prose_lines(&file.text) {
        for target in targets(line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if let Some(problem) = problem_of(tree, file, &target) {
                findings.push(Finding::hard(&file.path, number, problem));
            }
        }
    }
    findings
}

fn problem_of(tree: &Tree, file: &TextFile, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let parent = file.path.parent().unwrap_or(Path::new(""));
    let path = if path.is_empty() { file.path.clone() } else { join(parent, path) };
    if !tree.exists(&path) {
        return Some(format!("link to {target}: no such file"));
    }
    let linked = tree.find(&path)?;
    let is_markdown = path.extension().is_some_and(|found| found == "md");
    if anchor.is_empty() || !is_markdown {
        return None;
    }
    let found = prose_lines(&linked.text)
        .filter(|(_, line)| line.starts_with('#'))
        .any(|(_, line)| slug(line.trim_start_matches('#').trim()) == anchor);
    (!found).then(|| format!("link to {target}: no such heading"))
}

/// Lines outside of fenced code, numbered from 1.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)` on a line, outside of code spans.
fn targets(line: &str) -> Vec<String> {
    // Every second part is between backticks.
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
    let mut found = Vec::new();
    let mut rest = prose.as_str();
    while let Some(at) = rest.find("](") {
        rest = &rest[at + 2..];
        let Some(end) = rest.find(')') else { break };
        let target = rest[..end].split_whitespace().next().unwrap_or_default();
        if !target.is_empty() {
            found.push(target.trim_matches(['<', '>']).to_owned());
        }
        rest = &rest[end..];
    }
    found
}

/// Anchor of a heading as the usual renderers make it.
fn slug(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|each| each.is_alphanumeric() || "-_ ".contains(*each));
    kept.map(|each| if each == ' ' { '-' } else { each }).collect()
}

fn join(parent: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in parent.join(target).components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::Normal(part) => path.push(part),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let other = TextFile::new("docs/adr/0001-log.md", "# The log\n\n## What: it costs\n");
        let tree = Tree::of(vec![TextFile::new("docs/a.md", text), other]);
        check(&tree).into_iter().map(|found| found.text).collect()
    }

    #[test]
    fn links_are_followed_to_file_and_heading() {
        assert_eq!(findings("# A\n[x](adr/0001-log.md#what-it-costs) [y](#a)"), [""; 0]);
        assert_eq!(findings("[x](../docs/adr/0001-log.md)").len(), 0);
        assert_eq!(findings("[x](adr/0002.md)"), ["link to adr/0002.md: no such file"]);
        assert_eq!(findings("[x](adr/0001-log.md#no)").len(), 1);
    }

    #[test]
    fn code_and_web_addresses_are_left_alone() {
        assert_eq!(findings("```\n[x](no.md)\n```\n`[x](no.md)` [w](https://redis.io)").len(), 0);
    }
}
