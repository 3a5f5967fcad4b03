//! Step 11 over several workers: who may run a job, and whether another worker has answered it, kept in a Redis.
//!
//! Asked by `admit` after this worker's own guard, where `worker.replay_redis_url` is set. What stands there are names of
//! tenants and digests, never content. A Redis that does not answer lets nothing run.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::ConnectionAddr;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::shared_redis::Redis;
use crate::envelope::{JobIdentity, UnixSeconds};
use crate::limits::{SHARED_REPLAY_LEASE, SHARED_REPLAY_LIMIT, SHARED_REPLAY_PATIENCE, SHARED_REPLAY_POLL};

/// Sets a key that is not there, or is ours to take; answers what stands there otherwise.
const CLAIM: &str = "local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] and there ~= ARGV[3] then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''";
/// Prolongs a key that is still ours.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
/// Sets a key that is still ours to what may be taken by whoever has the same ciphertext.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
return 1";
/// Sets a key, whatever stands there.
const ANSWER: &str = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

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
#[derive(Debug)]
pub(super) struct Lease {
    key: String,
    /// What stands there while the job is ours, and under no other lease.
    ours: String,
    tag: String,
    forgotten: UnixSeconds,
    known: Mutex<Known>,
}

/// What is known of a lease in this process.
#[derive(Debug, Default)]
struct Known {
    /// Until when nobody else can have the job, counted from before the Redis was asked; none before it was, and once it said no.
    holds_until: Option<Instant>,
    /// The job's reply was confirmed.
    is_answered: bool,
}

impl Lease {
    /// Whether the job is ours at this moment, by what the Redis said last and by the clock.
    pub(super) fn holds(&self) -> bool {
        self.known().holds_until.is_some_and(|end| Instant::now() < end)
    }

    /// The job's reply was confirmed.
    pub(super) fn note_answered(&self) {
        self.known().is_answered = true;
    }

