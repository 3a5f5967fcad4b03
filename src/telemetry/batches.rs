//! What is counted of batches: one set of counters for each model, handed to whoever watches its batcher.
//!
//! Registered by `metrics` along with everything else.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::DispatchReason;
use super::metrics::{Histograms, ModelLabel, registered, seconds};
use super::names;

const ROWS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];
/// Measured over expected.
const RATIOS: [f64; 9] = [0.25, 0.5, 0.8, 0.9, 1.1, 1.25, 2.0, 4.0, 16.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelKind {
    model: Arc<str>,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelReason {
    model: Arc<str>,
    reason: &'static str,
}

/// A counter of seconds.
type Seconds = Counter<f64, AtomicU64>;

/// The metrics of all models' batches.
#[derive(Debug)]
pub(super) struct BatchMetrics {
    batches: Family<ModelLabel, Counter>,
    size: Histograms<ModelLabel>,
    tokens: Family<ModelKind, Counter>,
    seconds: Histograms<ModelLabel>,
    waiting_rows: Family<ModelLabel, Gauge>,
    dispatches: Family<ModelReason, Counter>,
    cost_ratio: Histograms<ModelLabel>,
    saved: Family<ModelLabel, Seconds>,
    contended: Family<ModelLabel, Counter>,
}

impl BatchMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let rows: fn() -> Histogram = || Histogram::new(ROWS);
        let ratios: fn() -> Histogram = || Histogram::new(RATIOS);
        Self {
            batches: registered(registry, &names::BATCHES, Family::default()),
            size: registered(registry, &names::BATCH_SIZE, Family::new_with_constructor(rows)),
            tokens: registered(registry, &names::BATCH_TOKENS, Family::default()),
            seconds: registered(registry, &names::BATCH_SECONDS, Family::new_with_constructor(seconds)),
            waiting_rows: registered(registry, &names::WAITING_ROWS, Family::default()),
            dispatches: registered(registry, &names::BATCH_DISPATCHES, Family::default()),
            cost_ratio: registered(registry, &names::BATCH_COST_RATIO, Family::new_with_constructor(ratios)),
            saved: registered(registry, &names::BATCH_SAVED, Family::default()),
            contended: registered(registry, &names::BATCH_CONTENDED, Family::default()),
        }
    }

    /// The counters of the model with this label.
    pub(super) fn of_model(&self, label: &ModelLabel) -> ModelMetrics {
        let tokens = |kind| self.tokens.get_or_create_owned(&ModelKind { model: Arc::clone(&label.model), kind });
        let dispatches = |reason: DispatchReason| {
            let model = Arc::clone(&label.model);
            let counter = self.dispatches.get_or_create_owned(&ModelReason { model, reason: reason.as_str() });
            (reason, counter)
        };
        ModelMetrics {
            batches: self.batches.get_or_create_owned(label),
            size: self.size.get_or_create_owned(label),
            real_tokens: tokens("real"),
            padded_tokens: tokens("padded"),
            seconds: self.seconds.get_or_create_owned(label),
            waiting_rows: self.waiting_rows.get_or_create_owned(label),
            dispatches: DispatchReason::ALL.map(dispatches),
            cost_ratio: self.cost_ratio.get_or_create_owned(label),
            saved: self.saved.get_or_create_owned(label),
            contended: self.contended.get_or_create_owned(label),
        }
    }
}

/// A batch that was run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchRun {
    /// Its rows.
    pub rows: usize,
    /// The length of all rows, as they came.
    pub real_tokens: usize,
    /// What was added to make all rows as long as the longest, and the batch as large as its plan.
    pub padded_tokens: usize,
    /// How long it ran.
    pub elapsed: Duration,
    /// Why it was as large as it was.
    pub reason: DispatchReason,
    /// How long it was expected to run; zero where that was unknown.
    pub expected: Duration,
    /// How long its rows would have run one by one, as expected.
    pub expected_apart: Duration,
    /// Whether rows of several tenants waited when it was formed.
    pub contended: bool,
}

/// The counters of one model's batches. Clones count into the same.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    batches: Counter,
    size: Histogram,
    real_tokens: Counter,
    padded_tokens: Counter,
    seconds: Histogram,
    waiting_rows: Gauge,
    dispatches: [(DispatchReason, Counter); DispatchReason::ALL.len()],
    cost_ratio: Histogram,
    saved: Seconds,
    contended: Counter,
}

impl ModelMetrics {
    /// A batch was run.
    #[expect(clippy::cast_precision_loss, reason = "a batch has fewer rows than an f64 has exact integers")]
    pub fn batch(&self, run: &BatchRun) {
        self.batches.inc();
        self.size.observe(run.rows as f64);
        self.real_tokens.inc_by(run.real_tokens as u64);
        self.padded_tokens.inc_by(run.padded_tokens as u64);
        self.seconds.observe(run.elapsed.as_secs_f64());
        if let Some((_, counter)) = self.dispatches.iter().find(|(reason, _)| *reason == run.reason) {
            counter.inc();
        }
        if !run.expected.is_zero() {
            self.cost_ratio.observe(run.elapsed.as_secs_f64() / run.expected.as_secs_f64());
            self.saved.inc_by(run.expected_apart.saturating_sub(run.expected).as_secs_f64());
        }
        if run.contended {
            self.contended.inc();
        }
    }

    /// Of one version's rows, `before` waited for an executor, and `now` do. The gauge is the sum over the versions.
    pub fn waiting(&self, before: usize, now: usize) {
        let count = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
        self.waiting_rows.inc_by(count(now).saturating_sub(count(before)));
    }
}
