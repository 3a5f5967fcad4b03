//! Workers tell which models they serve, on the embedded broker and a paused clock: who hears it, when, and what a client makes of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod house;

use std::sync::Arc;
use std::time::Duration;

use house::{House, TENANT, settle};
use inferq::broker::memory::{MemoryBroker, MemoryPublisher};
use inferq::broker::topology::Topology;
use inferq::broker::{Address, PublishError, Publisher, Queues};
use inferq::client::{Client, ClientError, Discovery, DiscoverySource, Job, RemoteModel, announcement_queue_name};
use inferq::envelope::ProducerKeys;
use inferq::protocol::properties::{HEADER_TENANT, HeaderValue, Message, Properties};
use inferq::worker::Announcer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_millis(500);

/// A worker that announces, and how it is told to go.
struct Announcing {
    stop: oneshot::Sender<()>,
    task: JoinHandle<MemoryPublisher>,
}

impl Announcing {
    fn start(house: &House) -> Self {
        let announcer = Announcer::new(&house.settings, &house.parts, INTERVAL, house.broker.publisher());
        let queue = announcer.query_queue();
        house.broker.declare(&Topology::for_queries(&house.names, &queue));
        let queries = house.broker.consumer(&Queues::from(vec![queue]), 16);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(announcer.run(queries, async { drop(stopped.await) }));
        Self { stop, task }
    }

    async fn leave(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }

