//! Step 11 as the worker takes it: its own replay guard, then the one that it shares with others, where there is one.
//!
//! Called by `process`, which holds what a job has of this worker in a [`Held`] until it is settled.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use super::Worker;
use super::shared::{Claim, Lease};
use super::shares::{Place, Shares};
use crate::broker::{Confirmed, Publisher};
use crate::envelope::{Admission, Admitted, JobIdentity, OpenedJob, UnixSeconds};
use crate::error::{ErrorCode, JobError};

/// What the job under way has, once it is known whose it is.
#[derive(Debug)]
pub(super) struct Held<'a> {
    shares: &'a Shares,
    left: &'a Left,
    queue: &'a Arc<str>,
    /// In the share of its tenant.
    place: Option<Place<'a>>,
    /// Among all workers.
    lease: Option<Lease>,
}

impl<'a> Held<'a> {
    /// Nothing yet, for a job from `queue`.
    pub(super) const fn new(shares: &'a Shares, left: &'a Left, queue: &'a Arc<str>) -> Self {
        Self { shares, left, queue, place: None, lease: None }
    }

    /// Whether there is a place for `tenant`.
    pub(super) fn take(&mut self, tenant: &str) -> bool {
        self.place = self.shares.take(self.queue, tenant);
        self.place.is_some()
    }

    /// Where the job came from.
    pub(super) fn queue(&self) -> &str {
        self.queue
    }

    /// Whether no other worker may run the job at this moment.
    pub(super) fn is_ours(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::holds)
    }

    /// The job's reply was confirmed. Noted here: the worker's own guard forgets a job whose envelope has ended.
    pub(super) fn was_answered(&self) {
        if let Some(lease) = &self.lease {
            lease.note_answered();
        }
    }
}

impl Drop for Held<'_> {
    /// A job whose task was broken off has let go of nothing yet.
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.left.lock().push(lease);
        }
    }
}

/// The leases of jobs whose tasks panicked or were aborted, until the consume loop lets go of them. No more than there are jobs.
#[derive(Debug, Default)]
pub(super) struct Left(Mutex<Vec<Lease>>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, Vec<Lease>> {
        // Each change is a single one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a job is not run.
pub(super) enum Refused {
    /// It was answered.
    Duplicate(Confirmed),
    /// It may not be run, now or at all.
    NotRun(JobError),
}

impl<P: Publisher> Worker<P> {
    /// The right to run `job`; a copy of one under way waits here.
    pub(super) async fn admit(&self, job: &OpenedJob, held: &mut Held<'_>) -> Result<Admission<Confirmed>, Refused> {
        let refused = |code: ErrorCode| Err(Refused::NotRun(JobError::new(code, code.meaning())));
        let identity = JobIdentity::of(job);
        let admission = match self.replays.admit(&identity, UnixSeconds::now()).await {
            Admitted::Run(admission) => admission,
            Admitted::Duplicate(proof) => return Err(Refused::Duplicate(proof)),
            Admitted::Conflict => return refused(ErrorCode::ReplayConflict),
            Admitted::Full => return refused(ErrorCode::ReplayGuardFull),
        };
        let Some(shared) = &self.shared else { return Ok(admission) };
        // Before it is asked for: what is broken off, or not answered, is given back as well.
        let lease = held.lease.insert(shared.lease(&identity));
        match shared.claim(lease).await {
            Ok(Claim::Ours) => Ok(admission),
            Ok(Claim::Answered) => {
                held.lease = None;
                Err(Refused::Duplicate(Confirmed::recorded_elsewhere()))
            }
            Ok(Claim::Conflict) => {
                held.lease = None;
                // What is remembered here must not stand against the ciphertext that was first.
                admission.withdrawn();
                refused(ErrorCode::ReplayConflict)
            }
            Err(error) => {
                tracing::warn!(
                    %error, job.id = job.claims.message_id, tenant = job.claims.tenant,
                    "a job is not run: the guard that the workers share does not answer"
                );
                admission.withdrawn();
                refused(ErrorCode::ReplayGuardUnavailable)
            }
        }
    }

    /// Does `work`; what is held among all workers is kept meanwhile. Pinned by the caller: a future that is handed on by value
    /// lies in each that it passes, and there is one for every job under way.
    pub(super) async fn keeping<F: Future>(&self, held: &Held<'_>, work: Pin<&mut F>) -> F::Output {
        match (&self.shared, &held.lease) {
            (Some(shared), Some(lease)) => shared.keeping(lease, work).await,
            (Some(_) | None, _) => work.await,
        }
    }

    /// Fails where another worker may have taken the job meanwhile: then it is not answered here.
    pub(super) async fn still_ours(&self, held: &Held<'_>) -> Result<(), JobError> {
        let (Some(shared), Some(lease)) = (&self.shared, &held.lease) else { return Ok(()) };
        let code = ErrorCode::ReplayGuardUnavailable;
        match shared.renew_patiently(lease).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(JobError::new(code, "another worker may have taken the job while it ran here")),
            Err(error) => Err(JobError::new(code, error.to_string())),
        }
    }

    /// Tells the other workers what became of the job: answered, or theirs to run.
    pub(super) async fn let_go(&self, held: &mut Held<'_>) {
        if let (Some(shared), Some(lease)) = (&self.shared, &held.lease) {
            shared.let_go(lease).await;
            // Not before: a task that is broken off here has it done by the consume loop.
            held.lease = None;
        }
    }

    /// The same for the jobs whose tasks were broken off.
    pub(super) async fn let_go_of_left(&self) {
        let Some(shared) = &self.shared else { return };
        let left = mem::take(&mut *self.left.lock());
        let mut letting_go = JoinSet::new();
        for lease in left {
            let shared = shared.clone();
            letting_go.spawn(async move { shared.let_go(&lease).await });
        }
        while letting_go.join_next().await.is_some() {}
    }
}
