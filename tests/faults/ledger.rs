//! Every job by its message id: published and confirmed, answered how often, kept where.
//!
//! Replies are read with lapin itself, acknowledged only when they are entered, so that no reply is missed. Each seal of a
//! reply is unlike every other: two different bodies for one job are two replies, the same body twice is one reply that
//! the broker handed out again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use inferq::broker::amqp::apply;
use inferq::broker::amqp::letters::LetterBox;
use inferq::broker::amqp::pool::ChannelPool;
use inferq::broker::topology::{Names, Topology};
use inferq::broker::{Address, Publisher};
use inferq::client::{Job, reply_queue_name};
use inferq::envelope::{PendingReply, ProducerKeys, RequestDraft, UnixSeconds};
use inferq::error::ErrorCode;
use inferq::protocol::properties::{HEADER_DEADLINE_MS, HEADER_ERROR, HEADER_FAILED_ATTEMPT, Message, Properties};
use inferq::protocol::request::InferInput;
use inferq::protocol::response::ResponseBody;
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::Settings;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::stand::MODEL;

/// How long the ledger waits for the next reply before it takes the missing ones for lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it listens for duplicates when everything is answered.
const QUIET: Duration = Duration::from_secs(1);
/// Between two attempts to reach a broker that is away.
const PAUSE: Duration = Duration::from_millis(50);
const PUBLISHES_AT_ONCE: usize = 8;
const REPLY_PREFETCH: u16 = 500;

/// What a job is, and so what has to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is answered with its result.
    Sound,
    /// Its deadline is over before a worker sees it: its producer is told so, and it is not run.
    Late,
    /// One bit of its body was changed on the way: a dead letter.
    Garbled,
    /// Sealed with the keys of another ring: a dead letter.
    Foreign,
    /// No envelope at all: a dead letter.
    Garbage,
}

impl Kind {
    /// Whether nobody may be answered.
    const fn is_spoiled(self) -> bool {
        match self {
            Self::Sound | Self::Late => false,
            Self::Garbled | Self::Foreign | Self::Garbage => true,
        }
    }
}

/// A job and what became of it.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    pending: PendingReply,
    input: Vec<f32>,
    confirmed: bool,
    first_reply: Option<Instant>,
    replies: HashSet<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Book {
    jobs: HashMap<String, Entry>,
    answered: usize,
    /// Replies that answer no job of this ledger, or not with the job's own input.
    wrong: usize,
}

/// What became of all jobs of a row.
#[derive(Debug, Default)]
pub struct Account {
    /// Jobs that the broker confirmed.
    pub jobs: usize,
    /// Ids with neither a reply nor a letter.
    pub lost: Vec<String>,
    /// Replies beyond the first of their job.
    pub duplicates: usize,
    /// Replies that are not authentic, answer no job, or do not hold what the job asked for.
    pub wrong: usize,
    /// Dead letters of jobs that deserve none.
    pub innocent_dead: usize,
    /// Spoiled jobs that are not exactly one dead letter with a reason, after one attempt.
    pub badly_kept: usize,
    /// Undeliverable replies.
    pub undeliverable: usize,
    /// Jobs that are still in the queue.
    pub left: u32,
}

