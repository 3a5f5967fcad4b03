//! From what the user wrote to what the program runs with: types, units, and the bound of each value by itself.
//!
//! Called by `load`; what values mean to each other is checked by `check`. All faults are gathered and told together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::error::SettingsError;
use super::provenance::without_password;
use super::raw::{
    RawBatching, RawBroker, RawDiscovery, RawKeys, RawLimits, RawModels, RawService, RawSettings, RawTelemetry,
    RawWorker,
};
use super::{
    BatchingPolicy, BatchingSettings, BrokerSettings, DiscoverySettings, IdentityFiles, KeySettings, LimitSettings,
    LogFormat, ModelSettings, Objectives, ServiceSettings, Settings, TelemetrySettings, TlsSettings, WorkerSettings,
    check,
};
use crate::limits::{MAX_BODY_BYTES, MAX_ID_CHARS, MAX_PREFETCH};
use crate::protocol::model_ref::is_model_name;

/// A day in milliseconds: no wait of this program is longer.
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// An hour in milliseconds: what is announced holds for three of them.
const HOUR_MS: u64 = 3_600 * 1_000;
/// A year in seconds.
const YEAR_S: u64 = 365 * 24 * 3_600;

/// The settings in `raw`.
pub(super) fn resolve(raw: &RawSettings) -> Result<Settings, SettingsError> {
    let mut faults = Faults::default();
    let settings = Settings {
        service: service(&mut faults, &raw.service),
        broker: broker(&mut faults, &raw.broker),
        keys: keys(&mut faults, &raw.keys),
        models: models(&mut faults, &raw.models),
        discovery: discovery(&mut faults, &raw.discovery),
        batching: batching(&mut faults, &raw.batching),
        worker: worker(&mut faults, &raw.worker),
        limits: limits(&mut faults, &raw.limits),
        telemetry: telemetry(&mut faults, &raw.telemetry),
    };
    // What does not hold by itself would be told twice.
    if faults.0.is_empty() {
        faults.0.extend(check::faults(&settings));
    }
    if faults.0.is_empty() { Ok(settings) } else { Err(SettingsError::OutOfBounds(faults.0)) }
}

/// The faults found so far; a faulty value is replaced by one within its bound, so that the search goes on.
#[derive(Debug, Default)]
struct Faults(Vec<String>);

impl Faults {
    fn number(&mut self, key: &str, value: u64, min: u64, max: u64) -> u64 {
        if value < min || value > max {
            self.0.push(format!("`{key}` is {value}; it must be from {min} to {max}"));
        }
        value.clamp(min, max)
    }

    fn count(&mut self, key: &str, value: u64, min: u64, max: u64) -> usize {
        usize::try_from(self.number(key, value, min, max)).unwrap_or(usize::MAX)
    }

    fn small(&mut self, key: &str, value: u64, min: u64, max: u32) -> u32 {
        u32::try_from(self.number(key, value, min, max.into())).unwrap_or(max)
    }

    fn millis(&mut self, key: &str, value: u64, min: u64) -> Duration {
        Duration::from_millis(self.number(key, value, min, DAY_MS))
    }

    /// The same where 0 stands for never.
    fn millis_or_never(&mut self, key: &str, value: u64, min: u64) -> Option<Duration> {
        (value > 0).then(|| self.millis(key, value, min))
    }

    fn seconds(&mut self, key: &str, value: u64, min: u64, max: u64) -> Duration {
        Duration::from_secs(self.number(key, value, min, max))
    }

    fn word(&mut self, key: &str, value: &str) -> String {
        if value.trim().is_empty() {
            self.0.push(format!("`{key}` is empty"));
        }
        value.to_owned()
    }

    fn model_name(&mut self, key: &str, value: &str) -> String {
        if !is_model_name(value) {
            self.0.push(format!("`{key}` is {value:?}; a model's name has letters, digits, `-` and `_` alone"));
        }
        value.to_owned()
    }

    /// A name that goes into names of queues and claims: ASCII letters, digits, `.`, `_`, `-`.
    fn name(&mut self, key: &str, value: &str, max_chars: usize) -> String {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if value.is_empty() || value.len() > max_chars || !value.chars().all(allowed) {
            self.0.push(format!(
                "`{key}` is {value:?}; it must be 1 to {max_chars} ASCII letters, digits, `.`, `_` or `-`"
            ));
        }
        value.to_owned()
    }
}

