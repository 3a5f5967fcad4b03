//! The queues of the broker inside the process. Synchronous and behind one lock; time is tokio's clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::Address;
use crate::broker::receipt::Settlement;
use crate::broker::topology::Topology;
use crate::protocol::properties::Message;

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    Stored,
    Unroutable,
    Full,
}

/// A message in a queue.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) message: Message,
    routing_key: Arc<str>,
    expires: Option<Instant>,
    pub(super) redelivered: bool,
    pub(super) delivery_count: u32,
}

/// What a queue does with messages.
#[derive(Debug, Clone, Default)]
struct Rules {
    max_bytes: Option<usize>,
    /// Messages at most; beyond, the oldest go.
    max_length: Option<usize>,
    /// Whether it ends with its consumer.
    is_exclusive: bool,
    ttl: Option<Duration>,
    dead_letter_exchange: Option<String>,
    dead_letter_routing_key: Option<String>,
    delivery_limit: Option<u32>,
}

#[derive(Debug, Default)]
struct Queue {
    rules: Rules,
    ready: VecDeque<Stored>,
    bytes: usize,
}

/// A delivery that a consumer has not settled.
#[derive(Debug)]
struct Unsettled {
    queue: Arc<str>,
    stored: Stored,
}

/// Names a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ConsumerId(u64);

#[derive(Debug, Default)]
pub(super) struct State {
    queues: HashMap<String, Queue>,
    /// Exchange and routing key to queues.
    bindings: HashMap<(String, String), Vec<String>>,
    /// By consumer and tag, in the order of delivery.
    unsettled: BTreeMap<(ConsumerId, u64), Unsettled>,
    next_consumer: u64,
    next_tag: u64,
}

impl State {
    pub(super) fn new(topology: &Topology) -> Self {
        let mut state = Self::default();
        state.declare(topology);
        state
    }

    /// Declares what is not there yet.
    pub(super) fn declare(&mut self, topology: &Topology) {
        for queue in &topology.queues {
            let rules = Rules {
                max_bytes: queue.integer("x-max-length-bytes").and_then(|bytes| usize::try_from(bytes).ok()),
                max_length: queue.integer("x-max-length").and_then(|length| usize::try_from(length).ok()),
                is_exclusive: queue.is_exclusive,
                ttl: queue.integer("x-message-ttl").and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
                dead_letter_exchange: queue.text("x-dead-letter-exchange").map(str::to_owned),
                dead_letter_routing_key: queue.text("x-dead-letter-routing-key").map(str::to_owned),
                delivery_limit: queue.integer("x-delivery-limit").and_then(|limit| u32::try_from(limit).ok()),
            };
            self.queues.entry(queue.name.clone()).or_insert_with(|| Queue { rules, ..Queue::default() });
            for binding in &queue.bindings {
                self.bind(&binding.exchange, &binding.routing_key, &queue.name);
            }
        }
    }

    pub(super) fn declare_reply_queue(&mut self, exchange: &str, name: &str) {
        self.queues.entry(name.to_owned()).or_default();
        self.bind(exchange, name, name);
    }

