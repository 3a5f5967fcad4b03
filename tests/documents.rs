//! Pages that are written from the program say what the program says. `INFERQ_BLESS=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use inferq::error::{ErrorCode, Route};
use inferq::settings::reference::Reference;
use inferq::telemetry::names;
use serde_json::Value;

/// Fails where `page` differs from `expected`.
fn assert_current(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("INFERQ_BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{page} is out of date; run `INFERQ_BLESS=1 cargo test --test documents`");
}

#[test]
fn the_reference_of_settings_says_what_the_defaults_say() {
    assert_current("docs/configuration.md", &Reference::embedded().markdown());
}

#[test]
fn the_reference_of_metrics_says_what_is_counted() {
    assert_current("docs/metrics.md", &names::markdown());
}

/// The settings that `text` names in backticks and that `known` does not have. A word is meant as a setting where it begins
/// with the name of a section.
fn unknown_settings<'a>(text: &'a str, known: &[&str]) -> Vec<&'a str> {
    let outside_of_blocks = text.split("```").step_by(2);
    let spans = outside_of_blocks.flat_map(|part| part.split('`').skip(1).step_by(2));
    let words = spans.flat_map(|span| span.split(|c: char| !(c.is_ascii_alphanumeric() || "._/-".contains(c))));
    let is_meant = |word: &&str| {
        let section = word.split_once('.').filter(|(_, name)| !name.is_empty() && !name.contains(['.', '/', '-']));
        section.is_some_and(|(section, name)| {
            name != "toml" && known.iter().any(|key| key.split_once('.').is_some_and(|(known, _)| known == section))
        })
    };
    words.filter(is_meant).filter(|word| !known.contains(word)).collect()
}

#[test]
fn every_setting_that_a_page_names_is_one() {
    let reference = Reference::embedded();
    let known: Vec<&str> = reference.keys.iter().map(|key| key.key.as_str()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    for page in pages.chain([root.join("README.md")]) {
        let text = std::fs::read_to_string(&page).unwrap();
        let unknown = unknown_settings(&text, &known);
        assert!(
            unknown.is_empty(),
            "{} names settings that config/default.toml does not have: {unknown:?}",
            page.display()
        );
    }
}

#[test]
fn a_setting_that_is_none_is_found() {
    let known = ["broker.url", "worker.max_attempts"];
    let text = "`broker.urls`, `--set worker.max_attempt=3`\n```\nbroker.block\n```\nand `broker.uri`";
    assert_eq!(unknown_settings(text, &known), ["broker.urls", "worker.max_attempt", "broker.uri"]);
    let fine =
        "`broker.url=amqp://x` broker.plain `model.toml` `worker.toml` `src/worker.rs` `basic.nack` `amqp.broker.x`";
    assert!(unknown_settings(fine, &known).is_empty());
}

#[test]
fn the_table_of_errors_says_what_the_codes_say() {
    assert_current("docs/errors.md", &errors());
}

#[test]
fn the_worked_example_is_the_vectors() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/wire-protocol.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once(EXAMPLE_BEGINS).unwrap();
    let (_, after) = rest.split_once(EXAMPLE_ENDS).unwrap();
    let example = worked_example();
    assert_current("docs/wire-protocol.md", &format!("{before}{EXAMPLE_BEGINS}{example}{EXAMPLE_ENDS}{after}"));
}

const EXAMPLE_BEGINS: &str = "<!-- example: written from tests/vectors by `INFERQ_BLESS=1 cargo test --test documents`; do not edit by hand -->\n";
const EXAMPLE_ENDS: &str = "<!-- end of example -->";

/// The text request and its reply, as the vectors have them.
fn worked_example() -> String {
    let mut example = String::new();
    for (title, name) in [("request", "request-text"), ("reply", "reply-text")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.json"));
        let vector: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let hex = vector["plaintext_hex"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let plaintext = String::from_utf8((0..hex.len()).step_by(2).map(byte).collect()).unwrap();
        let body = vector["body"].as_str().unwrap();
        writeln!(example, "\nThe plaintext of the {title}, {} bytes:\n\n    {plaintext}\n", plaintext.len()).unwrap();
        let header = URL_SAFE_NO_PAD.decode(body.split('.').next().unwrap()).unwrap();
        writeln!(example, "Its protected header:\n\n    {}\n", String::from_utf8(header).unwrap()).unwrap();
        writeln!(example, "Its body, {} bytes, here broken after each dot and every 120 characters:\n", body.len())
            .unwrap();
        for segment in body.split_inclusive('.') {
            for line in segment.as_bytes().chunks(120) {
                writeln!(example, "    {}", std::str::from_utf8(line).unwrap()).unwrap();
            }
        }
    }
    example + "\n"
}

fn errors() -> String {
    let mut page = String::from(ERRORS);
    for code in ErrorCode::ALL {
        let route = match code.route() {
            Route::Reply => "reply",
            Route::Retry => "retry",
            Route::Postpone => "postponed",
            Route::DeadLetter => "dead letter",
            Route::Undeliverable => "undeliverable",
        };
        writeln!(page, "| `{code}` | {route} | {} | {} |", code.meaning(), code.remedy()).unwrap();
    }
    page
}

const ERRORS: &str = "\
# Errors

<!-- Written from src/error.rs by `INFERQ_BLESS=1 cargo test --test documents`; do not edit by hand. -->

Every job that fails has one code. It is the `code` in the body of an error reply, the label of a metric, and the header
`x-inferq-error` of a dead letter. Its route says who learns of it:

- **reply**: the producer is told, encrypted, on its reply queue;
- **retry**: the job comes back after a pause, up to `worker.max_attempts` times, then it is a dead letter;
- **postponed**: the job comes back after a second as it came; no attempt is counted;
- **dead letter**: the job is kept untouched, still encrypted, in the dead-letter queue of its model. The producer is not told: what
  cannot be authenticated is never answered, nor what was replayed;
- **undeliverable**: the sealed reply is kept in the undeliverable queue.

| code | route | meaning | what to do |
|---|---|---|---|
";
