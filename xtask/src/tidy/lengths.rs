//! Size budgets: nobody ever shrinks a file that was allowed to grow.

use super::Finding;
use super::source::Code;
use super::tree::{TextFile, Tree};

const FILE_SOFT: usize = 500;
const FILE_HARD: usize = 800;
/// Lines with code; comments and blank lines do not count.
const FUNCTION_HARD: usize = 70;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_extension("rs").flat_map(check_file).collect()
}

fn check_file(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let count = file.text.lines().count();
    if count > FILE_HARD {
        findings.push(Finding::hard(&file.path, 0, format!("{count} lines; at most {FILE_HARD}")));
    } else if count > FILE_SOFT {
        findings.push(Finding::soft(&file.path, 0, format!("{count} lines; split at {FILE_SOFT}")));
    }
    for function in Code::new(&file.text).functions() {
        if function.code_lines > FUNCTION_HARD {
            let text = format!(
                "`{}` has {} lines of code; at most {FUNCTION_HARD}",
                function.name, function.code_lines
            );
            findings.push(Finding::hard(&file.path, function.first, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Weight;
    use super::*;

    fn weights(lines: usize) -> Vec<Weight> {
        let file = TextFile::new("crates/x/src/a.rs", &"// x\n".repeat(lines));
        check_file(&file).into_iter().map(|finding| finding.weight).collect()
    }

    #[test]
    fn long_files_are_noted_and_longer_ones_refused() {
        assert_eq!(weights(500), []);
        assert_eq!(weights(501), [Weight::Soft]);
        assert_eq!(weights(801), [Weight::Hard]);
    }

    #[test]
    fn long_function_is_refused() {
        let body = "    step();\n".repeat(69);
        let file = TextFile::new("a.rs", &format!("fn f() {{\n{body}}}\n"));
        assert_eq!(check_file(&file).len(), 1);
        let body = "    step();\n    // why\n".repeat(68);
        let file = TextFile::new("a.rs", &format!("fn f() {{\n{body}}}\n"));
        assert_eq!(check_file(&file), []);
    }
}
