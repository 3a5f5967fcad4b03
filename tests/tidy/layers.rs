//! Imports point downward: each unit stands on a layer and uses only those on its own or below, without a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::rust::Source;

/// Units with their layers. The longest name that begins a module's path is its unit.
const LAYERS: &[(&str, u32)] = &[
    ("error", 0),
    ("limits", 0),
    ("protocol", 0),
    ("seeded", 0),
    ("settings", 10),
    ("envelope", 10),
    ("preprocess", 10),
    ("postprocess", 10),
    ("batch::row", 10),
    ("batch::cost", 10),
    ("batch::policy", 10),
    ("batch::pool", 10),
    ("telemetry", 10),
    ("backend", 20),
    ("broker", 20),
    ("batch", 20),
    ("model", 25),
    ("evaluation", 30),
    ("worker", 30),
    ("client", 30),
    ("cli", 40),
    ("main", 40),
    ("lib", 40),
];

/// Units that do not know each other, whatever their layers.
const STRANGERS: &[(&str, &str)] = &[
    ("broker", "model"),
    ("broker", "backend"),
    ("model", "broker"),
    ("backend", "broker"),
    ("worker", "client"),
    ("client", "worker"),
];

pub(crate) fn findings(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        let module = source.module();
        let Some((unit, layer)) = unit_of(&module) else {
            findings.push(format!(
                "{}: module `{module}` stands on no layer; name it in tests/tidy/layers.rs",
                source.path
            ));
            continue;
        };
        for (line, target) in imports(source) {
            let Some((used, used_layer)) = unit_of(&target) else { continue };
            let place = format!("{}:{line}", source.path);
            if used_layer > layer {
                findings.push(format!("{place}: `{unit}` (layer {layer}) uses `{used}` (layer {used_layer}) above it"));
            } else if STRANGERS.contains(&(unit, used)) {
                findings.push(format!("{place}: `{unit}` must not know `{used}`"));
            } else if used != unit {
                uses.entry(unit).or_default().insert(used);
            }
        }
    }
    findings.dedup();
    findings.extend(circle(&uses));
    findings
}

/// The unit that a module's path belongs to, with its layer.
fn unit_of(module: &str) -> Option<(&'static str, u32)> {
    let begins = |unit: &str| module.strip_prefix(unit).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    LAYERS.iter().filter(|(unit, _)| begins(unit)).max_by_key(|(unit, _)| unit.len()).copied()
}

/// What the program part of `source` takes from this crate: line and path from the crate's root.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, statement) in statements(source) {
        for (at, _) in statement.match_indices("crate::") {
            let before = statement[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            found.extend(expand("", &statement[at + "crate::".len()..]).into_iter().map(|path| (line, path)));
        }
        for (at, _) in statement.match_indices("super::") {
            // The later ones of `super::super::` are counted with the first.
            if statement[..at].ends_with("::") {
                continue;
            }
            let rest = &statement[at..];
            let ups = rest.split("::").take_while(|part| *part == "super").count();
            // `super` of a file is the folder that it lies in.
            let module = source.module();
            let parts: Vec<&str> = module.split("::").collect();
            let Some(kept) = parts.len().checked_sub(ups) else { continue };
            let base = parts[..kept].iter().map(|part| format!("{part}::")).collect::<String>();
            let after = &rest["super::".len() * ups..];
            found.extend(expand(&base, after).into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// The program's code cut at semicolons, so that a `use` over several lines is one piece; with its first line.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut piece = String::new();
    let mut first = 1;
    for (number, line) in source.program_lines() {
        if piece.trim().is_empty() {
            first = number;
        }
        piece.push_str(line.trim());
        piece.push(' ');
        let whole = !piece.contains("use ") || line.contains(';');
        if whole && line.trim_end().ends_with([';', '{', '}']) {
            found.push((first, std::mem::take(&mut piece)));
        }
    }
    found.push((first, piece));
    found
}

/// The paths in `a::{b, c::{d, e}}`, each after `base`.
fn expand(base: &str, path: &str) -> Vec<String> {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(path.len());
    let (head, rest) = path.split_at(end);
    let Some(inner) = rest.strip_prefix('{').filter(|_| head.ends_with("::") || head.is_empty()) else {
        return vec![format!("{base}{head}")];
    };
    let mut depth = 0;
    let mut found = Vec::new();
    let mut start = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(expand(&format!("{base}{head}"), inner[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

/// A circle among the units, if there is one.
fn circle(uses: &BTreeMap<&str, BTreeSet<&str>>) -> Option<String> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = uses.clone();
    loop {
        let (free, bound): (Vec<&str>, Vec<&str>) =
            left.keys().partition(|unit| !left[*unit].iter().any(|used| left.contains_key(used)));
        if bound.is_empty() {
            return None;
        }
        if free.is_empty() {
            return Some(format!("units use each other in a circle: {}", bound.join(", ")));
        }
        for unit in free {
            left.remove(unit);
        }
    }
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    for text in [
        "use crate::worker::Worker;\n",
        "use crate::{\n    error::ErrorCode,\n    worker::{Worker, Other},\n};\n",
        "fn f() { crate::worker::run(); }\n",
        "use super::super::worker::Worker;\n",
        "pub use crate::worker;\n",
    ] {
        let found = findings(&[Source::new("src/broker/memory.rs", text)]);
        assert!(matches!(found.as_slice(), [one] if one.contains("`worker`")), "{text}: {found:?}");
    }
}

#[test]
fn a_downward_import_and_a_test_are_left_alone() {
    let texts = [
        "use crate::error::ErrorCode;\nuse super::receipt::Receipt;\n",
        "// crate::worker\nconst A: &str = \"crate::worker\";\n",
        "fn f() { other::crate_worker(); }\n#[cfg(test)]\nmod tests {\n    use crate::worker::Worker;\n}\n",
    ];
    for text in texts {
        assert_eq!(findings(&[Source::new("src/broker/memory.rs", text)]), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn strangers_circles_and_homeless_modules_are_found() {
    let found = findings(&[Source::new("src/model/loaded.rs", "use crate::broker::Delivery;\n")]);
    assert!(found[0].contains("must not know"), "{found:?}");
    let found = findings(&[
        Source::new("src/settings/mod.rs", "use crate::envelope::A;\n"),
        Source::new("src/envelope/mod.rs", "use crate::settings::B;\n"),
    ]);
    assert!(matches!(found.as_slice(), [one] if one.contains("circle: envelope, settings")), "{found:?}");
    let found = findings(&[Source::new("src/extra.rs", "")]);
    assert!(found[0].contains("on no layer"), "{found:?}");
    let found = findings(&[Source::new("src/batch/policy.rs", "use super::batcher::Batcher;\n")]);
    assert!(found[0].contains("`batch::policy` (layer 10) uses `batch` (layer 20)"), "{found:?}");
}
