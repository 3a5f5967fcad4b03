//! A whole service in the process for tests: keys of two tenants, the reference model, the embedded broker, a worker.
//!
//! Used by `walk.rs` and `worker.rs`. Nothing leaves the process, and tokio's clock may be paused.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inferq::broker::memory::{MemoryBroker, MemoryConsumer, MemoryPublisher};
use inferq::broker::topology::Names;
use inferq::broker::{Address, Publisher, Queues};
use inferq::client::{Client, ClientSettings, reply_queue_name};
use inferq::envelope::{Grant, PendingReply, ProducerKeys, RequestDraft, UnixSeconds, generate};
use inferq::model::Wrap;
use inferq::protocol::body::EncodedBody;
use inferq::protocol::properties::Message;
use inferq::protocol::response::ResponseBody;
use inferq::settings::{Environment, LoadOptions, Override, Settings};
use inferq::worker::{Drained, Parts, Worker, run};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The tenant that may use every model.
pub const TENANT: &str = "acme";

pub struct House {
    pub settings: Settings,
    pub keys: ProducerKeys,
    pub names: Names,
    pub broker: MemoryBroker,
    pub parts: Parts,
    pub queues: Queues,
    folder: tempfile::TempDir,
}

/// A running worker and how to stop it.
pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
}

impl Running {
    pub async fn stop(self) -> Drained {
        drop(self.stop);
        self.task.await.unwrap()
    }
}

impl House {
    /// Keys, models and broker, with no worker yet. Must be called inside a runtime.
    pub fn build() -> Self {
        Self::build_with(Arc::new(|_, backend| backend), &[])
    }

    /// The same with `wrap` around the backend, and with more settings.
    pub fn build_with(wrap: Wrap, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path(), TENANT, &Grant::new(TENANT, vec!["*".into()])).unwrap();
        generate(folder.path(), "narrow", &Grant::new("narrow", vec!["other".into()])).unwrap();
        let settings = settings(folder.path(), more);
        let parts = Parts::load_with(&settings, wrap).unwrap();
        let (topology, queues) = parts.topology(&settings);
        Self {
            keys: ProducerKeys::load(folder.path(), TENANT).unwrap(),
            names: Names::new(&settings.broker.name_prefix),
            broker: MemoryBroker::new(&topology),
            settings,
            parts,
            queues,
            folder,
        }
    }

    /// The key ring's folder.
    pub fn ring(&self) -> &Path {
        self.folder.path()
    }

    pub fn keys_of(&self, tenant: &str) -> ProducerKeys {
        ProducerKeys::load(self.folder.path(), tenant).unwrap()
    }

    /// Starts a worker on the embedded broker.
    pub fn start(&self) -> Running {
        self.start_with(self.broker.publisher())
    }

    /// Starts a worker that publishes through `publisher`.
    pub fn start_with<P: Publisher>(&self, publisher: P) -> Running {
        let worker = Arc::new(Worker::new(&self.settings, self.parts.clone(), publisher));
        let consumer = self.broker.consumer(&self.queues, self.settings.broker.prefetch);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(run(worker, consumer, async {
            drop(stopped.await);
        }));
        Running { stop, task }
    }

    /// A client of the tenant.
    pub fn client(&self) -> Client<MemoryPublisher> {
        self.client_with(&self.keys)
    }

    /// A client with keys of its own.
    pub fn client_with(&self, keys: &ProducerKeys) -> Client<MemoryPublisher> {
        let (reply_queue, replies) = self.replies(keys);
        let settings = ClientSettings {
            audience: self.settings.service.audience.clone(),
            jobs_exchange: self.names.jobs_exchange(),
            reply_queue,
            lifetime: Duration::from_secs(300),
            max_pending: 10_000,
        };
        Client::new(settings, keys.clone(), self.broker.publisher(), replies)
    }

    /// A fresh reply queue and its consumer.
    pub fn replies(&self, keys: &ProducerKeys) -> (String, MemoryConsumer) {
        let queue = reply_queue_name(keys);
        self.broker.declare_reply_queue(&self.names.replies_exchange(), &queue);
        let consumer = self.broker.consumer(&vec![queue.clone()].into(), 1_000);
        (queue, consumer)
    }

    /// What a job of `model` says in its header.
    pub fn draft(&self, model: &str, reply_queue: &str) -> RequestDraft {
        let audience = &self.settings.service.audience;
        RequestDraft::new(model.parse().unwrap(), reply_queue, audience, Duration::from_secs(300))
    }

    /// Seals any JSON at all.
    pub fn seal(&self, draft: &RequestDraft, json: &str) -> (Message, PendingReply) {
        let body = EncodedBody { bytes: json.as_bytes().to_vec().into(), json_length: None };
        self.keys.seal_request(draft, &body, UnixSeconds::now()).unwrap()
    }

    /// The same with the keys of another tenant.
    pub fn seal_as(&self, keys: &ProducerKeys, draft: &RequestDraft, json: &str) -> Message {
        let body = EncodedBody { bytes: json.as_bytes().to_vec().into(), json_length: None };
        keys.seal_request(draft, &body, UnixSeconds::now()).unwrap().0
    }

    /// Publishes a message to the job queue of the reference model.
    pub async fn publish(&self, message: Message) {
        let address = Address::new(&self.names.jobs_exchange(), "topic");
        self.broker.publisher().publish(&address, message).await.unwrap();
    }

    /// What an authentic reply says.
    pub fn read(&self, pending: &PendingReply, message: &Message) -> ResponseBody {
        let opened = self.keys.open_reply(pending, message, UnixSeconds::now()).unwrap();
        ResponseBody::decode(&opened.plaintext, opened.json_length).unwrap()
    }
}

fn settings(keys: &Path, more: &[(&str, &str)]) -> Settings {
    let set = |key: &str, value: String| Override { key: key.into(), value, option: "test".into() };
    let mut overrides = vec![
        set("keys.directory", keys.display().to_string()),
        set("models.directory", concat!(env!("CARGO_MANIFEST_DIR"), "/models").into()),
        set("models.serve", "topic".into()),
        set("service.worker_id", "w-1".into()),
        set("broker.delivery_limit", "4".into()),
    ];
    overrides.extend(more.iter().map(|(key, value)| set(key, (*value).to_owned())));
    Settings::load_in(&LoadOptions { file: None, overrides }, &Environment::of([])).unwrap().0
}

/// Lets every task run until all of them wait: on a paused clock nothing else can move time.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
