//! House rules that neither the compiler nor clippy knows, checked over the whole tree.
//!
//! Every check takes the [`Tree`] and returns findings; none changes a file. Soft findings are
//! printed and do not fail the run.

mod bans;
mod layers;
mod lengths;
mod links;
mod proto;
mod source;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use self::tree::Tree;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// To be mended.
    Hard,
    /// To be looked at.
    Soft,
}

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    weight: Weight,
    path: PathBuf,
    /// Counted from 1; 0 = the whole file.
    line: usize,
    text: String,
}

impl Finding {
    fn hard(path: &Path, line: usize, text: impl Into<String>) -> Self {
        Finding { weight: Weight::Hard, path: path.to_owned(), line, text: text.into() }
    }

    fn soft(path: &Path, line: usize, text: impl Into<String>) -> Self {
        Finding { weight: Weight::Soft, ..Finding::hard(path, line, text) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Hard => "error",
            Weight::Soft => "note",
        };
        write!(f, "{weight}: {}:{}: {}", self.path.display(), self.line, self.text)
    }
}

/// Runs all checks over the tree below `root`; an error if any hard rule is broken.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings = Vec::new();
    findings.extend(lengths::check(&tree));
    findings.extend(bans::check(&tree));
    findings.extend(links::check(&tree));
    findings.extend(layers::check(root)?);
    findings.extend(proto::check(&tree));
    report(&findings, tree.files().len())
}

/// Runs the rules for `.proto` files alone.
pub(crate) fn run_proto(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let files = tree.with_extension("proto").count();
    ensure!(files > 0, "no .proto file below {}", root.display());
    report(&proto::check(&tree), files)
}

fn report(findings: &[Finding], files: usize) -> Result<()> {
    for finding in findings {
        println!("{finding}");
    }
    let hard = findings.iter().filter(|finding| finding.weight == Weight::Hard).count();
    println!("{files} files, {hard} errors, {} notes", findings.len() - hard);
    ensure!(hard == 0, "{hard} rules broken");
    Ok(())
}