fn service(faults: &mut Faults, raw: &RawService) -> ServiceSettings {
    let worker_id = if raw.worker_id.is_empty() { default_worker_id() } else { raw.worker_id.clone() };
    ServiceSettings {
        audience: faults.name("service.audience", &raw.audience, MAX_ID_CHARS),
        worker_id: faults.name("service.worker_id", &worker_id, MAX_ID_CHARS),
    }
}

/// Host name and process id: replicas of one container image differ in the first, processes of one host in the second.
fn default_worker_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "worker",
        name => name,
    };
    format!("{host}-{}", std::process::id())
}

fn broker(faults: &mut Faults, raw: &RawBroker) -> BrokerSettings {
    BrokerSettings {
        url: broker_url(faults, &raw.url),
        allow_plaintext: raw.allow_plaintext,
        tls: tls(faults, raw),
        name_prefix: faults.name("broker.name_prefix", &raw.name_prefix, 64),
        prefetch: u16::try_from(faults.number("broker.prefetch", raw.prefetch, 1, MAX_PREFETCH.into()))
            .unwrap_or(MAX_PREFETCH),
        adaptive_prefetch: raw.adaptive_prefetch,
        connect_timeout: faults.millis("broker.connect_timeout_ms", raw.connect_timeout_ms, 1),
        publish_timeout: faults.millis("broker.publish_timeout_ms", raw.publish_timeout_ms, 1),
        // AMQP carries the heartbeat as 16 bits of seconds; 0 would switch it off.
        heartbeat: faults.seconds("broker.heartbeat_s", raw.heartbeat_s, 1, u16::MAX.into()),
        backoff_min: faults.millis("broker.backoff_min_ms", raw.backoff_min_ms, 1),
        backoff_max: faults.millis("broker.backoff_max_ms", raw.backoff_max_ms, 1),
        publisher_channels: faults.count("broker.publisher_channels", raw.publisher_channels, 1, 256),
        job_queue_max_bytes: faults.number("broker.job_queue_max_bytes", raw.job_queue_max_bytes, 1, 1 << 50),
        delivery_limit: faults.small("broker.delivery_limit", raw.delivery_limit, 1, 10_000),
        dead_letter_ttl: faults.seconds("broker.dead_letter_ttl_s", raw.dead_letter_ttl_s, 60, YEAR_S),
        undeliverable_ttl: faults.seconds("broker.undeliverable_ttl_s", raw.undeliverable_ttl_s, 60, YEAR_S),
    }
}

fn broker_url(faults: &mut Faults, url: &SecretString) -> SecretString {
    let text = url.expose_secret();
    let rest = text.strip_prefix("amqp://").or_else(|| text.strip_prefix("amqps://"));
    if rest.is_none_or(str::is_empty) {
        let shown = without_password(text);
        faults
            .0
            .push(format!("`broker.url` is `{shown}`; it must be amqp://user:password@host:port/vhost or amqps://"));
    }
    url.clone()
}

fn tls(faults: &mut Faults, raw: &RawBroker) -> TlsSettings {
    let file = |name: &str| Some(PathBuf::from(name)).filter(|path| !path.as_os_str().is_empty());
    let identity = match (file(&raw.tls_certificate_file), file(&raw.tls_key_file)) {
        (Some(certificate), Some(key)) => Some(IdentityFiles { certificate, key }),
        (None, None) => None,
        (certificate, _) => {
            let (given, missing) = match certificate {
                Some(_) => ("broker.tls_certificate_file", "broker.tls_key_file"),
                None => ("broker.tls_key_file", "broker.tls_certificate_file"),
            };
            faults.0.push(format!("`{given}` is set and `{missing}` is not; a certificate and its key go together"));
            None
        }
    };
    TlsSettings { ca_file: file(&raw.tls_ca_file), identity }
}

fn keys(faults: &mut Faults, raw: &RawKeys) -> KeySettings {
    KeySettings {
        directory: faults.word("keys.directory", &raw.directory).into(),
        allow_group_read: raw.allow_group_read,
        reload_interval: faults.millis("keys.reload_interval_ms", raw.reload_interval_ms, 10),
    }
}

fn models(faults: &mut Faults, raw: &RawModels) -> ModelSettings {
    ModelSettings {
        directory: faults.word("models.directory", &raw.directory).into(),
        serve: raw.serve.iter().map(|name| faults.model_name("models.serve", name)).collect(),
        watch_interval: faults.millis_or_never("models.watch_interval_ms", raw.watch_interval_ms, 100),
        memory_budget_bytes: Some(raw.memory_budget_bytes).filter(|bytes| *bytes > 0),
    }
}

