//! An operator's look into a queue of dead letters or undeliverable replies: take each, and put it back, replay it or
//! discard it.
//!
//! Used by `inferq dead-letter`. What was taken and not settled goes back into its queue when the box is closed, or when
//! this process dies. A replayed letter is acknowledged only after its copy was confirmed.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::{Channel, Confirmation};
use tokio::time::timeout;

use super::connect::{ConnectError, answered, close_channel, connect, is_access_refused};
use super::connected::Connected;
use super::convert;
use super::endpoint::Endpoint;
use super::publisher::{Heard, confirm_channel, publish_one, returned_error};
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
    connection: Connected,
    taking: Channel,
    publishing: Channel,
    limit: Duration,
    publish_timeout: Duration,
    /// Taken at the opening.
    first: Option<Letter>,
    left: u32,
}

/// Why a letter stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// Its copy was not confirmed.
    #[error(transparent)]
    NotPublished(#[from] PublishError),
    /// The broker did not answer in time, hands no more out, or the connection broke.
    #[error(transparent)]
    NotSettled(#[from] ConnectError),
}

impl LetterError {
    /// Whether this letter alone has no place to go; another may have.
    #[must_use]
    pub fn concerns_one_letter(&self) -> bool {
        match self {
            Self::NotPublished(PublishError::Returned { .. } | PublishError::Refused { .. }) => true,
            Self::NotPublished(PublishError::TimedOut(_) | PublishError::Unavailable(_)) | Self::NotSettled(_) => false,
        }
    }
}

impl LetterBox {
    /// Opens `queue` and takes its first letter. Letters that come in later are not seen, so that one that fails again is
    /// not taken for ever.
    ///
    /// # Errors
    /// See [`ConnectError`]; `Declare` where there is no such queue, `Unreadable` where this user may not read it,
    /// `NotTaken` where the broker hands nothing out of it for another reason.
    pub async fn open(settings: &BrokerSettings, queue: &str) -> Result<Self, ConnectError> {
        let limit = settings.connect_timeout;
        let connection = connect(&Endpoint::of(settings)?, "inferq dead-letter", limit).await?;
        let taking = answered(limit, || "a channel".to_owned(), connection.create_channel()).await?;
        // How many there are is asked by taking one: a quorum queue that is busy answers a declaration with 0.
        let first = take(&taking, queue, limit).await?;
        let left = first.as_ref().map_or(0, |(_, behind)| behind.saturating_add(1));
        let publishing = confirm_channel(&connection, limit).await?;
        let first = first.map(|(letter, _)| letter);
        let publish_timeout = settings.publish_timeout;
        Ok(Self { queue: queue.to_owned(), connection, taking, publishing, limit, publish_timeout, first, left })
    }

    /// How many letters are still to come.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// Takes the next letter, oldest first; `None` when all that were there at the opening have been taken.
    ///
    /// # Errors
    /// When the broker does not answer within `broker.connect_timeout_ms`, or the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Letter>, LetterError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        Ok(take(&self.taking, &self.queue, self.limit).await?.map(|(letter, _)| letter))
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
    /// When it cannot be written within `broker.connect_timeout_ms`, or the connection breaks.
    pub async fn discard(&self, letter: &Letter) -> Result<(), LetterError> {
        let acknowledged = self.taking.basic_ack(letter.tag, BasicAckOptions { multiple: false });
        let acknowledged = answered(self.limit, || "an acknowledgement".to_owned(), acknowledged).await;
        Ok(acknowledged.map_err(|error| of_letters(&self.queue, error))?)
    }

    /// Puts everything back that was neither replayed nor discarded.
    pub async fn close(self) {
        close_channel(&self.taking).await;
        close_channel(&self.publishing).await;
        self.connection.close().await;
    }

    async fn publish(&self, address: &Address, message: &Message) -> Result<(), PublishError> {
        let confirm =
            publish_one(&self.publishing, address, message, Heard::Needed).await.map_err(PublishError::Unavailable)?;
        match confirm.await.map_err(|error| PublishError::Unavailable(error.to_string()))? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(returned_error(address)),
            Confirmation::Nack(_) => Err(PublishError::Refused { routing_key: Arc::clone(&address.routing_key) }),
            Confirmation::NotRequested => Err(PublishError::Unavailable("the channel does not confirm".to_owned())),
        }
    }
}

/// What `error` means where letters of `queue` are taken: nothing is declared there.
fn of_letters(queue: &str, error: ConnectError) -> ConnectError {
    let ConnectError::Declare { reason, .. } = error else { return error };
    let queue = queue.to_owned();
    if is_access_refused(&reason) {
        ConnectError::Unreadable { queue, reason }
    } else if reason.starts_with("NOT_FOUND") {
        ConnectError::Declare { what: format!("queue `{queue}` is not there; it"), reason }
    } else {
        ConnectError::NotTaken { queue, reason }
    }
}

/// The oldest letter of `queue`, and how many are behind it; the broker's answer is waited for as long as `limit`.
async fn take(channel: &Channel, queue: &str, limit: Duration) -> Result<Option<(Letter, u32)>, ConnectError> {
    let asked = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false });
    let taken = answered(limit, || format!("a letter of queue `{queue}`"), asked).await;
    let taken = taken.map_err(|error| of_letters(queue, error))?;
    Ok(taken.map(|taken| {
        let (behind, delivery) = (taken.message_count, taken.delivery);
        let message = convert::from_lapin(&delivery.properties, delivery.data);
        (Letter { tag: delivery.delivery_tag, message }, behind)
    }))
}
