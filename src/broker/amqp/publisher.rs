//! A worker's publisher: requests gathered into batches, each message confirmed or returned by its own identity.
//!
//! lapin attaches a returned message to whichever confirm comes next, and concurrent publishes can swap confirms. So
//! one task publishes on a channel, a batch at a time, and decides the batch when all its confirms are in: returned is
//! what carries the returned message's own exchange, routing key and message id.

use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, PublisherConfirm};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::sleep;

use super::connect::{ConnectError, answered};
use super::convert;
use super::supervisor::Publishing;
use crate::broker::{Address, Confirmed, PublishError, Publisher};
use crate::limits::MAX_PUBLISH_BATCH;
use crate::protocol::properties::Message;

type Answer = Result<Confirmed, PublishError>;

/// What is to be published; shared by the publishing channels, and outliving a session.
pub(super) type Requests = Arc<Mutex<mpsc::Receiver<PublishRequest>>>;

/// A message to publish, and where its answer goes.
#[derive(Debug)]
pub(super) struct PublishRequest {
    address: Address,
    message: Message,
    answer: oneshot::Sender<Answer>,
}

/// Publishes through whatever session stands; see [`super::start`].
#[derive(Debug, Clone)]
pub struct AmqpPublisher {
    requests: mpsc::Sender<PublishRequest>,
    limit: Duration,
    blocked: watch::Receiver<bool>,
}

impl AmqpPublisher {
    pub(super) fn new(requests: mpsc::Sender<PublishRequest>, limit: Duration, blocked: watch::Receiver<bool>) -> Self {
        Self { requests, limit, blocked }
    }
}

impl Publisher for AmqpPublisher {
    async fn publish(&self, address: &Address, message: Message) -> Answer {
        let (answer, answered) = oneshot::channel();
        let request = PublishRequest { address: address.clone(), message, answer };
        let published = async {
            let gone = |_| PublishError::Unavailable("the connection was closed".to_owned());
            let closed = |_| PublishError::Unavailable("the worker is closed".to_owned());
            self.requests.reserve().await.map_err(closed)?.send(request);
            answered.await.map_err(gone)?
        };
        // A request whose caller has given up is not published any more: see `publish_requests`.
        let published = patiently(self.limit, self.blocked.clone(), pin!(published)).await;
        published.unwrap_or(Err(PublishError::TimedOut(self.limit)))
    }
}

/// Waits for `published`, `limit` at most, not counting the time in which the broker blocks publishing.
///
/// An alarm of the broker can last for hours. Giving up would deliver every job again and again, each time nearer to its
/// delivery limit, until innocent jobs are dead letters; and the prefetch bounds what waits.
async fn patiently<F: Future>(
    limit: Duration,
    mut blocked: watch::Receiver<bool>,
    mut published: Pin<&mut F>,
) -> Option<F::Output> {
    loop {
        let is_blocked = *blocked.borrow_and_update();
        tokio::select! {
            output = published.as_mut() => return Some(output),
            () = sleep(limit), if !is_blocked => return None,
            Ok(()) = blocked.changed() => {}
        }
    }
}

/// A channel on which every publish is confirmed.
pub(super) async fn confirm_channel(connection: &Connection, limit: Duration) -> Result<Channel, ConnectError> {
    let channel = answered(limit, || "a channel".to_owned(), connection.create_channel()).await?;
    let confirming = channel.confirm_select(ConfirmSelectOptions { nowait: false });
    answered(limit, || "publisher confirms".to_owned(), confirming).await?;
    Ok(channel)
}

/// Publishes requests on `channel`, a batch at a time, until the channel fails or nobody requests any more.
pub(super) async fn publish_requests(channel: Channel, publishing: Publishing, limit: Duration) -> Result<(), String> {
    let Publishing { requests, blocked } = publishing;
    let mut batch = Vec::with_capacity(MAX_PUBLISH_BATCH);
    loop {
        if requests.lock().await.recv_many(&mut batch, MAX_PUBLISH_BATCH).await == 0 {
            return Ok(());
        }
        batch.retain(|request: &PublishRequest| !request.answer.is_closed());
        let published = patiently(limit, blocked.subscribe(), pin!(publish_batch(&channel, &batch))).await;
        let decided = published.unwrap_or_else(|| Err(format!("a batch was not confirmed within {limit:?}")));
        match decided {
            Ok(answers) => answer_all(&mut batch, answers),
            Err(reason) => {
                let answers = batch.iter().map(|_| Err(PublishError::Unavailable(reason.clone()))).collect();
                answer_all(&mut batch, answers);
                return Err(reason);
            }
        }
    }
}

