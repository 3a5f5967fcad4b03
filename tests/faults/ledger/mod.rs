//! Every job by its message id: published and confirmed, answered how often, kept where.
//!
//! `reader` enters the replies, `account` adds everything up when a row is over. Two different bodies for one job are two
//! replies, since each seal is unlike every other; the same body twice is one reply that the broker handed out again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use inferq::broker::amqp::apply;
use inferq::broker::amqp::pool::ChannelPool;
use inferq::broker::topology::{Argument, Names, Topology};
use inferq::broker::{Address, Publisher};
use inferq::client::{Job, reply_queue_name};
use inferq::envelope::{PendingReply, ProducerKeys, RequestDraft, UnixSeconds};
use inferq::protocol::properties::HEADER_DEADLINE_MS;
use inferq::protocol::request::InferInput;
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::Settings;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::misdeeds;
use super::stand::MODEL;

mod account;
mod reader;

pub use account::Account;

/// How long the ledger waits for the next reply before it takes the missing ones for lost: more than a retry's pause or a
/// worker's grace, on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(45);
/// Between two attempts to reach a broker that is away.
const PAUSE: Duration = Duration::from_millis(50);
const PUBLISHES_AT_ONCE: usize = 8;

/// What a job is, and so what has to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is answered with its result.
    Sound,
    /// It is published twice, and answered with the same result each time.
    Twice,
    /// Its deadline is over before a worker sees it: its producer is told so, and it is not run.
    Late,
    /// The backend panics on it: its producer is told that the inference failed.
    Panicking,
    /// The process dies of it: a dead letter once its deliveries are used up.
    Aborting,
    /// Its run never ends, until the worker is replaced: a dead letter once its deliveries are used up.
    Hanging,
    /// One bit of its body was changed on the way: a dead letter.
    Garbled,
    /// Sealed with the keys of another ring: a dead letter.
    Foreign,
    /// No envelope at all: a dead letter.
    Garbage,
}

impl Kind {
    /// Whether somebody has to be answered.
    const fn is_answered(self) -> bool {
        match self {
            Self::Sound | Self::Twice | Self::Late | Self::Panicking => true,
            Self::Aborting | Self::Hanging | Self::Garbled | Self::Foreign | Self::Garbage => false,
        }
    }

    /// Whether the process that runs it ends.
    const fn ends_processes(self) -> bool {
        match self {
            Self::Aborting | Self::Hanging => true,
            Self::Sound
            | Self::Twice
            | Self::Late
            | Self::Panicking
            | Self::Garbled
            | Self::Foreign
            | Self::Garbage => false,
        }
    }

    /// How often it is published.
    const fn copies(self) -> usize {
        match self {
            Self::Twice => 2,
            Self::Sound
            | Self::Late
            | Self::Panicking
            | Self::Aborting
            | Self::Hanging
            | Self::Garbled
            | Self::Foreign
            | Self::Garbage => 1,
        }
    }

    /// The first element of its input, where that does something to whoever runs it.
    const fn mark(self) -> Option<f32> {
        match self {
            Self::Panicking => Some(misdeeds::PANIC),
            Self::Aborting => Some(misdeeds::ABORT),
            Self::Hanging => Some(misdeeds::HANG),
            Self::Sound | Self::Twice | Self::Late | Self::Garbled | Self::Foreign | Self::Garbage => None,
        }
    }
}

/// A job and what became of it.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    pending: PendingReply,
    input: Vec<f32>,
    confirmed: Option<Instant>,
    first_reply: Option<Instant>,
    replies: HashSet<Vec<u8>>,
    /// Its reply is not read by the ledger, but goes to a queue that the row does something to.
    elsewhere: bool,
    /// Its reply was in its queue when that was deleted.
    swallowed: bool,
}

#[derive(Debug, Default)]
struct Book {
    jobs: HashMap<String, Entry>,
    answered: usize,
    /// Replies that answer no job of this ledger, or not with the job's own input.
    wrong: usize,
}

/// The jobs of a row.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
    names: Names,
    keys: ProducerKeys,
    /// Of the same tenant, and in no worker's key ring.
    foreign_keys: ProducerKeys,
    publisher: ChannelPool,
    reply_queue: String,
    book: Arc<Mutex<Book>>,
    answered: watch::Receiver<usize>,
    reading: JoinHandle<()>,
}

