//! The scripts and the Makefile: clean, explained, and there.

use std::process::Command;

use super::{files, read, root};

/// Every script that is run, not sourced.
fn scripts() -> Vec<String> {
    let all = files("scripts").into_iter().filter(|path| path.ends_with(".sh"));
    all.filter(|path| read(path).starts_with("#!")).collect()
}

#[test]
fn shellcheck_finds_nothing() {
    let mut command = Command::new("shellcheck");
    command.current_dir(root()).args(["--external-sources", "--source-path=SCRIPTDIR", ".ci/run"]);
    let all = files("scripts").into_iter().chain(files("models")).chain(files("deploy"));
    command.args(all.filter(|path| path.ends_with(".sh")));
    let output = command.output().unwrap_or_else(|error| panic!("shellcheck: {error}; `make test` installs it"));
    assert!(output.status.success(), "\n{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_script_explains_itself_and_stops_at_the_first_error() {
    let scripts = scripts();
    assert!(scripts.len() > 5);
    for path in scripts {
        let script = read(&path);
        assert!(script.contains("\nset -euo pipefail\n"), "{path}");
        // Else it might do its work.
        assert!(script.contains("--help"), "{path} knows no --help");
        let output = Command::new("bash").current_dir(root()).args([&path, "--help"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let name = path.rsplit('/').next().unwrap();
        assert!(output.status.success() && said.starts_with(&format!("usage: {name}")), "{path} --help: {said}");
    }
}

#[test]
fn make_lists_its_targets() {
    let output = Command::new("make").current_dir(root()).arg("--no-print-directory").output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let makefile = read("Makefile");
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    for target in phony.split(' ') {
        assert!(listed.contains(&format!("make {target} ")), "`make` does not list {target}");
    }
}

#[test]
fn an_environment_for_compose_is_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let scripts = folder.path().join("scripts");
    std::fs::create_dir(&scripts).unwrap();
    for name in ["lib.sh", "compose-env.sh"] {
        std::fs::copy(root().join("scripts").join(name), scripts.join(name)).unwrap();
    }
    let run = || Command::new("bash").arg(scripts.join("compose-env.sh")).output().unwrap().status.success();
    assert!(run());
    let path = folder.path().join(".env");
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let value = |name: &str| first.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    assert_eq!(value("RABBITMQ_PASSWORD=").len(), 48);
    assert_ne!(value("RABBITMQ_PASSWORD="), value("GRAFANA_PASSWORD="));
    assert_ne!(value("INFERQ_UID="), "0");
    assert!(!run(), "an .env that is there is left alone");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
}
