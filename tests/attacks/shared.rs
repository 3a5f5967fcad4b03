//! Two workers with one Redis between them: a job is answered by one of them, whoever gets its copies, and by none where the
//! Redis is gone.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use inferq::backend::{Backend, BackendError};
use inferq::batch::row::{Batch, BatchOutput};
use inferq::broker::memory::{MemoryConsumer, MemoryPublisher};
use inferq::broker::{Address, Confirmed, Consumer, PublishError, Publisher};
use inferq::envelope::{JobIdentity, OpenPolicy, RequestDraft, UnixSeconds, open_request};
use inferq::limits::SHARED_REPLAY_LEASE;
use inferq::protocol::properties::Message;
use inferq::protocol::response::ResponseBody;
use inferq::worker::Parts;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::house::House;
use super::{code_of, text_request};

const PATIENCE: Duration = Duration::from_secs(60);
/// How often a job was retried because the guard did not say yes.
const RETRIED: &str = "inferq_jobs_retried_total{code=\"REPLAY_GUARD_UNAVAILABLE\"}";

/// A private redis-server on a socket in a folder of its own, ended when dropped.
struct Redis {
    folder: Option<TempDir>,
    server: Child,
}

impl Redis {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        tokio::task::spawn_blocking(|| {
            let mut server = Command::new("redis-server")
                .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
                .arg(folder.path().join("socket"))
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("redis-server: {error}; `make test` installs it"));
            let lines = BufReader::new(server.stdout.take().unwrap()).lines();
            let ready = lines.map_while(Result::ok).any(|line| line.contains("ready to accept connections"));
            assert!(ready, "redis-server ended while it started");
            Self { folder: Some(folder), server }
        })
        .await
        .unwrap()
    }

    /// Ends it; in its folder another can be started, which knows nothing.
    fn end(mut self) -> TempDir {
        self.folder.take().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("socket")
    }

    fn set(&self, key: &str, value: &str, lasts_ms: u64) {
        assert_eq!(self.ask(&["SET", key, value, "PX", &lasts_ms.to_string()]), "OK");
    }

    /// What stands under `key`; nothing where that is empty.
    fn get(&self, key: &str) -> String {
        self.ask(&["GET", key])
    }

    fn ask(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        let output = command.arg("-s").arg(self.socket()).args(words).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _either = self.server.kill();
        let _status = self.server.wait();
    }
}

/// A gate in front of every run.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn set(&self, is_open: bool) {
        *self.is_open.lock().unwrap() = is_open;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let passed = self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap();
        drop(passed);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A model whose runs wait for the gate.
struct Gated(Arc<dyn Backend>, Arc<Gate>);

impl Backend for Gated {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        self.1.pass();
        self.0.run(batch)
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        self.0.planned_shape(rows, length)
    }

    fn is_warm(&self, rows: usize, length: usize) -> bool {
        self.0.is_warm(rows, length)
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        self.0.prepare(rows, length)
    }
}

/// A house whose workers share a Redis.
fn house_with(redis: &Redis) -> House {
    let mut house = House::build();
    house.settings.worker.replay_redis_url = Some(redis.url().into());
    house.parts = Parts::load(&house.settings).unwrap();
    house
}

/// The same, and every run waits for the gate.
fn gated_house_with(redis: &Redis) -> (House, Arc<Gate>) {
    let (mut house, gate) = (house_with(redis), Arc::new(Gate::default()));
    // What is run to learn costs must not wait.
    gate.set(true);
    let wrapped = Arc::clone(&gate);
    let wrap = move |_: &str, backend| -> Arc<dyn Backend> { Arc::new(Gated(backend, Arc::clone(&wrapped))) };
    house.parts = Parts::load_with(&house.settings, Arc::new(wrap)).unwrap();
    (house, gate)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn next(replies: &mut MemoryConsumer) -> Message {
    timeout(PATIENCE, replies.next()).await.expect("a reply").unwrap().split().0
}

fn counter(house: &House, line: &str) -> u64 {
    let page = house.parts.metrics.exposition();
    page.lines().find_map(|found| found.strip_prefix(line)).map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn a_copy_that_comes_to_another_worker_is_not_answered_again() {
    let redis = Redis::start().await;
    let house = house_with(&redis);
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));

    let first = house.start();
    house.publish(message.clone()).await;
    until("an answer", || house.broker.peek(queue).len() == 1).await;
    first.stop().await;
    // The clock of another worker may be behind by the skew, and it takes an expired envelope for the skew once more.
    let skew = house.settings.limits.clock_skew;
    let least = Duration::from_secs(300) + skew * 2 - Duration::from_secs(5);
    let left: u64 = redis.ask(&["PTTL", &key(&house, &message)]).parse().unwrap();
    assert!(
        Duration::from_millis(left) > least,
        "the answer is remembered for {left} ms, {least:?} at least were needed"
    );
    // Another worker, which remembers nothing itself.
    let second = house.start();
    for _ in 0..3 {
        house.publish(message.clone()).await;
    }
    until("three copies", || counter(&house, "inferq_jobs_duplicate_total") == 3).await;
    second.stop().await;
    assert_eq!(house.broker.peek(queue).len(), 1);
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(0));
}

