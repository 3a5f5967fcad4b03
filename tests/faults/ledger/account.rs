//! What became of all jobs of a row, counted when no worker runs any more.

use std::collections::HashMap;
use std::time::Duration;

use inferq::broker::amqp::letters::LetterBox;
use inferq::error::ErrorCode;
use inferq::protocol::properties::{HEADER_ERROR, HEADER_FAILED_ATTEMPT, Message, Properties};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret as _;
use tokio::time::sleep;

use super::reader::answers;
use super::{Entry, Kind, Ledger};
use crate::stand::MODEL;

/// How long the ledger listens for duplicates when everything is answered.
const QUIET: Duration = Duration::from_secs(1);

/// How long after the first 0 a queue is asked again.
const SAID_TWICE: Duration = Duration::from_millis(300);

/// What became of all jobs of a row.
#[derive(Debug, Default)]
pub struct Account {
    /// Jobs that the broker confirmed.
    pub jobs: usize,
    /// Ids with neither a reply nor a letter.
    pub lost: Vec<String>,
    /// Replies beyond those that are owed.
    pub duplicates: usize,
    /// Replies that are not authentic, answer no job, or do not hold what the job asked for; kept ones among them.
    pub wrong: usize,
    /// Dead letters of jobs that deserve none.
    pub innocent_dead: usize,
    /// Jobs that deserve it and are not exactly one dead letter, with its reason, after as many attempts as they have.
    pub badly_kept: usize,
    /// Undeliverable replies.
    pub undeliverable: usize,
    /// Jobs that are still in the queue.
    pub left: u32,
}

/// Letters by the job that they are about.
type Letters = HashMap<String, Vec<Message>>;

impl Ledger {
    /// Accounts for every job. Call it when no worker runs any more, so that nothing is under way.
    pub async fn account(&self) -> Account {
        sleep(QUIET).await;
        let dead = self.letters(&self.names.dead_queue(MODEL)).await;
        let undeliverable = self.letters(&self.names.undeliverable_queue()).await;
        let mut account = Account { left: self.jobs_left().await, ..Account::default() };
        let book = self.book();
        account.wrong = book.wrong;
        account.undeliverable = undeliverable.values().map(Vec::len).sum();
        for id in undeliverable.keys().chain(dead.keys()) {
            account.wrong += usize::from(!book.jobs.contains_key(id));
        }
        let none = Vec::new();
        for (id, entry) in &book.jobs {
            let letters = dead.get(id).unwrap_or(&none);
            let kept = undeliverable.get(id).unwrap_or(&none);
            account.wrong += kept.iter().filter(|reply| !answers(&self.keys, entry, reply)).count();
            account.add(id, entry, (letters, kept));
        }
        account
    }

    /// Jobs that wait in the queue and are with no worker.
    pub async fn jobs_left(&self) -> u32 {
        self.messages_in(&self.names.job_queue(MODEL)).await + self.messages_in(&self.names.suspects_queue(MODEL)).await
    }

    /// Messages that wait in `queue`.
    ///
    /// A quorum queue that does not answer within 250 ms is said to have none, so that it has none when that is said twice.
    pub async fn messages_in(&self, queue: &str) -> u32 {
        let url = self.settings.broker.url.expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut waiting = said_to_be_in(&channel, queue).await;
        if waiting == 0 {
            sleep(SAID_TWICE).await;
            waiting = said_to_be_in(&channel, queue).await;
        }
        connection.close(200, "counted".into()).await.unwrap();
        waiting
    }

    /// How many jobs have letters in `queue`.
    pub async fn dead_jobs_in(&self, queue: &str) -> usize {
        self.letters(queue).await.len()
    }

    async fn letters(&self, queue: &str) -> Letters {
        let mut letters = LetterBox::open(&self.settings.broker, queue).await.unwrap();
        let mut found = Letters::new();
        while let Some(letter) = letters.next().await.unwrap() {
            let job = letter.message.properties.correlation_id.clone().unwrap_or_default();
            found.entry(job).or_default().push(letter.message);
        }
        letters.close().await;
        found
    }
}

async fn said_to_be_in(channel: &Channel, queue: &str) -> u32 {
    let passive =
        QueueDeclareOptions { passive: true, durable: true, exclusive: false, auto_delete: false, nowait: false };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
}

impl Account {
    fn add(&mut self, id: &str, entry: &Entry, (letters, kept): (&[Message], &[Message])) {
        let replies = entry.replies.len() + kept.len();
        self.duplicates += replies.saturating_sub(entry.kind.copies());
        if entry.confirmed.is_none() {
            return;
        }
        self.jobs += 1;
        if replies == 0 && letters.is_empty() && !entry.swallowed {
            self.lost.push(id.to_owned());
        }
        if entry.kind.is_answered() {
            self.innocent_dead += letters.len();
        } else {
            // A process that ends between a confirm and an acknowledgement leaves a copy behind.
            let as_many = if entry.kind.ends_processes() { !letters.is_empty() } else { letters.len() == 1 };
            self.badly_kept += usize::from(!as_many || !letters.iter().all(|letter| has_reason(entry, letter)));
        }
    }
}

/// Whether a dead letter says why, and that it was tried once; or that too many deliveries were not enough.
fn has_reason(entry: &Entry, letter: &Message) -> bool {
    let properties = &letter.properties;
    let code = properties.text_header(HEADER_ERROR);
    let tried_once =
        properties.integer_header(HEADER_FAILED_ATTEMPT) == Some(i64::from(Properties::default().attempt()));
    match entry.kind {
        Kind::Aborting | Kind::Hanging => code == Some(ErrorCode::DeliveryLimitExceeded.as_str()),
        Kind::Sound | Kind::Twice | Kind::Late | Kind::Panicking | Kind::Garbled | Kind::Foreign | Kind::Garbage => {
            code.is_some() && tried_once
        }
    }
}
