//! What the user wrote, key by key: the form of `config/default.toml`.
//!
//! Filled by `load` from all sources, turned into [`super::Settings`] by `resolve`. Numbers and words as they stand in
//! the file; no bound is checked here.

use secrecy::SecretString;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSettings {
    pub(super) service: RawService,
    pub(super) broker: RawBroker,
    pub(super) keys: RawKeys,
    pub(super) models: RawModels,
    pub(super) discovery: RawDiscovery,
    pub(super) batching: RawBatching,
    pub(super) worker: RawWorker,
    pub(super) limits: RawLimits,
    pub(super) telemetry: RawTelemetry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) audience: String,
    pub(super) worker_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBroker {
    pub(super) url: SecretString,
    pub(super) allow_plaintext: bool,
    pub(super) tls_ca_file: String,
    pub(super) tls_certificate_file: String,
    pub(super) tls_key_file: String,
    pub(super) name_prefix: String,
    pub(super) prefetch: u64,
    pub(super) adaptive_prefetch: bool,
    pub(super) connect_timeout_ms: u64,
    pub(super) publish_timeout_ms: u64,
    pub(super) heartbeat_s: u64,
    pub(super) backoff_min_ms: u64,
    pub(super) backoff_max_ms: u64,
    pub(super) publisher_channels: u64,
    pub(super) job_queue_max_bytes: u64,
    pub(super) delivery_limit: u64,
    pub(super) dead_letter_ttl_s: u64,
    pub(super) undeliverable_ttl_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeys {
    pub(super) directory: String,
    pub(super) allow_group_read: bool,
    pub(super) reload_interval_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModels {
    pub(super) directory: String,
    pub(super) serve: Vec<String>,
    pub(super) watch_interval_ms: u64,
    pub(super) memory_budget_bytes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDiscovery {
    pub(super) announce_interval_ms: u64,
    pub(super) answer_wait_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBatching {
    pub(super) executors: u64,
    pub(super) max_batch_size: u64,
    pub(super) max_run_ms: u64,
    pub(super) max_waiting_rows: u64,
    pub(super) policy: String,
    pub(super) fifo_batch_tokens: u64,
    pub(super) delay_ms: u64,
    pub(super) company_rows: u64,
    pub(super) objective_ms: u64,
    pub(super) urgent_objective_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorker {
    pub(super) max_attempts: u64,
    pub(super) default_deadline_ms: u64,
    pub(super) replay_redis_url: SecretString,
    pub(super) tenant_share_percent: u64,
    pub(super) drain_grace_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) max_body_bytes: u64,
    pub(super) max_plaintext_bytes: u64,
    pub(super) max_rows: u64,
    pub(super) max_lifetime_s: u64,
    pub(super) clock_skew_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    pub(super) log_format: String,
    pub(super) log_filter: String,
    pub(super) listen: String,
}
