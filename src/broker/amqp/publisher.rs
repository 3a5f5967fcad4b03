//! A worker's publisher: pipelined, and each message confirmed or returned by its own identity.
//!
//! lapin attaches a returned message to whichever confirm comes next, and concurrent publishes can swap confirms. So
//! one task publishes on a channel; returned is what was attached, by its exchange, routing key and message id, to any confirm
//! that is in when the message's own is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, PublisherConfirm};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::connect::{ConnectError, answered};
use super::convert;
use super::supervisor::Publishing;
use crate::broker::{Address, Confirmed, PublishError, Publisher};
use crate::limits::{MAX_CONFIRMS_IN_FLIGHT, MAX_PUBLISH_BATCH};
use crate::protocol::properties::Message;

/// A channel that confirms nothing at all for as many times the limit of a publish is given up, with its session.
const SILENCE_LIMITS: u32 = 3;

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
            self.requests
                .send(request)
                .await
                .map_err(|_| PublishError::Unavailable("the worker is closed".to_owned()))?;
            answered.await.map_err(gone)?
        };
        // A request whose caller has given up is not published any more: see `publish_requests`.
        let published = patiently(self.limit, self.blocked.clone(), published).await;
        published.unwrap_or(Err(PublishError::TimedOut(self.limit)))
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
/// A message that is not confirmed, because the queue behind it has lost its majority, holds up no other: its caller gives
/// up by itself. Only a channel on which nothing at all is confirmed for a while is given up.
pub(super) async fn publish_requests(channel: Channel, publishing: Publishing, limit: Duration) -> Result<(), String> {
    let Publishing { requests, blocked } = publishing;
    let mut blocking = blocked.subscribe();
    let mut unconfirmed = Unconfirmed::default();
    let mut gathered = Vec::with_capacity(MAX_PUBLISH_BATCH);
    let silence = limit.saturating_mul(SILENCE_LIMITS);
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
                for request in gathered.drain(..).filter(|request| !request.answer.is_closed()) {
                    let published = publish_one(&channel, &request.address, &request.message);
                    let published = patiently(limit, blocked.subscribe(), published).await;
                    let confirm = published.unwrap_or_else(|| Err(format!("a publish was not sent within {limit:?}")))?;
                    unconfirmed.add(Sent::of(request), confirm);
                }
            }
            // The time of an alarm does not count.
            Ok(()) = blocking.changed() => heard = Instant::now(),
            () = sleep_until(heard + silence), if unconfirmed.count() > 0 && !*blocked.borrow() => {
                return Err(format!("nothing was confirmed within {silence:?}"));
            }
        }
    }
}

/// What is kept of a message until it is decided; its body is with the broker.
#[derive(Debug)]
struct Sent {
    address: Address,
    message_id: Option<String>,
    answer: oneshot::Sender<Answer>,
}

impl Sent {
    fn of(PublishRequest { address, message, answer }: PublishRequest) -> Self {
        Self { address, message_id: message.properties.message_id, answer }
    }
}

/// What was published on a channel and is not decided yet.
#[derive(Default)]
struct Unconfirmed {
    confirms: FuturesUnordered<BoxFuture<'static, (Sent, lapin::Result<Confirmation>)>>,
    /// Returned messages whose own confirm is not in yet.
    returned: HashMap<Identity, usize>,
}

impl Unconfirmed {
    fn count(&self) -> usize {
        self.confirms.len()
    }

    fn add(&mut self, sent: Sent, confirm: impl Future<Output = lapin::Result<Confirmation>> + Send + 'static) {
        self.confirms.push(async move { (sent, confirm.await) }.boxed());
    }

    /// Waits for a confirm and decides all that are in. `Err` when the channel failed. Cancel safe.
    ///
    /// The broker returns a message before it confirms it, and lapin hangs what was returned on whichever confirm comes next: on
    /// one that is in, at the latest, when the message's own is.
    async fn ready(&mut self) -> Result<(), String> {
        let Some(first) = self.confirms.next().await else { return Ok(()) };
        let mut decidable = Vec::new();
        let mut next = Some(first);
        while let Some((sent, confirmation)) = next {
            let confirmation = confirmation.map_err(|error| error.to_string())?;
            if matches!(confirmation, Confirmation::NotRequested) {
                return Err("the channel does not confirm".to_owned());
            }
            let refused = matches!(confirmation, Confirmation::Nack(_));
            if let Some(message) = confirmation.take_message() {
                *self.returned.entry(returned_identity(&message)).or_default() += 1;
            }
            decidable.push((sent, refused));
            next = self.confirms.next().now_or_never().flatten();
        }
        for (sent, refused) in decidable {
            let answer = self.decide(&sent, refused);
            // The caller may have stopped waiting; what it is told then is for nobody.
            let _either = sent.answer.send(answer);
        }
        Ok(())
    }

    /// Until everything is decided.
    async fn all_ready(mut self) -> Result<(), String> {
        while self.count() > 0 {
            self.ready().await?;
        }
        Ok(())
    }

    fn decide(&mut self, sent: &Sent, refused: bool) -> Answer {
        let Address { exchange, routing_key } = &sent.address;
        let identity = (exchange.to_string(), routing_key.to_string(), sent.message_id.clone());
        if let Entry::Occupied(mut returned) = self.returned.entry(identity) {
            *returned.get_mut() -= 1;
            if *returned.get() == 0 {
                returned.remove();
            }
            Err(returned_error(&sent.address))
        } else if refused {
            Err(PublishError::Refused { routing_key: Arc::clone(routing_key) })
        } else {
            Ok(Confirmed::by_broker())
        }
    }
}

/// What tells one message from another.
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

    fn sent(routing_key: &str) -> (Sent, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Sent { address: Address::new("replies", routing_key), message_id: None, answer }, answered)
    }

    #[tokio::test]
    async fn a_message_that_is_never_confirmed_holds_up_no_other() {
        let mut unconfirmed = Unconfirmed::default();
        let (stuck, mut stuck_answer) = sent("without majority");
        unconfirmed.add(stuck, std::future::pending());
        for confirmation in [Confirmation::Ack(None), Confirmation::Nack(None)] {
            let refused = confirmation.is_nack();
            let (other, answer) = sent("sound");
            unconfirmed.add(other, async { Ok(confirmation) });
            unconfirmed.ready().await.unwrap();
            assert_eq!(answer.await.unwrap().is_err(), refused);
        }
        assert_eq!(unconfirmed.count(), 1);
        assert!(stuck_answer.try_recv().is_err());
    }

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
