//! A client's publishing channels: a pool, each taken by one task for one publish.
//!
//! Many tasks of a producer publish at once; with a channel to itself, a publish has its confirm and its return to
//! itself. deadpool opens channels as they are needed and discards those that broke.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Pool, RecycleError, RecycleResult};
use lapin::{Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connect::{ConnectError, close_channel, connect};
use super::connected::Connected;
use super::endpoint::Endpoint;
use super::publisher::{Heard, confirm_channel, publish_one, returned_error};
use crate::broker::{Address, Confirmed, PublishError, Publisher};
use crate::protocol::properties::Message;
use crate::settings::BrokerSettings;

/// Opens channels on one connection, which is opened again when it broke.
#[derive(Debug)]
struct Channels {
    endpoint: Endpoint,
    connect_timeout: Duration,
    connection: Mutex<Option<Connected>>,
}

impl managed::Manager for Channels {
    type Type = Channel;
    type Error = ConnectError;

    async fn create(&self) -> Result<Channel, ConnectError> {
        let mut connection = self.connection.lock().await;
        if let Some(standing) = connection.as_ref().filter(|connection| connection.status().connected()) {
            return confirm_channel(standing, self.connect_timeout).await;
        }
        let fresh = connect(&self.endpoint, "inferq client", self.connect_timeout).await?;
        let channel = confirm_channel(&fresh, self.connect_timeout).await?;
        *connection = Some(fresh);
        Ok(channel)
    }

    async fn recycle(&self, channel: &mut Channel, _: &Metrics) -> RecycleResult<ConnectError> {
        if channel.status().connected() { Ok(()) } else { Err(RecycleError::message("the channel is closed")) }
    }
}

/// A channel of the pool with a publish under way. Dropped before the publish is decided, because its caller gave up or
/// the channel failed, it does not go back: its confirm and its returned message would be taken for the next publish's.
struct Borrowed(Option<managed::Object<Channels>>);

impl Borrowed {
    fn channel(&self) -> Result<&Channel, PublishError> {
        self.0.as_deref().ok_or_else(|| PublishError::Unavailable("the channel was given back".to_owned()))
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(channel) = self.0.take() {
            // lapin closes a channel when its last handle is dropped.
            drop(managed::Object::take(channel));
        }
    }
}

/// A publisher for many tasks of a producer. Clones share the pool.
#[derive(Debug, Clone)]
pub struct ChannelPool {
    pool: Pool<Channels>,
    limit: Duration,
    heard: Heard,
}

impl ChannelPool {
    /// A pool of at most `settings.publisher_channels` channels; none is opened yet.
    ///
    /// # Errors
    /// When the settings name no broker that may be spoken to, or the pool's size is 0.
    pub fn new(settings: &BrokerSettings) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::of(settings)?;
        let shown = endpoint.to_string();
        let channels = Channels { endpoint, connect_timeout: settings.connect_timeout, connection: Mutex::new(None) };
        let pool = Pool::builder(channels).max_size(settings.publisher_channels.max(1)).build().map_err(|error| {
            ConnectError::NoAnswer { uri: shown.clone(), reason: format!("the channel pool: {error}") }
        })?;
        Ok(Self { pool, limit: settings.publish_timeout, heard: Heard::Needed })
    }

    /// The same pool, for messages that are for whoever listens: the broker confirms them though nobody does.
    #[must_use]
    pub fn for_whoever_listens(self) -> Self {
        Self { heard: Heard::Optional, ..self }
    }

    /// Opens the first channel: says early whether a broker answers.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn warm_up(&self) -> Result<(), ConnectError> {
        match self.pool.get().await {
            Ok(_channel) => Ok(()),
            Err(managed::PoolError::Backend(error)) => Err(error),
            Err(error) => {
                let uri = self.pool.manager().endpoint.to_string();
                Err(ConnectError::NoAnswer { uri, reason: error.to_string() })
            }
        }
    }

    /// Closes the pool's connection; what was confirmed is with the broker.
    pub async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        for channel in &idle {
            close_channel(channel).await;
        }
        self.pool.close();
        let connection = self.pool.manager().connection.lock().await.take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }

    async fn publish_on_a_channel(&self, address: &Address, message: &Message) -> Result<Confirmed, PublishError> {
        let unavailable = |reason: String| PublishError::Unavailable(reason);
        let borrowed = Borrowed(Some(self.pool.get().await.map_err(|error| unavailable(error.to_string()))?));
        let confirm = publish_one(borrowed.channel()?, address, message, self.heard).await.map_err(unavailable)?;
        let confirmation = confirm.await.map_err(|error| unavailable(error.to_string()))?;
        borrowed.give_back();
        match confirmation {
            Confirmation::Ack(None) => Ok(Confirmed::by_broker()),
            Confirmation::Ack(Some(_)) => Err(returned_error(address)),
            Confirmation::Nack(_) => Err(PublishError::Refused { routing_key: Arc::clone(&address.routing_key) }),
            Confirmation::NotRequested => Err(unavailable("the channel does not confirm".to_owned())),
        }
    }
}

impl Publisher for ChannelPool {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let published = self.publish_on_a_channel(address, &message);
        timeout(self.limit, published).await.unwrap_or(Err(PublishError::TimedOut(self.limit)))
    }
}
