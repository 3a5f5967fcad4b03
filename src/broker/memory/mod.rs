//! The broker inside the process: the contract of RabbitMQ's quorum queues, as far as this program leans on it.
//!
//! Serves fast tests under a paused clock and `inferq demo --embedded`. It keeps nothing when the process ends, and is
//! no broker for a service. `state` is the queues, `consumer` the seam's other half.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::prefetch::Prefetch;
use super::topology::Topology;
use super::{Address, Confirmed, PublishError, Publisher, Queues};
use crate::protocol::properties::Message;

mod consumer;
mod state;

pub use consumer::MemoryConsumer;
use state::{Published, State};

/// A broker inside the process. Clones are the same broker.
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rung whenever a queue or a consumer's room may have changed.
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryBroker {
    /// A broker with the queues of `topology`.
    #[must_use]
    pub fn new(topology: &Topology) -> Self {
        let shared = Shared { state: Mutex::new(State::new(topology)), changed: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Declares what `topology` has and this broker has not.
    pub fn declare(&self, topology: &Topology) {
        self.shared.lock().declare(topology);
    }

    /// Declares a reply queue and binds it to `exchange` under its own name.
    pub fn declare_reply_queue(&self, exchange: &str, name: &str) {
        self.shared.lock().declare_reply_queue(exchange, name);
    }

    /// Bounds a queue's bytes, as an operator's policy does.
    pub fn bound_queue(&self, name: &str, max_bytes: usize) {
        self.shared.lock().bound(name, max_bytes);
    }

    /// Deletes a queue with all that is in it.
    pub fn delete_queue(&self, name: &str) {
        self.shared.lock().delete(name);
    }

    /// Messages that are ready in a queue; `None` where there is no such queue.
    #[must_use]
    pub fn depth(&self, queue: &str) -> Option<usize> {
        self.shared.lock().ready(queue).map(|ready| ready.len())
    }

    /// Copies of the messages that are ready in a queue, oldest first.
    #[must_use]
    pub fn peek(&self, queue: &str) -> Vec<Message> {
        self.shared.lock().ready(queue).unwrap_or_default()
    }

    /// A consumer of `queues`, with at most `prefetch` unsettled deliveries of each.
    #[must_use]
    pub fn consumer(&self, queues: &Queues, prefetch: u16) -> MemoryConsumer {
        self.consumer_following(queues, Prefetch::fixed(prefetch))
    }

    /// The same with a prefetch that may change, which holds for the next delivery.
    #[must_use]
    pub fn consumer_following(&self, queues: &Queues, prefetch: Prefetch) -> MemoryConsumer {
        MemoryConsumer::new(Arc::clone(&self.shared), queues, prefetch)
    }

    /// A publisher.
    #[must_use]
    pub fn publisher(&self) -> MemoryPublisher {
        MemoryPublisher { shared: Arc::clone(&self.shared) }
    }
}

/// Publishes into a [`MemoryBroker`].
#[derive(Debug, Clone)]
pub struct MemoryPublisher {
    shared: Arc<Shared>,
}

impl Publisher for MemoryPublisher {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let published = self.shared.lock().publish(address, message);
        match published {
            Published::Stored => {
                self.shared.changed.notify_waiters();
                Ok(Confirmed::by_broker())
            }
            Published::Unroutable => Err(PublishError::Returned {
                exchange: Arc::clone(&address.exchange),
                routing_key: Arc::clone(&address.routing_key),
                reply_text: "NO_ROUTE".to_owned(),
            }),
            Published::Full => Err(PublishError::Refused { routing_key: Arc::clone(&address.routing_key) }),
        }
    }
}
