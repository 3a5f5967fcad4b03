//! A worker's consumer: deliveries of whatever session stands, and the end of it all.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::Channel;
use lapin::options::BasicCancelOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::connect::answered;
use super::session::Outlet;
use super::supervisor::{Phase, reached};
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

/// Hands the deliveries of one queue on until asked to stop, then gives back what the broker had sent ahead.
pub(super) async fn forward(
    channel: Channel,
    mut stream: lapin::Consumer,
    queue: Arc<str>,
    outlet: Outlet,
    mut phases: watch::Receiver<Phase>,
) -> Result<(), String> {
    loop {
        tokio::select! {
            biased;
            () = reached(&mut phases, Phase::Stopping) => break,
            delivery = stream.next() => match delivery {
                Some(Ok(delivery)) => {
                    let delivery = translate(delivery, Arc::clone(&queue), outlet.settlements.clone());
                    outlet.deliveries.send(delivery).await.map_err(|_| "the worker is gone".to_owned())?;
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err(format!("the broker cancelled the consumer of queue `{queue}`")),
            },
        }
    }
    let tag = stream.tag();
    let cancelled = channel.basic_cancel(tag, BasicCancelOptions { nowait: false });
    let what = || format!("the end of the consumer of queue `{queue}`");
    answered(outlet.limit, what, cancelled).await.map_err(|error| error.to_string())?;
    while let Some(Ok(delivery)) = stream.next().await {
        translate(delivery, Arc::clone(&queue), outlet.settlements.clone()).receipt.give_back();
    }
    Ok(())
}

fn translate(delivery: lapin::message::Delivery, queue: Arc<str>, settlements: mpsc::Sender<Settled>) -> Delivery {
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
