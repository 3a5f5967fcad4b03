//! The two seams to a message broker, and the types that make losing a job not compile.
//!
//! [`Consumer`] hands out [`Delivery`]s; [`Publisher`] answers with [`Confirmed`]; a [`Receipt`] is settled with a
//! [`Verdict`], and only a `Confirmed` makes an `Ack`. `amqp` speaks to RabbitMQ, `memory` keeps the same contract
//! inside the process. Nothing here knows models, envelopes or plaintext.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::properties::Message;

mod discovery;
pub mod prefetch;
pub mod receipt;
pub mod topology;

pub mod amqp;
pub mod memory;

pub use receipt::{Receipt, Settlement, Verdict};

/// Where a message is published: an exchange and a routing key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The exchange's name; empty for the default exchange.
    pub exchange: Arc<str>,
    /// The routing key.
    pub routing_key: Arc<str>,
}

impl Address {
    /// The address `exchange` / `routing_key`.
    #[must_use]
    pub fn new(exchange: &str, routing_key: &str) -> Self {
        Self { exchange: exchange.into(), routing_key: routing_key.into() }
    }
}

/// A message that the broker handed out, with the duty to settle it.
#[derive(Debug)]
#[must_use = "an unsettled delivery is requeued"]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The queue that it came from.
    pub queue: Arc<str>,
    /// The broker's word that it was handed out before; set by the broker, so never proof of anything.
    pub redelivered: bool,
    /// How often it was delivered before, where the queue counts that (quorum queues do).
    pub delivery_count: u32,
    /// What has to be settled.
    pub receipt: Receipt,
}

impl Delivery {
    /// Parts the message from the duty to settle it.
    pub fn split(self) -> (Message, Receipt) {
        (self.message, self.receipt)
    }
}

/// The queues of a consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// Those of which as many messages as the prefetch may be unsettled at a time.
    pub prefetched: Vec<String>,
    /// Those of which one message at a time is held, of all of them together: the next comes when that is settled.
    pub singly: Vec<String>,
}

impl From<Vec<String>> for Queues {
    fn from(prefetched: Vec<String>) -> Self {
        Self { prefetched, singly: Vec::new() }
    }
}

impl Queues {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.prefetched.len() + self.singly.len()
    }
}

/// Proof that the broker confirmed a publish. Made by a broker that has the confirm, or from another worker's record of one.
#[derive(Debug)]
pub struct Confirmed(());

impl Confirmed {
    /// Only a broker that has the confirm in its hands calls this.
    fn by_broker() -> Self {
        Self(())
    }

    /// Another worker has recorded, where this deployment keeps such records, that the broker confirmed its reply to the same job.
    /// The worker's `admit` alone calls this, with such a record in its hands.
    pub(crate) fn recorded_elsewhere() -> Self {
        Self(())
    }

    /// The same proof for another copy of the same job: what was confirmed stands in its place, too.
    #[must_use]
    pub fn for_duplicate(&self) -> Self {
        Self(())
    }
}

/// Why a publish was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing is bound there: the broker gave the message back.
    #[error("returned as unroutable by exchange `{exchange}` for routing key `{routing_key}`: {reply_text}")]
    Returned {
        /// The exchange published to.
        exchange: Arc<str>,
        /// The routing key published with.
        routing_key: Arc<str>,
        /// The broker's words.
        reply_text: String,
    },
    /// The broker refused it: the queue is full, or could not keep it.
    #[error("refused by the broker (basic.nack): the queue behind `{routing_key}` is full or unavailable")]
    Refused {
        /// The routing key published with.
        routing_key: Arc<str>,
    },
    /// No answer in time. The broker may or may not have the message.
    #[error("not confirmed within {0:?}")]
    TimedOut(Duration),
    /// The connection or channel went away. The broker may or may not have the message.
    #[error("the broker is unavailable: {0}")]
    Unavailable(String),
}

/// Publishes messages, persistent and, unless a publisher says otherwise, mandatory, and waits for the broker's confirm.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes `message` to `address` and resolves once the broker has confirmed, returned or refused it.
    ///
    /// Many publishes may be under way at once; they are confirmed in any order.
    ///
    /// # Errors
    /// See [`PublishError`]. After `TimedOut` and `Unavailable` the message may still have arrived.
    fn publish(
        &self,
        address: &Address,
        message: Message,
    ) -> impl Future<Output = Result<Confirmed, PublishError>> + Send;
}

/// Hands out deliveries from one or more queues, at most the prefetch unsettled at a time.
pub trait Consumer: Send + 'static {
    /// The next delivery; `None` once stopped and empty. Connection losses are healed inside and not seen here,
    /// except that unsettled deliveries come again. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Delivery>> + Send;

    /// Stops consuming and returns to the queue what was handed to this process but not yet to the caller.
    /// Deliveries under way can still be settled.
    fn stop(&mut self) -> impl Future<Output = ()> + Send;

    /// Sends every settlement still waiting, then closes. Call it when all receipts are settled.
    fn close(self) -> impl Future<Output = ()> + Send;
}
