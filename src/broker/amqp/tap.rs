//! Consumers of queues on one channel, each with its own prefetch.
//!
//! Opened by a session, read by `consumer`. A prefetch holds for the consumers that come after it on the channel, and quorum
//! queues know no other form. So another prefetch is another consumer, in the old one's place: it is there before the old
//! one goes, and what the old one has is handed on and stays to be settled on the same channel.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::Mutex;

use super::connect::{ConnectError, answered};
use crate::broker::prefetch::Prefetch;

/// Opens consumers on one channel.
#[derive(Clone)]
pub(super) struct Taps {
    channel: Channel,
    /// Held from a prefetch to its consumer: another consumer's prefetch must not come in between.
    opening: Arc<Mutex<()>>,
    /// How long the broker may take to answer.
    limit: Duration,
}

/// The consumer of one queue.
pub(super) struct Tap {
    pub(super) queue: Arc<str>,
    taps: Taps,
    consumer: Consumer,
    prefetch: Prefetch,
    /// What the consumer was opened with.
    now: u16,
}

/// What comes out of a [`Tap`].
#[expect(clippy::large_enum_variant, reason = "one at a time, and taken apart at once")]
pub(super) enum Tapped {
    Delivery(lapin::message::Delivery),
    /// From now on the prefetch is to be this one.
    Prefetch(u16),
    Broken(String),
}

impl Taps {
    pub(super) fn new(channel: Channel, limit: Duration) -> Self {
        Self { channel, opening: Arc::new(Mutex::new(())), limit }
    }

    /// Consumes `queue` with the prefetch that holds for it now.
    pub(super) async fn open(&self, queue: &str, prefetch: Prefetch) -> Result<Tap, ConnectError> {
        let now = prefetch.of(queue);
        let consumer = self.consume(queue, now).await?;
        Ok(Tap { queue: queue.into(), taps: self.clone(), consumer, prefetch, now })
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, ConnectError> {
        let _opening = self.opening.lock().await;
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions { global: false });
        answered(self.limit, || "the prefetch".to_owned(), qos).await?;
        let options = BasicConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
        let tag = format!("inferq.{queue}.{}", uuid::Uuid::new_v4().simple());
        let consumer = self.channel.basic_consume(queue.into(), tag.as_str().into(), options, FieldTable::default());
        answered(self.limit, || format!("consumer of queue `{queue}`"), consumer).await
    }

    async fn cancel(&self, queue: &str, consumer: &Consumer) -> Result<(), ConnectError> {
        let cancelled = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions { nowait: false });
        answered(self.limit, || format!("the end of the consumer of queue `{queue}`"), cancelled).await
    }
}

impl Tap {
    /// What comes next. Cancel safe.
    pub(super) async fn next(&mut self) -> Tapped {
        tokio::select! {
            biased;
            prefetch = self.prefetch.changed(&self.queue, self.now) => Tapped::Prefetch(prefetch),
            delivery = self.consumer.next() => match delivery {
                Some(Ok(delivery)) => Tapped::Delivery(delivery),
                Some(Err(error)) => Tapped::Broken(error.to_string()),
                None => Tapped::Broken(format!("the broker cancelled the consumer of queue `{}`", self.queue)),
            },
        }
    }

    /// Puts a consumer with another prefetch in this one's place. The old one ends after what it still holds.
    pub(super) async fn replace(&mut self, prefetch: u16) -> Result<Consumer, ConnectError> {
        let consumer = self.taps.consume(&self.queue, prefetch).await?;
        self.now = prefetch;
        let replaced = std::mem::replace(&mut self.consumer, consumer);
        self.taps.cancel(&self.queue, &replaced).await?;
        Ok(replaced)
    }

    /// Consumes no more. The consumer ends after what it still holds.
    pub(super) async fn close(self) -> Result<Consumer, ConnectError> {
        self.taps.cancel(&self.queue, &self.consumer).await?;
        Ok(self.consumer)
    }
}
