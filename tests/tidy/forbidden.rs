//! Words and constructs that are not written here.

use super::rust::Source;

/// Parts of names that say nothing.
const EMPTY_WORDS: &[&str] = &["Manager", "Handler", "Util", "Utils", "Helper", "Helpers"];
/// What declares a name.
const DECLARATIONS: &[&str] = &["struct ", "enum ", "trait ", "type ", "mod ", "union ", "fn "];

/// Tests of real processes, which no paused clock can move: they look again and again for what should happen. Beginnings of
/// paths, each with its reason.
const REAL_TIME: &[(&str, &str)] = &[
    ("tests/service.rs", "waits for worker processes to become ready and to end"),
    ("tests/interop/", "waits for a worker process to become ready"),
    ("tests/support/cluster.rs", "waits for the replicas of a queue"),
    ("tests/attacks/shared.rs", "waits for workers that talk to a real Redis"),
    ("tests/faults", "injects faults into brokers and workers at set times"),
];

pub(crate) fn findings(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .flat_map(|source| {
            let sleeps = sleeping(source, runs_paused(source, sources));
            let rules = [
                empty_names(source),
                endless_channels(source),
                ignored(source),
                sleeps,
                taken(source),
                recorded(source),
            ];
            rules.into_iter().flatten().collect::<Vec<_>>()
        })
        .collect()
}

fn empty_names(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.code_lines() {
        for name in DECLARATIONS.iter().filter_map(|declaration| declared(line, declaration)) {
            if words(name).iter().any(|word| EMPTY_WORDS.iter().any(|empty| empty.eq_ignore_ascii_case(word))) {
                findings.push(format!("{}:{number}: the name `{name}` says nothing", source.path));
            }
        }
    }
    findings
}

/// The name that `line` declares with `declaration`.
fn declared<'line>(line: &'line str, declaration: &str) -> Option<&'line str> {
    let at = line.find(declaration)?;
    if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = &line[at + declaration.len()..];
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// The words of a name, be it `CamelCase` or `snake_case`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().push(c);
        }
    }
    words
}

fn endless_channels(source: &Source) -> Vec<String> {
    let found = source.code_lines().filter(|(_, line)| line.contains("unbounded") && line.contains('('));
    found.map(|(number, _)| format!("{}:{number}: an unbounded channel", source.path)).collect()
}

fn ignored(source: &Source) -> Vec<String> {
    let found = source.code_lines().filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    found.map(|(number, _)| format!("{}:{number}: an ignored test", source.path)).collect()
}

/// Whether `source` is a module shared by tests, has none itself, and every test file that calls what sleeps in it runs its
/// tests under a paused clock.
fn runs_paused(source: &Source, sources: &[Source]) -> bool {
    let Some(name) = source.path.strip_suffix("/mod.rs").and_then(|path| path.rsplit('/').next()) else { return false };
    let sleepers: Vec<&str> = sleepers(source).collect();
    let concerned = |other: &&Source| {
        let shares = other.path.starts_with("tests/") && other.code.contains(&format!("mod {name};"));
        shares && sleepers.iter().any(|function| other.code_lines().any(|(_, line)| calls(line, function)))
    };
    let mut concerned = sources.iter().filter(concerned).peekable();
    let all_paused = |other: &Source| {
        let mut tests = other.code_lines().filter(|(_, line)| line.contains("#[tokio::test"));
        tests.all(|(_, line)| line.contains("start_paused"))
    };
    !source.code_lines().any(|(_, line)| is_test(line)) && concerned.peek().is_some() && concerned.all(all_paused)
}

/// The functions of `source` that sleep.
fn sleepers(source: &Source) -> impl Iterator<Item = &str> {
    let mut function = "";
    source.code_lines().filter_map(move |(_, line)| {
        function = declared(line, "fn ").unwrap_or(function);
        sleeps(line).then_some(function)
    })
}

fn is_test(line: &str) -> bool {
    line.contains("#[test]") || line.contains("#[tokio::test")
}

