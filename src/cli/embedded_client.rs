//! A client on the broker inside this process: the demo's and the bench's.

use crate::broker::memory::{MemoryBroker, MemoryPublisher};
use crate::broker::topology::Names;
use crate::client::{Client, ClientSettings, reply_queue_name};
use crate::envelope::ProducerKeys;
use crate::limits::{MAX_PENDING_REPLIES, MAX_PREFETCH};
use crate::settings::Settings;

/// A client that publishes to `broker` as the tenant whose `keys` these are, with a reply queue of its own.
pub(super) fn embedded_client(
    settings: &Settings,
    keys: ProducerKeys,
    broker: &MemoryBroker,
) -> Client<MemoryPublisher> {
    let names = Names::new(&settings.broker.name_prefix);
    let reply_queue = reply_queue_name(&keys);
    broker.declare_reply_queue(&names.replies_exchange(), &reply_queue);
    let replies = broker.consumer(&vec![reply_queue.clone()].into(), MAX_PREFETCH);
    let client_settings = ClientSettings {
        audience: settings.service.audience.clone(),
        jobs_exchange: names.jobs_exchange(),
        reply_queue,
        lifetime: settings.limits.max_lifetime,
        max_pending: MAX_PENDING_REPLIES,
    };
    Client::new(client_settings, keys, broker.publisher(), replies)
}
