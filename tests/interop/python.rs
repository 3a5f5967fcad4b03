//! A Python with the client's pinned requirements, in an environment of its own under `target/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

static PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// Runs Python in `clients/python` with `arguments` and, beside the test's own, `environment`.
pub(crate) async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = client_folder();
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    tokio::task::spawn_blocking(move || {
        let mut command = Command::new(PYTHON.get_or_init(|| install("python", &folder.join("requirements.txt"))));
        command.env_remove("INFERQ_AMQP_URL").env("PYTHONPATH", &folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(arguments).envs(environment).current_dir(folder).stdin(Stdio::null()).output().unwrap()
    })
    .await
    .unwrap()
}

/// What a process wrote.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn client_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// Makes the environment `name`, unless one with exactly these requirements is there; answers its interpreter.
pub(crate) fn install(name: &str, requirements: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(requirements).unwrap();
    let installed = folder.join("installed-requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|there| there == wanted) {
        return python;
    }
    eprintln!("installing {} into {}", requirements.display(), folder.display());
    must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    must(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements));
    std::fs::write(installed, wanted).unwrap();
    python
}

/// Runs `command`, which must succeed.
pub(crate) fn must(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}
