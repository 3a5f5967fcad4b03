//! How many jobs a worker asks the broker for: as many as it can make use of, and no more.
//!
//! What lies here unsettled cannot be done by another worker that has nothing to do; what does not lie here cannot be in a
//! batch. [`Loads`] counts what the walk and the batchers tell, [`steer`] looks at it every few seconds and turns the dial, and
//! [`Prefetcher`] is the decision, pure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::batch::report::BatchReport;
use crate::broker::prefetch::PrefetchDial;
use crate::broker::topology::Names;
use crate::limits::{PREFETCH_HELD, PREFETCH_LOOK, PREFETCH_STARVED};
use crate::settings::{BatchingSettings, Settings};
use crate::telemetry::metrics::Metrics;

/// Batches beside those that run for which there shall be jobs, to begin with.
const SPARE_BATCHES: f64 = 1.0;
/// Bounds of that.
const MIN_SPARE_BATCHES: f64 = 0.25;
const MAX_SPARE_BATCHES: f64 = 8.0;
/// How much more is spared where executors starve, and how much less where rows lie too long.
const MORE: f64 = 1.5;
const LESS: f64 = 0.75;
/// Share of the prefetch that is in use on the average when the broker has more.
const USED_UP: f64 = 0.8;
/// Share of the time that executors run when they do not starve.
const BUSY: f64 = 0.9;
/// A prefetch that is wrong by less than this factor stays.
const CHANGE: f64 = 2.0;

/// What happened to the jobs of one model since it was looked at last.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    jobs: u32,
    /// Sum of the times from taking jobs up to settling them.
    held: Duration,
    /// The part of that in which their rows waited for an executor.
    waited: Duration,
    /// The part of that in which their rows ran.
    ran: Duration,
    rows: usize,
    /// Sum of the times that batches ran.
    busy: Duration,
    /// Rows of a batch that is as good as the best.
    best_size: usize,
}

/// What happens to the jobs of each model.
#[derive(Debug, Default)]
pub struct Loads(BTreeMap<String, Mutex<Load>>);

impl Loads {
    /// Of the models with these names; of others nothing is counted.
    #[must_use]
    pub fn of(models: &[String]) -> Self {
        Self(models.iter().map(|model| (model.clone(), Mutex::default())).collect())
    }

    /// A batch of `model` has run.
    pub(super) fn batch(&self, model: &str, report: &BatchReport) {
        self.count(model, |load| {
            // How many rows a job has of its own: what explains answers is as many again as it likes.
            load.rows += if report.background { 0 } else { report.size };
            load.busy += report.ran;
            load.best_size = report.best_size;
        });
    }

    /// A job of `model` was settled after `held`, in which its rows waited for an executor and ran.
    pub(super) fn job(&self, model: &str, held: Duration, (waited, ran): (Duration, Duration)) {
        self.count(model, |load| {
            load.jobs += 1;
            load.held += held;
            load.waited += waited;
            load.ran += ran;
        });
    }

