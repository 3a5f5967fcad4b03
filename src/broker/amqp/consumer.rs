//! A worker's consumer: deliveries of whatever session stands, and the end of it all.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::session::Outlet;
use super::supervisor::{Phase, reached};
use super::tap::{Tap, Tapped};
use super::{Connectivity, convert};
use crate::broker::receipt::Settled;
use crate::broker::{Consumer, Delivery, Receipt};
use crate::protocol::properties::{HEADER_DELIVERY_COUNT, Message};

/// Consumes from RabbitMQ; see [`super::start`].
#[derive(Debug)]
pub struct AmqpConsumer {
    deliveries: mpsc::Receiver<Delivery>,
    phase: watch::Sender<Phase>,
    connectivity: watch::Receiver<Connectivity>,
    supervisor: JoinHandle<()>,
}

impl AmqpConsumer {
    pub(super) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        phase: watch::Sender<Phase>,
        connectivity: watch::Receiver<Connectivity>,
        supervisor: JoinHandle<()>,
    ) -> Self {
        Self { deliveries, phase, connectivity, supervisor }
    }
}

impl Consumer for AmqpConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if *self.phase.borrow() > Phase::Running {
                return None;
            }
            let delivery = self.deliveries.recv().await?;
            // From a session that has ended: the broker has given it to somebody already.
            if !delivery.receipt.is_stale() {
                return Some(delivery);
            }
        }
    }

    async fn stop(&mut self) {
        self.phase.send_replace(Phase::Stopping);
        let mut connectivity = self.connectivity.clone();
        let stopped = async {
            drop(connectivity.wait_for(|now| *now == Connectivity::Stopped).await);
        };
        tokio::pin!(stopped);
        // Forwarders may wait for room in the channel: what they hand over goes straight back.
        loop {
            tokio::select! {
                () = &mut stopped => break,
                Some(delivery) = self.deliveries.recv() => delivery.receipt.give_back(),
            }
        }
        while let Ok(delivery) = self.deliveries.try_recv() {
            delivery.receipt.give_back();
        }
    }

    async fn close(mut self) {
        self.phase.send_replace(Phase::Closing);
        self.deliveries.close();
        while let Ok(delivery) = self.deliveries.try_recv() {
            delivery.receipt.give_back();
        }
        if let Err(error) = (&mut self.supervisor).await {
            tracing::error!(%error, "the broker's supervisor panicked");
        }
    }
}

impl Drop for AmqpConsumer {
    fn drop(&mut self) {
        // Only without `close`: the connections break, and the broker requeues what was not settled.
        self.supervisor.abort();
    }
}

/// Hands the deliveries of one queue on until asked to stop, then gives back what the broker had sent ahead. A consumer whose
/// prefetch has changed gives its place to another one, and is emptied.
pub(super) async fn forward(mut tap: Tap, outlet: Outlet, mut phases: watch::Receiver<Phase>) -> Result<(), String> {
    let queue = Arc::clone(&tap.queue);
    let ours = |delivery| {
        outlet.unsettled.delivered();
        translate(delivery, Arc::clone(&queue), outlet.settlements.clone())
    };
    loop {
        let tapped = tokio::select! {
            biased;
            () = reached(&mut phases, Phase::Stopping) => break,
            tapped = tap.next() => tapped,
        };
        match tapped {
            Tapped::Delivery(delivery) => hand_over(&outlet, ours(delivery)).await?,
            Tapped::Broken(reason) => return Err(reason),
            Tapped::Prefetch(prefetch) => {
                let mut replaced = tap.replace(prefetch).await.map_err(|error| error.to_string())?;
                tracing::info!(queue = &*queue, prefetch, "the prefetch of queue `{queue}` is {prefetch}");
                while let Some(Ok(delivery)) = replaced.next().await {
                    hand_over(&outlet, ours(delivery)).await?;
                }
            }
        }
    }
    let mut rest = tap.close().await.map_err(|error| error.to_string())?;
    while let Some(Ok(delivery)) = rest.next().await {
        ours(delivery).receipt.give_back();
    }
    Ok(())
}

async fn hand_over(outlet: &Outlet, delivery: Delivery) -> Result<(), String> {
    outlet.deliveries.send(delivery).await.map_err(|_| "the worker is gone".to_owned())
}

pub(super) fn translate(
    delivery: lapin::message::Delivery,
    queue: Arc<str>,
    settlements: mpsc::Sender<Settled>,
) -> Delivery {
    let message: Message = convert::from_lapin(&delivery.properties, delivery.data);
    // On a first delivery the header can only be a producer's own: the queue writes it from the second one on.
    let count = message.properties.integer_header(HEADER_DELIVERY_COUNT).filter(|_| delivery.redelivered);
    Delivery {
        queue,
        redelivered: delivery.redelivered,
        delivery_count: count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        receipt: Receipt::new(delivery.delivery_tag, settlements),
        message,
    }
}
