//! Command lines in the pages: each is one that the program understands, each `make` target is one that there is.

use clap::Parser as _;
use inferq::cli::Cli;

use super::{files, read};

/// The lines of the code blocks of a page, continued lines joined, comments cut off.
fn code_lines(page: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut fenced, mut continued) = (false, false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            continue;
        }
        let line = line.split(" # ").next().unwrap().trim();
        let (line, more) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut().filter(|_| continued) {
            Some(last) => last.push_str(line),
            None => lines.push(line.to_owned()),
        }
        continued = more;
    }
    lines
}

/// The words of a command as a shell would part them; none where it is no simple command.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '&' | ';') => break,
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What is run, without the variables that are set before it.
fn invocation(line: &str) -> Vec<String> {
    let is_assignment = |word: &String| word.split_once('=').is_some_and(|(name, _)| name.to_uppercase() == name);
    words(line.trim_start_matches("$ ")).into_iter().skip_while(is_assignment).collect()
}

fn pages() -> Vec<String> {
    let pages = files(".").into_iter().filter(|path| path.ends_with(".md"));
    pages.filter(|path| !path.contains("adr/")).collect()
}

#[test]
fn every_inferq_command_is_understood() {
    let mut seen = 0;
    for page in pages() {
        for line in code_lines(&read(&page)) {
            let words = invocation(&line);
            if !words.first().is_some_and(|program| program == "inferq" || program.ends_with("/inferq")) {
                continue;
            }
            seen += 1;
            if let Err(refusal) = Cli::try_parse_from(&words) {
                assert!(!refusal.use_stderr(), "{page}: `{line}`: {refusal}");
            }
        }
    }
    assert!(seen >= 20, "only {seen} commands were found");
}

#[test]
fn every_make_target_is_there() {
    let makefile = read("Makefile");
    for page in pages() {
        for line in code_lines(&read(&page)) {
            let words = invocation(&line);
            if let [make, target, ..] = words.as_slice()
                && make == "make"
            {
                assert!(makefile.contains(&format!("\n{target}: ")), "{page}: there is no `make {target}`");
            }
        }
    }
}

#[test]
fn commands_are_taken_apart_as_a_shell_does() {
    let page =
        "text\n\n```sh\nA=b inferq submit \"two words\" \\\n  --top 3 | head  # why\n```\n\n    make test # all\n";
    let lines = code_lines(page);
    assert_eq!(lines.len(), 2);
    assert_eq!(invocation(&lines[0]), ["inferq", "submit", "two words", "--top", "3"]);
    assert_eq!(invocation(&lines[1]), ["make", "test"]);
}
