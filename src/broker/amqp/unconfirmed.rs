//! Which of a channel's publishes were confirmed, returned or refused: decided by what came back with the confirms.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{Channel, Confirmation};
use tokio::sync::oneshot;

use super::publisher::{Answer, returned_error};
use crate::broker::{Address, Confirmed, PublishError};

/// What is kept of a message until it is decided; its body is with the broker.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) address: Address,
    pub(super) message_id: Option<String>,
    pub(super) answer: oneshot::Sender<Answer>,
}

type Confirm = BoxFuture<'static, (Sent, lapin::Result<Confirmation>)>;

/// What was published on a channel and is not decided yet.
///
/// The broker returns a message before it confirms it, and lapin hangs what was returned on whichever confirm comes in next. One frame
/// of the broker can confirm many messages; lapin takes them in any order, and what was returned can hang on any of them. So a
/// message is decided once its confirm is in, and all that came in with it have been looked through.
pub(super) struct Unconfirmed {
    confirms: FuturesUnordered<Confirm>,
    /// Confirms that are in, and whether the broker refused; not decided yet.
    arrived: Vec<(Sent, bool)>,
    /// Returned messages that are not decided yet.
    returned: HashMap<Identity, usize>,
    /// Waits until lapin has done with the frame that it is working on.
    settle_frame: Box<dyn Fn() + Send + Sync>,
}

impl Unconfirmed {
    pub(super) fn on(channel: Channel) -> Self {
        // To look for what it should wait for it takes the lock that is held for the whole of a frame; there is no need to wait.
        Self::with(Box::new(move || drop(channel.wait_for_confirms().now_or_never())))
    }

    fn with(settle_frame: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { confirms: FuturesUnordered::new(), arrived: Vec::new(), returned: HashMap::new(), settle_frame }
    }

    pub(super) fn count(&self) -> usize {
        self.confirms.len()
    }

    pub(super) fn add(
        &mut self,
        sent: Sent,
        confirm: impl Future<Output = lapin::Result<Confirmation>> + Send + 'static,
    ) {
        self.confirms.push(async move { (sent, confirm.await) }.boxed());
    }

    /// Waits for a confirm and decides all that are in. `Err` when the channel failed. Cancel safe.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        let Some(first) = self.confirms.next().await else { return Ok(()) };
        self.note(first)?;
        self.note_all_that_are_in()?;
        while !self.arrived.is_empty() {
            let decidable = std::mem::take(&mut self.arrived);
            (self.settle_frame)();
            self.note_all_that_are_in()?;
            for (sent, refused) in decidable {
                let answer = self.decide(&sent, refused);
                // The caller may have stopped waiting; what it is told then is for nobody.
                let _either = sent.answer.send(answer);
            }
        }
        Ok(())
    }

    fn note_all_that_are_in(&mut self) -> Result<(), String> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            woken.0.store(false, Ordering::SeqCst);
            match self.confirms.poll_next_unpin(&mut task::Context::from_waker(&waker)) {
                Poll::Ready(Some(confirmed)) => self.note(confirmed)?,
                Poll::Ready(None) => return Ok(()),
                // Whoever wakes while it is asked has something to hand out after all.
                Poll::Pending if woken.0.load(Ordering::SeqCst) => {}
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn note(&mut self, (sent, confirmation): (Sent, lapin::Result<Confirmation>)) -> Result<(), String> {
        let confirmation = confirmation.map_err(|error| error.to_string())?;
        if matches!(confirmation, Confirmation::NotRequested) {
            return Err("the channel does not confirm".to_owned());
        }
        let refused = matches!(confirmation, Confirmation::Nack(_));
        if let Some(message) = confirmation.take_message() {
            *self.returned.entry(returned_identity(&message)).or_default() += 1;
        }
        self.arrived.push((sent, refused));
        Ok(())
    }

    /// Until everything is decided.
    pub(super) async fn all_ready(mut self) -> Result<(), String> {
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

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What tells one message from another.
type Identity = (String, String, Option<String>);

fn returned_identity(message: &lapin::message::BasicReturnMessage) -> Identity {
    let delivery = &message.delivery;
    let message_id = delivery.properties.message_id().as_ref().map(ToString::to_string);
    (delivery.exchange.to_string(), delivery.routing_key.to_string(), message_id)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;

    fn sent(routing_key: &str) -> (Sent, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Sent { address: Address::new("replies", routing_key), message_id: None, answer }, answered)
    }

    #[tokio::test]
    async fn a_message_that_is_never_confirmed_holds_up_no_other() {
        let mut unconfirmed = Unconfirmed::with(Box::new(|| ()));
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

    fn confirmed_with(returned: &str) -> Confirmation {
        let delivery = Delivery::mock(0, "replies".into(), returned.into(), false, Vec::new());
        Confirmation::Ack(Some(BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }))
    }

    /// Regression: lapin walks through a frame that confirms many in any order, and what was returned can hang on any of them. The first
    /// was decided while the other was not in yet.
    #[tokio::test]
    async fn what_was_returned_can_hang_on_a_later_confirm_of_the_same_frame() {
        let (resolve, other_confirm) = oneshot::channel();
        let resolve = Mutex::new(Some(resolve));
        let mut unconfirmed = Unconfirmed::with(Box::new(move || {
            if let Some(resolve) = resolve.lock().unwrap().take() {
                resolve.send(confirmed_with("gone.first")).unwrap();
            }
        }));
        let (first, first_answer) = sent("gone.first");
        let (other, other_answer) = sent("gone.other");
        unconfirmed.add(first, async { Ok(confirmed_with("gone.other")) });
        unconfirmed.add(other, async { Ok(other_confirm.await.unwrap()) });
        unconfirmed.ready().await.unwrap();
        for answer in [first_answer, other_answer] {
            assert!(matches!(answer.await.unwrap(), Err(PublishError::Returned { .. })));
        }
        assert!(unconfirmed.returned.is_empty());
    }
}
