//! The service as its users run it: worker processes, a real RabbitMQ, `inferq submit`; and what happens when a worker dies,
//! a job is bad, a reply queue is gone, or nothing answers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use inferq::broker::amqp::pool::ChannelPool;
use inferq::broker::amqp::{self, Subscription};
use inferq::broker::topology::{Names, Topology};
use inferq::broker::{Address, Consumer, PublishError, Publisher};
use inferq::client::{Client, ClientError, Finished, Job, Window, connect};
use inferq::envelope::{Grant, ProducerKeys, RequestDraft, UnixSeconds, activate, add_next, export, generate, revoke};
use inferq::protocol::properties::Message;
use inferq::protocol::response::ResponseBody;
use inferq::settings::{Environment, LoadOptions, Override, Settings};
use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use support::rabbitmq::{Node, virtual_host};
use support::soon;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TENANT: &str = "acme";

/// A virtual host, keys, and the environment that makes every process use them.
struct Service {
    url: String,
    keys: tempfile::TempDir,
}

impl Service {
    async fn new() -> Self {
        Self::at(virtual_host().await.url().expose_secret().to_owned())
    }

    fn at(url: String) -> Self {
        let keys = tempfile::tempdir().unwrap();
        generate(keys.path(), TENANT, &Grant::new(TENANT, vec!["*".into()])).unwrap();
        Self { url, keys }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inferq"));
        command
            .env_clear()
            .env("INFERQ_AMQP_URL", &self.url)
            .env("INFERQ__KEYS__DIRECTORY", self.keys.path())
            .env("INFERQ__MODELS__DIRECTORY", format!("{ROOT}/models"))
            .env("INFERQ__BATCHING__EXECUTORS", "1")
            .current_dir(ROOT)
            .stdin(Stdio::null());
        command
    }

    fn settings(&self) -> Settings {
        let set = |key: &str, value: String| Override { key: key.into(), value, option: "test".into() };
        let overrides =
            vec![set("broker.url", self.url.clone()), set("keys.directory", self.keys.path().display().to_string())];
        Settings::load_in(&LoadOptions { file: None, overrides }, &Environment::of([])).unwrap().0
    }

    fn producer(&self) -> ProducerKeys {
        ProducerKeys::load(self.keys.path(), TENANT).unwrap()
    }

    async fn client(&self) -> Client<ChannelPool> {
        connect(&self.settings(), self.producer()).await.unwrap()
    }

    /// Starts a worker and waits until it consumes.
    async fn worker(&self) -> WorkerProcess {
        let worker = WorkerProcess::start(self.command());
        soon("a worker's readiness", worker.until_health_says("ready\n")).await;
        worker
    }

    async fn submit(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.arg("submit").args(arguments);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// The messages of a queue, taken one after the other.
    async fn take(&self, queue: &str, count: usize) -> Vec<Message> {
        let topology = Topology { exchanges: Vec::new(), queues: Vec::new() };
        let subscription =
            Subscription { topology, queues: vec![queue.to_owned()].into(), connection_name: "a test".into() };
        let (mut consumer, _connectivity) = amqp::consume(&self.settings().broker, subscription).unwrap();
        let mut taken = Vec::new();
        for _ in 0..count {
            let (message, receipt) = soon("a message", consumer.next()).await.unwrap().split();
            drop(receipt);
            taken.push(message);
        }
        taken
    }
}

/// A worker, killed when dropped.
struct WorkerProcess {
    child: Child,
    health: SocketAddr,
}

impl WorkerProcess {
    fn start(mut command: Command) -> Self {
        let health = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = command
            .arg("worker")
            .env("INFERQ__TELEMETRY__LISTEN", health.to_string())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, health }
    }

