//! Every metric: its name, kind, labels and meaning. The one place where a metric's name stands.
//!
//! `metrics` and `process` register from here; dashboards and alerts are checked against [`ALL`].

use std::fmt::Write as _;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows only; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
    /// Always 1, its labels carry the news; its name ends in `_info`.
    Info,
}

/// A metric as it is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name, as a query writes it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence without its full stop: the exposition adds it.
    pub meaning: &'static str,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, labels: &'static [&'static str], meaning: &'static str) -> Self {
        Self { name, kind, labels, meaning }
    }

    /// The name under which it is registered: the exposition adds the ending of its kind by itself.
    #[must_use]
    pub fn registered_name(&self) -> &'static str {
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(ending).unwrap_or(self.name)
    }
}

use Kind::{Counter, Gauge, Histogram, Info};

macro_rules! declare {
    ($($constant:ident = ($name:literal, $kind:ident, $labels:expr, $meaning:literal);)*) => {
        $(#[doc = $meaning] pub const $constant: Metric = Metric::new($name, $kind, &$labels, $meaning);)*

        /// Every metric, in the order of a job's walk.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

declare! {
    JOBS_RECEIVED = ("inferq_jobs_received_total", Counter, ["model"], "Jobs that the broker handed to this worker");
    JOBS_REDELIVERED = ("inferq_jobs_redelivered_total", Counter, ["model"],
        "Jobs among them that had been handed out before");
    JOBS_IN_FLIGHT = ("inferq_jobs_in_flight", Gauge, [], "Jobs that are taken up and not yet settled");
    JOBS_REPLIED = ("inferq_jobs_replied_total", Counter, ["model", "code"],
        "Replies that the broker confirmed, by error code; OK for results");
    JOBS_DEAD_LETTERED = ("inferq_jobs_dead_lettered_total", Counter, ["code"],
        "Jobs that were published to a dead-letter queue, by error code");
    JOBS_RETRIED = ("inferq_jobs_retried_total", Counter, ["code"],
        "Jobs that were published to a retry queue, by error code");
    JOBS_POSTPONED = ("inferq_jobs_postponed_total", Counter, ["model"],
        "Jobs that were put off for a second since their tenant had its share of what the worker holds");
    JOBS_SUSPECTED = ("inferq_jobs_suspected_total", Counter, ["model"],
        "Jobs that were moved to the queue of suspects since workers died with them");
    JOBS_DUPLICATE = ("inferq_jobs_duplicate_total", Counter, [],
        "Copies of jobs that this worker had answered, acknowledged without a second answer");
    KEYRING_RELOADS = ("inferq_keyring_reloads_total", Counter, ["outcome"],
        "Times that the key ring was read again, by outcome; refused where the one before stays in use");
    JOBS_REQUEUED = ("inferq_jobs_requeued_total", Counter, ["reason"],
        "Jobs that were given back to their queue, by reason");
    REPLIES_UNDELIVERABLE = ("inferq_replies_undeliverable_total", Counter, ["reason"],
        "Replies that were kept in the undeliverable queue, by reason");
    JOB_SECONDS = ("inferq_job_seconds", Histogram, ["model"], "Time from taking a job up to settling it");
    STAGE_SECONDS = ("inferq_stage_seconds", Histogram, ["model", "stage"], "Time that a job spent in a stage of its walk");
    BATCHES = ("inferq_batches_total", Counter, ["model"], "Batches that were run");
    BATCH_SIZE = ("inferq_batch_size_rows", Histogram, ["model"], "Rows in a batch");
    BATCH_TOKENS = ("inferq_batch_tokens_total", Counter, ["model", "kind"],
        "Length of all rows of all batches: real as it came, padded as it was added to fill the batch up");
    BATCH_SECONDS = ("inferq_batch_run_seconds", Histogram, ["model"], "Time that a batch ran");
    BATCHES_OVERDUE = ("inferq_batches_overdue_total", Counter, ["model"],
        "Batches that took longer than batching.max_run_ms; the worker ends after the first");
    BATCH_DISPATCHES = ("inferq_batch_dispatches_total", Counter, ["model", "reason"],
        "Batches by why they were as large as they were; the reasons stand in batching.md");
    BATCH_COST_RATIO = ("inferq_batch_cost_ratio", Histogram, ["model"],
        "Time that a batch ran over the time it was expected to, where that was known");
    BATCH_SAVED = ("inferq_batch_saved_seconds_total", Counter, ["model"],
        "Time that running rows together saved against running them one by one, as expected");
    BATCH_CONTENDED = ("inferq_batch_contended_total", Counter, ["model"],
        "Batches that were formed while rows of several tenants waited, so that they took turns");
    WAITING_ROWS = ("inferq_batch_waiting_rows", Gauge, ["model"], "Rows that wait for an executor");
    MODEL_CHANGES = ("inferq_model_changes_total", Counter, ["model", "change"],
        "What happened to versions of a model while it was served: taken up, refused, retired, unloaded, reloaded, realiased");
    BROKER_CONNECTED = ("inferq_broker_connected", Gauge, [], "1 while the broker is connected and consumed from, else 0");
    BROKER_RECONNECTS = ("inferq_broker_reconnects_total", Counter, [], "Times that the broker was connected to again");
    PREFETCH = ("inferq_prefetch_jobs", Gauge, ["model"],
        "Jobs of each of a model's queues that the broker may hand to this worker before one is settled");
    PUBLISH_SECONDS = ("inferq_publish_seconds", Histogram, ["outcome"],
        "Time from publishing a message to the broker's answer, by outcome");
    PROCESS = ("inferq_process_info", Info, ["version", "worker"], "The version that runs, and the worker's name");
    PROCESS_START = ("inferq_process_start_time_seconds", Gauge, [], "When the worker was started, in seconds since the epoch");
    PROCESS_MEMORY = ("inferq_process_resident_memory_bytes", Gauge, [], "Resident memory of the process");
    PROCESS_THREADS = ("inferq_process_threads", Gauge, [], "Threads of the process");
    PROCESS_FILES = ("inferq_process_open_files", Gauge, [], "Open file descriptors of the process");
}

/// The text of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(PREFACE);
    for metric in ALL {
        let kind = match metric.kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
            Info => "info",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing into a String cannot fail.
        let _ = writeln!(page, "| `{}` | {kind} | {} | {}. |", metric.name, labels.join(", "), metric.meaning);
    }
    page
}

const PREFACE: &str = "\
# Metrics

<!-- Written from src/telemetry/names.rs by `INFERQ_BLESS=1 cargo test --test documents`; do not edit by hand. -->

A worker answers at `telemetry.listen`: `/metrics` in the OpenMetrics text format, `/livez` with 200 unless it has to be replaced, and
`/readyz` with 200 while it consumes jobs, else with 503 and the reason in a line.

Every label comes from a closed set. `model` is the name of a model that the worker serves, or `other`; `code` is one of the
error codes in errors.md, or `OK`.

| metric | kind | labels | meaning |
|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_as_their_kind_demands_and_are_unique() {
        for metric in ALL {
            assert!(metric.name.starts_with("inferq_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_info"), metric.kind == Info, "{}", metric.name);
            assert_eq!(ALL.iter().filter(|other| other.name == metric.name).count(), 1, "{}", metric.name);
            assert!(!metric.meaning.ends_with('.'), "{}", metric.name);
        }
    }
}
