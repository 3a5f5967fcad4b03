//! The counters of a worker: one method for each thing that can happen.
//!
//! Made once by the worker and handed on by reference or as a [`ModelMetrics`]; cheap to call from anywhere, never
//! waits. Names come from `names`, the words of labels from `labels`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric as Registrable, Registry};

use super::batches::{BatchMetrics, ModelMetrics};
use super::labels::{ModelChange, PublishOutcome, ReloadOutcome, RequeueReason, Stage, UndeliverableReason};
use super::names::{self, Metric};
use super::process::ProcessCollector;
use crate::error::{ErrorCode, Route};

/// The label of every model that is not served here: a producer cannot add a time series by inventing names.
const OTHER_MODEL: &str = "other";
/// The `code` of a reply that carries a result.
const CODE_OK: &str = "OK";

/// Seconds: from the few microseconds of opening an envelope to the longest deadline.
const SECONDS: [f64; 19] = [
    0.000_01, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub(super) model: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelCode {
    model: Arc<str>,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelStage {
    model: Arc<str>,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelChanged {
    model: Arc<str>,
    change: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProcessLabels {
    version: &'static str,
    worker: String,
}

/// A family of histograms, each made by the same constructor.
pub(super) type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// All metrics of a worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    models: BTreeSet<Arc<str>>,
    received: Family<ModelLabel, Counter>,
    redelivered: Family<ModelLabel, Counter>,
    in_flight: Gauge,
    replied: Family<ModelCode, Counter>,
    dead_lettered: Family<Code, Counter>,
    retried: Family<Code, Counter>,
    suspected: Family<ModelLabel, Counter>,
    postponed: Family<ModelLabel, Counter>,
    duplicate: Counter,
    keyring_reloads: Family<Outcome, Counter>,
    requeued: Family<Reason, Counter>,
    undeliverable: Family<Reason, Counter>,
    job_seconds: Histograms<ModelLabel>,
    stage_seconds: Histograms<ModelStage>,
    batches: BatchMetrics,
    batches_overdue: Family<ModelLabel, Counter>,
    model_changes: Family<ModelChanged, Counter>,
    broker_connected: Gauge,
    broker_reconnects: Counter,
    prefetch: Family<ModelLabel, Gauge>,
    publish_seconds: Histograms<Outcome>,
}

impl Metrics {
    /// Metrics of the worker named `worker_id` that serves `models`; every other model is counted as `other`.
    #[must_use]
    pub fn new(worker_id: &str, models: &[String]) -> Self {
        let mut registry = Registry::default();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_time = registered(&mut registry, &names::PROCESS_START, Gauge::<i64>::default());
        start_time.set(i64::try_from(started.as_secs()).unwrap_or(i64::MAX));
        let process = ProcessLabels { version: env!("CARGO_PKG_VERSION"), worker: worker_id.to_owned() };
        register(&mut registry, &names::PROCESS, Info::new(process));
        registry.register_collector(Box::new(ProcessCollector));
        let all = &mut registry;
        let metrics = Self {
            models: models.iter().map(|name| Arc::from(name.as_str())).collect(),
            received: registered(all, &names::JOBS_RECEIVED, Family::default()),
            redelivered: registered(all, &names::JOBS_REDELIVERED, Family::default()),
            in_flight: registered(all, &names::JOBS_IN_FLIGHT, Gauge::default()),
            replied: registered(all, &names::JOBS_REPLIED, Family::default()),
            dead_lettered: registered(all, &names::JOBS_DEAD_LETTERED, Family::default()),
            retried: registered(all, &names::JOBS_RETRIED, Family::default()),
            suspected: registered(all, &names::JOBS_SUSPECTED, Family::default()),
            postponed: registered(all, &names::JOBS_POSTPONED, Family::default()),
            duplicate: registered(all, &names::JOBS_DUPLICATE, Counter::default()),
            keyring_reloads: registered(all, &names::KEYRING_RELOADS, Family::default()),
            requeued: registered(all, &names::JOBS_REQUEUED, Family::default()),
            undeliverable: registered(all, &names::REPLIES_UNDELIVERABLE, Family::default()),
            job_seconds: registered(all, &names::JOB_SECONDS, Family::new_with_constructor(seconds)),
            stage_seconds: registered(all, &names::STAGE_SECONDS, Family::new_with_constructor(seconds)),
            batches: BatchMetrics::register(all),
            batches_overdue: registered(all, &names::BATCHES_OVERDUE, Family::default()),
            model_changes: registered(all, &names::MODEL_CHANGES, Family::default()),
            broker_connected: registered(all, &names::BROKER_CONNECTED, Gauge::default()),
            broker_reconnects: registered(all, &names::BROKER_RECONNECTS, Counter::default()),
            prefetch: registered(all, &names::PREFETCH, Family::default()),
            publish_seconds: registered(all, &names::PUBLISH_SECONDS, Family::new_with_constructor(seconds)),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Makes the time series of every counter now: one that first appears as 1 shows no increase to a rate or an alert.
    fn begin_at_zero(&self) {
        for code in ErrorCode::ALL.map(ErrorCode::as_str) {
            _ = self.dead_lettered.get_or_create(&Code { code });
        }
        for code in ErrorCode::ALL.into_iter().filter(|code| matches!(code.route(), Route::Retry | Route::Postpone)) {
            _ = self.retried.get_or_create(&Code { code: code.as_str() });
        }
        for outcome in ReloadOutcome::ALL.map(ReloadOutcome::as_str) {
            _ = self.keyring_reloads.get_or_create(&Outcome { outcome });
        }
        for reason in RequeueReason::ALL.map(RequeueReason::as_str) {
            _ = self.requeued.get_or_create(&Reason { reason });
        }
        for reason in UndeliverableReason::ALL.map(UndeliverableReason::as_str) {
            _ = self.undeliverable.get_or_create(&Reason { reason });
        }
        for outcome in PublishOutcome::ALL.map(PublishOutcome::as_str) {
            _ = self.publish_seconds.get_or_create(&Outcome { outcome });
        }
        for model in self.models.iter().cloned().chain([OTHER_MODEL.into()]) {
            for code in ErrorCode::ALL.map(ErrorCode::as_str).into_iter().chain([CODE_OK]) {
                _ = self.replied.get_or_create(&ModelCode { model: Arc::clone(&model), code });
            }
            for change in ModelChange::ALL.map(ModelChange::as_str) {
                _ = self.model_changes.get_or_create(&ModelChanged { model: Arc::clone(&model), change });
            }
            let label = ModelLabel { model };
            _ = self.received.get_or_create(&label);
            _ = self.redelivered.get_or_create(&label);
        }
    }

    /// All of it in the OpenMetrics text format.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut page = String::with_capacity(16 * 1_024);
        // Writing into a String cannot fail, and nothing else in the encoder does.
        if text::encode(&mut page, &self.registry).is_err() {
            tracing::error!("the metrics could not be written out");
        }
        page
    }

    /// The broker handed out a job of `model`.
    pub fn received(&self, model: &str, redelivered: bool) {
        let label = self.model_label(model);
        if redelivered {
            self.redelivered.get_or_create(&label).inc();
        }
        self.received.get_or_create(&label).inc();
    }

    /// A job is taken up; it counts as in flight until the answer is dropped.
    pub fn job_begun(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A reply to a job of `model` was confirmed: an error `code`, or a result.
    pub fn replied(&self, model: &str, code: Option<ErrorCode>) {
        let code = code.map_or(CODE_OK, ErrorCode::as_str);
        self.replied.get_or_create(&ModelCode { model: self.known(model), code }).inc();
    }

    /// A job became a dead letter.
    pub fn dead_lettered(&self, code: ErrorCode) {
        self.dead_lettered.get_or_create(&Code { code: code.as_str() }).inc();
    }

    /// A job was sent to a retry queue.
    pub fn retried(&self, code: ErrorCode) {
        self.retried.get_or_create(&Code { code: code.as_str() }).inc();
    }

    /// A job was moved to the queue of `model`'s suspects.
    pub fn suspected(&self, model: &str) {
        self.suspected.get_or_create_owned(&self.model_label(model)).inc();
    }

    /// A job of `model` was put off, since its tenant has its share of what this worker holds.
    pub fn postponed(&self, model: &str) {
        self.postponed.get_or_create_owned(&self.model_label(model)).inc();
    }

    /// The key ring was read again.
    pub fn keyring_reloaded(&self, outcome: ReloadOutcome) {
        self.keyring_reloads.get_or_create(&Outcome { outcome: outcome.as_str() }).inc();
    }

    /// A copy of an answered job was acknowledged.
    pub fn duplicate(&self) {
        self.duplicate.inc();
    }

    /// A job was given back to its queue.
    pub fn requeued(&self, reason: RequeueReason) {
        self.requeued.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    /// A reply was kept in the undeliverable queue.
    pub fn undeliverable(&self, reason: UndeliverableReason) {
        self.undeliverable.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    /// A job of `model` was settled `elapsed` after it was taken up.
    pub fn job_ended(&self, model: &str, elapsed: Duration) {
        self.job_seconds.get_or_create(&self.model_label(model)).observe(elapsed.as_secs_f64());
    }

    /// A job of `model` spent `elapsed` in `stage`.
    pub fn stage(&self, model: &str, stage: Stage, elapsed: Duration) {
        let labels = ModelStage { model: self.known(model), stage: stage.as_str() };
        self.stage_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Something happened to a version of `model`.
    pub fn model_changed(&self, model: &str, change: ModelChange) {
        let labels = ModelChanged { model: self.known(model), change: change.as_str() };
        self.model_changes.get_or_create(&labels).inc();
    }

    /// Whether the broker is connected and consumed from. Turning to true a second time is a reconnect.
    pub fn broker_connected(&self, connected: bool) {
        self.broker_connected.set(i64::from(connected));
    }

    /// The broker was connected to again after a loss.
    pub fn broker_reconnected(&self) {
        self.broker_reconnects.inc();
    }

    /// So many jobs of each queue of `model` may be unsettled.
    pub fn prefetch(&self, model: &str, count: u16) {
        self.prefetch.get_or_create(&self.model_label(model)).set(i64::from(count));
    }

    /// A publish came to `outcome` after `elapsed`.
    pub fn published(&self, outcome: PublishOutcome, elapsed: Duration) {
        self.publish_seconds.get_or_create(&Outcome { outcome: outcome.as_str() }).observe(elapsed.as_secs_f64());
    }

    /// The counters of one model, for its batcher.
    #[must_use]
    pub fn of_model(&self, model: &str) -> ModelMetrics {
        self.batches.of_model(&self.model_label(model))
    }

    /// A batch of `model` takes longer than it may.
    pub fn run_overdue(&self, model: &str) {
        self.batches_overdue.get_or_create_owned(&self.model_label(model)).inc();
    }

    fn model_label(&self, model: &str) -> ModelLabel {
        ModelLabel { model: self.known(model) }
    }

    fn known(&self, model: &str) -> Arc<str> {
        self.models.get(model).cloned().unwrap_or_else(|| OTHER_MODEL.into())
    }
}

/// Counts a job as in flight until it is dropped.
#[derive(Debug)]
#[must_use = "the job counts as in flight until this is dropped"]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn register(registry: &mut Registry, metric: &Metric, registrable: impl Registrable) {
    registry.register(metric.registered_name(), metric.meaning, registrable);
}

/// Registers `registrable` and gives it back: clones count into the same.
pub(super) fn registered<M: Registrable + Clone>(registry: &mut Registry, metric: &Metric, registrable: M) -> M {
    register(registry, metric, registrable.clone());
    registrable
}

pub(super) fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

#[cfg(test)]
mod tests {
    use super::super::batches::BatchRun;
    use super::super::labels::DispatchReason;
    use super::super::names::Kind;
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new("w-1", &["topic".to_owned()])
    }

    /// Counts everything once.
    fn exercised() -> Metrics {
        let metrics = metrics();
        metrics.received("topic", true);
        metrics.replied("topic", None);
        metrics.replied("topic", Some(ErrorCode::InvalidInput));
        metrics.dead_lettered(ErrorCode::EnvelopeRejected);
        metrics.retried(ErrorCode::ModelUnavailable);
        metrics.suspected("topic");
        metrics.postponed("topic");
        metrics.duplicate();
        metrics.keyring_reloaded(ReloadOutcome::Renewed);
        metrics.requeued(RequeueReason::Dropped);
        metrics.undeliverable(UndeliverableReason::Returned);
        metrics.job_ended("topic", Duration::from_millis(3));
        for stage in Stage::ALL {
            metrics.stage("topic", stage, Duration::from_millis(1));
        }
        metrics.run_overdue("topic");
        metrics.broker_connected(true);
        metrics.broker_reconnected();
        metrics.prefetch("topic", 128);
        metrics.published(PublishOutcome::Confirmed, Duration::from_millis(2));
        let model = metrics.of_model("topic");
        let elapsed = Duration::from_millis(20);
        model.batch(&BatchRun {
            rows: 3,
            real_tokens: 50,
            padded_tokens: 10,
            elapsed,
            reason: DispatchReason::Costly,
            expected: Duration::from_millis(16),
            expected_apart: Duration::from_millis(48),
            contended: true,
        });
        model.waiting(0, 7);
        metrics
    }

    #[test]
    fn every_declared_metric_is_exposed_with_its_kind_and_labels_and_no_other() {
        let page = exercised().exposition();
        for metric in names::ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Info => "info",
            };
            let declared = format!("# TYPE {} {kind}\n", metric.registered_name());
            assert!(page.contains(&declared), "{declared}");
            let sample = page.lines().find(|line| line.starts_with(metric.name)).unwrap_or_default();
            assert!(!sample.is_empty(), "{} has no sample", metric.name);
            for label in metric.labels {
                assert!(sample.contains(&format!("{label}=\"")), "{sample} has no label {label}");
            }
        }
        assert_eq!(page.matches("# TYPE ").count(), names::ALL.len());
    }

    #[test]
    fn values_land_under_their_labels() {
        let page = exercised().exposition();
        for line in [
            "inferq_jobs_received_total{model=\"topic\"} 1",
            "inferq_jobs_replied_total{model=\"topic\",code=\"OK\"} 1",
            "inferq_jobs_replied_total{model=\"topic\",code=\"INVALID_INPUT\"} 1",
            "inferq_batch_size_rows_sum{model=\"topic\"} 3.0",
            "inferq_batch_tokens_total{model=\"topic\",kind=\"padded\"} 10",
            "inferq_batch_waiting_rows{model=\"topic\"} 7",
            "inferq_batch_dispatches_total{model=\"topic\",reason=\"costly\"} 1",
            "inferq_batch_dispatches_total{model=\"topic\",reason=\"due\"} 0",
            "inferq_batch_cost_ratio_sum{model=\"topic\"} 1.25",
            "inferq_batch_saved_seconds_total{model=\"topic\"} 0.032",
            "inferq_batch_contended_total{model=\"topic\"} 1",
            "inferq_stage_seconds_count{model=\"topic\",stage=\"seal\"} 1",
            "inferq_broker_connected 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn counters_begin_at_zero_so_that_the_first_event_is_an_increase() {
        let page = metrics().exposition();
        for line in [
            "inferq_jobs_received_total{model=\"topic\"} 0",
            "inferq_jobs_replied_total{model=\"topic\",code=\"OK\"} 0",
            "inferq_jobs_replied_total{model=\"topic\",code=\"REPLY_TOO_LARGE\"} 0",
            "inferq_jobs_dead_lettered_total{code=\"ENVELOPE_REJECTED\"} 0",
            "inferq_jobs_retried_total{code=\"MODEL_UNAVAILABLE\"} 0",
            "inferq_jobs_requeued_total{reason=\"publish_failed\"} 0",
            "inferq_replies_undeliverable_total{reason=\"refused\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn a_name_that_a_producer_invents_makes_no_time_series() {
        let metrics = metrics();
        for name in ["x", "y", "topic\"} 1\ninjected"] {
            metrics.received(name, false);
            metrics.replied(name, Some(ErrorCode::UnknownModel));
        }
        let page = metrics.exposition();
        assert!(page.contains("inferq_jobs_received_total{model=\"other\"} 3"), "{page}");
        assert!(!page.contains("injected") && !page.contains("\"x\""), "{page}");
    }

    #[test]
    fn the_waiting_rows_of_a_model_are_those_of_all_its_versions() {
        let metrics = metrics();
        let (old, new) = (metrics.of_model("topic"), metrics.of_model("topic"));
        old.waiting(0, 7);
        new.waiting(0, 2);
        assert!(metrics.exposition().contains("inferq_batch_waiting_rows{model=\"topic\"} 9\n"));
        old.waiting(7, 0);
        assert!(metrics.exposition().contains("inferq_batch_waiting_rows{model=\"topic\"} 2\n"));
    }

    #[test]
    fn a_job_is_in_flight_until_its_guard_is_dropped() {
        let metrics = metrics();
        let guard = metrics.job_begun();
        assert!(metrics.exposition().contains("inferq_jobs_in_flight 1\n"));
        drop(guard);
        assert!(metrics.exposition().contains("inferq_jobs_in_flight 0\n"));
    }
}
