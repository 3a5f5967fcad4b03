//! Plain JSON jobs over AMQP, for the Python workers: published unconfirmed, answered on a queue of this connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::plan::Worker;
use super::road::LIMIT;
use super::{Fault, Result};

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Value>>>>;

/// The way to a worker that speaks JSON.
pub(crate) struct PlainRoad {
    worker: Worker,
    queue: String,
    reply_queue: String,
    publishing: Channel,
    connection: Connection,
    waiting: Waiting,
    last: AtomicU64,
    receiver: JoinHandle<()>,
}

impl PlainRoad {
    /// Connects, and consumes a reply queue of its own.
    pub(crate) async fn connect(url: &str, worker: Worker) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let (publishing, replies) = (connection.create_channel().await?, connection.create_channel().await?);
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let declared = replies.queue_declare("".into(), options, FieldTable::default()).await?;
        let reply_queue = declared.name().as_str().to_owned();
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer =
            replies.basic_consume(reply_queue.as_str().into(), "replies".into(), no_ack, FieldTable::default()).await?;
        let waiting = Waiting::default();
        let receiver = tokio::spawn(receive(consumer, Arc::clone(&waiting)));
        let queue = format!("peers.{}", worker.key());
        let last = AtomicU64::new(0);
        Ok(Self { worker, queue, reply_queue, publishing, connection, waiting, last, receiver })
    }

    /// Publishes `text` and waits for its label.
    pub(crate) async fn ask(&self, text: &str) -> Result<String> {
        let id = format!("{:08x}-peer", self.last.fetch_add(1, Ordering::Relaxed));
        let (body, properties) = match self.worker {
            Worker::Celery => celery_task(&id, text),
            Worker::AioPika | Worker::Inferq | Worker::Mosec => (json!({ "text": text }), BasicProperties::default()),
        };
        let properties = properties
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_correlation_id(id.as_str().into())
            .with_reply_to(self.reply_queue.as_str().into());
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        let body = serde_json::to_vec(&body)?;
        let options = BasicPublishOptions::default();
        self.publishing.basic_publish("".into(), self.queue.as_str().into(), options, &body, properties).await?;
        let reply = timeout(LIMIT, answered).await.map_err(|_| format!("{}: no reply", self.queue))??;
        // Celery wraps what a task returns.
        let result = reply.get("result").unwrap_or(&reply);
        let label = result.get("label").and_then(Value::as_str);
        label.map(str::to_owned).ok_or_else(|| Fault::from(format!("{}: a reply without a label: {reply}", self.queue)))
    }

    /// Closes the connection.
    pub(crate) async fn close(self) {
        self.receiver.abort();
        let _closing = self.connection.close(200, "done".into()).await;
    }
}

async fn receive(mut replies: Consumer, waiting: Waiting) {
    while let Some(Ok(Delivery { properties, data, .. })) = replies.next().await {
        let Some(id) = properties.correlation_id() else { continue };
        let answer = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(id.as_str());
        if let (Some(answer), Ok(body)) = (answer, serde_json::from_slice(&data)) {
            let _asker_gone = answer.send(body);
        }
    }
}

/// A task message of Celery's protocol version 2 (docs.celeryq.dev, "Message Protocol").
fn celery_task(id: &str, text: &str) -> (Value, BasicProperties) {
    let body = json!([[text], {}, { "callbacks": null, "errbacks": null, "chain": null, "chord": null }]);
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    };
    set("lang", "py");
    set("task", "classify");
    set("id", id);
    set("root_id", id);
    set("argsrepr", "('...',)");
    set("kwargsrepr", "{}");
    set("origin", "generator");
    headers.insert("retries".into(), AMQPValue::LongInt(0));
    (body, BasicProperties::default().with_headers(headers))
}
