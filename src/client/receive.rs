//! The task that reads a reply queue: open each reply against the job it claims to answer, hand it over.
//!
//! A reply that is nobody's, or that does not prove to be an answer to its job, is taken from the queue and counted
//! in the log; the job goes on waiting for the true one.

use std::sync::Arc;

use super::ClientError;
use super::pending::{Answer, PendingReplies};
use crate::broker::Consumer;
use crate::envelope::{ProducerKeys, UnixSeconds};
use crate::protocol::properties::Message;
use crate::protocol::response::ResponseBody;

/// Reads replies until the consumer ends.
pub(super) async fn replies<C: Consumer>(mut consumer: C, keys: ProducerKeys, pending: Arc<PendingReplies>) {
    while let Some(delivery) = consumer.next().await {
        let (message, receipt) = delivery.split();
        hand_over(&message, &keys, &pending);
        receipt.taken();
    }
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
