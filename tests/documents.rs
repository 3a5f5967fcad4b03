//! Pages that are written from the program say what the program says. `INFERQ_BLESS=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use inferq::error::{ErrorCode, Route};
use inferq::settings::reference::Reference;
use inferq::telemetry::names;

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

#[test]
fn the_table_of_errors_says_what_the_codes_say() {
    assert_current("docs/errors.md", &errors());
}

fn errors() -> String {
    let mut page = String::from(ERRORS);
    for code in ErrorCode::ALL {
        let route = match code.route() {
            Route::Reply => "reply",
            Route::Retry => "retry",
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
- **dead letter**: the job is kept untouched, still encrypted, in the dead-letter queue of its model. The producer is not told: what
  cannot be authenticated is never answered, nor what was replayed;
- **undeliverable**: the sealed reply is kept in the undeliverable queue.

| code | route | meaning | what to do |
|---|---|---|---|
";
