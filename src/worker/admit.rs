//! Step 11 as the worker takes it: its own replay guard, then the one that it shares with others, where there is one.
//!
//! Called by `process`, which holds what a job has of this worker in a [`Held`] until it is settled.

use std::sync::Arc;

use super::Worker;
use super::shared::{Claim, Lease};
use super::shares::{Place, Shares};
use crate::broker::{Confirmed, Publisher};
use crate::envelope::{Admission, Admitted, JobIdentity, OpenedJob, UnixSeconds};
use crate::error::{ErrorCode, JobError};

/// What the job under way has, once it is known whose it is.
pub(super) struct Held<'a> {
    shares: &'a Shares,
    queue: &'a Arc<str>,
    /// In the share of its tenant.
    place: Option<Place<'a>>,
    /// Among all workers.
    lease: Option<(JobIdentity, Lease)>,
}

impl<'a> Held<'a> {
    /// Nothing yet, for a job from `queue`.
    pub(super) const fn new(shares: &'a Shares, queue: &'a Arc<str>) -> Self {
        Self { shares, queue, place: None, lease: None }
    }

    /// Whether there is a place for `tenant`.
    pub(super) fn take(&mut self, tenant: &str) -> bool {
        self.place = self.shares.take(self.queue, tenant);
        self.place.is_some()
    }
}

/// Why a job is not run.
pub(super) enum Refused {
    /// It was answered.
    Duplicate(Confirmed),
    /// It is none that may be answered.
    Unanswered(JobError),
}

impl<P: Publisher> Worker<P> {
    /// The right to run `job`; a copy of one under way waits here.
    pub(super) async fn admit(&self, job: &OpenedJob, held: &mut Held<'_>) -> Result<Admission<Confirmed>, Refused> {
        let refused = |code: ErrorCode| Err(Refused::Unanswered(JobError::new(code, code.meaning())));
        let identity = JobIdentity::of(job);
        let admission = match self.replays.admit(&identity, UnixSeconds::now()).await {
            Admitted::Run(admission) => admission,
            Admitted::Duplicate(proof) => return Err(Refused::Duplicate(proof)),
            Admitted::Conflict => return refused(ErrorCode::ReplayConflict),
            Admitted::Full => return refused(ErrorCode::ReplayGuardFull),
        };
        let Some(shared) = &self.shared else { return Ok(admission) };
        // Before it is asked for: what is broken off, or not answered, is given back as well.
        let lease = &held.lease.insert((identity.clone(), shared.lease(&identity))).1;
        match shared.claim(lease).await {
            Ok(Claim::Ours) => Ok(admission),
            Ok(Claim::Answered) => {
                held.lease = None;
                Err(Refused::Duplicate(Confirmed::recorded_elsewhere()))
            }
            Ok(Claim::Conflict) => {
                held.lease = None;
                refused(ErrorCode::ReplayConflict)
            }
            Err(error) => {
                tracing::warn!(%error, "a job is not run");
                refused(ErrorCode::ReplayGuardUnavailable)
            }
        }
    }

    /// Does `work`; what is held among all workers is kept meanwhile.
    pub(super) async fn keeping<T>(&self, held: &Held<'_>, work: impl Future<Output = T>) -> T {
        match (&self.shared, &held.lease) {
            (Some(shared), Some((_, lease))) => shared.keeping(lease, work).await,
            (Some(_) | None, _) => work.await,
        }
    }

    /// Fails where another worker may have taken the job meanwhile: then it is not answered here.
    pub(super) async fn still_ours(&self, held: &Held<'_>) -> Result<(), JobError> {
        let (Some(shared), Some((_, lease))) = (&self.shared, &held.lease) else { return Ok(()) };
        let code = ErrorCode::ReplayGuardUnavailable;
        match shared.renew(lease).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(JobError::new(code, "another worker may have taken the job while it ran here")),
            Err(error) => Err(JobError::new(code, error.to_string())),
        }
    }

    /// Tells the other workers what became of the job: answered, or theirs to run.
    pub(super) async fn let_go(&self, held: &mut Held<'_>) {
        let (Some(shared), Some((identity, lease))) = (&self.shared, held.lease.take()) else { return };
        if !self.replays.has_answered(&identity) {
            return shared.release(&lease).await;
        }
        // Once more: a copy that comes later would be run by another worker.
        let recorded = match shared.answered(&lease).await {
            Ok(()) => Ok(()),
            Err(_) => shared.answered(&lease).await,
        };
        if let Err(error) = recorded {
            tracing::warn!(%error, "an answer could not be recorded, a copy of its job may be answered by another worker");
        }
    }
}