#[tokio::test]
async fn copies_that_two_workers_have_at_once_are_answered_once() {
    let redis = Redis::start().await;
    let house = house_with(&redis);
    let (one, other) = (house.start(), house.start());
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    for _ in 0..10 {
        let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
        for _ in 0..6 {
            house.publish(message.clone()).await;
        }
    }
    until("fifty copies", || counter(&house, "inferq_jobs_duplicate_total") == 50).await;
    one.stop().await;
    other.stop().await;
    assert_eq!(house.broker.peek(queue).len(), 10);
}

#[tokio::test]
async fn what_a_worker_died_with_is_run_by_another_and_nothing_without_the_redis() {
    let redis = Redis::start().await;
    let house = house_with(&redis);
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    // As if a worker had begun it and died: its claim stands for a while, and nobody renews it.
    let job = identity(&house, &message);
    let claim = format!("running {} {}", job.tag_digest(), "of-a-dead-worker");
    redis.set(&format!("inferq.replay:{}", job.name()), &claim, 2_000);
    let worker = house.start();
    let began = Instant::now();
    house.publish(message).await;
    let reply = next(&mut replies).await;
    assert!(matches!(house.read(&pending, &reply), ResponseBody::Result(_)));
    assert!(began.elapsed() > Duration::from_secs(1), "it was run beside another: {:?}", began.elapsed());

    // Another ciphertext under a message id that another worker has answered.
    let (message, _) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    let job = identity(&house, &message);
    redis.set(&format!("inferq.replay:{}", job.name()), "answered 00112233445566778899aabbccddeeff", 60_000);
    house.publish(message).await;
    let dead = house.names.dead_queue("topic");
    until("a dead letter", || house.broker.depth(&dead) == Some(1)).await;
    assert_eq!(code_of(&house.broker.peek(&dead)[0]), "REPLAY_CONFLICT");

    drop(redis);
    let queue = "acme.without-redis";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
    house.publish(message).await;
    until("a retry", || counter(&house, RETRIED) > 0).await;
    assert_eq!(house.broker.peek(queue).len(), 0, "nothing is answered");
    worker.stop().await;
}

#[tokio::test]
async fn what_another_worker_has_taken_meanwhile_is_not_answered_here() {
    let redis = Redis::start().await;
    let (mut house, gate) = gated_house_with(&redis);
    // Whoever lost the race has not tried: with one attempt less it would be a dead letter.
    house.settings.worker.max_attempts = 0;
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
    let job = identity(&house, &message);
    let worker = house.start();
    gate.set(false);
    house.publish(message).await;
    until("a run", || gate.waiting.load(Ordering::SeqCst) > 0).await;
    // As after a pause that outlasted the lease: the claim is another's.
    let claim = format!("running {} {}", job.tag_digest(), "of-another-worker");
    redis.set(&format!("inferq.replay:{}", job.name()), &claim, 60_000);
    gate.set(true);
    until("a retry", || counter(&house, RETRIED) == 1).await;
    assert_eq!(house.broker.peek(queue).len(), 0, "it was answered beside another");
    // The other has answered it.
    let record = format!("answered {}", job.tag_digest());
    redis.set(&format!("inferq.replay:{}", job.name()), &record, 60_000);
    until("a copy of an answered job", || counter(&house, "inferq_jobs_duplicate_total") == 1).await;
    worker.stop().await;
    assert_eq!(house.broker.peek(queue).len(), 0);
    assert_eq!(house.broker.depth(&house.names.dead_queue("topic")), Some(0));
}

