//! A client over RabbitMQ: a pool of publishing channels, and a reply queue of its own.

use std::time::Duration;

use uuid::Uuid;

use super::{Client, ClientSettings, Discovery, DiscoverySource, announcement_queue_name};
use crate::broker::amqp::pool::ChannelPool;
use crate::broker::amqp::{self, ConnectError, Connectivity, Subscription};
use crate::broker::topology::{Names, Topology};
use crate::envelope::ProducerKeys;
use crate::limits::MAX_PENDING_REPLIES;
use crate::settings::Settings;

/// Connects to the broker of `settings` as the tenant whose `keys` these are.
///
/// The reply queue carries the tenant's prefix and a random name; it survives a broken connection, and the broker deletes
/// it when nobody has consumed it for `limits::REPLY_QUEUE_EXPIRES`.
///
/// # Errors
/// See [`ConnectError`]: nobody answers, or the broker refuses the reply queue.
pub async fn connect(settings: &Settings, keys: ProducerKeys) -> Result<Client<ChannelPool>, ConnectError> {
    let names = Names::new(&settings.broker.name_prefix);
    let reply_queue = reply_queue_name(&keys);
    let publisher = ChannelPool::new(&settings.broker)?;
    publisher.warm_up().await?;
    let topology = Topology::for_replies(&names, &reply_queue);
    amqp::apply(&settings.broker, &topology).await?;
    let subscription = Subscription {
        topology,
        queues: vec![reply_queue.clone()].into(),
        connection_name: "inferq client".to_owned(),
    };
    let (replies, mut connectivity) = amqp::consume(&settings.broker, subscription)?;
    // Its reply must not find a job's reply queue unread for long; a failed attempt is healed in the background.
    drop(connectivity.wait_for(|now| *now != Connectivity::Connecting { reason: String::new(), failures: 0 }).await);
    let client_settings = ClientSettings {
        audience: settings.service.audience.clone(),
        jobs_exchange: names.jobs_exchange(),
        reply_queue,
        lifetime: settings.limits.max_lifetime,
        max_pending: MAX_PENDING_REPLIES,
    };
    let client = Client::new(client_settings, keys.clone(), publisher.clone(), replies);
    let Some(wait) = settings.discovery.answer_wait else { return Ok(client) };
    Ok(match discover(settings, keys, publisher, wait).await {
        Ok(discovery) => client.with_discovery(discovery),
        Err(reason) => {
            tracing::debug!(reason, "announcements cannot be heard; jobs are sent all the same");
            client
        }
    })
}

/// Hears which models the workers at the broker of `settings` serve for the tenant of `keys`; answers are waited for as long as `wait`.
///
/// # Errors
/// Why the queue of announcements cannot be had: no broker answers, or the broker's user may not read them.
pub async fn discover(
    settings: &Settings,
    keys: ProducerKeys,
    publisher: ChannelPool,
    wait: Duration,
) -> Result<Discovery<ChannelPool>, String> {
    let names = Names::new(&settings.broker.name_prefix);
    let queue = announcement_queue_name(&keys);
    let topology = Topology::for_announcements(&names, &queue, keys.tenant());
    let connection_name = "inferq client models".to_owned();
    let subscription = Subscription { topology, queues: vec![queue].into(), connection_name };
    let (announcements, mut connectivity) =
        amqp::consume(&settings.broker, subscription).map_err(|error| error.to_string())?;
    let starting = Connectivity::Connecting { reason: String::new(), failures: 0 };
    let tried = connectivity.wait_for(|now| *now != starting).await.map(|now| now.clone());
    match tried {
        Ok(Connectivity::Consuming) => {}
        Ok(Connectivity::Connecting { reason, .. }) => return Err(reason),
        Ok(Connectivity::Stopped) | Err(_) => return Err("the connection was closed".to_owned()),
    }
    let source = DiscoverySource { names, audience: settings.service.audience.clone(), wait };
    Ok(Discovery::start(source, keys, publisher, announcements))
}

impl Client<ChannelPool> {
    /// Ends the client: jobs that still wait are told that it was closed, and the connections are closed in order.
    pub async fn close(self) {
        let publisher = self.stop().await;
        publisher.close().await;
    }
}

/// A fresh name for a reply queue of the tenant whose `keys` these are.
#[must_use]
pub fn reply_queue_name(keys: &ProducerKeys) -> String {
    format!("{}replies.{}", keys.reply_prefix(), Uuid::new_v4().simple())
}
