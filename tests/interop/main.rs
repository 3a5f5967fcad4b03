//! Producers in other languages against the worker: what Rust seals they open, what they seal Rust opens.
//!
//! Needs `python3` with venv and, once, a package index: the pinned requirements go into an environment under `target/`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod others;
mod python;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inferq::envelope::{Grant, Keyring, OpenPolicy, UnixSeconds, generate, open_request};
use inferq::protocol::properties::{HeaderValue, Message, Properties};
use inferq::protocol::request::{InferenceRequest, RequestBounds};
use inferq::protocol::tensor::TensorData;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use support::certificates::Authority;
use support::rabbitmq::{Node, virtual_host};
use support::soon;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test]
async fn python_opens_what_rust_sealed() {
    for tests in ["test_envelope.py", "test_discovery.py"] {
        let output = python::run(&["-m", "unittest", "discover", "-s", "tests", "-p", tests], &[]).await;
        assert!(output.status.success(), "{}", python::said(&output));
    }
}

#[tokio::test]
async fn rust_opens_what_python_sealed() {
    let output = python::run(&["tests/seal_one.py"], &[]).await;
    assert!(output.status.success(), "{}", python::said(&output));
    assert_sealed(String::from_utf8(output.stdout).unwrap().lines());
}

#[tokio::test]
async fn jose_in_javascript_opens_every_vector_and_rust_opens_what_it_seals() {
    assert_sealed(others::sealed(&others::jose().await).iter().map(String::as_str));
}

#[tokio::test]
async fn jwcrypto_in_python_opens_every_vector_and_rust_opens_what_it_seals() {
    assert_sealed(others::sealed(&others::jwcrypto().await).iter().map(String::as_str));
}

/// Opens the two requests that each of the other programs seals: a text, and a tensor in raw bytes.
fn assert_sealed<'a>(lines: impl Iterator<Item = &'a str>) {
    let requests: Vec<InferenceRequest> = lines.map(open).collect();
    let elements: Vec<&TensorData> = requests.iter().map(|request| request.inputs[0].tensor.elements()).collect();
    let expected = [&TensorData::Bytes(vec!["schöne Grüße".into()]), &TensorData::Int16(vec![1, -1])];
    assert_eq!(elements, expected);
}

/// Opens a line that one of the programs printed.
fn open(line: &str) -> InferenceRequest {
    let sealed: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| sealed[name].as_str().unwrap().to_owned();
    let headers = sealed["headers"].as_object().unwrap();
    let message = Message {
        body: unhex(&text("body_hex")).into(),
        properties: Properties {
            content_type: Some(text("content_type")),
            message_id: Some(text("message_id")),
            correlation_id: Some(text("correlation_id")),
            reply_to: Some(text("reply_to")),
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), HeaderValue::Integer(value.as_i64().unwrap())))
                .collect(),
            ..Properties::default()
        },
    };
    let policy = OpenPolicy {
        audience: "inferq.v1".into(),
        max_lifetime: Duration::from_secs(300),
        clock_skew: Duration::from_secs(60),
        max_body_bytes: 10_000,
        max_plaintext_bytes: 10_000,
    };
    let folder = vector_keys();
    let ring = Keyring::load(folder.path()).unwrap();
    let opened = open_request(&ring, &policy, &message, UnixSeconds::now()).unwrap();
    InferenceRequest::decode(&opened.plaintext, opened.json_length, &RequestBounds { max_rows: 4 }).unwrap()
}