/// Takes everything but replies.
struct NoReplies {
    inner: MemoryPublisher,
    exchange: String,
    tries: Arc<AtomicUsize>,
}

impl Publisher for NoReplies {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        if *address.exchange != *self.exchange {
            return self.inner.publish(address, message).await;
        }
        self.tries.fetch_add(1, Ordering::SeqCst);
        Err(PublishError::Unavailable("as told".into()))
    }
}

#[tokio::test]
async fn a_reply_is_not_published_again_once_another_worker_has_its_job() {
    let redis = Redis::start().await;
    let house = house_with(&redis);
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
    let (exchange, tries) = (house.names.replies_exchange(), Arc::new(AtomicUsize::new(0)));
    let publisher = NoReplies { inner: house.broker.publisher(), exchange, tries: Arc::clone(&tries) };
    let worker = house.start_with(publisher);
    house.publish(message.clone()).await;
    until("a try", || tries.load(Ordering::SeqCst) > 0).await;
    // As after a pause that outlasted the lease, between two tries: another has it, and answers it.
    let job = identity(&house, &message);
    let claim = format!("running {} {}", job.tag_digest(), "of-another-worker");
    redis.set(&key(&house, &message), &claim, 60_000);
    until("the job to go back", || counter(&house, RETRIED) == 1).await;
    let tried = tries.load(Ordering::SeqCst);
    redis.set(&key(&house, &message), &format!("answered {}", job.tag_digest()), 60_000);
    until("a copy of an answered job", || counter(&house, "inferq_jobs_duplicate_total") == 1).await;
    worker.stop().await;
    assert_eq!(tries.load(Ordering::SeqCst), tried);
    assert_eq!(house.broker.depth(&house.names.dead_queue("topic")), Some(0));
}

#[tokio::test]
async fn what_was_answered_after_its_envelope_ended_is_recorded_all_the_same() {
    let redis = Redis::start().await;
    let (mut house, gate) = gated_house_with(&redis);
    house.settings.limits.max_lifetime = Duration::from_secs(8);
    house.settings.limits.clock_skew = Duration::ZERO;
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let worker = house.start();
    gate.set(false);
    let draft = |seconds| RequestDraft { lifetime: Duration::from_secs(seconds), ..house.draft("topic", queue) };
    let (early, _) = house.seal(&draft(3), &text_request("hockey"));
    let its_key = key(&house, &early);
    house.publish(early).await;
    until("a run", || gate.waiting.load(Ordering::SeqCst) > 0).await;
    // Until the worker's own guard forgets it: a part of the longest life, once another job comes.
    let ends = UnixSeconds::now().plus(Duration::from_secs(6));
    until("the envelope's end", || UnixSeconds::now() > ends).await;
    let (late, _) = house.seal(&draft(8), &text_request("church"));
    house.publish(late.clone()).await;
    until("another job", || redis.get(&key(&house, &late)).starts_with("running")).await;
    gate.set(true);
    until("two answers", || house.broker.peek(queue).len() == 2).await;
    worker.stop().await;
    assert!(redis.get(&its_key).starts_with("answered"), "`{}` stands there", redis.get(&its_key));
}

#[tokio::test]
async fn what_a_job_held_whose_task_is_broken_off_is_given_back_to_its_ciphertext() {
    let redis = Redis::start().await;
    let (mut house, gate) = gated_house_with(&redis);
    house.settings.worker.drain_grace = Duration::from_millis(10);
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let draft = house.draft("topic", queue);
    let (first, _) = house.seal(&draft, &text_request("hockey"));
    let (second, _) = house.seal(&draft, &text_request("church"));
    let worker = house.start();
    gate.set(false);
    house.publish(first.clone()).await;
    until("a run", || gate.waiting.load(Ordering::SeqCst) > 0).await;
    assert_eq!(worker.stop().await.abandoned, 1);
    let stands = redis.get(&key(&house, &first));
    assert!(stands.starts_with("lost"), "`{stands}` stands there");
    gate.set(true);
    // The first is on its way when another ciphertext comes under its id, to a worker that knows neither.
    let mut elsewhere = house.broker.consumer(&vec![house.names.job_queue("topic")].into(), 1);
    let held = elsewhere.next().await.unwrap();
    let worker = house.start();
    house.publish(second).await;
    let dead = house.names.dead_queue("topic");
    until("a dead letter", || house.broker.depth(&dead) == Some(1)).await;
    assert_eq!(code_of(&house.broker.peek(&dead)[0]), "REPLAY_CONFLICT");
    drop((held, elsewhere));
    until("an answer to the first", || house.broker.peek(queue).len() == 1).await;
    worker.stop().await;
    assert_eq!(house.broker.depth(&dead), Some(1));
}

