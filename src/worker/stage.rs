//! Measures the stages of a job's walk, one lap each.

use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::labels::Stage;
use crate::telemetry::metrics::Metrics;

/// Runs along with a job and reports each stage when it is passed.
pub(super) struct Stopwatch<'a> {
    metrics: &'a Metrics,
    model: &'a str,
    lap_began: Instant,
    in_batcher: (Duration, Duration),
}

impl<'a> Stopwatch<'a> {
    /// Starts with the first stage of a job of `model`.
    pub(super) fn start(metrics: &'a Metrics, model: &'a str) -> Self {
        Self { metrics, model, lap_began: Instant::now(), in_batcher: (Duration::ZERO, Duration::ZERO) }
    }

    /// `stage` is passed; the next begins.
    pub(super) fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.metrics.stage(self.model, stage, now.duration_since(self.lap_began));
        self.lap_began = now;
    }

    /// Waiting and running are passed, as the batcher has measured them.
    pub(super) fn ran(&mut self, waited: Duration, ran: Duration) {
        self.metrics.stage(self.model, Stage::Queue, waited);
        self.metrics.stage(self.model, Stage::Run, ran);
        self.lap_began = Instant::now();
        self.in_batcher = (waited, ran);
    }

    /// How long its rows have waited and run.
    pub(super) const fn in_batcher(&self) -> (Duration, Duration) {
        self.in_batcher
    }
}
