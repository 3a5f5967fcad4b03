//! Keys that change while jobs are under way: nothing fails, and what is refused is refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use inferq::broker::memory::MemoryPublisher;
use inferq::client::{Client, Job};
use inferq::envelope::{Grant, ProducerKeys, activate, add_next, export, generate, revoke};
use inferq::protocol::response::ResponseBody;
use inferq::worker::{KeyReload, follow_keys};
use tokio::task::JoinHandle;

use super::code_of;
use super::house::{House, TENANT, settle};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_rotation_under_load_fails_no_job() {
    let house = House::build();
    let worker = house.start();
    let (_reload, follower) = follow(&house);
    let old = Load::start(house.client());
    old.go_on(10).await;

    add_next(house.ring(), TENANT).unwrap();
    reloaded(&house, "renewed", 1).await;
    old.go_on(10).await;
    let handed_over = tempfile::tempdir().unwrap();
    export(house.ring(), TENANT, handed_over.path(), true).unwrap();
    let new = Load::start(house.client_with(&ProducerKeys::load(handed_over.path(), TENANT).unwrap()));
    new.go_on(10).await;
    assert_eq!(old.failures().await, 0, "the old key while both are accepted");

    let [old_request, _] = activate(house.ring(), TENANT, None).unwrap();
    reloaded(&house, "renewed", 2).await;
    new.go_on(10).await;
    revoke(house.ring(), TENANT, &old_request).unwrap();
    reloaded(&house, "renewed", 3).await;
    new.go_on(10).await;
    assert_eq!(new.failures().await, 0, "the new key from the beginning");

    let (queue, _replies) = house.replies(&house.keys);
    let (late, _) = house.seal(&house.draft("topic", &queue), &super::text_request("hockey"));
    house.publish(late).await;
    settle().await;
    worker.stop().await;
    follower.abort();
    let letters = house.broker.peek(&house.names.dead_queue("topic"));
    assert_eq!((letters.len(), code_of(&letters[0])), (1, "ENVELOPE_REJECTED"), "the revoked key alone");
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_cannot_be_read_changes_nothing_until_it_can() {
    let house = House::build();
    let worker = house.start();
    let (reload, follower) = follow(&house);
    settle().await;
    let grant = house.ring().join("acme/tenant.toml");
    let text = std::fs::read_to_string(&grant).unwrap();
    std::fs::write(&grant, "models = nonsense").unwrap();
    reload.ask();
    reloaded(&house, "refused", 1).await;
    let job = Job::texts("topic".parse().unwrap(), &["hockey"]);
    let client = house.client();
    assert!(matches!(client.predict(&job, LIMIT).await.unwrap(), ResponseBody::Result(_)), "the old ring serves on");
    std::fs::write(&grant, text).unwrap();
    reload.ask();
    reloaded(&house, "renewed", 1).await;
    assert!(matches!(client.predict(&job, LIMIT).await.unwrap(), ResponseBody::Result(_)));
    worker.stop().await;
    follower.abort();
}

#[tokio::test(start_paused = true)]
async fn a_new_tenant_is_served_and_a_removed_one_is_not() {
    let house = House::build();
    let worker = house.start();
    let (_reload, follower) = follow(&house);
    settle().await;
    generate(house.ring(), "late", &Grant::new("late", vec!["topic".into()])).unwrap();
    reloaded(&house, "renewed", 1).await;
    let keys = house.keys_of("late");
    let job = Job::texts("topic".parse().unwrap(), &["hockey"]);
    let client = house.client_with(&keys);
    assert!(matches!(client.predict(&job, LIMIT).await.unwrap(), ResponseBody::Result(_)));
    std::fs::remove_dir_all(house.ring().join("late")).unwrap();
    reloaded(&house, "renewed", 2).await;
    assert!(client.predict(&job, Duration::from_secs(5)).await.is_err(), "nobody answers");
    worker.stop().await;
    follower.abort();
    assert_eq!(code_of(&house.broker.peek(&house.names.dead_queue("topic"))[0]), "ENVELOPE_REJECTED");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_has_the_rate_of_its_grant() {
    let house = House::build();
    let grant = Grant { max_jobs_per_second: Some(3), ..Grant::new(TENANT, vec!["*".into()]) };
    std::fs::write(house.ring().join("acme/tenant.toml"), toml::to_string(&grant).unwrap()).unwrap();
    let (reload, follower) = follow(&house);
    settle().await;
    reload.ask();
    reloaded(&house, "renewed", 1).await;
    let worker = house.start();
    let client = house.client();
    let job = Job::texts("topic".parse().unwrap(), &["hockey"]);
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(match client.predict(&job, LIMIT).await.unwrap() {
            ResponseBody::Result(_) => "OK".to_owned(),
            ResponseBody::Error(error) => error.code,
        });
    }
    assert_eq!(codes, ["OK", "OK", "OK", "RATE_LIMITED", "RATE_LIMITED"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(client.predict(&job, LIMIT).await.unwrap(), ResponseBody::Result(_)), "a second later");
    worker.stop().await;
    follower.abort();
}

/// Has the worker's ring follow its files.
fn follow(house: &House) -> (KeyReload, JoinHandle<()>) {
    let reload = KeyReload::default();
    let (keyring, metrics) = (Arc::clone(&house.parts.keyring), Arc::clone(&house.parts.metrics));
    (reload.clone(), tokio::spawn(follow_keys(house.settings.keys.clone(), keyring, metrics, reload)))
}

fn reloads(house: &House, outcome: &str) -> u64 {
    let page = house.parts.metrics.exposition();
    let name = format!("inferq_keyring_reloads_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

/// Waits until the ring was read `times` times.
async fn reloaded(house: &House, outcome: &str, times: u64) {
    for _ in 0..1_000 {
        if reloads(house, outcome) >= times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the ring was not read");
}

/// Jobs one after another, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: JoinHandle<usize>,
}

impl Load {
    fn start(client: Client<MemoryPublisher>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let job = Job::texts("topic".parse().unwrap(), &["hockey"]);
            let mut failures = 0;
            while !is_over.load(Ordering::Relaxed) {
                let answer = client.predict(&job, LIMIT).await;
                failures += usize::from(!matches!(answer, Ok(ResponseBody::Result(_))));
                count.fetch_add(1, Ordering::Relaxed);
                // Lets the paused clock go on, which nothing moves while somebody works.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            failures
        });
        Self { stop, done, task }
    }

    /// Waits for further `jobs`.
    async fn go_on(&self, jobs: usize) {
        let goal = self.done.load(Ordering::Relaxed) + jobs;
        while self.done.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn failures(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