/// Tests do not sleep, except under a paused clock; `paused` is what holds where no test has begun yet.
fn sleeping(source: &Source, mut paused: bool) -> Vec<String> {
    if REAL_TIME.iter().any(|(place, _)| source.path.starts_with(place)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in source.test_lines() {
        if is_test(line) {
            paused = line.contains("start_paused");
        }
        if line.contains("thread::sleep(") || !paused && sleeps(line) {
            let advice = "pause the clock, or wait for what should happen";
            findings.push(format!("{}:{number}: a test sleeps; {advice}", source.path));
        }
    }
    findings
}

/// Whether `line` calls a function named `sleep`.
fn sleeps(line: &str) -> bool {
    calls(line, "sleep")
}

/// Whether `line` calls `function`, not a method of that name.
fn calls(line: &str, function: &str) -> bool {
    line.match_indices(&format!("{function}(")).any(|(at, _)| {
        let before = &line[..at];
        !before.ends_with("fn ") && !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.'))
    })
}

/// Only a client may take a reply out of its queue without a confirmed publish in its place, and a worker a query, which is no job.
fn taken(source: &Source) -> Vec<String> {
    let allowed =
        ["src/client/", "src/broker/", "src/worker/announce.rs"].iter().any(|place| source.path.starts_with(place));
    let found = source.program_lines().filter(|(_, line)| !allowed && line.contains(".taken()"));
    found.map(|(number, _)| format!("{}:{number}: a receipt is taken outside of src/client", source.path)).collect()
}

/// Only the shared replay guard's answer stands for a confirm that this process has not seen.
fn recorded(source: &Source) -> Vec<String> {
    let allowed = ["src/worker/admit.rs", "src/broker/mod.rs"].contains(&source.path.as_str());
    let found = source.program_lines().filter(|(_, line)| !allowed && line.contains("recorded_elsewhere"));
    found.map(|(number, _)| format!("{}:{number}: a confirm is made outside of src/broker", source.path)).collect()
}

fn found(path: &str, text: &str) -> Vec<String> {
    findings(&[Source::new(path, text)])
}

#[test]
fn names_that_say_nothing_are_found() {
    for text in ["pub struct KeyManager;\n", "mod helper;\n", "fn key_utils() {}\n", "pub(crate) trait Handler {}\n"] {
        assert_eq!(found("src/a.rs", text).len(), 1, "{text}");
    }
    for text in ["struct Utility;\n", "fn handled() {}\n", "use axum::handler::Handler;\n", "// struct Manager\n"] {
        assert!(found("src/a.rs", text).is_empty(), "{text}");
    }
}

#[test]
fn endless_channels_and_ignored_tests_are_found() {
    assert_eq!(found("src/a.rs", "let (a, b) = mpsc::unbounded_channel();\n").len(), 1);
    assert!(found("src/a.rs", "// unbounded()\n").is_empty());
    assert_eq!(found("src/a.rs", "    #[ignore]\n").len(), 1);
    assert_eq!(found("tests/a.rs", "#[ignore = \"slow\"]\n").len(), 1);
}

#[test]
fn a_sleep_in_a_test_is_found_unless_its_clock_is_paused() {
    let real = "#[tokio::test]\nasync fn a() { tokio::time::sleep(x).await }\n";
    assert_eq!(found("tests/a.rs", real).len(), 1);
    let paused = "#[tokio::test(start_paused = true)]\nasync fn a() { tokio::time::sleep(x).await }\n";
    assert!(found("tests/a.rs", paused).is_empty());
    assert_eq!(found("tests/a.rs", &format!("{paused}{real}")).len(), 1);
    assert_eq!(found("tests/a.rs", &paused.replace("tokio::time", "std::thread")).len(), 1);
    assert!(found("src/a.rs", "async fn a() { sleep(x).await }\n").is_empty());
    assert!(found("tests/faults/main.rs", real).is_empty());
}

#[test]
fn a_shared_module_may_sleep_where_every_test_that_shares_it_is_paused() {
    let shared = Source::new("tests/house/mod.rs", "pub async fn settle() { sleep(x).await }\n");
    let paused = "mod house;\n#[tokio::test(start_paused = true)]\nasync fn a() { settle() }\n";
    let real = Source::new("tests/b.rs", &paused.replace("(start_paused = true)", ""));
    let elsewhere = Source::new("tests/c.rs", "mod house;\n#[tokio::test]\nasync fn a() { receipt.settle() }\n");
    let paused = Source::new("tests/a.rs", paused);
    assert!(findings(&[shared.clone(), paused.clone(), elsewhere]).is_empty());
    assert_eq!(findings(&[shared.clone(), paused, real]).len(), 1);
    assert_eq!(findings(&[shared]).len(), 1);
}

#[test]
fn a_confirm_made_of_a_record_outside_of_the_guard_is_found() {
    assert_eq!(found("src/worker/reply.rs", "Confirmed::recorded_elsewhere();\n").len(), 1);
    assert!(found("src/worker/admit.rs", "Confirmed::recorded_elsewhere();\n").is_empty());
}

#[test]
fn a_receipt_taken_outside_of_the_client_is_found() {
    assert_eq!(found("src/worker/mod.rs", "receipt.taken();\n").len(), 1);
    assert!(found("src/client/mod.rs", "receipt.taken();\n").is_empty());
}
