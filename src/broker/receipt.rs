//! The duty to settle one delivery: exactly once, with proof.
//!
//! Handed out by both brokers inside a `Delivery`; consumed by the worker at the end of a job's walk. It only sends
//! its verdict on; the broker's settlement task does the I/O.

use tokio::sync::mpsc;

use super::Confirmed;

/// What is to become of a delivery.
#[derive(Debug)]
pub enum Verdict {
    /// Something confirmed stands in the job's place: its reply, its copy in a retry queue, its dead letter or its
    /// undeliverable reply.
    Ack(Confirmed),
    /// Nothing could be published: the broker shall deliver the job again.
    Requeue,
}

/// What a settlement task is told about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Acknowledge it.
    Ack,
    /// Reject it back into its queue; counts towards the delivery limit.
    Requeue,
    /// Give it back untouched, as one that was prefetched but never begun.
    Return,
}

/// A settlement and the delivery it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The delivery tag.
    pub tag: u64,
    /// What is to become of it.
    pub settlement: Settlement,
}

/// The duty to settle one delivery. Not `Clone`; dropped unsettled, it requeues the delivery and says so.
#[derive(Debug)]
#[must_use = "a receipt that is dropped requeues its delivery"]
pub struct Receipt {
    tag: u64,
    /// Taken when settled. The channel's capacity is the prefetch, so that sending never waits; it is closed when the
    /// broker's channel is gone, and then the broker has requeued the delivery by itself.
    settlements: Option<mpsc::Sender<Settled>>,
}

impl Receipt {
    /// A receipt for delivery `tag` of the channel whose settlement task listens on `settlements`.
    pub(super) fn new(tag: u64, settlements: mpsc::Sender<Settled>) -> Self {
        Self { tag, settlements: Some(settlements) }
    }

    /// Settles the delivery.
    pub fn settle(self, verdict: Verdict) {
        let settlement = match verdict {
            Verdict::Ack(Confirmed(())) => Settlement::Ack,
            Verdict::Requeue => Settlement::Requeue,
        };
        self.send(settlement);
    }

    /// Acknowledges a reply that has reached its producer, an announcement or a query: a job ends in [`Receipt::settle`].
    pub(crate) fn taken(self) {
        self.send(Settlement::Ack);
    }

    /// Resolves when the channel it came on is gone. Cancel safe.
    pub(crate) async fn voided(&self) {
        if let Some(settlements) = &self.settlements {
            settlements.closed().await;
        }
    }

    /// Whether the channel it came on is gone, so that the broker has requeued the delivery by itself.
    pub(crate) fn is_stale(&self) -> bool {
        self.settlements.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Gives back a delivery that nobody has begun.
    pub(crate) fn give_back(self) {
        self.send(Settlement::Return);
    }

    fn send(mut self, settlement: Settlement) {
        if let Some(settlements) = self.settlements.take() {
            forward(&settlements, self.tag, settlement);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(settlements) = self.settlements.take() {
            if !settlements.is_closed() {
                tracing::warn!(delivery.tag = self.tag, "a delivery was dropped unsettled and is requeued");
            }
            forward(&settlements, self.tag, Settlement::Requeue);
        }
    }
}

/// Hands a settlement on. A full channel cannot be: its capacity is the number of deliveries that may be unsettled.
fn forward(settlements: &mpsc::Sender<Settled>, tag: u64, settlement: Settlement) {
    match settlements.try_send(Settled { tag, settlement }) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Closed(_)) => {
            tracing::debug!(delivery.tag = tag, "the channel is gone, the broker has requeued its deliveries");
        }
        Err(mpsc::error::TrySendError::Full(_)) => {
            tracing::error!(delivery.tag = tag, "more settlements than deliveries; the broker will deliver again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receipt_is_void_when_its_channel_is_gone() {
        let (settlements, settled) = mpsc::channel(1);
        let receipt = Receipt::new(7, settlements);
        assert!(!receipt.is_stale());
        drop(settled);
        receipt.voided().await;
        assert!(receipt.is_stale());
    }
}
