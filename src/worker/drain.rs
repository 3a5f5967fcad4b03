//! The consume loop and its end: take deliveries until asked to stop, then finish what is begun within the grace.
//!
//! The loop owns every job's task; none outlives it. What is not finished when the grace is over goes back to the
//! broker, which delivers it to another worker.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Worker;
use crate::broker::{Consumer, Publisher};

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Jobs that were under way when the grace was over; the broker has them again.
    pub abandoned: usize,
}

/// Runs `worker` on what `consumer` hands out until `stop` resolves or the consumer ends, then drains.
pub async fn run<C: Consumer, P: Publisher>(
    worker: Arc<Worker<P>>,
    mut consumer: C,
    stop: impl Future<Output = ()>,
) -> Drained {
    let mut jobs = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = jobs.join_next(), if !jobs.is_empty() => report(ended),
            delivery = consumer.next() => match delivery {
                Some(delivery) => {
                    let worker = Arc::clone(&worker);
                    jobs.spawn(async move { worker.process(delivery).await });
                }
                None => break,
            },
        }
    }
    tracing::info!(jobs.under_way = jobs.len(), "draining: no new jobs are taken");
    consumer.stop().await;
    let finish = async {
        while let Some(ended) = jobs.join_next().await {
            report(ended);
        }
    };
    let in_time = timeout(worker.drain_grace, finish).await.is_ok();
    let abandoned = jobs.len();
    if !in_time {
        tracing::warn!(jobs.abandoned = abandoned, "the drain grace is over, unfinished jobs go back to the broker");
        jobs.shutdown().await;
    }
    consumer.close().await;
    Drained { abandoned }
}

/// A job's task only ends by itself or by a panic; its receipt, dropped, has requeued the job.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a job's task panicked, the job goes back to the broker");
    }
}
