//! An operator's look into a queue of dead letters or undeliverable replies: take each, and put it back, replay it or
//! discard it.
//!
//! Used by `inferq dead-letter`. What was taken and not settled goes back into its queue when the box is closed, or when
//! this process dies. A replayed letter is acknowledged only after its copy was confirmed.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, Connection};
use tokio::time::timeout;

use super::connect::{ConnectError, close, close_channel, connect};
use super::convert;
use super::endpoint::Endpoint;
use super::publisher::{confirm_channel, publish_one, returned_error};
use crate::broker::{Address, PublishError};
use crate::protocol::properties::Message;
use crate::settings::BrokerSettings;

/// A letter that was taken out of its queue, and goes back unless it is replayed or discarded.
#[derive(Debug)]
pub struct Letter {
    /// The letter.
    pub message: Message,
    tag: u64,
}

/// A queue of letters, opened by one operator.
#[derive(Debug)]
pub struct LetterBox {
    queue: String,
    connection: Connection,
    taking: Channel,
    publishing: Channel,
    publish_timeout: Duration,
    left: u32,
}

/// Why a letter stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// Its copy was not confirmed.
    #[error(transparent)]
    NotPublished(#[from] PublishError),
    /// The connection broke.
    #[error("the broker closed the connection: {0}")]
    Broken(#[from] lapin::Error),
}

impl LetterError {
    /// Whether this letter alone has no place to go; another may have.
    #[must_use]
    pub fn concerns_one_letter(&self) -> bool {
        match self {
            Self::NotPublished(PublishError::Returned { .. } | PublishError::Refused { .. }) => true,
            Self::NotPublished(PublishError::TimedOut(_) | PublishError::Unavailable(_)) | Self::Broken(_) => false,
        }
    }
}

impl LetterBox {
    /// Opens `queue`. Letters that come in later are not seen, so that one that fails again is not taken for ever.
    ///
    /// # Errors
    /// See [`ConnectError`]; `Declare` where there is no such queue.
    pub async fn open(settings: &BrokerSettings, queue: &str) -> Result<Self, ConnectError> {
        let connection = connect(&Endpoint::of(settings)?, "inferq dead-letter", settings.connect_timeout).await?;
        let taking = connection.create_channel().await?;
        let passive =
            QueueDeclareOptions { passive: true, durable: true, exclusive: false, auto_delete: false, nowait: false };
        let found = taking.queue_declare(queue.into(), passive, FieldTable::default()).await.map_err(|error| {
            ConnectError::Declare { what: format!("queue `{queue}` is not there; it"), reason: error.to_string() }
        })?;
        let publishing = confirm_channel(&connection, settings.connect_timeout).await?;
        let left = found.message_count();
        let publish_timeout = settings.publish_timeout;
        Ok(Self { queue: queue.to_owned(), connection, taking, publishing, publish_timeout, left })
    }

    /// How many letters are still to come.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// Takes the next letter, oldest first; `None` when all that were there at the opening have been taken.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Letter>, LetterError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let taken = self.taking.basic_get(self.queue.as_str().into(), BasicGetOptions { no_ack: false }).await?;
        Ok(taken.map(|taken| {
            let delivery = taken.delivery;
            Letter { tag: delivery.delivery_tag, message: convert::from_lapin(&delivery.properties, delivery.data) }
        }))
    }

    /// Publishes `message` in the letter's place, and takes the letter away once that is confirmed.
    ///
    /// # Errors
    /// When it is not confirmed; the letter then stays.
    pub async fn replay(&self, letter: &Letter, address: &Address, message: &Message) -> Result<(), LetterError> {
        let limit = self.publish_timeout;
        timeout(limit, self.publish(address, message)).await.unwrap_or(Err(PublishError::TimedOut(limit)))?;
        self.discard(letter).await
    }

    /// Takes the letter away for good.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn discard(&self, letter: &Letter) -> Result<(), LetterError> {
        Ok(self.taking.basic_ack(letter.tag, BasicAckOptions { multiple: false }).await?)
    }

    /// Puts everything back that was neither replayed nor discarded.
    pub async fn close(self) {
        close_channel(&self.taking).await;
        close_channel(&self.publishing).await;
        close(&self.connection).await;
    }

    async fn publish(&self, address: &Address, message: &Message) -> Result<(), PublishError> {
        let confirm = publish_one(&self.publishing, address, message).await.map_err(PublishError::Unavailable)?;
        match confirm.await.map_err(|error| PublishError::Unavailable(error.to_string()))? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(returned_error(address)),
            Confirmation::Nack(_) => Err(PublishError::Refused { routing_key: Arc::clone(&address.routing_key) }),
            Confirmation::NotRequested => Err(PublishError::Unavailable("the channel does not confirm".to_owned())),
        }
    }
}
