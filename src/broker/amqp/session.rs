//! One life of the two connections: one consumes and acknowledges, one publishes, so that a publisher that the broker
//! blocks does not hold up acknowledgements.
//!
//! Anything that goes wrong ends the whole session; the supervisor opens the next.

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _};
use lapin::{Channel, Event};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Config;
use super::connect::{ConnectError, answered, close_channel, connect};
use super::connected::Connected;
use super::consumer::forward;
use super::declare::declare;
use super::publisher::{confirm_channel, publish_requests};
use super::settle::{Unsettled, settle};
use super::singly::Singly;
use super::supervisor::{Links, Phase, reached};
use super::tap::Taps;
use crate::broker::receipt::Settled;

/// Publishing channels of a worker: while one waits for the confirms of its batch, the other gathers the next.
const PUBLISHING_CHANNELS: usize = 2;

/// Two connections and the tasks on them.
pub(super) struct Session {
    consuming: Connected,
    /// `None` where nothing is published.
    publishing: Option<Connected>,
    /// Every channel, to be closed before its connection.
    channels: Vec<Channel>,
    /// Forwarders of deliveries, one a queue.
    forwarders: JoinSet<Result<(), String>>,
    /// The settlement task; ends when every receipt is settled.
    settling: JoinSet<Result<(), String>>,
    publishers: JoinSet<Result<(), String>>,
    watchers: JoinSet<String>,
}

impl Session {
    /// Connects, declares the topology and consumes every queue.
    pub(super) async fn open(config: &Config, links: &Links) -> Result<Self, ConnectError> {
        let consuming_name = format!("{} consumer", config.connection_name);
        let consuming = connect(&config.endpoint, &consuming_name, config.connect_timeout).await?;
        let mut watchers = JoinSet::new();
        watchers.spawn(broken("consumer", consuming.events_listener(), None));
        declare(&consuming, &config.topology, config.connect_timeout).await?;

        let mut publishers = JoinSet::new();
        let mut channels = Vec::new();
        let publishing = match &links.publishing {
            Some(publishing) => {
                let (connection, opened) = open_publishing(config).await?;
                publishing.blocked.send_replace(false);
                watchers.spawn(broken("publisher", connection.events_listener(), Some(publishing.blocked.clone())));
                for channel in &opened {
                    publishers.spawn(publish_requests(channel.clone(), publishing.clone(), config.publish_timeout));
                }
                channels.extend(opened);
                Some(connection)
            }
            None => None,
        };
        let limit = config.connect_timeout;
        let channel = answered(limit, || "a channel".to_owned(), consuming.create_channel()).await?;
        // Twice: while a consumer takes another's place, both may have unsettled deliveries.
        let unsettled = usize::from(config.prefetch.most()).saturating_mul(2 * config.queues.prefetched.len().max(1));
        let (settlements, settled) = mpsc::channel(unsettled);
        let mut settling = JoinSet::new();
        let unsettled = Unsettled::default();
        settling.spawn(settle(channel.clone(), settled, unsettled.clone(), config.publish_timeout));
        let mut forwarders = JoinSet::new();
        let taps = Taps::new(channel.clone(), limit);
        for queue in &config.queues.prefetched {
            let tap = taps.open(queue, config.prefetch.clone()).await?;
            let (deliveries, settlements) = (links.deliveries.clone(), settlements.clone());
            let outlet = Outlet { deliveries, settlements, unsettled: unsettled.clone() };
            forwarders.spawn(forward(tap, outlet, links.phases.clone()));
        }
        if !config.queues.singly.is_empty() {
            let channel = answered(limit, || "a channel".to_owned(), consuming.create_channel()).await?;
            channels.push(channel.clone());
            let queues = config.queues.singly.iter().map(|queue| queue.as_str().into()).collect();
            let singly = Singly { channel, queues, deliveries: links.deliveries.clone(), others: unsettled, limit };
            forwarders.spawn(singly.take(links.phases.clone()));
        }
        channels.push(channel);
        Ok(Self { consuming, publishing, channels, forwarders, settling, publishers, watchers })
    }

