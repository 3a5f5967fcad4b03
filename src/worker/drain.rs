//! The consume loop and its end: take deliveries until asked to stop, then finish what is begun within the grace.
//!
//! The loop owns every job's task; none outlives it. What is not finished when the grace is over goes back to the
//! broker, which delivers it to another worker.

use std::future::Future;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::Worker;
use crate::broker::{Consumer, Publisher};
use crate::telemetry::labels::RequeueReason;
use crate::telemetry::metrics::Metrics;

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
    let (mut jobs, mut letting_go) = (JoinSet::new(), JoinSet::new());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = jobs.join_next(), if !jobs.is_empty() => {
                count(&worker.metrics, &ended);
                if ended.is_err() {
                    let worker = Arc::clone(&worker);
                    letting_go.spawn(async move { worker.let_go_of_left().await });
                }
            }
            Some(_) = letting_go.join_next(), if !letting_go.is_empty() => {}
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
    let finish = async {
        // Within the grace as well: a broker that does not answer takes its time.
        consumer.stop().await;
        while let Some(ended) = jobs.join_next().await {
            count(&worker.metrics, &ended);
        }
    };
    let in_time = timeout(worker.drain_grace, finish).await.is_ok();
    let abandoned = if in_time { 0 } else { abandon(&worker.metrics, jobs).await };
    let let_go = async {
        worker.let_go_of_left().await;
        while letting_go.join_next().await.is_some() {}
    };
    tokio::join!(let_go, consumer.close());
    Drained { abandoned }
}

/// Ends what is still under way, and answers how many jobs that were.
async fn abandon(metrics: &Metrics, mut jobs: JoinSet<()>) -> usize {
    jobs.abort_all();
    let mut abandoned = 0;
    while let Some(ended) = jobs.join_next().await {
        count(metrics, &ended);
        // A job that was settled in the last moment is none of them.
        abandoned += usize::from(ended.is_err_and(|error| error.is_cancelled()));
    }
    tracing::warn!(jobs.abandoned = abandoned, "the drain grace is over, unfinished jobs go back to the broker");
    abandoned
}

/// Counts a job whose task did not end by itself: its receipt, dropped, has given the job back to the broker.
fn count(metrics: &Metrics, ended: &Result<(), JoinError>) {
    match ended {
        Ok(()) => {}
        Err(error) if error.is_cancelled() => metrics.requeued(RequeueReason::Draining),
        Err(error) => {
            tracing::error!(%error, "a job's task panicked, the job goes back to the broker");
            metrics.requeued(RequeueReason::Dropped);
        }
    }
}
