//! Which jobs are waiting for a reply, and how a reply finds its job.
//!
//! A reply names its job by `correlation_id`, which is only where to look: whether it really answers that job is
//! decided by the authenticated claims when it is opened. Bounded: a client that never reads its replies is refused.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::oneshot;

use super::ClientError;
use crate::envelope::PendingReply;
use crate::protocol::response::ResponseBody;

/// What a waiting job is told.
pub(super) type Answer = Result<ResponseBody, ClientError>;

/// A job that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What its reply must prove.
    pub(super) expected: PendingReply,
    /// Where its answer goes.
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The jobs that wait for a reply, by correlation id.
#[derive(Debug)]
pub(super) struct PendingReplies {
    waiting: Mutex<HashMap<String, Waiting>>,
    capacity: usize,
}

impl PendingReplies {
    /// Room for `capacity` jobs.
    pub(super) fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::new(HashMap::new()), capacity }
    }

    /// Enters a job before it is published, so that its reply can never come too early.
    pub(super) fn enter(&self, expected: PendingReply) -> Result<oneshot::Receiver<Answer>, ClientError> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        // Jobs whose caller has gone need no room.
        if waiting.len() >= self.capacity {
            waiting.retain(|_, job| !job.answer.is_closed());
        }
        if waiting.len() >= self.capacity {
            return Err(ClientError::TooManyPending { capacity: self.capacity });
        }
        waiting.insert(expected.correlation_id.clone(), Waiting { expected, answer });
        Ok(receiver)
    }

    /// What the reply with this correlation id must prove, while its job still waits.
    pub(super) fn expected(&self, correlation_id: &str) -> Option<PendingReply> {
        self.lock().get(correlation_id).map(|job| job.expected.clone())
    }

    /// Hands the answer to its job. The first authentic one wins; later ones find nobody.
    pub(super) fn answer(&self, correlation_id: &str, answer: Answer) -> bool {
        let job = self.lock().remove(correlation_id);
        job.is_some_and(|job| job.answer.send(answer).is_ok())
    }

    /// Forgets a job: it was not published, or its caller waited long enough.
    pub(super) fn forget(&self, correlation_id: &str) {
        self.lock().remove(correlation_id);
    }

    /// Forgets all jobs; each is told that the client was closed.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
