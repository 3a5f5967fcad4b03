//! A worker as a process runs it: parts, telemetry, a session with RabbitMQ, the consume loop, and its end.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::announcing::{Announcing, said};
use super::prefetch::{Steering, first, steer};
use super::{AssembleError, Drained, KeyReload, Parts, Worker, keys, run};
use crate::backend::watch::OverdueRun;
use crate::broker::Publisher;
use crate::broker::amqp::{self, Connectivity, EndpointError, Subscription};
use crate::broker::prefetch::Prefetch;
use crate::model::Watcher;
use crate::settings::Settings;
use crate::telemetry::health::{Readiness, ReadinessSetter, State};
use crate::telemetry::http;

/// Why a worker could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The key ring or a model is wrong.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The broker's URL is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The telemetry server cannot listen.
    #[error("telemetry: {0}")]
    Telemetry(#[from] io::Error),
    /// A run does not end. The worker was drained as far as it could be, and only the end of its process ends the run.
    #[error(
        "a run of model `{}` with {} rows takes longer than {:?} (batching.max_run_ms)",
        run.model, run.rows, run.limit
    )]
    Overdue {
        /// The run.
        run: OverdueRun,
        /// Jobs that were under way when the grace was over.
        abandoned: usize,
    },
}

/// Serves until `stop` resolves, then drains. A broker that cannot be reached is waited for; the key ring is read again
/// when it has changed, and when `reload` asks for it.
///
/// # Errors
/// See [`ServeError`]: only what no waiting can heal.
pub async fn serve(
    settings: &Settings,
    reload: KeyReload,
    stop: impl Future<Output = ()>,
) -> Result<Drained, ServeError> {
    serve_parts(settings, Parts::load(settings)?, reload, stop).await
}

/// The same with parts that are made already.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve_parts(
    settings: &Settings,
    parts: Parts,
    reload: KeyReload,
    stop: impl Future<Output = ()>,
) -> Result<Drained, ServeError> {
    let (setter, readiness) = Readiness::channel("connecting to the broker");
    let setter = Arc::new(setter);
    let telemetry = match settings.telemetry.listen {
        Some(listen) => Some(http::serve(listen, Arc::clone(&parts.metrics), readiness).await?),
        None => None,
    };
    telemetry.iter().for_each(|served| tracing::info!(address = %served.address(), "metrics and health are served"));
    let (topology, queues) = parts.topology(settings);
    let connection_name = format!("inferq worker {}", settings.service.worker_id);
    let subscription = Subscription { topology, queues, connection_name };
    let (dial, prefetch) = Prefetch::turned(first(settings), settings.broker.prefetch);
    let (consumer, publisher, connectivity) = amqp::start_following(&settings.broker, subscription, prefetch.clone())?;
    let (loads, metrics) = (Arc::clone(&parts.loads), Arc::clone(&parts.metrics));
    let steering = Steering { loads, dial, metrics };
    // What goes on beside the jobs ends with this function, however that ends.
    let mut beside = JoinSet::new();
    if settings.broker.adaptive_prefetch {
        beside.spawn(steer(settings.clone(), steering));
    }
    let announcing = Announcing::start(settings, &parts)?;
    if let Some(every) = settings.models.watch_interval {
        beside.spawn(Watcher::new(Arc::clone(&parts.models)).watch(every));
    }
    let keyring = Arc::clone(&parts.keyring);
    beside.spawn(keys::follow(settings.keys.clone(), keyring, Arc::clone(&parts.metrics), reload));

    let (runs, metrics) = (Arc::clone(&parts.runs), Arc::clone(&parts.metrics));
    let worker = Arc::new(Worker::new(settings, parts, publisher).following(prefetch));
    beside.spawn(follow(connectivity, Arc::clone(&setter), Arc::clone(&worker)));
    let mut overdue = None;
    let stop = async {
        tokio::select! {
            () = stop => setter.set(State::Draining),
            run = runs.overdue() => {
                tracing::error!(
                    model.name = &*run.model, batch.size = run.rows, limit_ms = run.limit.as_millis(),
                    "a run of model `{}` does not end, the worker stops and has to be replaced", run.model
                );
                metrics.run_overdue(&run.model);
                setter.set(State::Dead(format!("a run of model `{}` does not end", run.model)));
                overdue = Some(run);
            }
        }
        // No job is taken any more: nobody shall count on this worker.
        announcing.map(Announcing::leave)
    };
    let mut leaving = None;
    let stop = async { leaving = stop.await };
    let drained = run(worker, consumer, stop).await;
    said(leaving).await;
    drop(beside);
    if let Some(telemetry) = telemetry {
        telemetry.stop().await;
    }
    match overdue {
        None => Ok(drained),
        Some(run) => Err(ServeError::Overdue { run, abandoned: drained.abandoned }),
    }
}

/// Readiness and the gauge follow the broker's session.
async fn follow<P: Publisher>(
    mut connectivity: watch::Receiver<Connectivity>,
    readiness: Arc<ReadinessSetter>,
    worker: Arc<Worker<P>>,
) {
    let metrics = &worker.metrics;
    let mut sessions: u64 = 0;
    loop {
        let now = connectivity.borrow_and_update().clone();
        metrics.broker_connected(now == Connectivity::Consuming);
        match now {
            Connectivity::Consuming => {
                if sessions > 0 {
                    metrics.broker_reconnected();
                }
                sessions += 1;
                readiness.set(State::Ready);
            }
            Connectivity::Connecting { reason, .. } => {
                if sessions > 0 {
                    // Whatever others held has been counted a delivery more, too.
                    worker.suspicion.outlived_a_loss();
                }
                let reason = if reason.is_empty() { "connecting to the broker".to_owned() } else { reason };
                readiness.set(State::NotReady(reason));
            }
            Connectivity::Stopped => readiness.set(State::NotReady("stopped".to_owned())),
        }
        if connectivity.changed().await.is_err() {
            return;
        }
    }
}
