//! Reads the source and fails on what the architecture and the style of this project forbid.
//!
//! Each rule takes sources and answers with its findings, so that its own test can feed it a source that breaks it. What
//! a compiler or clippy sees is theirs; here stands what needs a look at the whole.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod forbidden;
mod layers;
mod owners;
mod places;
mod rust;
mod sizes;

use rust::Source;

/// Fails with all findings at once.
fn assert_tidy(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn imports_point_downward() {
    assert_tidy(&layers::findings(&Source::read_all("src")));
}

#[test]
fn a_crate_with_one_owner_stays_with_it() {
    assert_tidy(&owners::findings(&Source::read_all("src")));
}

#[test]
fn files_are_short_and_say_what_they_hold() {
    assert_tidy(&sizes::lengths(&Source::read_all("src")));
    for folder in ["src", "tests", "bench", "benches", "examples"] {
        assert_tidy(&sizes::openings(&Source::read_all(folder)));
    }
}

#[test]
fn nothing_forbidden_is_written() {
    for folder in ["src", "tests", "bench", "benches", "examples"] {
        assert_tidy(&forbidden::findings(&Source::read_all(folder)));
    }
}

#[test]
fn metrics_are_declared_where_they_belong_and_dashboards_ask_for_no_other() {
    assert_tidy(&places::undeclared_metrics(&Source::read_all("src")));
    assert_tidy(&places::unknown_metrics(&places::read_texts("deploy", &["json", "yml", "yaml"])));
}

#[test]
fn every_snapshot_has_a_test_that_refers_to_it() {
    let mut sources = Source::read_all("src");
    sources.extend(Source::read_all("tests"));
    let mut snapshots = places::list_files("tests");
    snapshots.extend(places::list_files("src"));
    assert_tidy(&places::orphaned_snapshots(&snapshots, &sources));
}

#[test]
fn every_setting_ends_in_its_unit_and_is_documented() {
    let reference = inferq::settings::reference::Reference::embedded();
    let keys: Vec<&str> = reference.keys.iter().map(|key| key.key.as_str()).collect();
    assert!(!keys.is_empty());
    assert_tidy(&places::keys_without_unit(&keys));
    let page = std::fs::read_to_string(places::root().join("docs/configuration.md")).unwrap();
    assert_tidy(&places::undocumented_keys(&keys, &page));
}
