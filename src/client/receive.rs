//! The task that reads a reply queue: open each reply against the job it claims to answer, hand it over.
//!
//! A reply that is nobody's, or that does not prove to be an answer to its job, is taken from the queue and counted
//! in the log; the job goes on waiting for the true one.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::ClientError;
use super::pending::{Answer, PendingReplies};
use crate::broker::Consumer;
use crate::envelope::{ProducerKeys, UnixSeconds};
use crate::protocol::properties::Message;
use crate::protocol::response::ResponseBody;

/// The task that reads replies; ends when stopped or dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Starts reading.
    pub(super) fn start<C: Consumer>(consumer: C, keys: ProducerKeys, pending: Arc<PendingReplies>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(replies(consumer, keys, pending, stopped)) }
    }

    /// Stops reading, and closes the consumer in order.
    pub(super) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that reads replies panicked");
        }
    }
}

/// Reads replies until the consumer ends, or the other end of `stopped` goes.
async fn replies<C: Consumer>(
    mut consumer: C,
    keys: ProducerKeys,
    pending: Arc<PendingReplies>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            delivery = consumer.next() => {
                let Some(delivery) = delivery else { break };
                let (message, receipt) = delivery.split();
                hand_over(&message, &keys, &pending);
                receipt.taken();
            }
        }
    }
    consumer.stop().await;
    consumer.close().await;
}

fn hand_over(message: &Message, keys: &ProducerKeys, pending: &PendingReplies) {
    let Some(correlation_id) = message.properties.correlation_id.as_deref() else {
        tracing::warn!("a reply without correlation id was dropped");
        return;
    };
    let Some(expected) = pending.expected(correlation_id) else {
        tracing::debug!(job.id = correlation_id, "a reply came that no job waits for");
        return;
    };
    match keys.open_reply(&expected, message, UnixSeconds::now()) {
        Ok(opened) => {
            let answer: Answer = ResponseBody::decode(&opened.plaintext, opened.json_length)
                .map_err(|error| ClientError::MalformedReply(error.to_string()));
            pending.answer(correlation_id, answer);
        }
        Err(error) => tracing::warn!(job.id = correlation_id, %error, "a reply that is not authentic was dropped"),
    }
}
