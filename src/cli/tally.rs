//! What many jobs came to: latencies, throughput, batch sizes, errors by code. Used by `submit` and `demo`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::client::Finished;
use crate::protocol::response::ResponseBody;

/// The longest latency that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600 * 1_000_000;

/// Counts jobs as they end.
#[derive(Debug)]
pub(super) struct Tally {
    latencies_us: Histogram<u64>,
    answered: u64,
    failed: BTreeMap<String, u64>,
    /// The sum over jobs of 1 / batch size: how many batches they were.
    batches: f64,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Self { latencies_us, answered: 0, failed: BTreeMap::new(), batches: 0.0 }
    }

    /// Counts one job.
    pub(super) fn count(&mut self, finished: &Finished) {
        let latency = u64::try_from(finished.latency.as_micros()).unwrap_or(LONGEST_US);
        self.latencies_us.saturating_record(latency);
        match &finished.reply {
            Ok(ResponseBody::Result(response)) => {
                self.answered += 1;
                let batch_size = response.parameters.get("batch_size").and_then(Value::as_f64).unwrap_or(1.0);
                self.batches += 1.0 / batch_size.max(1.0);
            }
            Ok(ResponseBody::Error(error)) => *self.failed.entry(error.code.clone()).or_default() += 1,
            Err(error) => *self.failed.entry(error.kind().to_owned()).or_default() += 1,
        }
    }

    /// Jobs that got a result.
    pub(super) const fn answered(&self) -> u64 {
        self.answered
    }

    /// Jobs that got none, by what went wrong.
    pub(super) const fn failed(&self) -> &BTreeMap<String, u64> {
        &self.failed
    }

    /// Jobs a second, of those that got a result.
    #[expect(clippy::cast_precision_loss, reason = "nobody submits 2^52 jobs")]
    pub(super) fn jobs_per_second(&self, elapsed: Duration) -> f64 {
        self.answered as f64 / elapsed.as_secs_f64().max(1e-9)
    }

    /// The mean number of rows in the batches that the jobs were run in.
    #[expect(clippy::cast_precision_loss, reason = "nobody submits 2^52 jobs")]
    pub(super) fn mean_batch_size(&self) -> f64 {
        if self.batches > 0.0 { self.answered as f64 / self.batches } else { 0.0 }
    }

    /// The latency below which `share` of the jobs ended.
    pub(super) fn latency(&self, share: f64) -> Duration {
        Duration::from_micros(self.latencies_us.value_at_quantile(share))
    }

    /// All of it for programs. Durations are milliseconds.
    pub(super) fn to_json(&self, elapsed: Duration) -> Value {
        let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        json!({
            "answered": self.answered,
            "failed": self.failed,
            "elapsed_ms": milliseconds(elapsed),
            "jobs_per_s": (self.jobs_per_second(elapsed) * 10.0).round() / 10.0,
            "p50_ms": milliseconds(self.latency(0.5)),
            "p99_ms": milliseconds(self.latency(0.99)),
            "mean_batch_size": (self.mean_batch_size() * 100.0).round() / 100.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::protocol::response::InferenceResponse;

    fn finished(batch_size: u64) -> Finished {
        let response = InferenceResponse {
            model_name: "m".into(),
            model_version: "1".into(),
            id: None,
            parameters: Map::from_iter([("batch_size".to_owned(), batch_size.into())]),
            outputs: Vec::new(),
        };
        let latency = Duration::from_millis(batch_size);
        Finished { index: 0, message_id: None, reply: Ok(ResponseBody::Result(response)), latency }
    }

    #[test]
    fn the_mean_is_over_batches_not_over_jobs() {
        let mut tally = Tally::new();
        // One batch of four and one of one: five jobs in two batches.
        [4, 4, 4, 4, 1].into_iter().for_each(|size| tally.count(&finished(size)));
        assert!((tally.mean_batch_size() - 2.5).abs() < 1e-9);
        assert!((tally.jobs_per_second(Duration::from_secs(1)) - 5.0).abs() < 1e-9);
        assert_eq!(tally.latency(0.5).as_millis(), 4);
    }
}
