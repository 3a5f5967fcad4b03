//! What the operating system says of this process, read anew at every scrape.
//!
//! Registered by `metrics`. Where `/proc` is not there or says nothing, the metric is left out rather than made up.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::names::{self, Metric};

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = status_field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1_024);
        let threads = status_field(&status, "Threads:");
        // The listing itself holds one descriptor open.
        let files = std::fs::read_dir("/proc/self/fd").ok().map(|folder| folder.count().saturating_sub(1) as u64);
        gauge(&mut encoder, &names::PROCESS_MEMORY, memory)?;
        gauge(&mut encoder, &names::PROCESS_THREADS, threads)?;
        gauge(&mut encoder, &names::PROCESS_FILES, files)
    }
}

fn gauge(encoder: &mut DescriptorEncoder, metric: &Metric, value: Option<u64>) -> Result<(), fmt::Error> {
    let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else {
        return Ok(());
    };
    let gauge = ConstGauge::new(value);
    let mut meaning = metric.meaning.to_owned();
    meaning.push('.');
    gauge.encode(encoder.encode_descriptor(metric.registered_name(), &meaning, None, gauge.metric_type())?)
}

/// The number after `name` in the text of `/proc/self/status`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_with_or_without_a_unit() {
        let status = "Name:\tinferq\nVmRSS:\t   10240 kB\nThreads:\t7\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(10_240));
        assert_eq!(status_field(status, "Threads:"), Some(7));
        assert_eq!(status_field(status, "VmSwap:"), None);
        assert_eq!(status_field("VmRSS:\tmany", "VmRSS:"), None);
    }
}