    /// Notes what the Redis says to what it was asked at `asked`.
    fn note(&self, asked: Instant, is_ours: bool) {
        self.known().holds_until = is_ours.then(|| asked + SHARED_REPLAY_LEASE);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is a single one.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guard that several workers share.
#[derive(Debug, Clone)]
pub struct SharedReplays {
    redis: Redis,
    prefix: String,
    clock_skew: Duration,
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
        let redis = Redis::new(url.expose_secret()).map_err(fault)?;
        let is_local = match redis.address() {
            ConnectionAddr::Tcp(host, _) => is_loopback(host),
            ConnectionAddr::Unix(_) => true,
            // Built without TLS: the URL was refused.
            _ => false,
        };
        if !is_local && !allow_plaintext {
            return Err(SharedReplaysError::Plaintext);
        }
        Ok(Self { redis, prefix: prefix.to_owned(), clock_skew })
    }

    /// A lease of `job`, which nobody has asked for yet.
    pub(super) fn lease(&self, job: &JobIdentity) -> Lease {
        let tag = job.tag_digest();
        Lease {
            key: format!("{}.replay:{}", self.prefix, job.name()),
            ours: format!("running {tag} {}", Uuid::new_v4()),
            // Another worker's clock may be behind this one by the skew, and takes an expired envelope for as long again.
            forgotten: job.expires().plus(self.clock_skew).plus(self.clock_skew),
            tag,
            known: Mutex::default(),
        }
    }

    /// Takes the job, or says why it is not to be run. Where another worker runs it, waits until that has ended.
    ///
    /// Whatever comes of it, and where it is broken off: the Redis may have heard it, and [`Self::let_go`] gives it back.
    pub(super) async fn claim(&self, lease: &Lease) -> Result<Claim, Unavailable> {
        let mut silent_since = None;
        loop {
            let asked = Instant::now();
            let there = match self.ask::<String>(CLAIM, lease, &lease.ours, SHARED_REPLAY_LEASE).await {
                Ok(there) => there,
                Err(error) if silent_since.get_or_insert(asked).elapsed() >= SHARED_REPLAY_PATIENCE => {
                    return Err(error);
                }
                Err(_) => {
                    sleep(SHARED_REPLAY_LIMIT).await;
                    continue;
                }
            };
            silent_since = None;
            let mut words = there.split(' ');
            match (words.next(), words.next()) {
                (Some(""), None) => {
                    lease.note(asked, true);
                    return Ok(Claim::Ours);
                }
                (Some(_), Some(tag)) if tag != lease.tag => return Ok(Claim::Conflict),
                (Some("answered"), Some(_)) => return Ok(Claim::Answered),
                (Some("running"), Some(_)) => sleep(SHARED_REPLAY_POLL).await,
                _ => return Err(Unavailable("what stands there is not ours".to_owned())),
            }
        }
    }

    /// Prolongs the lease; whether it was still ours. A Redis that does not answer is asked again for as long as the lease holds.
    pub(super) async fn renew_patiently(&self, lease: &Lease) -> Result<bool, Unavailable> {
        loop {
            match self.renew(lease).await {
                Err(_) if lease.holds() => sleep(SHARED_REPLAY_LIMIT).await,
                renewed => return renewed,
            }
        }
    }

    /// Does `work`, and keeps the lease meanwhile.
    pub(super) async fn keeping<F: Future>(&self, lease: &Lease, mut work: Pin<&mut F>) -> F::Output {
        loop {
            match timeout(SHARED_REPLAY_LEASE / 3, work.as_mut()).await {
                Ok(done) => return done,
                // The lease knows what came of it, and is looked at when it counts. The work goes on meanwhile.
                Err(_) => tokio::select! {
                    done = work.as_mut() => return done,
                    _either = self.renew(lease) => {}
                },
            }
        }
    }

    /// Records that the job was answered, until its envelope is no longer taken, or gives it back.
    pub(super) async fn let_go(&self, lease: &Lease) {
        if !lease.known().is_answered {
            return self.release(lease).await;
        }
        // Once more: a copy that comes later would be run by another worker.
        let recorded = match self.record(lease).await {
            Ok(()) => Ok(()),
            Err(_) => self.record(lease).await,
        };
        if let Err(error) = recorded {
            tracing::warn!(
                %error, key = lease.key,
                "an answer could not be recorded, a copy of its job may be answered by another worker"
            );
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<bool, Unavailable> {
        let asked = Instant::now();
        let renewed = self.ask::<i64>(RENEW, lease, &lease.ours, SHARED_REPLAY_LEASE).await? == 1;
        lease.note(asked, renewed);
        Ok(renewed)
    }

    async fn record(&self, lease: &Lease) -> Result<(), Unavailable> {
        let answered = format!("answered {}", lease.tag);
        self.ask::<i64>(ANSWER, lease, &answered, remembered(lease)).await.map(drop)
    }

    /// Gives the job back: it came to no answer here. Where that fails, the lease ends by itself.
    async fn release(&self, lease: &Lease) {
        if let Err(error) = self.ask::<i64>(RELEASE, lease, &lease.ours, remembered(lease)).await {
            tracing::debug!(%error, key = lease.key, "a lease was not given back and ends by itself");
        }
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        script: &str,
        lease: &Lease,
        value: &str,
        lasts: Duration,
    ) -> Result<T, Unavailable> {
        let mut command = redis::cmd("EVAL");
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let lost = format!("lost {}", lease.tag);
        command.arg(script).arg(1).arg(&lease.key).arg(value).arg(lasts).arg(lost);
        self.redis.query(&command).await.map_err(Unavailable)
    }
}

/// How long what became of a job is kept: as long as a copy of it may be taken by any worker.
fn remembered(lease: &Lease) -> Duration {
    // A copy may have been waiting since before the envelope ended: it has to find the record.
    Duration::from_secs(lease.forgotten.0.saturating_sub(UnixSeconds::now().0)) + SHARED_REPLAY_LEASE
}

/// Whether `host` is this machine by its very name.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that was frozen finds its lease over by its own clock, without asking anybody.
    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_for_its_time_from_when_it_was_asked_for() {
        let text = String::new;
        let lease =
            Lease { key: text(), ours: text(), tag: text(), forgotten: UnixSeconds(0), known: Mutex::default() };
        assert!(!lease.holds(), "nobody has asked for it");
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        lease.note(asked, true);
        tokio::time::advance(SHARED_REPLAY_LEASE.checked_sub(Duration::from_millis(2_001)).unwrap()).await;
        assert!(lease.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!lease.holds());
        lease.note(Instant::now(), true);
        assert!(lease.holds());
        lease.note(Instant::now(), false);
        assert!(!lease.holds(), "the Redis said that it is another's");
    }
}