/// Panics at the first publish, as a fault of this program would.
struct Panicking(MemoryPublisher, AtomicBool);

impl Publisher for Panicking {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        assert!(self.1.swap(true, Ordering::SeqCst), "as told");
        self.0.publish(address, message).await
    }
}

#[tokio::test]
async fn what_a_job_held_whose_task_panics_is_given_back_at_once() {
    let redis = Redis::start().await;
    let house = house_with(&redis);
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    let worker = house.start_with(Panicking(house.broker.publisher(), AtomicBool::new(false)));
    let began = Instant::now();
    house.publish(message).await;
    let reply = next(&mut replies).await;
    assert!(matches!(house.read(&pending, &reply), ResponseBody::Result(_)));
    assert!(began.elapsed() < SHARED_REPLAY_LEASE * 2 / 3, "it waited for the lease to end: {:?}", began.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn what_ran_while_the_redis_went_away_is_answered_once_it_is_back() {
    let redis = Redis::start().await;
    let (mut house, gate) = gated_house_with(&redis);
    // However long the Redis is away, it is no attempt.
    house.settings.worker.max_attempts = 0;
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
    let worker = house.start();
    gate.set(false);
    house.publish(message).await;
    until("a run", || gate.waiting.load(Ordering::SeqCst) > 0).await;
    let folder = redis.end();
    gate.set(true);
    // The first came after the run, the second before one.
    until("a job that came back twice", || counter(&house, RETRIED) >= 2).await;
    assert_eq!(house.broker.peek(queue).len(), 0);
    let _redis = Redis::start_in(folder).await;
    until("an answer", || house.broker.peek(queue).len() == 1).await;
    worker.stop().await;
    assert_eq!(house.broker.depth(&house.names.dead_queue("topic")), Some(0));
}

#[tokio::test]
async fn a_redis_that_may_not_be_used_is_refused_and_its_password_is_not_shown() {
    let house = House::build();
    let refused = |url: &str| {
        let mut settings = house.settings.clone();
        settings.worker.replay_redis_url = Some(url.to_owned().into());
        Parts::load(&settings).err().map(|error| error.to_string())
    };
    assert_eq!(refused("redis://me:s3cret@127.0.0.1:1"), None, "it is asked when there is a job");
    assert_eq!(refused("redis://me:s3cret@[::1]:1"), None);
    let beyond = refused("redis://me:s3cret@redis.example:6379").unwrap();
    assert!(beyond.contains("beyond this machine"), "{beyond}");
    for url in ["rediss://me:s3cret@127.0.0.1:1", "s3cret", "http://me:s3cret@127.0.0.1"] {
        let error = refused(url).unwrap();
        assert!(error.contains("worker.replay_redis_url") && !error.contains("s3cret"), "{error}");
    }
}

/// Where the workers keep what is known of a job.
fn key(house: &House, message: &Message) -> String {
    format!("inferq.replay:{}", identity(house, message).name())
}

/// What the workers call a job among themselves.
fn identity(house: &House, message: &Message) -> JobIdentity {
    let limits = &house.settings.limits;
    let policy = OpenPolicy {
        audience: house.settings.service.audience.clone(),
        max_lifetime: limits.max_lifetime,
        clock_skew: limits.clock_skew,
        max_body_bytes: limits.max_body_bytes,
        max_plaintext_bytes: limits.max_plaintext_bytes,
    };
    JobIdentity::of(&open_request(&house.parts.keyring.current(), &policy, message, UnixSeconds::now()).unwrap())
}