/// A key ring of the keys that the vectors are sealed with.
fn vector_keys() -> tempfile::TempDir {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let text = std::fs::read_to_string(Path::new(ROOT).join("tests/vectors/keys.json")).unwrap();
    let keys: Value = serde_json::from_str(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tenant = folder.path().join("acme");
    std::fs::create_dir(&tenant).unwrap();
    std::fs::write(tenant.join("tenant.toml"), "models = [\"*\"]\nreply_prefix = \"acme.\"\n").unwrap();
    for name in ["request", "response"] {
        let path = tenant.join(format!("{name}.jwk"));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        write!(file, "{}", keys[format!("{name}_jwk")]).unwrap();
    }
    folder
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn a_python_client_gets_its_answers_from_a_worker() {
    let url = virtual_host().await.url().expose_secret().to_owned();
    let keys = tempfile::tempdir().unwrap();
    generate(keys.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
    let _worker = WorkerProcess::start(&url, keys.path()).await;
    let folder = keys.path().display().to_string();
    let environment = [("INFERQ_AMQP_URL", url.as_str()), ("INFERQ_TEST_KEYS", folder.as_str())];

    let tests = python::run(&["-m", "unittest", "discover", "-s", "tests", "-p", "test_worker.py"], &environment).await;
    let said = python::said(&tests);
    assert!(tests.status.success() && said.contains("Ran 8 tests") && !said.contains("skipped"), "{said}");

    let arguments = ["submit.py", "--keys", &folder, "--tenant", "acme", "--json", "the goalie stopped every shot"];
    let submitted = python::run(&arguments, &environment).await;
    let answer: Value = serde_json::from_slice(&submitted.stdout).unwrap_or_default();
    assert_eq!(answer["label"][0], "recreation", "{}", python::said(&submitted));

    let documented = python::run(&["-c", &documented_example(&url, &folder)], &[]).await;
    assert!(python::said(&documented).contains("'data': ['recreation']"), "{}", python::said(&documented));

    let unserved = ["submit.py", "--keys", &folder, "--tenant", "acme", "--model", "nosuch", "x"];
    assert_eq!(python::run(&unserved, &environment).await.status.code(), Some(4));
    let stranger = ["submit.py", "--keys", &folder, "--tenant", "nobody", "x"];
    assert_eq!(python::run(&stranger, &environment).await.status.code(), Some(3));
}

#[tokio::test]
async fn a_python_client_and_a_worker_meet_over_tls() {
    let authority = Authority::new();
    let node = Node::start_with_tls(authority.folder(), true).await;
    let (certificate, key) = authority.sign("shown.pem", "shown.key", "shown");
    let [ca, certificate, key] = [authority.ca_file(), certificate, key].map(|path| path.display().to_string());
    let keys = tempfile::tempdir().unwrap();
    generate(keys.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
    let folder = keys.path().display().to_string();
    let url = format!("amqps://guest:guest@localhost:{}/t1", node.tls_port());
    let settings = [
        ("INFERQ__BROKER__TLS_CA_FILE", ca.as_str()),
        ("INFERQ__BROKER__TLS_CERTIFICATE_FILE", certificate.as_str()),
        ("INFERQ__BROKER__TLS_KEY_FILE", key.as_str()),
    ];
    let _worker = WorkerProcess::start_with(&url, keys.path(), &settings).await;

    let submit = ["submit.py", "--amqp-url", &url, "--keys", &folder, "--tenant", "acme", "--json"];
    let text = ["the goalie stopped every shot"];
    let tls = ["--ca-file", &ca, "--certificate-file", &certificate, "--key-file", &key];
    let submitted = python::run(&[&submit[..], &tls, &text].concat(), &[]).await;
    let answer: Value = serde_json::from_slice(&submitted.stdout).unwrap_or_default();
    assert_eq!(answer["label"][0], "recreation", "{}", python::said(&submitted));

    // The authorities of the system have not signed the broker's certificate.
    let refused = python::run(&[&submit[..], &text].concat(), &[]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", python::said(&refused));
    let plain = ["submit.py", "--amqp-url", "amqp://a:b@broker.invalid/", "--keys", &folder, "--tenant", "acme", "x"];
    let refused = python::run(&plain, &[]).await;
    assert!(python::said(&refused).contains("beyond this machine"), "{}", python::said(&refused));
}

/// The example in `docs/wire-protocol.md` that uses none of the client's modules, with this broker and these keys.
fn documented_example(url: &str, keys: &str) -> String {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/wire-protocol.md")).unwrap();
    let (_, rest) = page.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let changed =
        example.replace("amqp://guest:guest@127.0.0.1:5672/", url).replace("keys/acme", &format!("{keys}/acme"));
    assert!(changed.contains(url) && changed.contains(keys), "the example names another broker or other keys");
    changed
}

/// A worker, killed when dropped.
struct WorkerProcess(Child);

impl WorkerProcess {
    /// Starts it and waits until it consumes.
    async fn start(url: &str, keys: &Path) -> Self {
        Self::start_with(url, keys, &[]).await
    }

    async fn start_with(url: &str, keys: &Path, environment: &[(&str, &str)]) -> Self {
        let health = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_inferq"))
            .arg("worker")
            .env_clear()
            .env("INFERQ_AMQP_URL", url)
            .env("INFERQ__KEYS__DIRECTORY", keys)
            .env("INFERQ__MODELS__DIRECTORY", format!("{ROOT}/models"))
            .env("INFERQ__BATCHING__EXECUTORS", "1")
            .env("INFERQ__TELEMETRY__LISTEN", &health)
            .envs(environment.iter().copied())
            .current_dir(ROOT)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let worker = Self(child);
        soon("a worker's readiness", async {
            while !is_ready(&health).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        worker
    }
}

async fn is_ready(health: &str) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inferq"));
    command.args(["health", "--address", health]);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap().status.success()
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _either = self.0.kill();
        let _status = self.0.wait();
    }
}
