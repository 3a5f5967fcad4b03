//! A crate with one owner is used nowhere else, and the environment is read by the settings alone.

use super::rust::Source;

/// Names of crates with the places that may use them: beginnings of paths. One of them is enough.
const OWNERS: &[(&str, &[&str])] = &[
    ("lapin", &["src/broker/amqp"]),
    ("deadpool", &["src/broker/amqp"]),
    ("redis", &["src/worker/shared"]),
    ("rustls_native_certs", &["src/broker/amqp"]),
    ("rustls_pki_types", &["src/broker/amqp"]),
    ("tract_onnx", &["src/backend/tract"]),
    ("inferq_kernels", &["src/backend/tract"]),
    ("aes_gcm", &["src/envelope/jwe"]),
    ("aes_kw", &["src/envelope/jwe"]),
    ("tokenizers", &["src/preprocess"]),
    ("image", &["src/preprocess"]),
    ("config", &["src/settings"]),
    ("tikv_jemallocator", &["src/main"]),
    ("axum", &["src/telemetry"]),
    ("prometheus_client", &["src/telemetry"]),
    ("tracing_subscriber", &["src/telemetry"]),
    ("clap", &["src/cli"]),
    ("comfy_table", &["src/cli"]),
    ("indicatif", &["src/cli"]),
];

/// Readings of the environment.
const ENVIRONMENT: &[&str] = &["env::var(", "env::var_os(", "env::vars(", "env::vars_os("];

pub(crate) fn findings(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.program_lines() {
            for (krate, owners) in OWNERS {
                if names_crate(line, krate, source) && !owners.iter().any(|owner| source.path.starts_with(owner)) {
                    let owner = owners.join(" or ");
                    findings.push(format!("{}:{number}: `{krate}` is used outside of {owner}", source.path));
                }
            }
            if ENVIRONMENT.iter().any(|reading| line.contains(reading)) && !source.path.starts_with("src/settings/") {
                findings.push(format!("{}:{number}: the environment is read outside of src/settings", source.path));
            }
        }
    }
    findings
}

/// Whether `line` names the crate `krate`: as the first part of a path, where no module of that name is at hand.
fn names_crate(line: &str, krate: &str, source: &Source) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut places = line.match_indices(krate).filter(|(at, _)| {
        let after = &line[at + krate.len()..];
        let before = line[..*at].trim_end_matches("::");
        let leading_colons = before.len() < *at;
        let starts_path =
            !before.ends_with(is_word) && (!leading_colons || before.is_empty() || before.ends_with([' ', '(', '<']));
        starts_path && (after.starts_with("::") || after.starts_with(';') && before.ends_with("use "))
    });
    places.next().is_some() && !source.code.contains(&format!("mod {krate};"))
}

#[test]
fn a_crate_outside_its_owner_is_found() {
    for text in [
        "use lapin::Channel;\n",
        "fn f(c: &lapin::Channel) {}\n",
        "use ::lapin::Channel;\n",
        "use lapin;\n",
        "fn f<E: From<lapin::Error>>() {}\n",
    ] {
        let found = findings(&[Source::new("src/worker/mod.rs", text)]);
        assert!(matches!(found.as_slice(), [one] if one.contains("`lapin`")), "{text}: {found:?}");
        assert!(findings(&[Source::new("src/broker/amqp/mod.rs", text)]).is_empty());
    }
}

#[test]
fn a_module_or_word_of_the_same_name_is_left_alone() {
    for text in [
        "use super::config::Check;\n",
        "pub mod config;\nfn f() { config::run() }\n",
        "// lapin::Channel\n",
        "fn f() { my_lapin::g() }\n",
    ] {
        assert_eq!(findings(&[Source::new("src/cli/mod.rs", text)]), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_look_at_the_environment_outside_the_settings_is_found() {
    for text in ["fn f() { std::env::var(\"HOME\"); }\n", "fn f() { env::vars_os(); }\n"] {
        assert_eq!(findings(&[Source::new("src/cli/mod.rs", text)]).len(), 1, "{text}");
        assert!(findings(&[Source::new("src/settings/sources.rs", text)]).is_empty());
    }
    assert!(findings(&[Source::new("src/main.rs", "fn f() { std::env::args_os(); }\n")]).is_empty());
}
