//! The announcer of a worker process: its connections, when it speaks anew, and its end. Started by `serve`.

use std::sync::Arc;

use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Announcer, Parts};
use crate::broker::amqp::pool::ChannelPool;
use crate::broker::amqp::{self, Connectivity, EndpointError, Subscription};
use crate::broker::topology::{Names, Topology};
use crate::limits::GOODBYE_LIMIT;
use crate::settings::Settings;

/// The task that announces the models, and how it is told to end.
pub(super) struct Announcing {
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Announcing {
    /// Announces, where the settings want it, on two connections of its own.
    pub(super) fn start(settings: &Settings, parts: &Parts) -> Result<Option<Self>, EndpointError> {
        let Some(interval) = settings.discovery.announce_interval else { return Ok(None) };
        let publisher = match ChannelPool::new(&settings.broker) {
            Ok(publisher) => publisher.for_whoever_listens(),
            Err(error) => {
                tracing::error!(%error, "the models are not announced");
                return Ok(None);
            }
        };
        let announcer = Announcer::new(settings, parts, interval, publisher);
        let queue = announcer.query_queue();
        let topology = Topology::for_queries(&Names::new(&settings.broker.name_prefix), &queue);
        let connection_name = format!("inferq worker {} models", settings.service.worker_id);
        let subscription = Subscription { topology, queues: vec![queue].into(), connection_name };
        let (queries, connectivity) = amqp::consume(&settings.broker, subscription)?;
        let (leave, left) = oneshot::channel::<()>();
        let changes = Arc::clone(&parts.changes);
        let task = tokio::spawn(async move {
            let leaving = async { drop(left.await) };
            let announcing = announcer.run(queries, leaving);
            tokio::pin!(announcing);
            let publisher = tokio::select! {
                publisher = &mut announcing => publisher,
                () = announce_again(connectivity, &changes) => announcing.await,
            };
            publisher.close().await;
        });
        Ok(Some(Self { leave, task }))
    }

    /// Has it say goodbye; answers the task that does.
    pub(super) fn leave(self) -> JoinHandle<()> {
        drop(self.leave);
        self.task
    }
}

/// Rings `changes` with each session that stands: whoever lost the last one has heard nothing since.
async fn announce_again(mut connectivity: watch::Receiver<Connectivity>, changes: &Notify) {
    loop {
        if *connectivity.borrow_and_update() == Connectivity::Consuming {
            changes.notify_one();
        }
        if connectivity.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until goodbye is said, which must not hold up the end of the process for long.
pub(super) async fn said(goodbye: Option<JoinHandle<()>>) {
    let Some(mut goodbye) = goodbye else { return };
    match timeout(GOODBYE_LIMIT.saturating_mul(2), &mut goodbye).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the task that announces the models panicked"),
        Err(_) => goodbye.abort(),
    }
}