impl Ledger {
    /// Declares a reply queue, with replicas where there are several nodes, and reads it.
    pub async fn open(settings: &Settings, keys: ProducerKeys, foreign_keys: ProducerKeys, replicated: bool) -> Self {
        let reply_queue = reply_queue_name(&keys);
        let names = Names::new(&settings.broker.name_prefix);
        let mut topology = Topology::for_replies(&names, &reply_queue);
        if replicated {
            let quorum = ("x-queue-type", Argument::Text("quorum".to_owned()));
            topology.queues.iter_mut().for_each(|queue| queue.arguments = vec![quorum.clone()]);
        }
        apply(&settings.broker, &topology).await.unwrap();
        let book = Arc::new(Mutex::new(Book::default()));
        let (news, answered) = watch::channel(0);
        let reader = reader::Reader::new(keys.clone(), Arc::clone(&book), news);
        let reading = tokio::spawn(reader.read(settings.broker.url.expose_secret().to_owned(), reply_queue.clone()));
        let publisher = ChannelPool::new(&settings.broker).unwrap();
        let settings = settings.clone();
        Self { settings, names, keys, foreign_keys, publisher, reply_queue, book, answered, reading }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// A name for a further reply queue of the tenant; nobody reads it.
    pub fn another_reply_queue(&self) -> String {
        reply_queue_name(&self.keys)
    }

    /// Jobs that have a reply.
    pub fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    /// Jobs that the broker has confirmed.
    pub fn confirmed(&self) -> usize {
        self.book().jobs.values().filter(|entry| entry.confirmed.is_some()).count()
    }

    /// Resolves when `count` jobs have a reply, or when no more come.
    pub async fn until_answered(&self, count: usize) {
        let mut answered = self.answered.clone();
        while *answered.borrow_and_update() < count {
            if !matches!(timeout(PATIENCE, answered.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Publishes `count` sound jobs, several at once.
    pub async fn publish_burst(&self, count: usize) {
        self.publish_all(vec![Kind::Sound; count]).await;
    }

    /// Publishes a job of each of `kinds`, several at once.
    pub async fn publish_all(&self, kinds: Vec<Kind>) {
        let publish = |kind| async move { drop(self.publish_confirmed(kind).await) };
        stream::iter(kinds).for_each_concurrent(PUBLISHES_AT_ONCE, publish).await;
    }

    /// Publishes fresh jobs until the broker confirms one, whose id this is; `None` when it confirms none in time.
    pub async fn publish_confirmed(&self, kind: Kind) -> Option<String> {
        let confirmed = async {
            loop {
                if let Some(id) = self.publish_as(kind).await {
                    return id;
                }
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, confirmed).await.ok()
    }

    /// Publishes one job; its id once the broker has confirmed it. A job that is not confirmed is owed nothing.
    async fn publish_as(&self, kind: Kind) -> Option<String> {
        let jobs = Address::new(&self.names.jobs_exchange(), MODEL);
        self.publish_at(kind, &self.reply_queue, &jobs).await
    }

    /// The same, to be answered on `reply_queue`, which the ledger does not read.
    pub async fn publish_for(&self, reply_queue: &str) -> Option<String> {
        let jobs = Address::new(&self.names.jobs_exchange(), MODEL);
        self.publish_at(Kind::Sound, reply_queue, &jobs).await
    }

    /// Publishes a sound job where a worker puts its dead letters.
    async fn publish_dead(&self) -> Option<String> {
        self.publish_at(Kind::Sound, &self.reply_queue, &self.names.dead(MODEL)).await
    }

    /// The same, `count` times, several at once.
    pub async fn publish_dead_burst(&self, count: usize) {
        let publish = |_| async { drop(self.publish_dead().await) };
        stream::iter(0..count).for_each_concurrent(PUBLISHES_AT_ONCE, publish).await;
    }

    async fn publish_at(&self, kind: Kind, reply_queue: &str, address: &Address) -> Option<String> {
        let audience = &self.settings.service.audience;
        let lifetime = self.settings.limits.max_lifetime;
        let draft = RequestDraft::new(MODEL.parse().unwrap(), reply_queue, audience, lifetime);
        let id = draft.message_id.clone();
        let mut input = input_of(&id);
        if let Some(mark) = kind.mark() {
            input[0] = mark;
        }
        let tensor = Tensor::new(vec![1, 4], TensorData::Fp32(input.clone())).unwrap();
        let inputs = vec![InferInput { name: "x".to_owned(), tensor, binary_data: false }];
        let body = Job::tensors(MODEL.parse().unwrap(), inputs).request.encode().unwrap();
        let keys = if kind == Kind::Foreign { &self.foreign_keys } else { &self.keys };
        let (mut message, pending) = keys.seal_request(&draft, &body, UnixSeconds::now()).unwrap();
        match kind {
            Kind::Late => {
                let over = i64::try_from(UnixSeconds::now().0 * 1_000).unwrap() - 1_000;
                message.properties.headers.insert(HEADER_DEADLINE_MS.to_owned(), over.into());
            }
            Kind::Garbled => message.body = garbled(&message.body).into(),
            Kind::Garbage => message.body = "no envelope".into(),
            Kind::Sound | Kind::Twice | Kind::Panicking | Kind::Aborting | Kind::Hanging | Kind::Foreign => {}
        }
        let entry = Entry {
            kind,
            pending,
            input,
            confirmed: None,
            first_reply: None,
            replies: HashSet::new(),
            elsewhere: reply_queue != self.reply_queue,
            swallowed: false,
        };
        self.book().jobs.insert(id.clone(), entry);
        for _ in 0..kind.copies() {
            self.publisher.publish(address, message.clone()).await.ok()?;
        }
        self.book().jobs.get_mut(&id).unwrap().confirmed = Some(Instant::now());
        Some(id)
    }

    /// How long after `since` each job was first answered that was answered later.
    pub fn answered_after(&self, since: Instant) -> Vec<Duration> {
        let book = self.book();
        let replies = book.jobs.values().filter_map(|entry| entry.first_reply);
        replies.filter_map(|at| at.checked_duration_since(since)).collect()
    }

    /// From the confirm of job `id` to its first reply.
    pub fn latency(&self, id: &str) -> Option<Duration> {
        let book = self.book();
        let entry = book.jobs.get(id)?;
        Some(entry.first_reply?.saturating_duration_since(entry.confirmed?))
    }

    /// The reply to job `id` was in its queue when that was deleted.
    pub fn swallowed(&self, id: &str) {
        self.book().jobs.get_mut(id).unwrap().swallowed = true;
    }

    /// When the first reply of job `id` came; `None` when none does.
    pub async fn reply_to(&self, id: &str) -> Option<Instant> {
        let mut answered = self.answered.clone();
        let came = async {
            loop {
                let at = self.book().jobs.get(id).and_then(|entry| entry.first_reply);
                if at.is_some() {
                    return at;
                }
                answered.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, came).await.ok().flatten()
    }

    /// Waits until every confirmed job has the reply that it is owed, or no more come.
    pub async fn settle(&self) {
        let mut answered = self.answered.clone();
        while self.awaits_replies() {
            if !matches!(timeout(PATIENCE, answered.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn awaits_replies(&self) -> bool {
        let waits = |entry: &Entry| {
            entry.confirmed.is_some() && entry.kind.is_answered() && !entry.elsewhere && entry.first_reply.is_none()
        };
        self.book().jobs.values().any(waits)
    }

    /// Stops reading and closes the connections.
    pub async fn close(self) {
        self.reading.abort();
        self.publisher.close().await;
    }
}

/// `body` with one bit of its middle changed.
fn garbled(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    body
}

/// An input like no other job's, so that a swapped answer is seen. No element is negative: that is for [`misdeeds`].
fn input_of(id: &str) -> Vec<f32> {
    let digits: Vec<u8> = id.bytes().filter(u8::is_ascii_hexdigit).collect();
    // From the random end of the id; six digits are exact in an f32.
    digits
        .rchunks(5)
        .take(4)
        .map(|chunk| chunk.iter().fold(0.0, |sum, byte| sum * 16.0 + f32::from(byte % 16)))
        .collect()
}
