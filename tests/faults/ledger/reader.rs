//! Reads the replies with lapin itself and acknowledges them when they are entered, so that no reply is missed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use inferq::envelope::{ProducerKeys, UnixSeconds};
use inferq::error::ErrorCode;
use inferq::protocol::properties::{Message, Properties};
use inferq::protocol::response::ResponseBody;
use inferq::protocol::tensor::TensorData;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Book, Entry, Kind, PAUSE};

const REPLY_PREFETCH: u16 = 500;
/// How long a connection may take to stand.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// AMQP's reply code for an orderly end.
const SUCCESS: u16 = 200;
/// How long a connection is believed in that brings nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// Enters replies into the book.
pub(super) struct Reader {
    keys: ProducerKeys,
    book: Arc<Mutex<Book>>,
    news: watch::Sender<usize>,
}

impl Reader {
    pub(super) fn new(keys: ProducerKeys, book: Arc<Mutex<Book>>, news: watch::Sender<usize>) -> Self {
        Self { keys, book, news }
    }

    /// Reads `queue` for ever, over as many connections as it takes.
    pub(super) async fn read(self, url: String, queue: String) {
        let url = format!("{url}?heartbeat=5");
        loop {
            // A connection ends with its broker; what was not acknowledged comes again.
            if let Ok(Ok(connection)) =
                timeout(OPEN_LIMIT, Connection::connect(&url, ConnectionProperties::default())).await
            {
                if let Ok(Ok(replies)) = timeout(OPEN_LIMIT, consume(&connection, &queue)).await {
                    let _either = self.read_until_silence(replies).await;
                }
                // In so many words: dropped while an answer is missing, it would go on and keep what is delivered to it.
                let _either = timeout(OPEN_LIMIT, connection.close(SUCCESS, "silence".into())).await;
            }
            sleep(PAUSE).await;
        }
    }

    async fn read_until_silence(&self, mut replies: lapin::Consumer) -> Result<(), lapin::Error> {
        // A broker that was killed can leave a stream, or an acknowledgement, that never ends: after a silence it is asked anew.
        while let Ok(Some(reply)) = timeout(SILENCE, replies.next()).await {
            let reply = reply?;
            self.enter(&reply.properties, reply.data.clone());
            let acknowledged = timeout(SILENCE, reply.acker.ack(BasicAckOptions { multiple: false })).await;
            let Ok(acknowledged) = acknowledged else { break };
            acknowledged?;
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
        let right = book.jobs.get(&id).is_some_and(|entry| answers(&self.keys, entry, &message));
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
}

async fn consume(connection: &Connection, queue: &str) -> Result<lapin::Consumer, lapin::Error> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(REPLY_PREFETCH, BasicQosOptions { global: false }).await?;
    let options = BasicConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
}

/// Whether `message` is authentic, and says what the job of `entry` has to be told.
pub(super) fn answers(keys: &ProducerKeys, entry: &Entry, message: &Message) -> bool {
    let Ok(opened) = keys.open_reply(&entry.pending, message, UnixSeconds::now()) else { return false };
    let told = match ResponseBody::decode(&opened.plaintext, opened.json_length) {
        Ok(ResponseBody::Result(response)) => {
            let expected = TensorData::Fp32(entry.input.clone());
            let right = response.outputs.first().is_some_and(|output| *output.tensor.elements() == expected);
            return right && matches!(entry.kind, Kind::Sound | Kind::Twice);
        }
        Ok(ResponseBody::Error(error)) => error.code,
        Err(_) => return false,
    };
    match entry.kind {
        Kind::Late => told == ErrorCode::DeadlineExceeded.as_str(),
        Kind::Panicking => told == ErrorCode::InferenceFailed.as_str(),
        Kind::Sound | Kind::Twice | Kind::Aborting | Kind::Hanging | Kind::Garbled | Kind::Foreign | Kind::Garbage => {
            false
        }
    }
}
