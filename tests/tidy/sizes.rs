//! Files are short, and each opens with what it holds.

use super::rust::Source;

/// Lines of a file without its tests.
const MAX_LINES: usize = 400;
/// Half of the files have at most so many.
const MAX_MEDIAN: usize = 150;

pub(crate) fn lengths(sources: &[Source]) -> Vec<String> {
    let mut lengths: Vec<(usize, &str)> = sources
        .iter()
        .filter(|source| source.tests_from > 0)
        .map(|source| (source.tests_from, source.path.as_str()))
        .collect();
    lengths.sort_unstable();
    let long = lengths.iter().filter(|(lines, _)| *lines > MAX_LINES);
    let mut findings: Vec<String> = long
        .map(|(lines, path)| format!("{path}: {lines} lines without tests, at most {MAX_LINES} are allowed"))
        .collect();
    if let Some((median, path)) = lengths.get(lengths.len() / 2).filter(|(lines, _)| *lines > MAX_MEDIAN) {
        findings.push(format!("the median file, {path}, has {median} lines, at most {MAX_MEDIAN} are allowed"));
    }
    findings
}

pub(crate) fn openings(sources: &[Source]) -> Vec<String> {
    let opens = |source: &&Source| !source.text.starts_with("//! ");
    sources.iter().filter(opens).map(|source| format!("{}: does not open with `//!`", source.path)).collect()
}

#[test]
fn a_long_file_and_a_high_median_are_found() {
    let of = |lines: usize| Source::new("src/a.rs", &"fn a() {}\n".repeat(lines));
    assert!(lengths(&[of(400), of(10), of(10)]).is_empty());
    assert_eq!(lengths(&[of(401), of(10), of(10)]).len(), 1);
    assert_eq!(lengths(&[of(151), of(151), of(10)]).len(), 1);
    let tests = Source::new("src/a.rs", &format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(500)));
    assert!(lengths(&[tests]).is_empty());
}

#[test]
fn a_file_without_an_opening_is_found() {
    assert!(openings(&[Source::new("src/a.rs", "//! What it holds.\n")]).is_empty());
    for text in ["", "use a::b;\n//! late\n", "// no\n", "/// no\n"] {
        assert_eq!(openings(&[Source::new("src/a.rs", text)]).len(), 1, "{text}");
    }
}
