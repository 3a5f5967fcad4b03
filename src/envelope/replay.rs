//! Step 11 of the validation: whether a job was seen before, and what became of it then.
//!
//! Asked by the worker once a job is authenticated. Remembers each `(tenant, jti)` with the request's tag until the
//! envelope has expired, when step 9 refuses every further copy. Knows no broker: what proves that a job was answered
//! is the caller's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::open::OpenedJob;
use super::time::UnixSeconds;

/// Parts that the longest life of an envelope is cut into: what has expired is forgotten one part at a time.
const PARTS_OF_A_LIFE: u64 = 8;
/// Bytes kept of the digest of an id or a tag.
const DIGEST_BYTES: usize = 16;

type Digest = [u8; DIGEST_BYTES];

/// How much a guard remembers, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ReplayBounds {
    /// Unexpired jobs of one tenant at most; further ones are refused.
    pub max_jobs: usize,
    /// `exp - iat` of a request at most.
    pub max_lifetime: Duration,
    /// Clock difference allowed: how long an expired envelope is still taken.
    pub clock_skew: Duration,
}

/// What makes a job this one and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobIdentity {
    tenant: String,
    /// Of the message id, so that a long id costs no more than a short one.
    id: Digest,
    /// Of the request's tag: another ciphertext, another tag.
    tag: Digest,
    expires: UnixSeconds,
}

impl JobIdentity {
    /// The identity of an authenticated job.
    #[must_use]
    pub fn of(job: &OpenedJob) -> Self {
        let claims = &job.claims;
        Self::new(&claims.tenant, &claims.message_id, &job.reply.request_tag, claims.expires)
    }

    /// Names the job among all others: tenant and digest of its id.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}:{}", self.tenant, hexadecimal(&self.id))
    }

    /// The digest of the request's tag.
    #[must_use]
    pub fn tag_digest(&self) -> String {
        hexadecimal(&self.tag)
    }

    /// When the envelope ends.
    #[must_use]
    pub const fn expires(&self) -> UnixSeconds {
        self.expires
    }

    fn new(tenant: &str, message_id: &str, tag: &str, expires: UnixSeconds) -> Self {
        Self { tenant: tenant.to_owned(), id: digest(message_id), tag: digest(tag), expires }
    }
}

fn digest(text: &str) -> Digest {
    let whole: [u8; 32] = Sha256::digest(text).into();
    whole.first_chunk().copied().unwrap_or_default()
}

