//! RabbitMQ over lapin: the only user of lapin.
//!
//! [`start`] gives a worker its consumer and publisher, kept alive by a supervisor; [`pool::ChannelPool`] gives a client
//! many publishing channels. `session` is one life of the two connections, `settle` the acknowledgements, `publisher`
//! the confirms. Nothing here opens an envelope.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::Queues;
use super::prefetch::Prefetch;
use super::topology::Topology;
use crate::limits::MAX_CONFIRMS_IN_FLIGHT;
use crate::settings::BrokerSettings;

mod connect;
mod connected;
mod consumer;
mod convert;
mod declare;
mod dial;
mod endpoint;
pub mod letters;
pub mod pool;
mod publisher;
mod session;
mod settle;
mod singly;
mod supervisor;
mod tap;
mod tls;
mod uri;

pub use connect::ConnectError;
pub use consumer::AmqpConsumer;
pub use endpoint::{Endpoint, EndpointError};
pub use publisher::AmqpPublisher;
pub use tls::TlsError;
pub use uri::UriError;

/// Whether the broker can be reached, and jobs are consumed. Readiness follows this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connectivity {
    /// No session stands; the last failure is told.
    Connecting {
        /// Why the last attempt or session ended; empty at first.
        reason: String,
        /// Sessions and attempts that have ended.
        failures: u64,
    },
    /// Every queue is consumed.
    Consuming,
    /// Stopped on request.
    Stopped,
}

/// Connection attempts and declarations of a worker or client: what `start` needs beside the queues.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) endpoint: Endpoint,
    pub(super) topology: Topology,
    pub(super) queues: Queues,
    pub(super) prefetch: Prefetch,
    pub(super) connection_name: String,
    pub(super) connect_timeout: Duration,
    pub(super) publish_timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
}

/// What a broker session is opened with, apart from the settings.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// What is declared before consuming.
    pub topology: Topology,
    /// The queues consumed.
    pub queues: Queues,
    /// Shown in the broker's list of connections.
    pub connection_name: String,
}

/// Starts consuming `subscription` and publishing, in the background and until the consumer is closed.
///
/// Returns at once: [`Connectivity`] tells how it goes. Connection losses are healed with full-jitter backoff for ever. The
/// prefetch is the settings', and stays so.
///
/// # Errors
/// [`EndpointError`] when the settings name no broker that may be spoken to.
pub fn start(
    settings: &BrokerSettings,
    subscription: Subscription,
) -> Result<(AmqpConsumer, AmqpPublisher, watch::Receiver<Connectivity>), EndpointError> {
    start_following(settings, subscription, Prefetch::fixed(settings.prefetch))
}

/// The same with a prefetch that may change: a consumer that is to have another one is put in the old one's place.
///
/// # Errors
/// [`EndpointError`] when the settings name no broker that may be spoken to.
pub fn start_following(
    settings: &BrokerSettings,
    subscription: Subscription,
    prefetch: Prefetch,
) -> Result<(AmqpConsumer, AmqpPublisher, watch::Receiver<Connectivity>), EndpointError> {
    let (publishes, requests) = mpsc::channel(MAX_CONFIRMS_IN_FLIGHT);
    let (blocked, blocking) = watch::channel(false);
    let publisher = AmqpPublisher::new(publishes, settings.publish_timeout, blocking);
    let publishing = supervisor::Publishing { requests: Arc::new(Mutex::new(requests)), blocked };
    let (consumer, connectivity) = supervised(settings, subscription, Some(publishing), prefetch)?;
    Ok((consumer, publisher, connectivity))
}

/// Starts consuming `subscription` alone: a client's replies.
///
/// # Errors
/// [`EndpointError`] when the settings name no broker that may be spoken to.
pub fn consume(
    settings: &BrokerSettings,
    subscription: Subscription,
) -> Result<(AmqpConsumer, watch::Receiver<Connectivity>), EndpointError> {
    supervised(settings, subscription, None, Prefetch::fixed(settings.prefetch))
}

fn supervised(
    settings: &BrokerSettings,
    subscription: Subscription,
    publishing: Option<supervisor::Publishing>,
    prefetch: Prefetch,
) -> Result<(AmqpConsumer, watch::Receiver<Connectivity>), EndpointError> {
    let (deliveries, delivered) = mpsc::channel(usize::from(prefetch.most()));
    let config = Config {
        endpoint: Endpoint::of(settings)?,
        topology: subscription.topology,
        queues: subscription.queues,
        prefetch,
        connection_name: subscription.connection_name,
        connect_timeout: settings.connect_timeout,
        publish_timeout: settings.publish_timeout,
        backoff_min: settings.backoff_min,
        backoff_max: settings.backoff_max,
    };
    let (phase, phases) = watch::channel(supervisor::Phase::Running);
    let starting = Connectivity::Connecting { reason: String::new(), failures: 0 };
    let (connectivity, connectivities) = watch::channel(starting);
    let links = supervisor::Links { deliveries, publishing, phases, connectivity };
    let supervisor = tokio::spawn(supervisor::supervise(config, links));
    Ok((AmqpConsumer::new(delivered, phase, connectivities.clone(), supervisor), connectivities))
}

/// Connects once, declares `topology` and closes again: `inferq topology apply`.
///
/// # Errors
/// See [`ConnectError`].
pub async fn apply(settings: &BrokerSettings, topology: &Topology) -> Result<(), ConnectError> {
    let endpoint = Endpoint::of(settings)?;
    let connection = connect::connect(&endpoint, "inferq topology", settings.connect_timeout).await?;
    declare::declare(&connection, topology, settings.connect_timeout).await?;
    connection.close().await;
    Ok(())
}

/// Connects once and deletes the queues and exchanges of `topology`, with all that is in them.
///
/// # Errors
/// See [`ConnectError`].
pub async fn remove(settings: &BrokerSettings, topology: &Topology) -> Result<(), ConnectError> {
    let endpoint = Endpoint::of(settings)?;
    let connection = connect::connect(&endpoint, "inferq topology", settings.connect_timeout).await?;
    declare::delete(&connection, topology, settings.connect_timeout).await?;
    connection.close().await;
    Ok(())
}

/// Connects once and closes again: whether the broker of `settings` answers at all.
///
/// # Errors
/// See [`ConnectError`].
pub async fn probe(settings: &BrokerSettings) -> Result<(), ConnectError> {
    let connection = connect::connect(&Endpoint::of(settings)?, "inferq probe", settings.connect_timeout).await?;
    connection.close().await;
    Ok(())
}