/// The jobs of a row.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
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
    /// Declares a reply queue and reads it.
    pub async fn open(settings: &Settings, keys: ProducerKeys, foreign_keys: ProducerKeys) -> Self {
        let reply_queue = reply_queue_name(&keys);
        let names = Names::new(&settings.broker.name_prefix);
        apply(&settings.broker, &Topology::for_replies(&names, &reply_queue)).await.unwrap();
        let book = Arc::new(Mutex::new(Book::default()));
        let (news, answered) = watch::channel(0);
        let reader = Reader { keys: keys.clone(), book: Arc::clone(&book), news };
        let reading = tokio::spawn(reader.read(settings.broker.url.expose_secret().to_owned(), reply_queue.clone()));
        let publisher = ChannelPool::new(&settings.broker).unwrap();
        Self { settings: settings.clone(), keys, foreign_keys, publisher, reply_queue, book, answered, reading }
    }

    /// Jobs that have a reply.
    pub fn answered(&self) -> usize {
        *self.answered.borrow()
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
        let audience = &self.settings.service.audience;
        let lifetime = self.settings.limits.max_lifetime;
        let draft = RequestDraft::new(MODEL.parse().unwrap(), &self.reply_queue, audience, lifetime);
        let id = draft.message_id.clone();
        let input = input_of(&id);
        let tensor = Tensor::new(vec![1, 4], TensorData::Fp32(input.clone())).unwrap();
        let inputs = vec![InferInput { name: "x".to_owned(), tensor, binary_data: false }];
        let body = Job::tensors(MODEL.parse().unwrap(), inputs).request.encode().unwrap();
        let keys = if kind == Kind::Foreign { &self.foreign_keys } else { &self.keys };
        let (mut message, pending) = keys.seal_request(&draft, &body, UnixSeconds::now()).unwrap();
        match kind {
            Kind::Sound | Kind::Foreign => {}
            Kind::Late => {
                let over = i64::try_from(UnixSeconds::now().0 * 1_000).unwrap() - 1_000;
                message.properties.headers.insert(HEADER_DEADLINE_MS.to_owned(), over.into());
            }
            Kind::Garbled => message.body = garbled(&message.body).into(),
            Kind::Garbage => message.body = "no envelope".into(),
        }
        let entry = Entry { kind, pending, input, confirmed: false, first_reply: None, replies: HashSet::new() };
        self.book.lock().unwrap().jobs.insert(id.clone(), entry);
        let jobs = Address::new(&Names::new(&self.settings.broker.name_prefix).jobs_exchange(), MODEL);
        self.publisher.publish(&jobs, message).await.ok()?;
        self.book.lock().unwrap().jobs.get_mut(&id).unwrap().confirmed = true;
        Some(id)
    }

    /// When the first reply of job `id` came; `None` when none does.
    pub async fn reply_to(&self, id: &str) -> Option<Instant> {
        let mut answered = self.answered.clone();
        let came = async {
            loop {
                let at = self.book.lock().unwrap().jobs.get(id).and_then(|entry| entry.first_reply);
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
        let waits = |entry: &Entry| entry.confirmed && !entry.kind.is_spoiled() && entry.first_reply.is_none();
        self.book.lock().unwrap().jobs.values().any(waits)
    }

    /// Accounts for every job. Call it when no worker runs any more, so that nothing is under way.
    pub async fn account(&self) -> Account {
        sleep(QUIET).await;
        let names = Names::new(&self.settings.broker.name_prefix);
        let dead = self.letters(&names.dead_queue(MODEL)).await;
        let undeliverable = self.letters(&names.undeliverable_queue()).await;
        let left = LetterBox::open(&self.settings.broker, &names.job_queue(MODEL)).await.unwrap();
        let mut account = Account {
            wrong: self.book.lock().unwrap().wrong,
            undeliverable: undeliverable.len(),
            left: left.left(),
            ..Account::default()
        };
        left.close().await;
        for (id, entry) in &self.book.lock().unwrap().jobs {
            account.jobs += usize::from(entry.confirmed);
            account.duplicates += entry.replies.len().saturating_sub(1);
            let letters: Vec<&Letter> = dead.iter().filter(|letter| letter.job == *id).collect();
            let is_kept = letters.len() == 1 && letters.iter().all(|letter| letter.has_reason);
            account.badly_kept += usize::from(entry.confirmed && entry.kind.is_spoiled() && !is_kept);
            account.innocent_dead += if entry.kind.is_spoiled() { 0 } else { letters.len() };
            let is_undeliverable = undeliverable.iter().any(|letter| letter.job == *id);
            if entry.confirmed && entry.replies.is_empty() && letters.is_empty() && !is_undeliverable {
                account.lost.push(id.clone());
            }
        }
        account
    }

    /// The letters of `queue`.
    async fn letters(&self, queue: &str) -> Vec<Letter> {
        let mut letters = LetterBox::open(&self.settings.broker, queue).await.unwrap();
        let mut found = Vec::new();
        while let Some(letter) = letters.next().await.unwrap() {
            let properties = letter.message.properties;
            let first = Properties::default().attempt();
            let has_reason = properties.text_header(HEADER_ERROR).is_some()
                && properties.integer_header(HEADER_FAILED_ATTEMPT) == Some(i64::from(first));
            found.push(Letter { job: properties.correlation_id.unwrap_or_default(), has_reason });
        }
        letters.close().await;
        found
    }

    /// Stops reading and closes the connections.
    pub async fn close(self) {
        self.reading.abort();
        self.publisher.close().await;
    }
}

/// A letter that an operator finds.
#[derive(Debug)]
struct Letter {
    /// The job that it is about.
    job: String,
    /// Whether it says why, and that it was tried once.
    has_reason: bool,
}

/// Enters replies into the book.
struct Reader {
    keys: ProducerKeys,
    book: Arc<Mutex<Book>>,
    news: watch::Sender<usize>,
}

impl Reader {
    /// Reads `queue` for ever, over as many connections as it takes.
    async fn read(self, url: String, queue: String) {
        loop {
            // A connection ends with its broker; what was not acknowledged comes again.
            let _either = self.read_one_connection(&url, &queue).await;
            sleep(PAUSE).await;
        }
    }

    async fn read_one_connection(&self, url: &str, queue: &str) -> Result<(), lapin::Error> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(REPLY_PREFETCH, BasicQosOptions { global: false }).await?;
        let options = BasicConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
        let mut replies = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        while let Some(reply) = replies.next().await {
            let reply = reply?;
            self.enter(&reply.properties, reply.data.clone());
            reply.acker.ack(BasicAckOptions { multiple: false }).await?;
        }
        Ok(())
    }

    fn enter(&self, properties: &lapin::BasicProperties, body: Vec<u8>) {
        let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
        let id = text(properties.correlation_id()).unwrap_or_default();
        let message = Message {
            body: body.clone().into(),
            properties: Properties { content_type: text(properties.content_type()), ..Properties::default() },
        };
        let mut book = self.book.lock().unwrap();
        let right = book.jobs.get(&id).is_some_and(|entry| self.answers(entry, &message));
        match book.jobs.get_mut(&id).filter(|_| right) {
            Some(entry) => {
                entry.replies.insert(body);
                if entry.first_reply.is_none() {
                    entry.first_reply = Some(Instant::now());
                    book.answered += 1;
                }
            }
            None => book.wrong += 1,
        }
        self.news.send_replace(book.answered);
    }

    /// Whether `message` is authentic, and the result that the job asked for.
    fn answers(&self, entry: &Entry, message: &Message) -> bool {
        let Ok(opened) = self.keys.open_reply(&entry.pending, message, UnixSeconds::now()) else { return false };
        match ResponseBody::decode(&opened.plaintext, opened.json_length) {
            Ok(ResponseBody::Result(response)) if entry.kind == Kind::Sound => {
                let expected = TensorData::Fp32(entry.input.clone());
                response.outputs.first().is_some_and(|output| *output.tensor.elements() == expected)
            }
            Ok(ResponseBody::Error(error)) => {
                entry.kind == Kind::Late && error.code == ErrorCode::DeadlineExceeded.as_str()
            }
            Ok(ResponseBody::Result(_)) | Err(_) => false,
        }
    }
}

/// `body` with one bit of its middle changed.
fn garbled(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    body
}

/// An input like no other job's, so that a swapped answer is seen.
fn input_of(id: &str) -> Vec<f32> {
    let digits: Vec<u8> = id.bytes().filter(u8::is_ascii_hexdigit).collect();
    // From the random end of the id; six digits are exact in an f32.
    digits
        .rchunks(5)
        .take(4)
        .map(|chunk| chunk.iter().fold(0.0, |sum, byte| sum * 16.0 + f32::from(byte % 16)))
        .collect()
}