    fn count(&self, model: &str, count: impl FnOnce(&mut Load)) {
        if let Some(load) = self.0.get(model) {
            count(&mut load.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What was counted of each model; begins anew.
    fn take(&self) -> impl Iterator<Item = (&str, Load)> {
        let taken = |load: &Mutex<Load>| std::mem::take(&mut *load.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.iter().map(move |(model, load)| (model.as_str(), taken(load)))
    }
}

/// The prefetch of the queues of one model.
#[derive(Debug, Clone)]
struct Prefetcher {
    executors: f64,
    objective: Duration,
    bounds: (u16, u16),
    spare_batches: f64,
    now: u16,
    /// Since when another one is wanted, and whether a larger one.
    wanted: Option<(Instant, bool)>,
}

/// What a worker begins with, when nothing is known: one batch that runs and one that waits for each executor.
#[must_use]
pub(super) fn first(settings: &Settings) -> u16 {
    if settings.broker.adaptive_prefetch {
        let BatchingSettings { executors, max_batch_size, .. } = settings.batching;
        let jobs = executors.saturating_mul(max_batch_size).saturating_mul(2);
        u16::try_from(jobs).unwrap_or(u16::MAX).min(settings.broker.prefetch)
    } else {
        settings.broker.prefetch
    }
}

impl Prefetcher {
    fn new(settings: &Settings) -> Self {
        let executors = settings.batching.executors;
        let least = u16::try_from(executors.saturating_mul(2)).unwrap_or(u16::MAX);
        Self {
            executors: real(executors),
            objective: settings.batching.objectives.normal,
            bounds: (least.min(settings.broker.prefetch), settings.broker.prefetch),
            spare_batches: SPARE_BATCHES,
            now: first(settings),
            wanted: None,
        }
    }

    /// Another prefetch, where one is to be set, after `load` in the last `span`.
    ///
    /// Wanted are rows for the batches that run and for the spare ones, in jobs, and the jobs that are on their way to the
    /// batcher and from it: by Little's law, the time that jobs spent there over the span.
    fn look(&mut self, load: &Load, span: Duration, now: Instant) -> Option<u16> {
        if load.jobs == 0 || load.rows == 0 {
            // Nothing to learn from.
            self.wanted = None;
            return None;
        }
        let (jobs, span) = (f64::from(load.jobs), span.as_secs_f64().max(f64::MIN_POSITIVE));
        let starves = self.adjust_spare(load, jobs, span);
        let rows_each = (real(load.rows) / jobs).max(1.0);
        let in_batcher = self.executors * real(load.best_size.max(1)) * (1.0 + self.spare_batches) / rows_each;
        let on_their_way = load.held.saturating_sub(load.waited + load.ran).as_secs_f64() / span;
        let (least, most) = self.bounds;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by two u16")]
        let mut wanted = (in_batcher + on_their_way).ceil().clamp(f64::from(least), f64::from(most)) as u16;
        if starves {
            // How many more are on their way where more may be cannot be seen from here.
            wanted = wanted.max(self.now.saturating_mul(2)).min(most);
        }
        let factor = f64::from(wanted) / f64::from(self.now.max(1));
        let is_larger = factor >= CHANGE || starves && wanted > self.now;
        if !is_larger && factor > 1.0 / CHANGE {
            self.wanted = None;
            return None;
        }
        let since = self.wanted.filter(|(_, larger)| *larger == is_larger).map_or(now, |(since, _)| since);
        self.wanted = Some((since, is_larger));
        if now.duration_since(since) < if starves { PREFETCH_STARVED } else { PREFETCH_HELD } {
            return None;
        }
        self.wanted = None;
        self.now = wanted;
        Some(wanted)
    }

    /// Adjusts what is spared; answers whether executors idle though the whole prefetch is in use.
    fn adjust_spare(&mut self, load: &Load, jobs: f64, span: f64) -> bool {
        let in_hand = load.held.as_secs_f64() / span;
        let is_used_up = in_hand >= USED_UP * f64::from(self.now);
        let starves = is_used_up && load.busy.as_secs_f64() < BUSY * span * self.executors;
        let lies_long = load.waited.as_secs_f64() / jobs > self.objective.as_secs_f64() / 4.0;
        if lies_long {
            self.spare_batches = (self.spare_batches * LESS).max(MIN_SPARE_BATCHES);
        } else if starves {
            self.spare_batches = (self.spare_batches * MORE).min(MAX_SPARE_BATCHES);
        }
        starves && !lies_long
    }
}

/// What [`steer`] does its work with.
#[derive(Debug)]
pub(super) struct Steering {
    pub(super) loads: Arc<Loads>,
    pub(super) dial: PrefetchDial,
    pub(super) metrics: Arc<Metrics>,
}

/// Turns the dial as `loads` demand, until it is dropped.
pub(super) async fn steer(settings: Settings, steering: Steering) {
    let names = Names::new(&settings.broker.name_prefix);
    let Steering { loads, dial, metrics } = steering;
    let begin = |model: &String| {
        metrics.prefetch(model, first(&settings));
        (model.clone(), Prefetcher::new(&settings))
    };
    let mut prefetchers: BTreeMap<String, Prefetcher> = loads.0.keys().map(begin).collect();
    let mut looks = interval(PREFETCH_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = looks.tick().await;
    loop {
        let now = looks.tick().await;
        let span = now.duration_since(last);
        last = now;
        for (model, load) in loads.take() {
            let Some(prefetcher) = prefetchers.get_mut(model) else { continue };
            let Some(prefetch) = prefetcher.look(&load, span, now) else { continue };
            for queue in [names.urgent_queue(model), names.job_queue(model)] {
                dial.set(&queue, prefetch);
            }
            metrics.prefetch(model, prefetch);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rows and executors are far below 2^53")]
fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
#[path = "prefetch_tests.rs"]
mod tests;