fn discovery(faults: &mut Faults, raw: &RawDiscovery) -> DiscoverySettings {
    DiscoverySettings {
        announce_interval: (raw.announce_interval_ms > 0).then(|| {
            let milliseconds = raw.announce_interval_ms;
            Duration::from_millis(faults.number("discovery.announce_interval_ms", milliseconds, 100, HOUR_MS))
        }),
        answer_wait: faults.millis_or_never("discovery.answer_wait_ms", raw.answer_wait_ms, 10),
    }
}

fn batching(faults: &mut Faults, raw: &RawBatching) -> BatchingSettings {
    BatchingSettings {
        executors: faults.count("batching.executors", raw.executors, 1, 256),
        max_batch_size: faults.count("batching.max_batch_size", raw.max_batch_size, 1, 1_024),
        max_run: faults.millis("batching.max_run_ms", raw.max_run_ms, 1),
        max_waiting_rows: faults.count("batching.max_waiting_rows", raw.max_waiting_rows, 1, 1 << 20),
        policy: batching_policy(faults, raw),
        objectives: Objectives {
            normal: faults.millis("batching.objective_ms", raw.objective_ms, 1),
            urgent: faults.millis("batching.urgent_objective_ms", raw.urgent_objective_ms, 1),
        },
    }
}

/// The values of the policies that are not chosen are checked, too.
fn batching_policy(faults: &mut Faults, raw: &RawBatching) -> BatchingPolicy {
    let max_tokens = faults.count("batching.fifo_batch_tokens", raw.fifo_batch_tokens, 1, 1 << 26);
    let wait = faults.millis("batching.delay_ms", raw.delay_ms, 0);
    let rows = faults.count("batching.company_rows", raw.company_rows, 1, 1_024);
    match raw.policy.as_str() {
        "adaptive" => BatchingPolicy::Adaptive,
        "single" => BatchingPolicy::Single,
        "fifo" => BatchingPolicy::Fifo { max_tokens },
        "delay" => BatchingPolicy::Delay { wait, rows },
        other => {
            let words = "\"adaptive\", \"single\", \"fifo\" or \"delay\"";
            faults.0.push(format!("`batching.policy` is {other:?}; it must be {words}"));
            BatchingPolicy::Adaptive
        }
    }
}

fn worker(faults: &mut Faults, raw: &RawWorker) -> WorkerSettings {
    WorkerSettings {
        max_attempts: faults.small("worker.max_attempts", raw.max_attempts, 0, 1_000),
        replay_redis_url: Some(raw.replay_redis_url.clone()).filter(|url| !url.expose_secret().is_empty()),
        tenant_share_percent: faults.small("worker.tenant_share_percent", raw.tenant_share_percent, 1, 100),
        default_deadline: faults.millis("worker.default_deadline_ms", raw.default_deadline_ms, 1),
        drain_grace: faults.millis("worker.drain_grace_ms", raw.drain_grace_ms, 0),
    }
}

fn limits(faults: &mut Faults, raw: &RawLimits) -> LimitSettings {
    LimitSettings {
        max_body_bytes: faults.count("limits.max_body_bytes", raw.max_body_bytes, 1_024, MAX_BODY_BYTES as u64),
        max_plaintext_bytes: faults.count("limits.max_plaintext_bytes", raw.max_plaintext_bytes, 1, u64::MAX),
        max_rows: faults.count("limits.max_rows", raw.max_rows, 1, 1 << 20),
        max_lifetime: faults.seconds("limits.max_lifetime_s", raw.max_lifetime_s, 1, 24 * 3_600),
        clock_skew: faults.seconds("limits.clock_skew_s", raw.clock_skew_s, 0, 3_600),
    }
}

fn telemetry(faults: &mut Faults, raw: &RawTelemetry) -> TelemetrySettings {
    let log_format = match raw.log_format.as_str() {
        "human" => LogFormat::Human,
        "json" => LogFormat::Json,
        other => {
            faults.0.push(format!("`telemetry.log_format` is {other:?}; it must be \"human\" or \"json\""));
            LogFormat::Human
        }
    };
    TelemetrySettings {
        log_format,
        log_filter: faults.word("telemetry.log_filter", &raw.log_filter),
        listen: listen(faults, &raw.listen),
    }
}

fn listen(faults: &mut Faults, text: &str) -> Option<SocketAddr> {
    if text.is_empty() {
        return None;
    }
    let parsed = text.parse();
    if parsed.is_err() {
        faults.0.push(format!(
            "`telemetry.listen` is {text:?}; it must be address:port such as 127.0.0.1:9464 or [::]:9464, or empty"
        ));
    }
    parsed.ok()
}
