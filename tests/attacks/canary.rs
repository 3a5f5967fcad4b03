//! The canary: a marked string goes every way that a job can go, and must stand nowhere but in ciphertext and in the reply.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inferq::broker::memory::MemoryPublisher;
use inferq::broker::{Address, Confirmed, PublishError, Publisher};
use inferq::protocol::properties::Message;

use super::forge::StolenKey;
use super::house::{House, TENANT, settle};

/// Stands in texts, names, ids and labels that a tenant sends.
const CANARY: &str = "canaryQ7xk";
/// The password of a broker.
const PASSWORD: &str = "canaryPw93";

/// A page that everything is written to.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Panics at its first reply.
struct Panicking {
    inner: MemoryPublisher,
    has_panicked: AtomicBool,
}

impl Publisher for Panicking {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let is_reply = &*address.exchange == "inferq.replies";
        assert!(!is_reply || self.has_panicked.swap(true, Ordering::Relaxed), "as told");
        self.inner.publish(address, message).await
    }
}

/// Requests that hold the canary in every place that a tenant fills.
fn requests() -> Vec<String> {
    let long = format!("{CANARY} ").repeat(30_000);
    let input = |name: &str, text: &str| {
        serde_json::json!({"id": CANARY, "parameters": {CANARY: CANARY},
            "inputs": [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}],
            "outputs": [{"name": "label"}]})
        .to_string()
    };
    vec![
        input("text", &format!("hockey {CANARY}")),
        input("text", &long),
        input(CANARY, "x"),
        input("text", "x").replace("\"label\"", &format!("\"{CANARY}\"")),
        input("text", "x").replace("BYTES", CANARY),
        format!("{{\"inputs\": {CANARY}"),
        format!("{CANARY}"),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_a_tenant_sends_stands_in_no_log_metric_dead_letter_or_print_out() {
    let page = Page::default();
    let writer = page.clone();
    let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    lines.with_ansi(false).init();
    let hook = std::panic::take_hook();
    let panics = page.clone();
    std::panic::set_hook(Box::new(move |panic| {
        panics.0.lock().unwrap().extend_from_slice(format!("PANIC {panic}\n").as_bytes());
        hook(panic);
    }));

    let house = House::build();
    let publisher = Panicking { inner: house.broker.publisher(), has_panicked: AtomicBool::new(false) };
    let worker = house.start_with(publisher);
    let (queue, _replies) = house.replies(&house.keys);
    for json in requests() {
        let (message, _) = house.seal(&house.draft("topic", &queue), &json);
        house.publish(message.clone()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The same as a dead letter: forged, moved to another queue, with another ciphertext, without a reply queue.
        let mut forged = message.clone();
        forged.body = [&message.body[..message.body.len() - 1], b"-"].concat().into();
        house.publish(forged).await;
        let mut moved = message;
        moved.properties.reply_to = Some("acme.elsewhere".into());
        house.publish(moved).await;
        let (lost, _) = house.seal(&house.draft("topic", "acme.gone"), &json);
        house.publish(lost).await;
        settle().await;
    }
    let mut draft = house.draft("topic", &queue);
    draft.message_id = "twice".into();
    for text in ["one", "two"] {
        let json = super::text_request(&format!("{text} {CANARY}"));
        house.publish(house.seal(&draft, &json).0).await;
        settle().await;
    }
    worker.stop().await;

    let dead = house.broker.peek(&house.names.dead_queue("topic"));
    let kept = house.broker.peek(&house.names.undeliverable_queue());
    assert!(dead.len() > 10 && kept.len() > 5, "{} and {}: else nothing is shown", dead.len(), kept.len());
    let written = page.text();
    for part in ["TRACE", "DEBUG", "WARN", "PANIC", "dead letter", "answered with an error"] {
        assert!(written.contains(part), "{part} is missing: else nothing is shown");
    }
    let letters: String = dead.iter().chain(&kept).map(|letter| format!("{:?}", letter.properties)).collect();
    let bodies = dead.iter().chain(&kept).map(|letter| String::from_utf8_lossy(&letter.body).into_owned());
    let keys = format!("{:?} {:?} {:?}", house.keys, house.parts.keyring, house.settings);
    let metrics = house.parts.metrics.exposition();
    for (place, text) in [("log", written), ("letters", letters), ("bodies", bodies.collect()), ("keys", keys)]
        .into_iter()
        .chain([("metrics", metrics)])
    {
        assert!(!text.contains(CANARY), "{place}: {}", around(&text, CANARY));
        for file in ["request.jwk", "response.jwk"] {
            let material = StolenKey::read(house.ring(), TENANT, file).material();
            assert!(!text.contains(&material), "{place} holds a key");
        }
    }
}

/// What stands around a find.
fn around(text: &str, find: &str) -> String {
    let at = text.find(find).unwrap_or_default();
    text.get(at.saturating_sub(200)..at + find.len()).unwrap_or(text).to_owned()
}

#[test]
fn no_command_prints_a_password_or_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inferq"));
        command.args(arguments).env_clear().env("INFERQ__KEYS__DIRECTORY", folder.path());
        // Nobody listens at this port of loopback.
        command.env("INFERQ_AMQP_URL", format!("amqp://user:{PASSWORD}@127.0.0.1:9/%2f"));
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let made = run(&["keys", "generate", "--tenant", TENANT]);
    let material = StolenKey::read(folder.path(), TENANT, "request.jwk").material();
    let answer = StolenKey::read(folder.path(), TENANT, "response.jwk").material();
    let mut pages = vec![made];
    for arguments in [
        &["keys", "list", "--json"][..],
        &["keys", "check"],
        &["keys", "rotate", "--tenant", TENANT],
        &["config", "check"],
        &["config", "check", "--json"],
        &["topology", "apply"],
        &["--set", "broker.name_prefix=a b", "config", "check"],
        &["--set", "broker.heartbeat_s=0", "worker"],
        &["--log-filter", "trace", "topology", "apply"],
    ] {
        pages.push(run(arguments));
    }
    assert!(pages.iter().filter(|page| page.contains("127.0.0.1:9")).count() > 1, "else nothing is shown: {pages:?}");
    for page in pages {
        assert!(!page.contains(PASSWORD), "{page}");
        assert!(!page.contains(&material) && !page.contains(&answer), "a key is printed");
    }
}
