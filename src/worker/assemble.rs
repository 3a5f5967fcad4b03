//! From settings to everything that serving takes, apart from the broker: keys, models, metrics.

use std::sync::Arc;

use tokio::sync::Notify;

use super::prefetch::Loads;
use super::{SharedReplays, SharedReplaysError, keys};
use crate::backend::watch::RunWatch;
use crate::batch::report::{BatchReport, Observed};
use crate::broker::Queues;
use crate::broker::topology::{Names, Topology};
use crate::envelope::{KeyringError, LiveKeyring};
use crate::model::{ModelError, ModelOptions, ModelRepository, Wrap};
use crate::settings::Settings;
use crate::telemetry::batches::{BatchRun, ModelMetrics};
use crate::telemetry::labels::ModelChange;
use crate::telemetry::metrics::Metrics;

/// What a worker serves with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The key ring.
    pub keyring: Arc<LiveKeyring>,
    /// The models.
    pub models: Arc<ModelRepository>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The runs of all models.
    pub runs: Arc<RunWatch>,
    /// What the prefetch is decided by.
    pub loads: Arc<Loads>,
    /// Rung when what is served has changed.
    pub changes: Arc<Notify>,
    /// The replay guard that several workers share, where there is one.
    pub shared: Option<SharedReplays>,
}

/// Why a worker cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The key ring cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A model cannot be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The replay guard that several workers share cannot be used.
    #[error(transparent)]
    Shared(#[from] SharedReplaysError),
}

impl Parts {
    /// Reads the key ring and loads the models; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`AssembleError`].
    pub fn load(settings: &Settings) -> Result<Self, AssembleError> {
        Self::load_with(settings, Arc::new(|_, backend| backend))
    }

    /// The same, with `wrap` around each model's backend: how tests make a model crash; no setting leads here.
    ///
    /// # Errors
    /// See [`AssembleError`].
    pub fn load_with(settings: &Settings, wrap: Wrap) -> Result<Self, AssembleError> {
        let keyring = Arc::new(LiveKeyring::new(keys::load(&settings.keys)?));
        let (broker, skew) = (&settings.broker, settings.limits.clock_skew);
        let shared = settings.worker.replay_redis_url.as_ref();
        let shared = shared.map(|url| SharedReplays::new(url, &broker.name_prefix, skew, broker.allow_plaintext));
        let shared = shared.transpose()?;
        let names = ModelRepository::served_names(&settings.models)?;
        let metrics = Arc::new(Metrics::new(&settings.service.worker_id, &names));
        let (counted, told) = (Arc::clone(&metrics), Arc::clone(&metrics));
        let changes = Arc::new(Notify::new());
        let rung = Arc::clone(&changes);
        let runs = RunWatch::new(settings.batching.max_run);
        let watch = Arc::clone(&runs);
        let loads = Arc::new(Loads::of(&names));
        let batches = Arc::clone(&loads);
        let options = ModelOptions {
            batching: settings.batching,
            wrap: Arc::new(move |model, backend| watch.around(model, wrap(model, backend))),
            observe: Arc::new(move |model| {
                let (counters, batches, model) = (counted.of_model(model), Arc::clone(&batches), model.to_owned());
                Arc::new(move |observed| match observed {
                    Observed::Ran(report) => {
                        batches.batch(&model, &report);
                        count(&counters, report);
                    }
                    Observed::Waiting { before, now } => counters.waiting(before, now),
                })
            }),
            changed: Arc::new(move |model, change| {
                told.model_changed(model, change);
                if changes_what_is_served(change) {
                    rung.notify_one();
                }
            }),
        };
        let models = Arc::new(ModelRepository::open(&settings.models, &options)?);
        Ok(Self { keyring, models, metrics, runs, loads, changes, shared })
    }

    /// What a worker of these models declares, and the queues that it consumes.
    #[must_use]
    pub fn topology(&self, settings: &Settings) -> (Topology, Queues) {
        let models = self.models.names();
        let names = Names::new(&settings.broker.name_prefix);
        let queues = Queues {
            prefetched: models.iter().flat_map(|model| [names.urgent_queue(model), names.job_queue(model)]).collect(),
            singly: models.iter().map(|model| names.suspects_queue(model)).collect(),
        };
        (Topology::for_models(&settings.broker, &models), queues)
    }
}

const fn changes_what_is_served(change: ModelChange) -> bool {
    match change {
        ModelChange::TakenUp | ModelChange::Retired | ModelChange::Realiased => true,
        ModelChange::Refused | ModelChange::Unloaded | ModelChange::Reloaded => false,
    }
}

fn count(counters: &ModelMetrics, report: BatchReport) {
    counters.batch(&BatchRun {
        rows: report.size,
        real_tokens: report.real_length,
        padded_tokens: (report.planned_shape.0 * report.planned_shape.1).saturating_sub(report.real_length),
        elapsed: report.ran,
        reason: report.reason,
        expected: report.expected,
        expected_apart: report.expected_apart,
        contended: report.contended,
    });
}
