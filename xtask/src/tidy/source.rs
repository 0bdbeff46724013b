//! Rust source with comments and literals blanked, and the spans of its functions.
//!
//! A lexer, not a parser: it knows comments (nested), strings (raw, byte, C) and characters apart
//! from lifetimes, which is what finding braces and words needs.

/// A source file without comments and literals; lines keep their numbers and lengths.
#[derive(Debug)]
pub(super) struct Code {
    lines: Vec<String>,
}

/// One function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Line of `fn`, counted from 1.
    pub(super) first: usize,
    /// Line of the closing brace.
    pub(super) last: usize,
    /// Lines with code from `first` to `last`.
    pub(super) code_lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
}

impl Code {
    pub(super) fn new(source: &str) -> Self {
        let characters: Vec<char> = source.chars().collect();
        let mut kept = String::with_capacity(source.len());
        let mut state = State::Code;
        let mut at = 0;
        while at < characters.len() {
            let (next, length, keep) = step(state, &characters[at..], previous(&characters, at));
            for character in &characters[at..(at + length).min(characters.len())] {
                kept.push(if keep || *character == '\n' { *character } else { ' ' });
            }
            state = next;
            at += length;
        }
        Code { lines: kept.split('\n').map(str::to_owned).collect() }
    }

    /// Lines with their numbers, counted from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()))
    }

    /// All functions with a body, inner ones too.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (first, line) in self.lines() {
            for name in names_after(line, "fn") {
                if let Some(last) = self.end_of_block(first, &format!("fn {name}")) {
                    let code_lines = self.code_lines(first, last);
                    functions.push(Function { name, first, last, code_lines });
                }
            }
        }
        functions
    }

    /// Line spans of `#[cfg(test)]` modules.
    pub(super) fn test_spans(&self) -> Vec<(usize, usize)> {
        let marked = self.lines().filter(|(_, line)| line.contains("#[cfg(test)]"));
        marked
            .filter_map(|(first, _)| Some((first, self.end_of_block(first, "#[cfg(test)]")?)))
            .collect()
    }

    fn code_lines(&self, first: usize, last: usize) -> usize {
        self.lines[first - 1..last].iter().filter(|line| !line.trim().is_empty()).count()
    }

    /// Line of the brace that closes the first block after `marker` on line `first`.
    ///
    /// `None` when a semicolon ends the item before any brace.
    fn end_of_block(&self, first: usize, marker: &str) -> Option<usize> {
        let mut depth = 0_usize;
        let mut enclosed = 0_usize;
        let mut skip = self.lines[first - 1].find(marker).map_or(0, |at| at + marker.len());
        for (number, line) in self.lines().skip(first - 1) {
            for character in line.get(skip..).unwrap_or_default().chars() {
                match character {
                    '(' | '[' => enclosed += 1,
                    ')' | ']' => enclosed = enclosed.saturating_sub(1),
                    ';' if depth == 0 && enclosed == 0 => return None,
                    '{' => depth += 1,
                    '}' => {
                        depth = depth.checked_sub(1)?;
                        if depth == 0 {
                            return Some(number);
                        }
                    }
                    _ => {}
                }
            }
            skip = 0;
        }
        None
    }
}

/// Identifiers that follow the word `keyword` on a line.
pub(super) fn names_after(line: &str, keyword: &str) -> Vec<String> {
    let mut words = line
        .split(|character: char| !is_identifier(character))
        .filter(|word| !word.is_empty())
        .peekable();
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        if word == keyword {
            names.extend(words.peek().map(|name| (*name).to_owned()));
        }
    }
    // `fn(u8) -> u8` is a type: its parenthesis follows at once.
    names.retain(|name| line.contains(&format!("{keyword} {name}")));
    names
}

/// Whether `line` holds `word` as a whole path or identifier.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let mut from = 0;
    while let Some(found) = line[from..].find(word) {
        let start = from + found;
        let end = start + word.len();
        let before = line[..start].chars().next_back();
        let after = line[end..].chars().next();
        if !before.is_some_and(is_identifier) && !after.is_some_and(is_identifier) {
            return true;
        }
        from = end;
    }
    false
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn previous(characters: &[char], at: usize) -> Option<char> {
    at.checked_sub(1).and_then(|before| characters.get(before)).copied()
}

