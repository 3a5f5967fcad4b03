//! A source file as the rules see it: its module, its code without comments and texts, its tests apart.

use std::path::Path;

use super::places::{list_files, root};

/// A source file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// All of it, with comments and the contents of strings blanked out; as many lines as `text`.
    pub(crate) code: String,
    /// The line at which its tests begin; the number of lines where it has none, 0 where it is nothing but tests.
    pub(crate) tests_from: usize,
}

impl Source {
    /// The source `text` as if it stood at `path`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let only_tests = path.starts_with("tests/") || path.ends_with("_tests.rs") || path.ends_with("/tests.rs");
        let tests_from = if only_tests { 0 } else { first_line_of_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, tests_from }
    }

    /// Every `.rs` file below `folder`, sorted.
    pub(crate) fn read_all(folder: &str) -> Vec<Self> {
        let files =
            list_files(folder).into_iter().filter(|path| Path::new(path).extension().is_some_and(|e| e == "rs"));
        files.map(|path| Self::new(&path, &std::fs::read_to_string(root().join(&path)).unwrap())).collect()
    }

    /// The code that is no test, line by line, with line numbers from 1.
    pub(crate) fn program_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().take(self.tests_from).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The code of tests, line by line, with line numbers from 1.
    pub(crate) fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().skip(self.tests_from).map(|(index, line)| (index + 1, line))
    }

    /// All code, line by line, with line numbers from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The module that the file is, as a path from the crate's root: `broker::amqp` for `src/broker/amqp/mod.rs`.
    pub(crate) fn module(&self) -> String {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
    }
}

/// The tests of a file are the module `tests` at its end.
fn first_line_of_tests(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    let starts = |at: usize| {
        lines[at].trim() == "#[cfg(test)]"
            && lines.get(at + 1).is_some_and(|next| next.trim().starts_with("mod tests {"))
    };
    (0..lines.len()).find(|at| starts(*at)).unwrap_or(lines.len())
}

/// Replaces comments, and what stands in strings and characters, by blanks. Newlines stay.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, keep) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), 0),
            '/' if rest.starts_with("/*") => (block_comment(rest), 0),
            '"' => (string(rest), 1),
            'r' if raw_string(rest).is_some() && !ends_in_word(&code) => (raw_string(rest).unwrap(), 1),
            '\'' => match character(rest) {
                Some(length) => (length, 1),
                None => (1, 1),
            },
            other => (other.len_utf8(), other.len_utf8()),
        };
        let (token, after) = rest.split_at(length);
        code.push_str(&token[..keep.min(token.len())]);
        code.extend(token[keep.min(token.len())..].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw string at the start of `rest`.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    let content = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = content.find(&end)?;
    Some(1 + hashes + 1 + length + end.len())
}

/// The length of a character at the start of `rest`; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = &rest[1..];
    if inner.starts_with('\\') {
        let after = inner.char_indices().nth(2)?.0;
        return inner[after..].find('\'').map(|at| 1 + after + at + 1);
    }
    let length = inner.chars().next()?.len_utf8();
    inner[length..].starts_with('\'').then_some(1 + length + 1)
}

#[test]
fn comments_and_texts_are_blanked_and_code_is_not() {
    let text =
        "let a = \"x // \\\" y\"; // c\nlet b = '\"'; /* d /* e */ \n f */ fn g<'a>(h: &'a str) {}\nr#\"i\"j\"# k";
    let code = blank(text);
    assert_eq!(code.lines().count(), text.lines().count());
    for gone in ["x", "y", "c\n", " d", "e ", "i\"", "j"] {
        assert!(!code.contains(gone), "{gone:?} in {code:?}");
    }
    for kept in ["let a = \"", "let b = '", "fn g<'a>(h: &'a str) {}", " k"] {
        assert!(code.contains(kept), "{kept:?} in {code:?}");
    }
}

#[test]
fn tests_are_parted_from_the_program() {
    let source = Source::new("src/a/mod.rs", "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n");
    assert_eq!(source.tests_from, 2);
    assert_eq!(source.module(), "a");
    assert!(source.test_lines().any(|(number, line)| number == 5 && line.contains("fn b")));
    assert_eq!(Source::new("src/a/b_tests.rs", "fn a() {}").tests_from, 0);
    assert_eq!(Source::new("src/a/b.rs", "#[cfg(test)]\nmod b_tests;\nfn a() {}").tests_from, 3);
}
