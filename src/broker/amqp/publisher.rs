//! A worker's publisher: pipelined, and each message confirmed or returned by its own identity.
//!
//! lapin attaches a returned message to whichever confirm comes next, and concurrent publishes can swap confirms. So
//! one task publishes on a channel; returned is what came back, by its exchange, routing key and message id, with any confirm.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind, PublisherConfirm};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connect::{ConnectError, answered};
use super::convert;
use super::supervisor::Publishing;
use super::unconfirmed::{Sent, Unconfirmed};
use crate::broker::{Address, Confirmed, PublishError, Publisher};
use crate::limits::{MAX_CONFIRMS_IN_FLIGHT, MAX_PUBLISH_BATCH};
use crate::protocol::properties::Message;

/// What became of a publish.
pub(super) type Answer = Result<Confirmed, PublishError>;

/// What is to be published; shared by the publishing channels, and outliving a session.
pub(super) type Requests = Arc<Mutex<mpsc::Receiver<PublishRequest>>>;

/// A message to publish, and where its answer goes.
#[derive(Debug)]
pub(super) struct PublishRequest {
    address: Address,
    message: Message,
    /// Told when it is handed to a channel; closed when the caller has given up before.
    taken: oneshot::Sender<()>,
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
        let (taken, was_taken) = oneshot::channel();
        let request = PublishRequest { address: address.clone(), message, taken, answer };
        let handed_over = async { self.requests.send(request).await.is_ok() && was_taken.await.is_ok() };
        match patiently(self.limit, self.blocked.clone(), handed_over).await {
            Some(true) => {}
            Some(false) => return Err(PublishError::Unavailable("the connection was closed".to_owned())),
            None => return Err(PublishError::TimedOut(self.limit)),
        }
        // From here on there is no giving up as long as the channel lives: published again, it might arrive twice, and each
        // attempt would wait for a confirm of its own.
        tokio::pin!(answered);
        loop {
            match patiently(self.limit, self.blocked.clone(), &mut answered).await {
                Some(answer) => {
                    return answer
                        .unwrap_or_else(|_| Err(PublishError::Unavailable("the connection was closed".to_owned())));
                }
                None => tracing::warn!(
                    exchange = &*address.exchange,
                    routing_key = &*address.routing_key,
                    limit_ms = self.limit.as_millis(),
                    "a publish is not confirmed yet: its queue may have lost its majority"
                ),
            }
        }
    }
}

/// Waits for `published`, `limit` at most, not counting the time in which the broker blocks publishing.
///
/// An alarm of the broker can last for hours. Giving up would deliver every job again and again, each time nearer to its
/// delivery limit, until innocent jobs are dead letters; and the prefetch bounds what waits.
async fn patiently<F: Future>(limit: Duration, mut blocked: watch::Receiver<bool>, published: F) -> Option<F::Output> {
    tokio::pin!(published);
    loop {
        let is_blocked = *blocked.borrow_and_update();
        tokio::select! {
            output = &mut published => return Some(output),
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

/// Publishes requests on `channel` as they come, until the channel fails, goes silent, or nobody requests any more.
///
/// A message that is not confirmed, because the queue behind it has lost its majority, holds up no other.
pub(super) async fn publish_requests(channel: Channel, publishing: Publishing, limit: Duration) -> Result<(), String> {
    let Publishing { requests, blocked } = publishing;
    let mut blocking = blocked.subscribe();
    let mut unconfirmed = Unconfirmed::on(channel.clone());
    let mut gathered = Vec::with_capacity(MAX_PUBLISH_BATCH);
    let mut heard = Instant::now();
    loop {
        let room = MAX_CONFIRMS_IN_FLIGHT.saturating_sub(unconfirmed.count()).min(MAX_PUBLISH_BATCH);
        let gather = async { requests.lock().await.recv_many(&mut gathered, room).await };
        tokio::select! {
            biased;
            ready = unconfirmed.ready(), if unconfirmed.count() > 0 => {
                ready?;
                heard = Instant::now();
            }
            count = gather, if room > 0 => {
                if count == 0 {
                    return unconfirmed.all_ready().await;
                }
                if unconfirmed.count() == 0 {
                    heard = Instant::now();
                }
                for request in gathered.drain(..) {
                    let PublishRequest { address, message, taken, answer } = request;
                    if taken.send(()).is_err() {
                        continue;
                    }
                    let published = patiently(limit, blocked.subscribe(), publish_one(&channel, &address, &message)).await;
                    let confirm = published.unwrap_or_else(|| Err(format!("a publish was not sent within {limit:?}")))?;
                    unconfirmed.add(Sent { address, message_id: message.properties.message_id, answer }, confirm);
                }
            }
            // The time of an alarm does not count.
            Ok(()) = blocking.changed() => heard = Instant::now(),
            () = sleep_until(heard + limit), if unconfirmed.count() > 0 && !*blocked.borrow() => {
                probe(&channel, limit).await?;
                heard = Instant::now();
            }
        }
    }
}

/// Asks a channel on which nothing was confirmed for a while for something that it knows at once: whether it is alive.
async fn probe(channel: &Channel, limit: Duration) -> Result<(), String> {
    // The default exchange is always there, and nobody needs a permission to ask for a built-in one.
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let asked = channel.exchange_declare("amq.direct".into(), ExchangeKind::Direct, passive, FieldTable::default());
    match timeout(limit, asked).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing was confirmed for {limit:?}, nor anything answered after it")),
    }
}

pub(super) fn returned_error(address: &Address) -> PublishError {
    PublishError::Returned {
        exchange: Arc::clone(&address.exchange),
        routing_key: Arc::clone(&address.routing_key),
        reply_text: "NO_ROUTE".to_owned(),
    }
}

/// Hands one message to the channel, mandatory and persistent.
pub(super) async fn publish_one(
    channel: &Channel,
    address: &Address,
    message: &Message,
) -> Result<PublisherConfirm, String> {
    channel
        .basic_publish(
            (&*address.exchange).into(),
            (&*address.routing_key).into(),
            BasicPublishOptions { mandatory: true, immediate: false },
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
        assert_eq!(patiently(LIMIT, blocking, std::future::pending::<()>()).await, None);
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
        tokio::select! {
            given_up = patiently(LIMIT, blocking, std::future::pending::<()>()) => assert_eq!(given_up, None),
            () = alarm => {}
        }
        assert_eq!(began.elapsed(), LIMIT / 2 + LIMIT * 100 + LIMIT);
    }
}
