//! An arm as it stands: a worker of this process with its own queues and batches, and a client for each tenant.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::arms::Arm;
use crate::backend::watch::RunWatch;
use crate::batch::report::{BatchReport, Observed};
use crate::broker::amqp::pool::ChannelPool;
use crate::broker::amqp::{self, Connectivity, Subscription};
use crate::broker::memory::{MemoryBroker, MemoryPublisher};
use crate::broker::topology::Topology;
use crate::broker::{Consumer, Publisher};
use crate::cli::embedded_client::embedded_client;
use crate::cli::failure::{Exit, Failure};
use crate::client::{Client, ClientError, Job, connect};
use crate::envelope::{Keyring, LiveKeyring, ProducerKeys};
use crate::model::{ModelOptions, ModelRepository, ModelSpec};
use crate::protocol::response::ResponseBody;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::worker::{AssembleError, Drained, Parts, Worker};

/// Batches that are remembered of one arm.
const MAX_REPORTS: usize = 1 << 20;

/// Which broker lies between client and worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// The one inside this process.
    Embedded,
    /// The one of `broker.url`, under names of its own.
    Broker,
}

impl Ground {
    /// Its name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Broker => "real",
        }
    }
}

/// A client over either broker.
enum Producer {
    Embedded(Client<MemoryPublisher>),
    Broker(Client<ChannelPool>),
}

/// A batch, and the place of its model in the stand's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    pub(super) model: usize,
    pub(super) report: BatchReport,
}

/// An arm that can be asked.
pub(super) struct Stand {
    pub(super) name: String,
    /// The models, in the order of their names.
    pub(super) models: Vec<ModelSpec>,
    producers: Vec<Producer>,
    ran: Arc<Mutex<Vec<Ran>>>,
    stop: watch::Sender<bool>,
    worker: JoinHandle<Drained>,
    ground: Ground,
    settings: Settings,
    topology: Topology,
}

impl Stand {
    /// Loads the models with the batches of `arm`, and starts a worker and the clients of `tenants`.
    pub(super) async fn start(
        arm: &Arm,
        ground: Ground,
        settings: &Settings,
        tenants: &[String],
    ) -> Result<Self, Failure> {
        let mut settings = settings.clone();
        settings.batching.policy = arm.policy;
        settings.broker.name_prefix = format!("inferq-bench-{}", uuid::Uuid::new_v4().simple());
        let ran = Arc::new(Mutex::new(Vec::new()));
        let parts = parts(&settings, &ran)?;
        let models = specs(&parts.models).await?;
        let (topology, queues) = parts.topology(&settings);
        let (stop, stopped) = watch::channel(false);
        let mut producers = Vec::with_capacity(tenants.len());
        let worker = match ground {
            Ground::Embedded => {
                let broker = MemoryBroker::new(&topology);
                let consumer = broker.consumer(&queues, settings.broker.prefetch);
                let worker = work(&settings, parts, broker.publisher(), consumer, stopped);
                for tenant in tenants {
                    let keys = ProducerKeys::load(&settings.keys.directory, tenant)?;
                    producers.push(Producer::Embedded(embedded_client(&settings, keys, &broker)));
                }
                worker
            }
            Ground::Broker => {
                let subscription = Subscription {
                    topology: topology.clone(),
                    queues,
                    connection_name: format!("inferq bench {}", arm.name),
                };
                let started = amqp::start(&settings.broker, subscription).map_err(amqp::ConnectError::from)?;
                let (consumer, publisher, mut connectivity) = started;
                let worker = work(&settings, parts, publisher, consumer, stopped);
                drop(connectivity.wait_for(|now| *now == Connectivity::Consuming).await);
                for tenant in tenants {
                    let keys = ProducerKeys::load(&settings.keys.directory, tenant)?;
                    producers.push(Producer::Broker(connect(&settings, keys).await?));
                }
                worker
            }
        };
        Ok(Self { name: arm.name.clone(), models, producers, ran, stop, worker, ground, settings, topology })
    }

    /// Seals `job` as the tenant at `tenant`, and waits for its reply.
    pub(super) async fn ask(&self, job: &Job, tenant: usize, limit: Duration) -> Result<ResponseBody, ClientError> {
        match self.producers.get(tenant) {
            Some(Producer::Embedded(client)) => client.predict(job, limit).await,
            Some(Producer::Broker(client)) => client.predict(job, limit).await,
            None => Err(ClientError::Closed),
        }
    }

    /// The batches that have run since this was asked last.
    pub(super) fn take_ran(&self) -> Vec<Ran> {
        std::mem::take(&mut self.ran.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops clients and worker, and removes what was declared on a real broker.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        for producer in self.producers {
            match producer {
                Producer::Embedded(client) => drop(client.stop().await),
                Producer::Broker(client) => client.close().await,
            }
        }
        self.stop.send_replace(true);
        // A worker that panicked has logged it, and its jobs were counted as failed.
        drop(self.worker.await);
        if self.ground == Ground::Broker {
            amqp::remove(&self.settings.broker, &self.topology).await?;
        }
        Ok(())
    }
}

/// What the models are, in the order of their names.
async fn specs(models: &ModelRepository) -> Result<Vec<ModelSpec>, Failure> {
    let mut specs = Vec::new();
    for name in models.names() {
        let model = models.resolve(&name, None, "bench").await;
        specs.push(model.map_err(|error| Failure::new(Exit::Invalid, error.message))?.spec().clone());
    }
    Ok(specs)
}

/// Keys and models, every batch remembered in `ran`.
fn parts(settings: &Settings, ran: &Arc<Mutex<Vec<Ran>>>) -> Result<Parts, Failure> {
    let keyring = Arc::new(LiveKeyring::new(Keyring::load(&settings.keys.directory)?));
    let names = ModelRepository::served_names(&settings.models)?;
    let places = names.clone();
    let ran = Arc::clone(ran);
    let options = ModelOptions {
        batching: settings.batching,
        wrap: Arc::new(|_, backend| backend),
        changed: Arc::new(|_, _| ()),
        observe: Arc::new(move |name| {
            let model = places.iter().position(|place| place == name).unwrap_or_default();
            let ran = Arc::clone(&ran);
            Arc::new(move |observed| {
                if let Observed::Ran(report) = observed {
                    let mut ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
                    if ran.len() < MAX_REPORTS {
                        ran.push(Ran { model, report });
                    }
                }
            })
        }),
    };
    let models = Arc::new(ModelRepository::open(&settings.models, &options).map_err(AssembleError::from)?);
    let metrics = Arc::new(Metrics::new(&settings.service.worker_id, &names));
    let (runs, changes) = (RunWatch::new(settings.batching.max_run), Arc::default());
    Ok(Parts { keyring, models, metrics, runs, loads: Arc::default(), changes, shared: None })
}

fn work<P: Publisher, C: Consumer>(
    settings: &Settings,
    parts: Parts,
    publisher: P,
    consumer: C,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<Drained> {
    let worker = Arc::new(Worker::new(settings, parts, publisher));
    tokio::spawn(crate::worker::run(worker, consumer, async move {
        drop(stopped.wait_for(|stop| *stop).await);
    }))
}
