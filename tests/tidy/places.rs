//! What must stand in two places at once: metrics and their names, snapshots and their tests, settings and their docs.

use std::path::{Path, PathBuf};

use inferq::telemetry::names;

use super::rust::Source;

/// Where metrics are declared.
const NAMES_FILE: &str = "src/telemetry/names.rs";
/// What an exposition adds to a histogram's name.
const HISTOGRAM_ENDINGS: &[&str] = &["_bucket", "_count", "_sum"];

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder`, as paths from the root, sorted; none where there is no such folder.
pub(crate) fn list_files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if let Some(path) = path.strip_prefix(root()).unwrap().to_str() {
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The files below `folder` with one of `endings`: path and text.
pub(crate) fn read_texts(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let fits = |path: &String| endings.iter().any(|ending| path.ends_with(&format!(".{ending}")));
    let read = |path: String| std::fs::read_to_string(root().join(&path)).ok().map(|text| (path, text));
    list_files(folder).into_iter().filter(fits).filter_map(read).collect()
}

/// Names of metrics that are written out instead of taken from the declarations. Only `telemetry` can register any: the crate
/// that does is its own.
pub(crate) fn undeclared_metrics(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let registering = |source: &&Source| source.path.starts_with("src/telemetry/") && source.path != NAMES_FILE;
    for source in sources.iter().filter(registering) {
        for (number, line) in source.text.lines().take(source.tests_from).enumerate() {
            if !line.trim_start().starts_with("//") && line.contains("\"inferq_") {
                let place = format!("{}:{}", source.path, number + 1);
                findings.push(format!("{place}: a metric's name stands outside of {NAMES_FILE}"));
            }
        }
    }
    findings
}

/// Metrics that a dashboard, a rule or a scaler asks for and nobody counts.
pub(crate) fn unknown_metrics(texts: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in texts {
        for name in words(text).filter(|word| word.starts_with("inferq_")) {
            let declared = |metric: &names::Metric| {
                let ending = name.strip_prefix(metric.name);
                ending == Some("")
                    || metric.kind == names::Kind::Histogram && ending.is_some_and(|e| HISTOGRAM_ENDINGS.contains(&e))
            };
            if !names::ALL.iter().any(declared) {
                findings.push(format!("{path}: asks for `{name}`, which {NAMES_FILE} does not declare"));
            }
        }
    }
    findings
}

/// The words of a text: letters, digits, `_`, and the `:` that recorded series have in their names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter(|word| !word.contains(':'))
}

/// Snapshots whose name no source contains, and snapshots that nobody has accepted.
pub(crate) fn orphaned_snapshots(files: &[String], sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for path in files {
        if path.ends_with(".snap.new") {
            findings.push(format!("{path}: a snapshot that nobody has accepted"));
        }
        let Some(stem) = path.rsplit('/').next().and_then(|file| file.strip_suffix(".snap")) else { continue };
        let name = stem.rsplit("__").next().unwrap_or(stem);
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
        let referred = |source: &Source| {
            let text = &source.text;
            text.contains(&format!("\"{name}\""))
                || text.contains(&format!("fn {name}("))
                || text.contains(&format!("fn test_{name}("))
        };
        if !sources.iter().any(referred) {
            findings.push(format!("{path}: no test refers to this snapshot"));
        }
    }
    findings
}

/// Settings that are a time or a size and do not end in their unit.
pub(crate) fn keys_without_unit(keys: &[&str]) -> Vec<String> {
    const TIMES: &[&str] = &[
        "timeout",
        "ttl",
        "heartbeat",
        "backoff",
        "deadline",
        "grace",
        "lifetime",
        "skew",
        "interval",
        "pause",
        "delay",
    ];
    const SIZES: &[&str] = &["body", "max_plaintext", "bytes", "memory", "size_in"];
    let has = |key: &str, words: &[&str]| words.iter().any(|word| key.contains(word));
    let ends = |key: &str, endings: &[&str]| endings.iter().any(|ending| key.ends_with(ending));
    keys.iter()
        .filter(|key| has(key, TIMES) && !ends(key, &["_ms", "_s"]) || has(key, SIZES) && !ends(key, &["_bytes"]))
        .map(|key| format!("config/default.toml: `{key}` does not end in its unit"))
        .collect()
}

/// Settings that `page` has no row for under their section.
pub(crate) fn undocumented_keys(keys: &[&str], page: &str) -> Vec<String> {
    let documented = |key: &str| {
        let Some((section, name)) = key.split_once('.') else { return false };
        let Some((_, rest)) = page.split_once(&format!("## `[{section}]`")) else { return false };
        let rows = rest.split("\n## ").next().unwrap_or(rest);
        rows.contains(&format!("\n| `{name}` |"))
    };
    let missing = keys.iter().filter(|key| !documented(key));
    missing.map(|key| format!("docs/configuration.md: `{key}` has no row")).collect()
}

#[test]
fn a_metric_named_outside_of_its_file_is_found() {
    let text = "fn f() { register(\"inferq_x_total\") }\n";
    assert_eq!(undeclared_metrics(&[Source::new("src/telemetry/metrics.rs", text)]).len(), 1);
    assert!(undeclared_metrics(&[Source::new(NAMES_FILE, text)]).is_empty());
    assert!(undeclared_metrics(&[Source::new("src/telemetry/metrics.rs", "// \"inferq_x_total\"\n")]).is_empty());
}

#[test]
fn a_dashboard_that_asks_for_nothing_is_found() {
    let text = |query: &str| vec![("deploy/a.json".to_owned(), query.to_owned())];
    for query in ["rate(inferq_jobs_recieved_total[1m])", "inferq_jobs_in_flight_bucket", "inferq_batch_size"] {
        assert_eq!(unknown_metrics(&text(query)).len(), 1, "{query}");
    }
    for query in [
        "rate(inferq_jobs_received_total[1m])",
        "inferq_stage_seconds_bucket{le=\"1\"}",
        "inferq.jobs",
        "inferq:rate:sum",
    ] {
        assert!(unknown_metrics(&text(query)).is_empty(), "{query}");
    }
}

#[test]
fn a_snapshot_without_a_test_is_found() {
    let sources = [Source::new("tests/a.rs", "assert_snapshot!(\"help_x\", y);\nfn table_of_codes() {}\n")];
    let orphans = |path: &str| orphaned_snapshots(&[path.to_owned()], &sources).len();
    assert_eq!(orphans("tests/snapshots/a__help_x.snap"), 0);
    assert_eq!(orphans("tests/snapshots/a__table_of_codes-2.snap"), 0);
    assert_eq!(orphans("tests/snapshots/a__help_z.snap"), 1);
    assert_eq!(orphans("tests/snapshots/a__help.snap"), 1);
    assert_eq!(orphans("tests/snapshots/a__help_x.snap.new"), 1);
    assert_eq!(orphans("tests/a.rs"), 0);
}

#[test]
fn a_setting_without_unit_or_row_is_found() {
    assert_eq!(keys_without_unit(&["broker.connect_timeout", "limits.max_body"]).len(), 2);
    assert!(keys_without_unit(&["broker.connect_timeout_ms", "limits.max_body_bytes", "limits.max_rows"]).is_empty());
    let page = "## `[a]`\n\n| key |\n|---|\n| `x_ms` | y |\n\n## `[b]`\n\n| `z` | y |\n";
    assert!(undocumented_keys(&["a.x_ms", "b.z"], page).is_empty());
    assert_eq!(undocumented_keys(&["a.z", "c.x"], page).len(), 2);
}