    /// Runs until asked to close, `Ok`, or until something breaks: `Err` with the reason.
    pub(super) async fn run(mut self, links: &mut Links) -> Result<(), String> {
        let ended = self.consume_until_stopped(links).await;
        if ended.is_ok() {
            links.connectivity.send_replace(super::Connectivity::Stopped);
        }
        let ended = match ended {
            Ok(()) => self.flush_until_closed(links).await,
            Err(reason) => Err(reason),
        };
        self.watchers.abort_all();
        self.publishers.abort_all();
        if ended.is_ok() {
            // All at once: on a connection that the broker blocks, every goodbye takes as long as it may.
            join_all(self.channels.iter().map(close_channel)).await;
            if let Some(publishing) = self.publishing {
                publishing.close().await;
            }
            self.consuming.close().await;
        }
        ended
    }

    /// Until the forwarders have ended on request.
    async fn consume_until_stopped(&mut self, links: &Links) -> Result<(), String> {
        let stopping = || *links.phases.borrow() > Phase::Running;
        let mut phases = links.phases.clone();
        loop {
            tokio::select! {
                () = reached(&mut phases, Phase::Stopping), if self.forwarders.is_empty() => return Ok(()),
                Some(ended) = self.forwarders.join_next() => match ended {
                    Ok(Ok(())) if stopping() => {}
                    other => return Err(reason("a consumer", other)),
                },
                // It ends by itself when the last forwarder and the last receipt are gone, maybe before that is noticed; and at
                // once where nothing is consumed.
                Some(ended) = self.settling.join_next() => match ended {
                    Ok(Ok(())) if stopping() || self.forwarders.is_empty() => {}
                    other => return Err(reason("the acknowledgements", other)),
                },
                Some(ended) = self.publishers.join_next() => publishing_ended(ended)?,
                Some(ended) = self.watchers.join_next() => return Err(ended.unwrap_or_else(|error| error.to_string())),
            }
        }
    }

    /// Until every receipt is settled and the owner has asked to close.
    async fn flush_until_closed(&mut self, links: &mut Links) -> Result<(), String> {
        let closing = async {
            reached(&mut links.phases, Phase::Closing).await;
            match self.settling.join_next().await {
                Some(Ok(ended)) => ended,
                Some(Err(error)) => Err(error.to_string()),
                None => Ok(()),
            }
        };
        tokio::pin!(closing);
        loop {
            tokio::select! {
                ended = &mut closing => return ended,
                Some(ended) = self.publishers.join_next() => publishing_ended(ended)?,
                Some(ended) = self.watchers.join_next() => return Err(ended.unwrap_or_else(|error| error.to_string())),
            }
        }
    }
}

/// The publishing connection and its channels.
async fn open_publishing(config: &Config) -> Result<(Connected, Vec<Channel>), ConnectError> {
    let name = format!("{} publisher", config.connection_name);
    let connection = connect(&config.endpoint, &name, config.connect_timeout).await?;
    let mut channels = Vec::with_capacity(PUBLISHING_CHANNELS);
    for _ in 0..PUBLISHING_CHANNELS {
        channels.push(confirm_channel(&connection, config.connect_timeout).await?);
    }
    Ok((connection, channels))
}

/// Where a forwarder puts what it receives.
pub(super) struct Outlet {
    pub(super) deliveries: mpsc::Sender<crate::broker::Delivery>,
    pub(super) settlements: mpsc::Sender<Settled>,
    /// Counts what goes through.
    pub(super) unsettled: Unsettled,
}

/// A publishing channel ends by itself only when every publisher is dropped: whoever only consumes needs none.
fn publishing_ended(ended: Result<Result<(), String>, tokio::task::JoinError>) -> Result<(), String> {
    match ended {
        Ok(Ok(())) => Ok(()),
        other => Err(reason("a publishing channel", other)),
    }
}

/// Resolves when a connection reports an error or its end. Meanwhile `blocked` follows what the broker says.
async fn broken(
    connection: &'static str,
    events: impl Stream<Item = Event>,
    blocked: Option<watch::Sender<bool>>,
) -> String {
    let say = |now| blocked.as_ref().map(|blocked| blocked.send_replace(now));
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::Error(error) => return format!("the {connection} connection broke: {error}"),
            Event::ConnectionBlocked(why) => {
                say(true);
                tracing::warn!(connection, why, "the broker blocks this connection");
            }
            Event::ConnectionUnblocked => {
                say(false);
                tracing::info!(connection, "the broker no longer blocks this connection");
            }
            _ => {}
        }
    }
    format!("the {connection} connection ended")
}

fn reason(what: &str, ended: Result<Result<(), String>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => format!("{what} ended"),
        Ok(Err(reason)) => format!("{what}: {reason}"),
        Err(error) => format!("{what}: {error}"),
    }
}
