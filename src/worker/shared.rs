//! Step 11 over several workers: who may run a job, and whether another worker has answered it, kept in a Redis.
//!
//! Asked by `admit` after this worker's own guard, where `worker.replay_redis_url` is set. What stands there are names of
//! tenants and digests, never content. A Redis that does not answer lets nothing run. The only user of the crate redis.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::envelope::{JobIdentity, UnixSeconds};
use crate::limits::{SHARED_REPLAY_LEASE, SHARED_REPLAY_LIMIT, SHARED_REPLAY_POLL};

/// Sets a key that is not there; answers what stands there otherwise.
const CLAIM: &str = "local there = redis.call('GET', KEYS[1])
if there then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''";
/// Prolongs a key that is still ours.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
/// Takes a key away that is still ours.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Why the shared guard cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedReplaysError {
    /// The URL is none. It is not repeated: it may hold a password.
    #[error("`worker.replay_redis_url` is no Redis URL ({0}); expected redis://user:password@host:port/number")]
    Url(String),
    /// It is on another machine, and there is no TLS to Redis.
    #[error("the Redis of `worker.replay_redis_url` is beyond this machine, and is spoken to without TLS")]
    Plaintext,
}

/// The Redis did not answer, or not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shared replay guard does not answer: {0}")]
pub(super) struct Unavailable(String);

/// What the shared guard says of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody else runs it; it is ours as long as the lease is renewed.
    Ours,
    /// Another worker has answered it.
    Answered,
    /// Its message id was used before with another ciphertext.
    Conflict,
}

/// The right to run one job, asked for or had. Of two copies in one worker each has its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lease {
    key: String,
    /// What stands there while the job is ours, and under no other lease.
    ours: String,
    tag: String,
    forgotten: UnixSeconds,
}

/// The guard that several workers share.
#[derive(Debug, Clone)]
pub struct SharedReplays {
    redis: Redis,
    prefix: String,
    clock_skew: Duration,
}

#[derive(Clone)]
struct Redis(ConnectionManager);

impl std::fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Redis")
    }
}

impl SharedReplays {
    /// The guard at `url`, for the workers of one `prefix`; connects when it is first asked. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`SharedReplaysError`].
    pub fn new(
        url: &SecretString,
        prefix: &str,
        clock_skew: Duration,
        allow_plaintext: bool,
    ) -> Result<Self, SharedReplaysError> {
        let fault = |error: redis::RedisError| SharedReplaysError::Url(error.category().to_owned());
        let client = Client::open(url.expose_secret()).map_err(fault)?;
        let is_local = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) => is_loopback(host),
            ConnectionAddr::Unix(_) => true,
            // Built without TLS: the URL was refused.
            _ => false,
        };
        if !is_local && !allow_plaintext {
            return Err(SharedReplaysError::Plaintext);
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(SHARED_REPLAY_LIMIT))
            .set_response_timeout(Some(SHARED_REPLAY_LIMIT));
        let redis = Redis(ConnectionManager::new_lazy_with_config(client, config).map_err(fault)?);
        Ok(Self { redis, prefix: prefix.to_owned(), clock_skew })
    }

    /// A lease of `job`, which nobody has asked for yet.
    pub(super) fn lease(&self, job: &JobIdentity) -> Lease {
        let tag = job.tag_digest();
        Lease {
            key: format!("{}.replay:{}", self.prefix, job.name()),
            ours: format!("running {tag} {}", Uuid::new_v4()),
            forgotten: job.expires().plus(self.clock_skew),
            tag,
        }
    }

    /// Takes the job, or says why it is not to be run. Where another worker runs it, waits until that has ended.
    ///
    /// Whatever comes of it, and where it is broken off: the Redis may have heard it, and [`Self::release`] gives it back.
    pub(super) async fn claim(&self, lease: &Lease) -> Result<Claim, Unavailable> {
        loop {
            let there: String = self.ask(CLAIM, lease, &lease.ours, SHARED_REPLAY_LEASE).await?;
            let mut words = there.split(' ');
            match (words.next(), words.next()) {
                (Some(""), None) => return Ok(Claim::Ours),
                (Some(_), Some(tag)) if tag != lease.tag => return Ok(Claim::Conflict),
                (Some("answered"), Some(_)) => return Ok(Claim::Answered),
                (Some("running"), Some(_)) => sleep(SHARED_REPLAY_POLL).await,
                _ => return Err(Unavailable("what stands there is not ours".to_owned())),
            }
        }
    }

    /// Prolongs the lease; whether it was still ours.
    pub(super) async fn renew(&self, lease: &Lease) -> Result<bool, Unavailable> {
        self.ask::<i64>(RENEW, lease, &lease.ours, SHARED_REPLAY_LEASE).await.map(|renewed| renewed == 1)
    }

    /// Does `work`, and keeps the lease meanwhile.
    pub(super) async fn keeping<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            match timeout(SHARED_REPLAY_LEASE / 3, &mut work).await {
                Ok(done) => return done,
                // Whether it is still ours is asked when it counts. The work goes on meanwhile.
                Err(_) => tokio::select! {
                    done = &mut work => return done,
                    _either = self.renew(lease) => {}
                },
            }
        }
    }

    /// Records that the job was answered, until its envelope is no longer taken.
    pub(super) async fn answered(&self, lease: &Lease) -> Result<(), Unavailable> {
        // A copy may have been waiting since before the envelope ended: it has to find the record.
        let left = Duration::from_secs(lease.forgotten.0.saturating_sub(UnixSeconds::now().0)) + SHARED_REPLAY_LEASE;
        let answered = format!("answered {}", lease.tag);
        let script = "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])";
        self.ask::<String>(script, lease, &answered, left).await.map(drop)
    }

    /// Gives the job back: it came to no answer here. Where that fails, the lease ends by itself.
    pub(super) async fn release(&self, lease: &Lease) {
        if let Err(error) = self.ask::<i64>(RELEASE, lease, &lease.ours, SHARED_REPLAY_LEASE).await {
            tracing::debug!(%error, "a lease was not given back and ends by itself");
        }
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        script: &str,
        lease: &Lease,
        value: &str,
        lasts: Duration,
    ) -> Result<T, Unavailable> {
        let mut connection = self.redis.0.clone();
        let mut command = redis::cmd("EVAL");
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        command.arg(script).arg(1).arg(&lease.key).arg(value).arg(lasts);
        match timeout(SHARED_REPLAY_LIMIT * 2, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| Unavailable(error.to_string())),
            Err(_) => Err(Unavailable(format!("nothing came within {:?}", SHARED_REPLAY_LIMIT * 2))),
        }
    }
}

/// Whether `host` is this machine by its very name.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}
