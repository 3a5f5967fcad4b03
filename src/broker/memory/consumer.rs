//! A consumer of the broker inside the process.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::state::{ConsumerId, Stored};
use crate::broker::prefetch::Prefetch;
use crate::broker::receipt::Settled;
use crate::broker::{Consumer, Delivery, Queues, Receipt};

/// Hands out what lies in its queues, in turn. Dropped unclosed, it requeues what was not settled, as a broker does
/// when a connection breaks.
#[derive(Debug)]
pub struct MemoryConsumer {
    shared: Arc<Shared>,
    id: ConsumerId,
    queues: Vec<Arc<str>>,
    /// Those from this place on hand out one message at a time, all together.
    singly_from: usize,
    /// The queue that is looked at first; moves on, so that no queue starves.
    turn: usize,
    prefetch: Prefetch,
    stopped: bool,
    settlements: Option<mpsc::Sender<Settled>>,
    settling: Option<JoinHandle<()>>,
}

impl MemoryConsumer {
    pub(super) fn new(shared: Arc<Shared>, queues: &Queues, prefetch: Prefetch) -> Self {
        let id = shared.lock().new_consumer();
        let unsettled = usize::from(prefetch.most()).saturating_mul(queues.count().max(1));
        let (settlements, receiver) = mpsc::channel(unsettled);
        let settling = tokio::spawn(settle(Arc::clone(&shared), id, receiver));
        Self {
            shared,
            id,
            queues: queues.prefetched.iter().chain(&queues.singly).map(|queue| queue.as_str().into()).collect(),
            singly_from: queues.prefetched.len(),
            prefetch,
            turn: 0,
            stopped: false,
            settlements: Some(settlements),
            settling: Some(settling),
        }
    }

    /// What there is to take now, and otherwise when a retry queue will give something up.
    fn take(&mut self) -> Result<Delivery, Option<Instant>> {
        let mut state = self.shared.lock();
        let next_expiry = state.expire(Instant::now());
        for step in 0..self.queues.len() {
            let index = (self.turn + step) % self.queues.len();
            let Some(queue) = self.queues.get(index) else { continue };
            let singly = self.queues.get(self.singly_from..).unwrap_or_default();
            if index >= self.singly_from && state.holds_one_of(self.id, singly) {
                continue;
            }
            if let Some((tag, stored)) = state.deliver(self.id, queue, usize::from(self.prefetch.of(queue))) {
                self.turn = index + 1;
                let settlements = self.settlements.clone().ok_or(None)?;
                return Ok(delivery(tag, stored, Arc::clone(queue), settlements));
            }
        }
        Err(next_expiry)
    }
}

fn delivery(tag: u64, stored: Stored, queue: Arc<str>, settlements: mpsc::Sender<Settled>) -> Delivery {
    Delivery {
        message: stored.message,
        queue,
        redelivered: stored.redelivered,
        delivery_count: stored.delivery_count,
        receipt: Receipt::new(tag, settlements),
    }
}

/// Applies settlements as they come; ends when the consumer and all its receipts are gone.
async fn settle(shared: Arc<Shared>, id: ConsumerId, mut settlements: mpsc::Receiver<Settled>) {
    while let Some(Settled { tag, settlement }) = settlements.recv().await {
        shared.lock().settle(id, tag, settlement);
        shared.changed.notify_waiters();
    }
}

impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.stopped {
                return None;
            }
            // Registered before looking, so that no change in between is missed.
            let shared = Arc::clone(&self.shared);
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.take() {
                Ok(delivery) => return Some(delivery),
                Err(None) => changed.await,
                Err(Some(expiry)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(expiry) => {}
                },
            }
        }
    }

    async fn stop(&mut self) {
        self.stopped = true;
    }

    async fn close(mut self) {
        self.stopped = true;
        drop(self.settlements.take());
        if let Some(settling) = self.settling.take() {
            // Ends once every receipt has been settled or dropped; then nothing is left to abandon.
            let _ended = settling.await;
        }
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        if let Some(settling) = self.settling.take() {
            settling.abort();
        }
        let mut state = self.shared.lock();
        state.abandon(self.id);
        for queue in &self.queues {
            state.release(queue);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }
}