    /// Ends without a word, as a process does that is killed.
    async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Hears what the tenant of `keys` is told.
fn hear(house: &House, keys: &ProducerKeys) -> Discovery<MemoryPublisher> {
    let queue = announcement_queue_name(keys);
    house.broker.declare(&Topology::for_announcements(&house.names, &queue, keys.tenant()));
    let announcements = house.broker.consumer(&Queues::from(vec![queue]), 16);
    let audience = house.settings.service.audience.clone();
    let source = DiscoverySource { names: house.names.clone(), audience, wait: WAIT };
    Discovery::start(source, keys.clone(), house.broker.publisher(), announcements)
}

fn client(house: &House) -> Client<MemoryPublisher> {
    house.client().with_discovery(hear(house, &house.keys))
}

fn replicas(models: &[RemoteModel], name: &str) -> usize {
    models.iter().find(|model| model.name == name).map_or(0, |model| model.replicas)
}

fn job(model: &str) -> Job {
    Job::texts(model.parse().unwrap(), &["the goalie stopped every shot"])
}

#[tokio::test(start_paused = true)]
async fn two_workers_are_two_replicas_and_one_that_goes_is_gone_at_once() {
    let house = House::build();
    let (first, second) = (Announcing::start(&house), Announcing::start(&house));
    let discovery = hear(&house, &house.keys);
    let models = discovery.list().await;
    assert_eq!(models.len(), 1, "the house serves one model: {models:?}");
    let topic = &models[0];
    assert_eq!((topic.name.as_str(), topic.replicas, topic.versions.len()), ("topic", 2, 1));
    let told = &topic.versions[0].told;
    assert_eq!((told.version, told.inputs[0].name.as_str(), told.label_count), (1, "text", 5));
    assert!(told.labels.contains(&"recreation".to_owned()) && told.outputs.contains(&"label".to_owned()));
    first.leave().await;
    assert_eq!(replicas(&discovery.list().await, "topic"), 1);
    second.leave().await;
    assert!(discovery.list().await.is_empty());
    discovery.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_is_gone_after_three_silent_intervals() {
    let house = House::build();
    let (first, second) = (Announcing::start(&house), Announcing::start(&house));
    let discovery = hear(&house, &house.keys);
    assert_eq!(replicas(&discovery.list().await, "topic"), 2);
    first.die().await;
    tokio::time::sleep(INTERVAL).await;
    assert_eq!(replicas(&discovery.list().await, "topic"), 2, "one interval says nothing yet");
    tokio::time::sleep(INTERVAL * 4).await;
    assert_eq!(replicas(&discovery.list().await, "topic"), 1, "the other has gone on to be heard");
    second.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_is_answered_at_once_and_many_questions_with_few_words() {
    let house = House::build();
    let worker = Announcing::start(&house);
    tokio::time::sleep(INTERVAL / 2).await;
    let late = client(&house);
    let began = Instant::now();
    late.check_model(&"topic".parse().unwrap()).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(50), "{:?}", began.elapsed());

    // Another reader of the tenant counts the words.
    let queue = announcement_queue_name(&house.keys);
    house.broker.declare(&Topology::for_announcements(&house.names, &queue, TENANT));
    for _ in 0..200 {
        ask(&house.broker, &house.names.query(), TENANT).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let words = house.broker.depth(&queue).unwrap();
    assert!((2..=7).contains(&words), "{words} words for 200 questions within a second");
    worker.leave().await;
}

async fn ask(broker: &MemoryBroker, address: &Address, tenant: &str) {
    let headers = [(HEADER_TENANT.to_owned(), HeaderValue::Text(tenant.to_owned()))].into();
    let message = Message { body: bytes::Bytes::new(), properties: Properties { headers, ..Properties::default() } };
    broker.publisher().publish(address, message).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_tenant_hears_of_its_own_grant_alone_and_cannot_read_what_others_are_told() {
    let house = House::build();
    let worker = Announcing::start(&house);
    let narrow = house.keys_of("narrow");
    let discovery = hear(&house, &narrow);
    assert!(discovery.list().await.is_empty(), "its grant reaches no model that is served");

    // It listens where the other tenant is told: the broker's permissions do not stop that, the keys do.
    let queue = announcement_queue_name(&narrow);
    house.broker.declare(&Topology::for_announcements(&house.names, &queue, TENANT));
    ask(&house.broker, &house.names.query(), TENANT).await;
    tokio::time::sleep(WAIT).await;
    let overheard = house.broker.peek(&queue);
    assert!(!overheard.is_empty());
    for message in overheard {
        let now = inferq::envelope::UnixSeconds::now();
        assert!(narrow.open_announcement("inferq.v1", &message, now).is_err());
        assert!(house.keys.open_announcement("inferq.v1", &message, now).is_ok());
        let seen = String::from_utf8_lossy(&message.body).into_owned();
        assert!(!seen.contains("recreation") && !seen.contains("topic"), "the broker sees a schema");
    }
    // Nobody is told because a tenant asks that there is not.
    ask(&house.broker, &house.names.query(), "nobody").await;
    worker.leave().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_tampered_with_or_comes_again_changes_nothing() {
    let house = House::build();
    let queue = announcement_queue_name(&house.keys);
    house.broker.declare(&Topology::for_announcements(&house.names, &queue, TENANT));
    let worker = Announcing::start(&house);
    settle().await;
    let words = house.broker.peek(&queue);
    worker.leave().await;
    let goodbye = house.broker.peek(&queue).pop().unwrap();
    let discovery = hear(&house, &house.keys);
    let address = house.names.announcement(TENANT);
    let publish = async |message: &Message| house.broker.publisher().publish(&address, message.clone()).await.unwrap();

    let mut body = words[0].body.to_vec();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    let tampered = Message { body: body.into(), properties: words[0].properties.clone() };
    publish(&tampered).await;
    publish(&Message { body: b"no envelope".to_vec().into(), properties: Properties::default() }).await;
    assert!(discovery.list().await.is_empty());

    publish(&words[0]).await;
    assert_eq!(replicas(&discovery.list().await, "topic"), 1, "else the rest of this test says nothing");
    publish(&goodbye).await;
    publish(&words[0]).await;
    assert!(discovery.list().await.is_empty(), "a word from before the goodbye, published again");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_model_is_refused_before_anything_is_published() {
    let house = House::build();
    let (worker, announcing) = (house.start(), Announcing::start(&house));
    let client = client(&house);
    client.predict(&job("topic"), Duration::from_secs(30)).await.unwrap();
    let began = Instant::now();
    for (model, words) in [
        ("topics", "no worker serves a model `topics` for this tenant; served are `topic`"),
        ("topic:9", "model `topic` has no version 9; it has 1"),
    ] {
        let refused = client.submit(&job(model)).await.unwrap_err();
        assert_eq!(refused, ClientError::UnknownModel(words.to_owned()));
    }
    assert!(began.elapsed() <= WAIT * 3, "{:?}", began.elapsed());
    announcing.leave().await;
    // The workers restart: what was there is not unknown, its jobs wait in their queue.
    client.submit(&job("topic")).await.unwrap();
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_announces_jobs_go_as_they_did_and_only_the_first_waits() {
    let house = House::build();
    let client = client(&house);
    let began = Instant::now();
    let submitted = client.submit(&job("topic:9")).await.unwrap();
    assert!(began.elapsed() >= WAIT, "it was waited for an answer");
    let began = Instant::now();
    assert!(matches!(
        client.submit(&job("nosuch")).await,
        Err(ClientError::NotPublished(PublishError::Returned { .. }))
    ));
    assert!(began.elapsed() < WAIT, "nobody is waited for twice");
    drop(submitted);
    // Whoever begins to announce later is heard all the same.
    let worker = Announcing::start(&house);
    settle().await;
    assert!(matches!(client.submit(&job("nosuch")).await, Err(ClientError::UnknownModel(_))));
    worker.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_at_once() {
    let house = House::build();
    let queue = announcement_queue_name(&house.keys);
    house.broker.declare(&Topology::for_announcements(&house.names, &queue, TENANT));
    let worker = Announcing::start(&house);
    settle().await;
    assert_eq!(house.broker.depth(&queue), Some(1), "the first word, unasked");
    Arc::clone(&house.parts.changes).notify_one();
    settle().await;
    assert_eq!(house.broker.depth(&queue), Some(2));
    worker.leave().await;
    assert_eq!(house.broker.depth(&queue), Some(3), "the goodbye");
}

#[tokio::test(start_paused = true)]
async fn nothing_fills_up_where_nobody_reads() {
    let house = House::build();
    let queue = announcement_queue_name(&house.keys);
    house.broker.declare(&Topology::for_announcements(&house.names, &queue, TENANT));
    let queries = house.names.query_queue("sleeper");
    house.broker.declare(&Topology::for_queries(&house.names, &queries));
    for _ in 0..2_000 {
        ask(&house.broker, &house.names.query(), TENANT).await;
        ask(&house.broker, &house.names.announcement(TENANT), TENANT).await;
    }
    assert_eq!((house.broker.depth(&queries), house.broker.depth(&queue)), (Some(64), Some(1_024)));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((house.broker.depth(&queries), house.broker.depth(&queue)), (Some(0), Some(0)));
    // A queue ends with its reader.
    drop(house.broker.consumer(&Queues::from(vec![queue.clone()]), 1));
    assert_eq!(house.broker.depth(&queue), None);
}
