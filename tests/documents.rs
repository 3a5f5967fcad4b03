//! Pages that are written from the program say what the program says. `INFERQ_BLESS=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

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