fn answer_all(batch: &mut Vec<PublishRequest>, answers: Vec<Answer>) {
    for (request, answer) in batch.drain(..).zip(answers) {
        // The caller may have stopped waiting; what it is told then is for nobody.
        let _either = request.answer.send(answer);
    }
}

/// Publishes all of `batch`, waits for all confirms, and decides each message. `Err` when the channel failed.
async fn publish_batch(channel: &Channel, batch: &[PublishRequest]) -> Result<Vec<Answer>, String> {
    let mut confirms = Vec::with_capacity(batch.len());
    for request in batch {
        confirms.push(publish_one(channel, &request.address, &request.message, Heard::Needed).await?);
    }
    let mut returned = HashSet::new();
    let mut confirmations = Vec::with_capacity(batch.len());
    for confirm in confirms {
        let confirmation = confirm.await.map_err(|error| error.to_string())?;
        let refused = matches!(confirmation, Confirmation::Nack(_));
        if matches!(confirmation, Confirmation::NotRequested) {
            return Err("the channel does not confirm".to_owned());
        }
        if let Some(message) = confirmation.take_message() {
            returned.insert(returned_identity(&message));
        }
        confirmations.push(refused);
    }
    let decide = |(request, refused): (&PublishRequest, bool)| decide(request, refused, &returned);
    Ok(batch.iter().zip(confirmations).map(decide).collect())
}

fn decide(request: &PublishRequest, refused: bool, returned: &HashSet<Identity>) -> Answer {
    let Address { exchange, routing_key } = &request.address;
    let message_id = request.message.properties.message_id.clone();
    if returned.contains(&(exchange.to_string(), routing_key.to_string(), message_id)) {
        Err(returned_error(&request.address))
    } else if refused {
        Err(PublishError::Refused { routing_key: Arc::clone(routing_key) })
    } else {
        Ok(Confirmed::by_broker())
    }
}

/// What tells one message of a batch from another.
type Identity = (String, String, Option<String>);

fn returned_identity(message: &lapin::message::BasicReturnMessage) -> Identity {
    let delivery = &message.delivery;
    let message_id = delivery.properties.message_id().as_ref().map(ToString::to_string);
    (delivery.exchange.to_string(), delivery.routing_key.to_string(), message_id)
}

pub(super) fn returned_error(address: &Address) -> PublishError {
    PublishError::Returned {
        exchange: Arc::clone(&address.exchange),
        routing_key: Arc::clone(&address.routing_key),
        reply_text: "NO_ROUTE".to_owned(),
    }
}

/// Whether a message is to come back where no queue is bound for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is: `mandatory`.
    Needed,
    /// It is for whoever listens, and nobody may.
    Optional,
}

/// Hands one message to the channel, persistent.
pub(super) async fn publish_one(
    channel: &Channel,
    address: &Address,
    message: &Message,
    heard: Heard,
) -> Result<PublisherConfirm, String> {
    channel
        .basic_publish(
            (&*address.exchange).into(),
            (&*address.routing_key).into(),
            BasicPublishOptions { mandatory: heard == Heard::Needed, immediate: false },
            &message.body,
            convert::to_lapin(&message.properties),
        )
        .await
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_publish_is_given_up_after_its_limit() {
        let (_blocked, blocking) = watch::channel(false);
        let began = tokio::time::Instant::now();
        assert_eq!(patiently(LIMIT, blocking, pin!(std::future::pending::<()>())).await, None);
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_broker_blocks_does_not_count() {
        let (blocked, blocking) = watch::channel(false);
        let began = tokio::time::Instant::now();
        let alarm = async {
            sleep(LIMIT / 2).await;
            blocked.send_replace(true);
            sleep(LIMIT * 100).await;
            blocked.send_replace(false);
            std::future::pending::<()>().await;
        };
        let never = pin!(std::future::pending::<()>());
        tokio::select! {
            given_up = patiently(LIMIT, blocking, never) => assert_eq!(given_up, None),
            () = alarm => {}
        }
        assert_eq!(began.elapsed(), LIMIT / 2 + LIMIT * 100 + LIMIT);
    }
}