    pub(super) fn bound(&mut self, name: &str, max_bytes: usize) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.rules.max_bytes = Some(max_bytes);
        }
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.queues.remove(name);
        self.bindings.values_mut().for_each(|queues| queues.retain(|queue| queue != name));
    }

    /// Lets a queue go whose consumer is gone, where it belongs to that.
    pub(super) fn release(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(|queue| queue.rules.is_exclusive) {
            self.delete(name);
        }
    }

    fn bind(&mut self, exchange: &str, routing_key: &str, queue: &str) {
        let queues = self.bindings.entry((exchange.to_owned(), routing_key.to_owned())).or_default();
        if !queues.iter().any(|bound| bound == queue) {
            queues.push(queue.to_owned());
        }
    }

    pub(super) fn ready(&mut self, queue: &str) -> Option<Vec<Message>> {
        self.expire(Instant::now());
        self.queues.get(queue).map(|queue| queue.ready.iter().map(|stored| stored.message.clone()).collect())
    }

    pub(super) fn publish(&mut self, address: &Address, message: Message) -> Published {
        let stored = Stored {
            message,
            routing_key: Arc::clone(&address.routing_key),
            expires: None,
            redelivered: false,
            delivery_count: 0,
        };
        self.route(&address.exchange, stored)
    }

    /// Stores a message in every queue that its routing key is bound to, or in none of them.
    fn route(&mut self, exchange: &str, stored: Stored) -> Published {
        let key = (exchange.to_owned(), stored.routing_key.to_string());
        let targets = self.bindings.get(&key).cloned().unwrap_or_default();
        if targets.is_empty() {
            return Published::Unroutable;
        }
        let bytes = stored.message.body.len();
        let full = |queue: &Queue| queue.rules.max_bytes.is_some_and(|max| queue.bytes + bytes > max);
        if targets.iter().filter_map(|target| self.queues.get(target)).any(full) {
            return Published::Full;
        }
        for target in targets {
            if let Some(queue) = self.queues.get_mut(&target) {
                let expires = queue.rules.ttl.map(|ttl| Instant::now() + ttl);
                queue.bytes += bytes;
                queue.ready.push_back(Stored { expires, ..stored.clone() });
                while queue.rules.max_length.is_some_and(|most| queue.ready.len() > most) {
                    queue.bytes -= queue.ready.pop_front().map_or(0, |oldest| oldest.message.body.len());
                }
            }
        }
        Published::Stored
    }

    /// Dead-letters what has waited longer than its queue allows; answers when the next will have.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let names: Vec<String> =
            self.queues.iter().filter(|(_, queue)| queue.rules.ttl.is_some()).map(|(name, _)| name.clone()).collect();
        let mut next = None;
        for name in names {
            while let Some(expires) = self.head_expiry(&name) {
                if expires > now {
                    next = Some(next.map_or(expires, |next: Instant| next.min(expires)));
                    break;
                }
                if let Some(stored) = self.pop(&name) {
                    self.dead_letter(&name, stored);
                }
            }
        }
        next
    }

    fn head_expiry(&self, queue: &str) -> Option<Instant> {
        self.queues.get(queue)?.ready.front()?.expires
    }

    fn pop(&mut self, queue: &str) -> Option<Stored> {
        let queue = self.queues.get_mut(queue)?;
        let stored = queue.ready.pop_front()?;
        queue.bytes -= stored.message.body.len();
        Some(stored)
    }

    fn dead_letter(&mut self, queue: &str, stored: Stored) {
        let Some(rules) = self.queues.get(queue).map(|queue| queue.rules.clone()) else { return };
        let Some(exchange) = rules.dead_letter_exchange else { return };
        let routing_key = rules.dead_letter_routing_key.map_or(stored.routing_key, Into::into);
        let dead =
            Stored { message: stored.message, routing_key, expires: None, redelivered: false, delivery_count: 0 };
        if self.route(&exchange, dead) != Published::Stored {
            tracing::error!(queue, "a dead letter found no room and is lost with this embedded broker");
        }
    }

    pub(super) fn new_consumer(&mut self) -> ConsumerId {
        self.next_consumer += 1;
        ConsumerId(self.next_consumer)
    }

    /// Whether a consumer has an unsettled message of one of `queues`.
    pub(super) fn holds_one_of(&self, consumer: ConsumerId, queues: &[Arc<str>]) -> bool {
        let mut own = self.unsettled.range((consumer, 0)..=(consumer, u64::MAX));
        own.any(|(_, unsettled)| queues.contains(&unsettled.queue))
    }

    /// Takes the oldest message of `queue` for a consumer, unless it has `prefetch` unsettled ones of it.
    pub(super) fn deliver(&mut self, consumer: ConsumerId, queue: &Arc<str>, prefetch: usize) -> Option<(u64, Stored)> {
        let own = self.unsettled.range((consumer, 0)..=(consumer, u64::MAX));
        if own.filter(|(_, unsettled)| unsettled.queue == *queue).count() >= prefetch {
            return None;
        }
        let stored = self.pop(queue)?;
        self.next_tag += 1;
        let unsettled = Unsettled { queue: Arc::clone(queue), stored: stored.clone() };
        self.unsettled.insert((consumer, self.next_tag), unsettled);
        Some((self.next_tag, stored))
    }

    pub(super) fn settle(&mut self, consumer: ConsumerId, tag: u64, settlement: Settlement) {
        let Some(Unsettled { queue, mut stored }) = self.unsettled.remove(&(consumer, tag)) else { return };
        match settlement {
            Settlement::Ack => return,
            Settlement::Requeue => stored.delivery_count += 1,
            Settlement::Return => {}
        }
        stored.redelivered = true;
        let limit = self.queues.get(&*queue).and_then(|queue| queue.rules.delivery_limit);
        if limit.is_some_and(|limit| stored.delivery_count > limit) {
            self.dead_letter(&queue, stored);
        } else if let Some(queue) = self.queues.get_mut(&*queue) {
            queue.bytes += stored.message.body.len();
            queue.ready.push_front(stored);
        }
    }

    /// A consumer is gone: what it has not settled goes back, in the old order.
    pub(super) fn abandon(&mut self, consumer: ConsumerId) {
        let tags: Vec<u64> =
            self.unsettled.range((consumer, 0)..=(consumer, u64::MAX)).map(|((_, tag), _)| *tag).collect();
        for tag in tags.into_iter().rev() {
            self.settle(consumer, tag, Settlement::Requeue);
        }
    }
}
