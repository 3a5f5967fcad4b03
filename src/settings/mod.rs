//! What the program runs with: resolved, cross-checked, in the units it uses.
//!
//! `raw` is what the user wrote, key by key; [`Settings`] is what came of it. This module is the only reader of
//! settings files and of the environment; everything else is handed its section by constructors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

mod check;
mod error;
mod load;
mod provenance;
mod raw;
pub mod reference;
mod resolve;
mod sources;

pub use error::SettingsError;
pub use load::{LoadOptions, Override};
pub use provenance::{Entry, Origin, Provenance};
pub use sources::Environment;

/// Everything, one field a section of `config/default.toml`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[service]`
    pub service: ServiceSettings,
    /// `[broker]`
    pub broker: BrokerSettings,
    /// `[keys]`
    pub keys: KeySettings,
    /// `[models]`
    pub models: ModelSettings,
    /// `[discovery]`
    pub discovery: DiscoverySettings,
    /// `[batching]`
    pub batching: BatchingSettings,
    /// `[worker]`
    pub worker: WorkerSettings,
    /// `[limits]`
    pub limits: LimitSettings,
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
}

/// `[service]`: who this is.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// The audience that requests must name (`aud`) and the issuer of replies (`iss`).
    pub audience: String,
    /// This worker's name in logs and dead-letter headers; host name and process id unless set.
    pub worker_id: String,
}

/// `[broker]`: RabbitMQ and how patiently it is treated.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// `amqps://` or `amqp://`; holds a password.
    pub url: SecretString,
    /// Whether a broker beyond this machine may be spoken to without TLS.
    pub allow_plaintext: bool,
    /// Certificates for `amqps://`.
    pub tls: TlsSettings,
    /// First part of every exchange's and queue's name.
    pub name_prefix: String,
    /// Unsettled deliveries a queue may have with this worker; at most 2,000.
    pub prefetch: u16,
    /// Whether a worker asks for fewer where it cannot make use of them.
    pub adaptive_prefetch: bool,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long a publish may wait for its confirm.
    pub publish_timeout: Duration,
    /// AMQP heartbeat.
    pub heartbeat: Duration,
    /// First pause between two connection attempts.
    pub backoff_min: Duration,
    /// Longest pause between two connection attempts.
    pub backoff_max: Duration,
    /// Channels in the client's publishing pool.
    pub publisher_channels: usize,
    /// Body bytes a job queue may hold before it refuses further jobs.
    pub job_queue_max_bytes: u64,
    /// Deliveries of one job after which the broker dead-letters it.
    pub delivery_limit: u32,
    /// How long dead letters are kept.
    pub dead_letter_ttl: Duration,
    /// How long undeliverable replies are kept.
    pub undeliverable_ttl: Duration,
}

/// The certificates of a connection to the broker; all of it is PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The authorities that may sign the broker's certificate, and no others; the system's where `None`.
    pub ca_file: Option<PathBuf>,
    /// What this side shows to a broker that asks.
    pub identity: Option<IdentityFiles>,
}

/// A certificate and the key to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, followed by those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[keys]`: the key ring.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Folder of tenants: `<tenant>/tenant.toml` and its JWK files.
    pub directory: PathBuf,
    /// Whether the files' group may read them.
    pub allow_group_read: bool,
    /// How often the folder is looked at for changes.
    pub reload_interval: Duration,
}

/// `[models]`: what is served.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// The model repository: `<name>/<version>/model.toml`.
    pub directory: PathBuf,
    /// Names of the models to serve; empty for all that the repository holds.
    pub serve: Vec<String>,
    /// How often the repository is looked at for versions that appear, change or go; never where `None`.
    pub watch_interval: Option<Duration>,
    /// Bytes of models' files that are kept in memory at most; no bound where `None`.
    pub memory_budget_bytes: Option<u64>,
}

/// `[discovery]`: which models there are, told and asked.
#[derive(Debug, Clone, Copy)]
pub struct DiscoverySettings {
    /// How often a worker announces its models; never where `None`.
    pub announce_interval: Option<Duration>,
    /// How long a client waits for an answer of the workers; it does not ask where `None`.
    pub answer_wait: Option<Duration>,
}

/// `[batching]`: how batches are formed, and the bounds of that.
#[derive(Debug, Clone, Copy)]
pub struct BatchingSettings {
    /// Executor threads per model; each runs one batch at a time.
    pub executors: usize,
    /// Rows in a batch at most; a model's own bound may be lower.
    pub max_batch_size: usize,
    /// How long one run of a batch may take.
    pub max_run: Duration,
    /// Rows that may wait for one model's executors.
    pub max_waiting_rows: usize,
    /// How batches are formed.
    pub policy: BatchingPolicy,
    /// How soon an answer should be there; a model may say otherwise.
    pub objectives: Objectives,
}

/// How batches are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchingPolicy {
    /// Learns what batches cost, and merges rows where that saves work.
    Adaptive,
    /// Every row by itself.
    Single,
    /// In the order of arrival, up to a number of tokens.
    Fifo {
        /// Rows times the longest row's length.
        max_tokens: usize,
    },
    /// In the order of arrival, once so many rows wait or the oldest has waited so long.
    Delay {
        /// How long a row waits for company.
        wait: Duration,
        /// The rows that end the wait.
        rows: usize,
    },
}

/// How soon after it was taken up a job should be answered, by its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objectives {
    /// Jobs of the common queue.
    pub normal: Duration,
    /// Jobs of the queue of urgent jobs.
    pub urgent: Duration,
}

/// `[worker]`: the way of a job.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Retries of a job that failed transiently before it is a dead letter.
    pub max_attempts: u32,
    /// Deadline of a job that names none, from the moment it is taken up.
    pub default_deadline: Duration,
    /// The Redis that keeps what several workers have answered; each keeps it for itself where `None`. Holds a password.
    pub replay_redis_url: Option<SecretString>,
    /// Hundredths of a queue's prefetch that one tenant may have while others have jobs there as well.
    pub tenant_share_percent: u32,
    /// How long a worker that is asked to stop may take to finish what it has begun.
    pub drain_grace: Duration,
}

/// `[limits]`: what a job may weigh.
#[derive(Debug, Clone)]
pub struct LimitSettings {
    /// Body of a message.
    pub max_body_bytes: usize,
    /// Plaintext of a job.
    pub max_plaintext_bytes: usize,
    /// Rows of one request.
    pub max_rows: usize,
    /// `exp - iat` of a request.
    pub max_lifetime: Duration,
    /// Clock difference allowed between producer and worker.
    pub clock_skew: Duration,
}

/// `[telemetry]`: logs, metrics, health.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// How log lines look.
    pub log_format: LogFormat,
    /// A `tracing` filter, such as `info,inferq=debug`.
    pub log_filter: String,
    /// Where `/metrics`, `/livez` and `/readyz` listen; port 0 picks a free one.
    pub listen: Option<SocketAddr>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}
