//! Two JOSE libraries beside the client's own: jose in JavaScript, jwcrypto in Python. Each opens every vector, and seals two
//! requests. Their packages go, pinned, into folders of their own under `target/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::python::{install, must, said};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

/// The folder of `name`'s program.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// Runs the program of jose; needs `node` and `npm`.
pub(crate) async fn jose() -> Output {
    tokio::task::spawn_blocking(|| {
        let (from, to) = (folder("javascript"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("javascript"));
        std::fs::create_dir_all(&to).unwrap();
        let wanted = std::fs::read_to_string(from.join("package.json")).unwrap();
        let is_there = std::fs::read_to_string(to.join("installed.json")).is_ok_and(|there| there == wanted);
        for file in ["package.json", "interop.mjs"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
        if !is_there {
            let arguments = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
            must(Command::new("npm").args(arguments).current_dir(&to));
            std::fs::write(to.join("installed.json"), wanted).unwrap();
        }
        Command::new("node").args(["interop.mjs", VECTORS]).current_dir(&to).stdin(Stdio::null()).output().unwrap()
    })
    .await
    .unwrap()
}

/// Runs the program of jwcrypto.
pub(crate) async fn jwcrypto() -> Output {
    tokio::task::spawn_blocking(|| {
        let python = install("jwcrypto", &folder("jwcrypto").join("requirements.txt"));
        let program = folder("jwcrypto").join("interop.py");
        Command::new(python).arg(program).arg(VECTORS).stdin(Stdio::null()).output().unwrap()
    })
    .await
    .unwrap()
}

/// What such a program has sealed, one line each; it must have opened every vector.
pub(crate) fn sealed(output: &Output) -> Vec<String> {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    for vector in ["request-text", "request-tensor", "reply-text", "reply-tensor", "reply-error"] {
        assert!(said.contains(&format!("opened {vector}")), "{said}");
    }
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}