/// The state after the next characters, how many they are, and whether they are code.
fn step(state: State, rest: &[char], before: Option<char>) -> (State, usize, bool) {
    let starts = |text: &str| {
        text.chars().enumerate().all(|(index, wanted)| rest.get(index) == Some(&wanted))
    };
    match state {
        State::Code if starts("//") => (State::LineComment, 2, false),
        State::Code if starts("/*") => (State::BlockComment { depth: 1 }, 2, false),
        State::Code if starts("\"") => (State::Text { hashes: None }, 1, false),
        State::Code => match (raw_string(rest, before), character_literal(rest)) {
            (Some((length, hashes)), _) => (State::Text { hashes: Some(hashes) }, length, false),
            (None, Some(length)) => (State::Code, length, false),
            (None, None) => (State::Code, 1, true),
        },
        State::LineComment if starts("\n") => (State::Code, 1, true),
        State::LineComment => (State::LineComment, 1, false),
        State::BlockComment { depth } if starts("/*") => {
            (State::BlockComment { depth: depth + 1 }, 2, false)
        }
        State::BlockComment { depth: 1 } if starts("*/") => (State::Code, 2, false),
        State::BlockComment { depth } if starts("*/") => {
            (State::BlockComment { depth: depth - 1 }, 2, false)
        }
        State::BlockComment { .. } => (state, 1, false),
        State::Text { hashes: None } if starts("\\") => (state, 2, false),
        State::Text { hashes: None } if starts("\"") => (State::Code, 1, false),
        State::Text { hashes: Some(count) } if starts(&format!("\"{}", "#".repeat(count))) => {
            (State::Code, 1 + count, false)
        }
        State::Text { .. } => (state, 1, false),
    }
}

/// Length of `r"`, `br##"` and the like, and the number of hashes.
fn raw_string(rest: &[char], before: Option<char>) -> Option<(usize, usize)> {
    if before.is_some_and(is_identifier) {
        return None;
    }
    let mut at = usize::from(matches!(rest.first(), Some('b' | 'c')));
    if rest.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = rest[at..].iter().take_while(|character| **character == '#').count();
    (rest.get(at + hashes) == Some(&'"')).then_some((at + hashes + 1, hashes))
}

/// Length of a character literal; `None` for a lifetime.
fn character_literal(rest: &[char]) -> Option<usize> {
    if rest.first() != Some(&'\'') {
        return None;
    }
    if rest.get(1) == Some(&'\\') {
        let end = rest.iter().skip(3).take(12).position(|character| *character == '\'')?;
        return Some(end + 4);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let source = "let a = \"std::fs // {\"; // tokio\n/* { /* } */ */ let b = '{';\nlet c: &'a str = r#\"}\"#;\n";
        let code = Code::new(source);
        let lines: Vec<&str> = code.lines().map(|(_, line)| line).collect();
        assert_eq!(lines.len(), 4);
        for word in ["std", "tokio", "{", "}"] {
            assert!(lines.iter().all(|line| !line.contains(word)), "{word} in {lines:?}");
        }
        assert!(lines[1].contains("let b =") && lines[2].contains("&'a str"));
    }

    #[test]
    fn escaped_quote_does_not_end_a_literal() {
        let code = Code::new("let q = '\\''; let s = \"\\\"{\"; fn f() {}");
        assert_eq!(code.functions().len(), 1);
    }

    #[test]
    fn functions_are_measured_in_lines_of_code() {
        let source = "trait T { fn declared(&self) -> [u8; 4]; }\n\nfn long(\n    a: u8,\n) {\n    // why\n\n    inner();\n}\ntype F = fn(u8);\n";
        let functions = Code::new(source).functions();
        assert_eq!(functions.len(), 1, "{functions:?}");
        let expected = Function { name: "long".into(), first: 3, last: 9, code_lines: 5 };
        assert_eq!(functions[0], expected);
    }

    #[test]
    fn words_have_borders() {
        assert!(has_word("use rand::Rng;", "rand"));
        assert!(!has_word("operand.rands()", "rand"));
        assert!(has_word("std::time::Instant::now()", "Instant::now"));
    }

    #[test]
    fn test_modules_are_found() {
        let spans =
            Code::new("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n").test_spans();
        assert_eq!(spans, [(2, 5)]);
    }
}
