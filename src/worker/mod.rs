//! The worker: built once from settings, then one straight walk for every job.
//!
//! `process` is the walk, `admit` the right to run a job, which `shared` keeps among several workers in the Redis of
//! `shared_redis`, and `shares` among tenants; `suspects` are jobs that workers died with, `outcome` is what became of a job,
//! `reply` how that is published and settled, `stage` how long each part took. `drain` is the loop around it, `prefetch` how
//! much is taken from the broker, `keys` the key ring's renewal, `announce` what is told of the models and `announcing` when.
//! `assemble` makes the parts from settings, `serve` runs them as a process does. Works over either broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::prefetch::Prefetch;
use crate::broker::topology::Names;
use crate::broker::{Confirmed, Publisher};
use crate::envelope::{LiveKeyring, OpenPolicy, RateLimiter, ReplayBounds, ReplayGuard};
use crate::limits::MAX_REMEMBERED_JOBS;
use crate::model::ModelRepository;
use crate::protocol::request::RequestBounds;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

mod admit;
mod announce;
mod announcing;
mod assemble;
mod drain;
mod keys;
mod outcome;
mod prefetch;
mod process;
mod reply;
mod serve;
mod shared;
mod shared_redis;
mod shares;
mod stage;
mod suspects;

use admit::Left;
pub use announce::Announcer;
pub use assemble::{AssembleError, Parts};
pub use drain::{Drained, run};
pub use prefetch::Loads;
use shares::Shares;
use suspects::Suspicion;

pub use shared::{SharedReplays, SharedReplaysError};

pub use keys::{KeyReload, follow as follow_keys};
pub use serve::{ServeError, serve, serve_parts};

/// What every job of a worker is handled with.
#[derive(Debug)]
pub struct Worker<P> {
    keyring: Arc<LiveKeyring>,
    open_policy: OpenPolicy,
    replays: Arc<ReplayGuard<Confirmed>>,
    /// The guard that several workers share.
    shared: Option<SharedReplays>,
    /// What jobs held there whose tasks were broken off.
    left: Left,
    rates: RateLimiter,
    shares: Shares,
    /// What the rates count from.
    began: Instant,
    request_bounds: RequestBounds,
    models: Arc<ModelRepository>,
    publisher: P,
    names: Names,
    metrics: Arc<Metrics>,
    loads: Arc<Loads>,
    worker_id: String,
    max_attempts: u32,
    default_deadline: Duration,
    drain_grace: Duration,
    /// One below the broker's own, so that the job is dead-lettered with a reason instead of by the broker.
    delivery_limit: u32,
    suspicion: Suspicion,
}

impl<P: Publisher> Worker<P> {
    /// A worker that serves with `parts` and publishes through `publisher`.
    #[must_use]
    pub fn new(settings: &Settings, parts: Parts, publisher: P) -> Self {
        let Parts { keyring, models, metrics, runs: _, loads, changes: _, shared } = parts;
        let bounds = ReplayBounds {
            max_jobs: MAX_REMEMBERED_JOBS,
            max_lifetime: settings.limits.max_lifetime,
            clock_skew: settings.limits.clock_skew,
        };
        Self {
            keyring,
            replays: Arc::new(ReplayGuard::new(bounds, Confirmed::for_duplicate)),
            shared,
            left: Left::default(),
            rates: RateLimiter::default(),
            shares: Shares::new(Prefetch::fixed(settings.broker.prefetch), settings.worker.tenant_share_percent),
            began: Instant::now(),
            open_policy: OpenPolicy {
                audience: settings.service.audience.clone(),
                max_lifetime: settings.limits.max_lifetime,
                clock_skew: settings.limits.clock_skew,
                max_body_bytes: settings.limits.max_body_bytes,
                max_plaintext_bytes: settings.limits.max_plaintext_bytes,
            },
            request_bounds: RequestBounds { max_rows: settings.limits.max_rows },
            models,
            publisher,
            names: Names::new(&settings.broker.name_prefix),
            metrics,
            loads,
            worker_id: settings.service.worker_id.clone(),
            max_attempts: settings.worker.max_attempts,
            default_deadline: settings.worker.default_deadline,
            drain_grace: settings.worker.drain_grace,
            delivery_limit: settings.broker.delivery_limit.saturating_sub(1).max(1),
            suspicion: Suspicion::default(),
        }
    }

    /// The same worker, whose consumer follows `prefetch`: what a tenant's share is of.
    #[must_use]
    pub fn following(self, prefetch: Prefetch) -> Self {
        Self { shares: self.shares.following(prefetch), ..self }
    }
}
