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
use tokio::time::sleep;

use super::connect::{ConnectError, answered};
use super::consumer::translate;
use super::settle::settle_one;
use super::supervisor::{Phase, reached};
use crate::broker::Delivery;
use crate::limits::SINGLY_PAUSE;

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

/// Takes from `queues` until asked to stop. Looks after a pause first: whoever has just begun does what is safe before.
pub(super) async fn take_singly(
    channel: Channel,
    queues: Vec<Arc<str>>,
    deliveries: mpsc::Sender<Delivery>,
    limit: Duration,
    mut phases: watch::Receiver<Phase>,
) -> Result<(), String> {
    let mut empty = queues.len();
    let mut turn = queues.iter().cycle();
    loop {
        if empty == queues.len() {
            empty = 0;
            tokio::select! {
                biased;
                () = reached(&mut phases, Phase::Stopping) => return Ok(()),
                () = sleep(SINGLY_PAUSE) => {}
            }
        }
        if *phases.borrow() > Phase::Running {
            return Ok(());
        }
        let Some(queue) = turn.next() else { return Ok(()) };
        let Some(message) = get(&channel, queue, limit).await.map_err(|error| error.to_string())? else {
            empty += 1;
            continue;
        };
        empty = 0;
        let (settlements, mut settled) = mpsc::channel(1);
        let delivery = translate(message.delivery, Arc::clone(queue), settlements);
        deliveries.send(delivery).await.map_err(|_| "the worker is gone".to_owned())?;
        let settled = settled.recv().await.ok_or("a receipt was never settled")?;
        settle_one(&channel, settled, limit).await?;
    }
}