fn hexadecimal(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The guard's word on a job.
#[derive(Debug)]
pub enum Admitted<P> {
    /// Run it: it is new, or its earlier delivery came to no answer.
    Run(Admission<P>),
    /// It was answered, and here is the proof: acknowledge it, and answer nothing.
    Duplicate(P),
    /// Its message id was used before with another ciphertext.
    Conflict,
    /// The tenant has as many unexpired jobs as are remembered: a new one cannot be told from a replay later.
    Full,
}

/// What became of a job.
#[derive(Debug)]
enum State<P> {
    /// It is being run; the sender is dropped when that ends.
    InFlight(watch::Receiver<()>),
    /// Its delivery ended without an answer: requeued, retried, dead-lettered, or its task died.
    Lost,
    /// It was answered.
    Answered(P),
}

#[derive(Debug)]
struct Remembered<P> {
    tag: Digest,
    state: State<P>,
}

/// One tenant's jobs, by the part of time in which they expire.
#[derive(Debug)]
struct TenantJobs<P> {
    parts: BTreeMap<u64, HashMap<Digest, Remembered<P>>>,
    count: usize,
}

impl<P> TenantJobs<P> {
    const fn new() -> Self {
        Self { parts: BTreeMap::new(), count: 0 }
    }

    fn forget_before(&mut self, part: u64) {
        while let Some(oldest) = self.parts.first_entry().filter(|oldest| *oldest.key() < part) {
            self.count = self.count.saturating_sub(oldest.remove().len());
        }
    }

    fn find(&mut self, id: &Digest) -> Option<&mut Remembered<P>> {
        self.parts.values_mut().find_map(|part| part.get_mut(id))
    }

    /// What is remembered of `job` itself: where it ran beyond its envelope's end, its id may be another job's by now.
    fn find_own(&mut self, job: &JobIdentity) -> Option<&mut Remembered<P>> {
        self.find(&job.id).filter(|known| known.tag == job.tag)
    }

    fn forget(&mut self, job: &JobIdentity) {
        if self.find_own(job).is_some() {
            let forgotten = self.parts.values_mut().filter_map(|part| part.remove(&job.id)).count();
            self.count = self.count.saturating_sub(forgotten);
        }
    }

    fn remember(&mut self, part: u64, id: Digest, job: Remembered<P>) {
        self.parts.entry(part).or_default().insert(id, job);
        self.count = self.count.saturating_add(1);
    }
}

/// Remembers the jobs of one worker. `P` is what proves that a job was answered.
#[derive(Debug)]
pub struct ReplayGuard<P> {
    bounds: ReplayBounds,
    /// The same proof once more, for a duplicate.
    again: fn(&P) -> P,
    tenants: Mutex<HashMap<String, TenantJobs<P>>>,
}

/// What a look at the memory found.
enum Found<P> {
    Settled(Admitted<P>),
    InFlight(watch::Receiver<()>),
}

impl<P> ReplayGuard<P> {
    /// A guard that remembers nothing yet.
    #[must_use]
    pub fn new(bounds: ReplayBounds, again: fn(&P) -> P) -> Self {
        Self { bounds, again, tenants: Mutex::new(HashMap::new()) }
    }

    /// Takes `job` in, or says why it is not to be run. A copy of a job that is being run is held until that has ended.
    ///
    /// Cancel safe: what was not answered is not remembered as begun.
    pub async fn admit(self: &Arc<Self>, job: &JobIdentity, now: UnixSeconds) -> Admitted<P> {
        loop {
            match self.look(job, now) {
                Found::Settled(admitted) => return admitted,
                // Nothing is ever sent: the error says that the sender is gone.
                Found::InFlight(mut ended) => drop(ended.changed().await),
            }
        }
    }

    fn look(self: &Arc<Self>, job: &JobIdentity, now: UnixSeconds) -> Found<P> {
        let mut tenants = self.lock();
        if !tenants.contains_key(&job.tenant) {
            tenants.insert(job.tenant.clone(), TenantJobs::new());
        }
        let Some(jobs) = tenants.get_mut(&job.tenant) else { return Found::Settled(Admitted::Full) };
        jobs.forget_before(self.part(now));
        if let Some(known) = jobs.find(&job.id) {
            if known.tag != job.tag {
                return Found::Settled(Admitted::Conflict);
            }
            return match &known.state {
                State::InFlight(ended) => Found::InFlight(ended.clone()),
                State::Answered(proof) => Found::Settled(Admitted::Duplicate((self.again)(proof))),
                State::Lost => {
                    let (running, ended) = watch::channel(());
                    known.state = State::InFlight(ended);
                    Found::Settled(Admitted::Run(self.admission(job, running)))
                }
            };
        }
        if jobs.count >= self.bounds.max_jobs {
            return Found::Settled(Admitted::Full);
        }
        let (running, ended) = watch::channel(());
        let part = self.part(job.expires.plus(self.bounds.clock_skew));
        jobs.remember(part, job.id, Remembered { tag: job.tag, state: State::InFlight(ended) });
        Found::Settled(Admitted::Run(self.admission(job, running)))
    }

    fn admission(self: &Arc<Self>, job: &JobIdentity, running: watch::Sender<()>) -> Admission<P> {
        Admission { guard: Arc::clone(self), job: job.clone(), is_settled: false, _running: running }
    }

    /// The part of time that `at` lies in.
    const fn part(&self, at: UnixSeconds) -> u64 {
        let life = self.bounds.max_lifetime.as_secs() + self.bounds.clock_skew.as_secs();
        at.0 / life.div_ceil(PARTS_OF_A_LIFE).saturating_add(1)
    }

    fn set(&self, job: &JobIdentity, state: State<P>) {
        let mut tenants = self.lock();
        // A job that ran beyond its envelope's end is forgotten already.
        if let Some(known) = tenants.get_mut(&job.tenant).and_then(|jobs| jobs.find_own(job)) {
            known.state = state;
        }
    }

    fn forget(&self, job: &JobIdentity) {
        if let Some(jobs) = self.lock().get_mut(&job.tenant) {
            jobs.forget(job);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TenantJobs<P>>> {
        // Every change under the lock is a single one: there is no half of it to be afraid of.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run one job. Dropped without an answer it leaves the job as lost, and its next delivery is run.
#[derive(Debug)]
#[must_use = "the job counts as lost when this is dropped"]
pub struct Admission<P> {
    guard: Arc<ReplayGuard<P>>,
    job: JobIdentity,
    is_settled: bool,
    /// Dropped last: whoever waits for it finds the new state.
    _running: watch::Sender<()>,
}

impl<P> Admission<P> {
    /// The job was answered, as `proof` shows: every further copy of it is a duplicate.
    pub fn answered(mut self, proof: P) {
        self.is_settled = true;
        self.guard.set(&self.job, State::Answered(proof));
    }

    /// The job is none of its id's, as others know: it is forgotten, so that the one that is does not conflict with it.
    pub fn withdrawn(mut self) {
        self.is_settled = true;
        self.guard.forget(&self.job);
    }
}

impl<P> Drop for Admission<P> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.guard.set(&self.job, State::Lost);
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
