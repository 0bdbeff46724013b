//! The files that the checks look at, read once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Directories that hold nothing written by hand.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// A text file, its path relative to the root.
#[derive(Clone, Debug)]
pub(super) struct TextFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl TextFile {
    #[cfg(test)]
    pub(super) fn new(path: &str, text: &str) -> Self {
        TextFile { path: PathBuf::from(path), text: text.to_owned() }
    }

    /// Whether all of it is test code: an integration test, or a module named for tests.
    pub(super) fn is_test(&self) -> bool {
        let parts: Vec<_> = self.path.iter().map(|part| part.to_string_lossy()).collect();
        let in_tests = parts.windows(2).any(|pair| pair[1] == "tests" && pair[0] != "..");
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        in_tests || name == "tests" || name.ends_with("_tests")
    }

    /// Whether the file is below `dir`, a path with `/`.
    pub(super) fn is_below(&self, dir: &str) -> bool {
        self.path.starts_with(dir)
    }
}

/// All text files below a root.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    files: Vec<TextFile>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(root, root, &mut files)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Tree { root: root.to_owned(), files })
    }

    #[cfg(test)]
    pub(super) fn of(files: Vec<TextFile>) -> Self {
        Tree { root: PathBuf::from("/nonexistent"), files }
    }

    pub(super) fn files(&self) -> &[TextFile] {
        &self.files
    }

    pub(super) fn with_extension(&self, extension: &str) -> impl Iterator<Item = &TextFile> {
        self.files
            .iter()
            .filter(move |file| file.path.extension().is_some_and(|found| found == extension))
    }

    pub(super) fn find(&self, path: &Path) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a path relative to the root exists, as a file of any kind or a directory.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.find(path).is_some() || self.root.join(path).exists()
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<TextFile>) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(root, &path, files)?;
            }
            continue;
        }
        // What is not UTF-8 is no text of ours.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let path = path.strip_prefix(root)?.to_owned();
        files.push(TextFile { path, text });
    }
    Ok(())
}