    /// Resolves when `inferq health` prints this.
    async fn until_health_says(&self, words: &str) {
        loop {
            let mut command = Command::new(env!("CARGO_BIN_EXE_inferq"));
            command.args(["health", "--address", &self.health.to_string()]);
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            if text(&[output.stdout, output.stderr].concat()).contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resolves when the page of metrics holds these words.
    async fn until_metrics_say(&self, words: &str) {
        loop {
            let mut page = String::new();
            let mut stream = TcpStream::connect(self.health).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n").await.unwrap();
            stream.read_to_string(&mut page).await.unwrap();
            if page.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and answers its exit code.
    async fn terminate(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended().await
    }

    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its exit code, when it has ended.
    async fn ended(mut self) -> Option<i32> {
        let waited = soon("the worker's end", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.code()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _either = self.child.kill();
        let _either = self.child.wait();
    }
}

fn topic_job(text: &str) -> Job {
    Job::texts("topic".parse().unwrap(), &[text])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_posts_are_classified_and_the_worker_stops_in_order() {
    let service = Service::new().await;
    let worker = service.worker().await;
    let output = service.submit(&["--jsonl", "models/topic/samples/posts.jsonl", "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let posts = std::fs::read_to_string(format!("{ROOT}/models/topic/samples/posts.jsonl")).unwrap();
    let (mut right, mut count) = (0, 0);
    for (post, reply) in posts.lines().zip(text(&output.stdout).lines()) {
        let (post, reply): (Value, Value) = (serde_json::from_str(post).unwrap(), serde_json::from_str(reply).unwrap());
        assert_eq!(post["id"], reply["id"], "replies are printed in the order of the posts");
        right += usize::from(post["label"] == reply["predictions"][0]["label"]);
        count += 1;
    }
    assert_eq!(count, 600);
    assert!(right >= 528, "{right} of 600 are right, at least 88 % were expected");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_evaluated_and_explained_through_its_workers() {
    let service = Service::new().await;
    let worker = service.worker().await;
    let posts = std::fs::read_to_string(format!("{ROOT}/models/topic/samples/posts.jsonl")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("posts.jsonl");
    std::fs::write(&data, posts.lines().take(100).collect::<Vec<_>>().join("\n")).unwrap();
    let evaluate = |more: &[&str]| {
        let mut command = service.command();
        command.args(["models", "evaluate", "--model", "topic", "--json", "--data"]).arg(&data).args(more);
        async move {
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        }
    };
    let (here, there) = (evaluate(&[]).await, evaluate(&["--broker", &service.url]).await);
    assert_eq!((&there["texts"], &there["errors"]), (&100.into(), &serde_json::json!({})));
    for figure in ["model", "accuracy", "macro_f1", "confusion"] {
        assert_eq!(here[figure], there[figure], "{figure}");
    }
    let output = service.submit(&["--explain", "the goalie stopped every shot"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("why recreation") && told.contains("  +") && told.contains("  goalie\n"), "{told}");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_loses_no_job() {
    const JOBS: usize = 400;
    let service = Service::new().await;
    let (survivor, mut victim) = (service.worker().await, service.worker().await);
    let client = service.client().await;
    let jobs = (0..JOBS).map(|_| topic_job("the goalie stopped every shot in overtime"));
    let window = Window { size: 100, limit: Duration::from_secs(30) };
    let mut answered = 0;
    client
        .submit_all(jobs, window, |one| {
            assert!(matches!(one.reply, Ok(ResponseBody::Result(_))), "{:?}", one.reply);
            answered += 1;
            if answered == 50 {
                victim.kill();
            }
        })
        .await;
    assert_eq!(answered, JOBS);
    client.close().await;
    assert_eq!(survivor.terminate().await, Some(0));
}

/// Jobs in a window, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(client: Client<ChannelPool>) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            let next = || (!is_over.load(Ordering::Relaxed)).then(|| topic_job("the goalie stopped every shot"));
            let window = Window { size: 50, limit: Duration::from_secs(60) };
            let mut failures = Vec::new();
            let on_each = |one: Finished| {
                count.fetch_add(1, Ordering::Relaxed);
                match one.reply {
                    Ok(ResponseBody::Result(_)) => {}
                    failed => failures.push(format!("{failed:?}")),
                }
            };
            client.submit_all(std::iter::from_fn(next), window, on_each).await;
            client.close().await;
            failures
        });
        Self { stop, ended, task }
    }

    /// Waits for further jobs.
    async fn goes_on(&self) {
        let goal = self.ended.load(Ordering::Relaxed) + 100;
        let reached = async {
            while self.ended.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("a hundred jobs", reached).await;
    }

    async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_renews_the_keys_under_load_and_no_job_is_lost() {
    let service = Service::new().await;
    let mut command = service.command();
    // It is told, and does not find out by itself.
    command.env("INFERQ__KEYS__RELOAD_INTERVAL_MS", "3600000");
    let worker = WorkerProcess::start(command);
    soon("a worker's readiness", worker.until_health_says("ready\n")).await;
    let renewed = async |times: usize| {
        worker.signal(Signal::HUP);
        let line = format!("inferq_keyring_reloads_total{{outcome=\"renewed\"}} {times}\n");
        soon("a renewed ring", worker.until_metrics_say(&line)).await;
    };
    let old = Load::start(service.client().await);
    old.goes_on().await;
    add_next(service.keys.path(), TENANT).unwrap();
    renewed(1).await;
    let handed_over = tempfile::tempdir().unwrap();
    export(service.keys.path(), TENANT, handed_over.path(), true).unwrap();
    let next = ProducerKeys::load(handed_over.path(), TENANT).unwrap();
    let new = Load::start(connect(&service.settings(), next).await.unwrap());
    new.goes_on().await;
    old.goes_on().await;
    assert_eq!(old.failures().await, [""; 0], "the old key while both are accepted");

    let late = service.client().await;
    let [old_request, _] = activate(service.keys.path(), TENANT, None).unwrap();
    renewed(2).await;
    new.goes_on().await;
    revoke(service.keys.path(), TENANT, &old_request).unwrap();
    renewed(3).await;
    new.goes_on().await;
    assert_eq!(new.failures().await, [""; 0], "the new key from the beginning");
    let _submitted = late.submit(&topic_job("with the revoked key")).await.unwrap();
    let letter = service.take(&Names::new("inferq").dead_queue("topic"), 1).await;
    assert_eq!(letter[0].properties.text_header("x-inferq-error"), Some("ENVELOPE_REJECTED"));
    late.close().await;
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_kept_with_its_reason_and_the_worker_goes_on() {
    let service = Service::new().await;
    let _worker = service.worker().await;
    let client = service.client().await;
    let names = Names::new("inferq");
    let publisher = ChannelPool::new(&service.settings().broker).unwrap();
    let jobs = Address::new(&names.jobs_exchange(), "topic");

    let mut message = Message { body: "hello".into(), ..Message::default() };
    message.properties.content_type = Some("application/jose".into());
    message.properties.message_id = Some("not-a-job".into());
    publisher.publish(&jobs, message).await.unwrap();
    let letters = service.take(&names.dead_queue("topic"), 1).await;
    assert_eq!(letters[0].properties.text_header("x-inferq-error"), Some("ENVELOPE_REJECTED"));
    assert_eq!(&*letters[0].body, b"hello");

    let draft = RequestDraft::new("topic".parse().unwrap(), "acme.gone", "inferq.v1", Duration::from_secs(60));
    let body = topic_job("hockey").request.encode().unwrap();
    let (message, pending) = service.producer().seal_request(&draft, &body, UnixSeconds::now()).unwrap();
    publisher.publish(&jobs, message).await.unwrap();
    let kept = service.take(&names.undeliverable_queue(), 1).await;
    assert_eq!(kept[0].properties.text_header("x-inferq-reply-queue"), Some("acme.gone"));
    assert!(service.producer().open_reply(&pending, &kept[0], UnixSeconds::now()).is_ok());

    let unserved = Job::texts("nosuch".parse().unwrap(), &["x"]);
    let refused = client.submit(&unserved).await.unwrap_err();
    assert!(matches!(refused, ClientError::UnknownModel(_)), "{refused:?}");
    let mut unasking = service.settings();
    unasking.discovery.answer_wait = None;
    let unasking = connect(&unasking, service.producer()).await.unwrap();
    let refused = unasking.submit(&unserved).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotPublished(PublishError::Returned { .. })), "{refused:?}");
    unasking.close().await;

    let good = client.predict(&topic_job("hockey"), Duration::from_secs(20)).await.unwrap();
    assert!(matches!(good, ResponseBody::Result(_)), "{good:?}");
    client.close().await;
    publisher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_exit_codes() {
    let service = Service::new().await;
    let _worker = service.worker().await;
    let empty = service.submit(&["..."]).await;
    assert_eq!(empty.status.code(), Some(1), "{}", text(&empty.stderr));
    assert!(
        text(&empty.stdout).contains("INVALID_INPUT: row 0 of input `text` has no word"),
        "{}",
        text(&empty.stdout)
    );

    let nobody = service.submit(&["hello", "--set", "broker.url=amqp://u:canary-4711@127.0.0.1:1/%2f"]).await;
    assert_eq!(nobody.status.code(), Some(4));
    let words = text(&nobody.stderr);
    assert!(words.contains("no broker answers at amqp://u@127.0.0.1:1") && words.contains("help: "), "{words}");
    assert!(!words.contains("canary"), "the password is shown: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_broker_waits_and_says_so() {
    let service = Service::new().await;
    let mut command = service.command();
    command.env("INFERQ_AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f");
    let worker = WorkerProcess::start(command);
    let words = "not ready: no broker answers at amqp://guest@127.0.0.1:1";
    soon("its word", worker.until_health_says(words)).await;
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_worker_at_once() {
    let node = Node::start().await;
    for second in [Signal::TERM, Signal::INT] {
        let service = Service::at(node.fresh_vhost().url().expose_secret().to_owned());
        let worker = service.worker().await;
        // The first alone would wait for the broker's word that no more jobs come.
        node.freeze().await;
        worker.signal(Signal::TERM);
        soon("draining", worker.until_health_says("not ready: draining")).await;
        worker.signal(second);
        assert_eq!(worker.ended().await, Some(130));
        node.thaw().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_cut_short_is_refused_at_the_start() {
    let service = Service::new().await;
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("topic/1");
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(Path::new(ROOT).join("models/topic/1")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let whole = std::fs::read(folder.join("model.onnx")).unwrap();
    std::fs::write(folder.join("model.onnx"), &whole[..whole.len() / 2]).unwrap();
    let mut command = service.command();
    command.arg("worker").env("INFERQ__MODELS__DIRECTORY", models.path()).env("INFERQ__TELEMETRY__LISTEN", "");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("changed or cut short"), "{}", text(&output.stderr));
}

/// There are two dead letters of the model `topic`, which name no tenant, and two undeliverable replies of the tenant.
async fn filters_take_what_fits<F: Future<Output = String>>(letters: &impl Fn(&[&str]) -> F) {
    for (filter, fitting) in [
        (&["--model", "topic"][..], 2),
        (&["--model", "identity"], 0),
        (&["--code", "REPLAY_CONFLICT"], 0),
        (&["--older-than-s", "3600"], 0),
        (&["--tenant", "acme"], 0),
        (&["--undeliverable", "--tenant", "acme"], 2),
        (&["--undeliverable", "--tenant", "other"], 0),
        (&["--undeliverable", "--code", "REPLY_UNDELIVERABLE", "--older-than-s", "0"], 2),
    ] {
        let listed = letters(&[&["list", "--json"], filter].concat()).await;
        let found: Vec<Value> = serde_json::from_str(&listed).unwrap();
        assert_eq!(found.len(), fitting, "{filter:?}: {listed}");
    }
    assert_eq!(letters(&["replay", "--dry-run"]).await, "2 would be sent again\n");
    assert_eq!(letters(&["replay", "--undeliverable", "--dry-run"]).await, "2 would be sent again\n");
    assert_eq!(letters(&["purge", "--undeliverable", "--tenant", "other", "--yes"]).await, "0 deleted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_replays_and_purges_letters() {
    let service = Service::new().await;
    let _worker = service.worker().await;
    let settings = service.settings();
    let names = Names::new("inferq");
    let letters = |arguments: &[&str]| {
        let mut command = service.command();
        command.arg("dead-letter").args(arguments);
        async move {
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout)
        }
    };
    let undeliverable = async |count: usize| loop {
        let found: Vec<Value> = serde_json::from_str(&letters(&["list", "--undeliverable", "--json"]).await).unwrap();
        if found.len() == count {
            return found;
        }
    };
    let publisher = ChannelPool::new(&settings.broker).unwrap();
    let jobs = Address::new(&names.jobs_exchange(), "topic");
    for id in ["first", "second"] {
        let mut message = Message { body: "hello".into(), ..Message::default() };
        message.properties.message_id = Some(id.into());
        publisher.publish(&jobs, message).await.unwrap();
    }
    let body = topic_job("hockey").request.encode().unwrap();
    let sealed_for = |queue: &str| {
        let draft = RequestDraft::new("topic".parse().unwrap(), queue, "inferq.v1", Duration::from_secs(60));
        service.producer().seal_request(&draft, &body, UnixSeconds::now()).unwrap()
    };
    publisher.publish(&jobs, sealed_for("acme.gone").0).await.unwrap();
    soon("a reply that nobody took", undeliverable(1)).await;
    let queue = "acme.later";
    let (message, pending) = sealed_for(queue);
    publisher.publish(&jobs, message).await.unwrap();
    soon("another", undeliverable(2)).await;
    publisher.close().await;

    let found = soon("two dead letters", async {
        loop {
            let found: Vec<Value> = serde_json::from_str(&letters(&["list", "--json"]).await).unwrap();
            if found.len() == 2 {
                return found;
            }
        }
    });
    // Two jobs of one worker fail in any order.
    let mut found = found.await;
    found.sort_by_key(|letter| letter["message_id"].to_string());
    assert_eq!((&found[0]["message_id"], &found[0]["code"]), (&"first".into(), &"ENVELOPE_REJECTED".into()));
    let shown: Value = serde_json::from_str(&letters(&["show", "second"]).await).unwrap();
    assert_eq!(shown["body_bytes"], 5);

    filters_take_what_fits(&letters).await;
    assert_eq!(letters(&["purge", "--id", "first", "--dry-run"]).await, "1 would be deleted\n");
    assert_eq!(letters(&["purge", "--id", "first", "--yes"]).await, "1 deleted\n");
    // What is no envelope is none the second time either.
    assert_eq!(letters(&["replay", "--code", "ENVELOPE_REJECTED"]).await, "1 sent again\n");
    soon("its return", async { while !letters(&["list"]).await.contains("second") {} }).await;

    // The older reply, whose queue stays away, does not stand in the way of the younger.
    amqp::apply(&settings.broker, &Topology::for_replies(&names, queue)).await.unwrap();
    let mut command = service.command();
    command.args(["dead-letter", "replay", "--undeliverable", "--tenant", "acme"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let words = text(&output.stderr);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("1 sent again\n", Some(1)), "{words}");
    assert!(words.contains("1 letters have no place to go and stay where they are: returned as unroutable"), "{words}");
    let reply = service.take(queue, 1).await.remove(0);
    assert!(service.producer().open_reply(&pending, &reply, UnixSeconds::now()).is_ok());
    assert_eq!(soon("what stays", undeliverable(1)).await[0]["reply_queue"], "acme.gone");
}

#[tokio::test]
async fn the_bench_measures_on_a_real_broker() {
    let service = Service::new().await;
    let arms = ["bench", "--broker", "--arms", "adaptive,single", "--no-twin", "--loads", "1", "--seed", "5"];
    let ran = service
        .command()
        .args(arms)
        .args(["--blocks", "1", "--block-ms", "300", "--json", "-", "--quiet"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(found["run"]["broker"], "real");
    for arm in found["loads"][0]["arms"].as_array().unwrap() {
        assert!(arm["jobs_per_s"].as_f64().unwrap() > 0.0 && arm["failed"] == serde_json::json!({}), "{arm}");
    }
}

/// What `inferq models list --remote` prints for this tenant: the replicas of `topic`.
async fn replicas(service: &Service, tenant: &str) -> Option<u64> {
    let mut command = service.command();
    command.args(["models", "list", "--remote", "--tenant", tenant, "--json"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let models: Value = serde_json::from_slice(&output.stdout).unwrap();
    let topic = models.as_array().unwrap().iter().find(|model| model["name"] == "topic")?;
    assert_eq!(topic["versions"][0]["inputs"][0]["name"], "text");
    assert_eq!(topic["versions"][0]["label_count"], 5);
    topic["replicas"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_tell_which_models_they_serve_and_unknown_ones_are_refused_at_once() {
    let service = Service::new().await;
    generate(service.keys.path(), "foreign", &Grant::new("foreign", vec!["other".into()])).unwrap();
    let (first, second) = (service.worker().await, service.worker().await);
    soon("two replicas", async { while replicas(&service, TENANT).await != Some(2) {} }).await;
    assert_eq!(replicas(&service, "foreign").await, None, "a tenant without a grant is told of a model");

    let refused = service.submit(&["--tenant", TENANT, "--model", "topik", "x"]).await;
    let words = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("no worker serves a model `topik` for this tenant; served are `topic`"), "{words}");
    let version = service.submit(&["--tenant", TENANT, "--model", "topic:9", "x"]).await;
    assert!(text(&version.stderr).contains("model `topic` has no version 9; it has 1"), "{}", text(&version.stderr));
    let unasked = service.submit(&["--tenant", TENANT, "--model", "topic:9", "--no-discovery", "--json", "x"]).await;
    assert!(text(&unasked.stdout).contains("UNKNOWN_MODEL"), "the worker answers: {}", text(&unasked.stdout));

    assert_eq!(first.terminate().await, Some(0));
    assert_eq!(replicas(&service, TENANT).await, Some(1), "it has said goodbye");
    let answered = service.submit(&["--tenant", TENANT, "the goalie stopped every shot"]).await;
    assert!(answered.status.success() && text(&answered.stdout).contains("recreation"), "{}", text(&answered.stderr));
    assert_eq!(second.terminate().await, Some(0));
}
