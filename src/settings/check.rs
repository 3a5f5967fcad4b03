//! What settings mean to each other: a pair of values that cannot work together is told before anything starts.
//!
//! Called by `resolve` once every value is within its own bound.

use super::{BatchingSettings, BrokerSettings, LimitSettings, Settings, WorkerSettings};
use crate::limits::ENVELOPE_OVERHEAD_BYTES;

/// The faults between values; each names both keys, their values and the bound.
pub(super) fn faults(settings: &Settings) -> Vec<String> {
    let Settings { broker, batching, worker, limits, .. } = settings;
    let all = [body_holds_plaintext(limits), queue_holds_a_body(broker, limits), backoff_grows(broker)];
    let more = [waiting_holds_a_batch(batching), waiting_holds_a_request(batching, limits)];
    let times = [drain_outlasts_a_confirm(worker, broker), skew_is_shorter_than_a_life(limits)];
    all.into_iter().chain(more).chain(times).flatten().collect()
}

fn body_holds_plaintext(limits: &LimitSettings) -> Option<String> {
    let needed = limits.max_plaintext_bytes.saturating_add(ENVELOPE_OVERHEAD_BYTES);
    (limits.max_body_bytes < needed).then(|| {
        format!(
            "`limits.max_body_bytes` is {}; with `limits.max_plaintext_bytes` of {} and {ENVELOPE_OVERHEAD_BYTES} bytes of \
             envelope it must be at least {needed}",
            limits.max_body_bytes, limits.max_plaintext_bytes
        )
    })
}

fn queue_holds_a_body(broker: &BrokerSettings, limits: &LimitSettings) -> Option<String> {
    (broker.job_queue_max_bytes < limits.max_body_bytes as u64).then(|| {
        format!(
            "`broker.job_queue_max_bytes` is {}; it must be at least `limits.max_body_bytes`, which is {}",
            broker.job_queue_max_bytes, limits.max_body_bytes
        )
    })
}

fn backoff_grows(broker: &BrokerSettings) -> Option<String> {
    (broker.backoff_min > broker.backoff_max).then(|| {
        format!(
            "`broker.backoff_min_ms` is {}; it must be at most `broker.backoff_max_ms`, which is {}",
            broker.backoff_min.as_millis(),
            broker.backoff_max.as_millis()
        )
    })
}

fn waiting_holds_a_batch(batching: &BatchingSettings) -> Option<String> {
    (batching.max_waiting_rows < batching.max_batch_size).then(|| {
        format!(
            "`batching.max_waiting_rows` is {}; it must be at least `batching.max_batch_size`, which is {}",
            batching.max_waiting_rows, batching.max_batch_size
        )
    })
}

fn waiting_holds_a_request(batching: &BatchingSettings, limits: &LimitSettings) -> Option<String> {
    (batching.max_waiting_rows < limits.max_rows).then(|| {
        format!(
            "`batching.max_waiting_rows` is {}; it must be at least `limits.max_rows`, which is {}",
            batching.max_waiting_rows, limits.max_rows
        )
    })
}

/// A worker that is asked to stop must be able to wait for the confirm of a reply that it has just published.
fn drain_outlasts_a_confirm(worker: &WorkerSettings, broker: &BrokerSettings) -> Option<String> {
    (worker.drain_grace < broker.publish_timeout).then(|| {
        format!(
            "`worker.drain_grace_ms` is {}; it must be at least `broker.publish_timeout_ms`, which is {}",
            worker.drain_grace.as_millis(),
            broker.publish_timeout.as_millis()
        )
    })
}

/// With a skew as long as a request's life, expired requests would be taken for valid ones.
fn skew_is_shorter_than_a_life(limits: &LimitSettings) -> Option<String> {
    (limits.clock_skew >= limits.max_lifetime).then(|| {
        format!(
            "`limits.clock_skew_s` is {}; it must be less than `limits.max_lifetime_s`, which is {}",
            limits.clock_skew.as_secs(),
            limits.max_lifetime.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, LoadOptions, Override};
    use super::*;

    /// The message about the defaults with `given` set over them.
    fn message(given: &[(&str, &str)]) -> String {
        let set = |(key, value): &(&str, &str)| Override {
            key: (*key).into(),
            value: (*value).into(),
            option: "--set".into(),
        };
        let options = LoadOptions { file: None, overrides: given.iter().map(set).collect() };
        match Settings::load_in(&options, &Environment::default()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_pair_that_cannot_work_is_refused_with_both_keys_and_values() {
        let cases = [
            ("limits.max_body_bytes", "8388608", "limits.max_plaintext_bytes", "8388608"),
            ("broker.job_queue_max_bytes", "4096", "limits.max_body_bytes", "12582912"),
            ("broker.backoff_min_ms", "15001", "broker.backoff_max_ms", "15000"),
            ("batching.max_batch_size", "1024", "batching.max_waiting_rows", "1023"),
            ("batching.max_waiting_rows", "1023", "limits.max_rows", "1024"),
            ("worker.drain_grace_ms", "9999", "broker.publish_timeout_ms", "10000"),
            ("broker.tls_certificate_file", "worker.pem", "broker.tls_key_file", ""),
            ("broker.tls_key_file", "worker.key", "broker.tls_certificate_file", ""),
            ("limits.clock_skew_s", "300", "limits.max_lifetime_s", "300"),
        ];
        for (key, value, other, bound) in cases {
            let message = message(&[(key, value), (other, bound)]);
            // A path is not repeated.
            let (value, bound) = if bound.is_empty() { ("is set", "is not") } else { (value, bound) };
            for part in [key, value, other, bound] {
                assert!(message.contains(part), "{key}: {message:?} does not name {part}");
            }
        }
    }

    #[test]
    fn every_number_has_its_bounds() {
        let cases = [
            ("broker.prefetch", "0", "from 1 to 2000"),
            ("broker.prefetch", "2001", "from 1 to 2000"),
            ("broker.heartbeat_s", "0", "from 1 to 65535"),
            ("broker.connect_timeout_ms", "86400001", "from 1 to 86400000"),
            ("batching.executors", "0", "from 1 to 256"),
            ("limits.max_rows", "0", "from 1 to"),
        ];
        for (key, value, bound) in cases {
            let message = message(&[(key, value)]);
            assert!(message.contains(&format!("`{key}` is {value}; it must be {bound}")), "{message:?}");
        }
    }

    #[test]
    fn words_are_checked_too_and_all_faults_are_told_together() {
        let message = message(&[
            ("service.audience", "with space"),
            ("telemetry.log_format", "yaml"),
            ("batching.policy", "greedy"),
            ("telemetry.listen", "localhost"),
            ("broker.url", "http://host"),
            ("keys.directory", " "),
            ("models.serve", "a/b"),
        ]);
        for key in ["service.audience", "telemetry.log_format", "telemetry.listen", "broker.url", "batching.policy"] {
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
        assert!(message.contains("`models.serve` is \"a/b\""), "{message}");
        assert_eq!(message.matches("; `").count(), 6, "{message}");
    }
}
