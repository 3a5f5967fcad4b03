//! The Dockerfile: what it copies is there, is let through, and is enough to build from. No image is built here.

use std::path::Path;
use std::process::Command;

use super::{files, read, root};

/// Sources of the `COPY` lines that take something out of the repository.
fn copied() -> Vec<String> {
    let dockerfile = read("deploy/Dockerfile");
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let outside = lines.filter(|line| !line.starts_with("--from"));
    outside.flat_map(|line| line.split(' ').rev().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What .dockerignore lets through: the paths after `!`.
fn let_through() -> Vec<String> {
    let lines = read(".dockerignore");
    assert!(lines.lines().any(|line| line == "*"), "everything is kept out unless it is named");
    lines.lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect()
}

#[test]
fn what_is_copied_is_there_and_nothing_else_is_sent() {
    let copied = copied();
    assert!(copied.len() > 5);
    for path in &copied {
        assert!(root().join(path).exists(), "{path}");
    }
    let mut let_through = let_through();
    let mut copied = copied;
    let_through.sort();
    copied.sort();
    assert_eq!(copied, let_through);
}

#[test]
fn what_is_copied_makes_a_package() {
    let folder = tempfile::tempdir().unwrap();
    let copied = copied();
    for path in files(".").iter().filter(|path| copied.iter().any(|copied| Path::new(path).starts_with(copied))) {
        let target = folder.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(root().join(path), target).unwrap();
    }
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder.path()).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version",
        "1",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Files that the compiler reads besides.
    for source in files("src") {
        // What is for tests and for the documentation alone is not compiled there.
        let text = read(&source);
        let text = text.split("#[cfg(test)]").next().unwrap().split("#[cfg(doctest)]").next().unwrap();
        for included in text.split("include_str!(\"").skip(1).chain(text.split("include_bytes!(\"").skip(1)) {
            let path = Path::new(&source).parent().unwrap().join(included.split('"').next().unwrap());
            assert!(folder.path().join(&path).exists(), "{source} includes {path:?}, which the image's build has not");
        }
    }
}

/// They reach the allocator by the environment of its build alone, which a build elsewhere can easily lack.
#[cfg(feature = "jemalloc")]
#[test]
fn the_options_of_the_allocator_are_in_the_program_and_reach_the_image() {
    let config = read(".cargo/config.toml");
    let options = config.lines().find_map(|line| line.strip_prefix("JEMALLOC_SYS_WITH_MALLOC_CONF = ")).unwrap();
    let options = options.trim_matches('"').as_bytes();
    let program = std::fs::read(env!("CARGO_BIN_EXE_inferq")).unwrap();
    assert!(program.windows(options.len()).any(|window| window == options), "built without .cargo/config.toml");
    assert!(copied().contains(&".cargo".to_owned()));
}

#[test]
fn the_image_runs_as_nobody_in_particular() {
    let dockerfile = read("deploy/Dockerfile");
    let last = |word: &str| dockerfile.lines().rfind(|line| line.starts_with(word)).unwrap_or_default();
    assert_eq!(last("USER "), "USER 65532:65532");
    assert!(dockerfile.contains("HEALTHCHECK") && dockerfile.contains("\"health\"]"));
    for line in dockerfile.lines().filter(|line| line.starts_with("FROM ")) {
        assert!(line.contains(':') && !line.contains(":latest"), "{line}");
    }
    let minimum = env!("CARGO_PKG_RUST_VERSION");
    let builder = last_builder(&dockerfile);
    assert!(minor(builder) >= minor(minimum), "rust {builder} is older than {minimum}");
    let label = format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(dockerfile.contains(&label), "{label}");
}

fn last_builder(dockerfile: &str) -> &str {
    let (_, rest) = dockerfile.split_once("FROM rust:").unwrap();
    rest.split('-').next().unwrap()
}

/// 95 of `1.95`.
fn minor(version: &str) -> u32 {
    version.split('.').nth(1).unwrap().parse().unwrap()
}
