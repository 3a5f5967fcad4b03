//! Queues that hand out one message at a time: one of all of them together, and the next when that is settled.
//!
//! Each consumer has a prefetch of its own, so that several consumers would hold several messages. These queues are asked
//! instead, in turn, on a channel of their own, where nothing else is delivered.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::connect::{ConnectError, answered};
use super::consumer::translate;
use super::settle::{Unsettled, settle_one};
use super::supervisor::{Phase, reached};
use crate::broker::Delivery;
use crate::limits::{SINGLY_IDLE_PAUSE, SINGLY_PAUSE};

/// A message of `queue`, if there is one. Asked first how many there are: that is nothing to a quorum queue, while taking is an entry in
/// its log, even where there is nothing, and waits for a majority that may not be there.
async fn get(channel: &Channel, queue: &str, limit: Duration) -> Result<Option<BasicGetMessage>, ConnectError> {
    let passive =
        QueueDeclareOptions { passive: true, durable: true, exclusive: false, auto_delete: false, nowait: false };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
    if answered(limit, || format!("queue `{queue}`"), declared).await?.message_count() == 0 {
        return Ok(None);
    }
    let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false });
    answered(limit, || format!("a message of queue `{queue}`"), got).await
}

/// What takes from queues one message at a time.
pub(super) struct Singly {
    /// A channel of its own.
    pub(super) channel: Channel,
    pub(super) queues: Vec<Arc<str>>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    /// What the session has under way of its other queues.
    pub(super) others: Unsettled,
    /// How long the broker may take to answer.
    pub(super) limit: Duration,
}

impl Singly {
    /// Takes until asked to stop. Looks after a pause first: whoever has just begun does what is safe before, where there is any.
    pub(super) async fn take(self, mut phases: watch::Receiver<Phase>) -> Result<(), String> {
        let mut turn = self.queues.iter().cycle();
        let mut empty = 0;
        tokio::select! {
            biased;
            () = reached(&mut phases, Phase::Stopping) => return Ok(()),
            () = first_pause(|| self.others.is_none()) => {}
        }
        while *phases.borrow() == Phase::Running {
            let Some(queue) = turn.next() else { return Ok(()) };
            if self.take_one(queue).await? {
                empty = 0;
                continue;
            }
            empty += 1;
            if empty == self.queues.len() {
                empty = 0;
                tokio::select! {
                    biased;
                    () = reached(&mut phases, Phase::Stopping) => return Ok(()),
                    () = sleep(SINGLY_PAUSE) => {}
                }
            }
        }
        Ok(())
    }

    /// Hands out a message of `queue` and waits until it is settled; false where there is none.
    async fn take_one(&self, queue: &Arc<str>) -> Result<bool, String> {
        let got = get(&self.channel, queue, self.limit).await.map_err(|error| error.to_string())?;
        let Some(message) = got else { return Ok(false) };
        let (settlements, mut settled) = mpsc::channel(1);
        let delivery = translate(message.delivery, Arc::clone(queue), settlements);
        self.deliveries.send(delivery).await.map_err(|_| "the worker is gone".to_owned())?;
        let settled = settled.recv().await.ok_or("a receipt was never settled")?;
        settle_one(&self.channel, settled, self.limit).await?;
        Ok(true)
    }
}

/// The pause before the first look: the whole one where there is other work, and what a first delivery may take where there is none.
async fn first_pause(is_idle: impl Fn() -> bool) {
    let whole = Instant::now() + SINGLY_PAUSE;
    loop {
        sleep(SINGLY_IDLE_PAUSE).await;
        if is_idle() || Instant::now() >= whole {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_has_other_work_does_that_first() {
        let began = Instant::now();
        first_pause(|| false).await;
        assert!((SINGLY_PAUSE..SINGLY_PAUSE + SINGLY_IDLE_PAUSE).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_nothing_else_to_do_looks_soon() {
        let began = Instant::now();
        first_pause(|| true).await;
        assert_eq!(began.elapsed(), SINGLY_IDLE_PAUSE);
        let done_at = began + 3 * SINGLY_IDLE_PAUSE;
        first_pause(|| Instant::now() > done_at).await;
        assert_eq!(began.elapsed(), 4 * SINGLY_IDLE_PAUSE);
    }
}
