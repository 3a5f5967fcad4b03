//! What became of one job, before anything is published about it.
//!
//! Made by `process` at the end of a job's walk, read by `reply`, which turns it into a confirmed publish.

use crate::broker::Confirmed;
use crate::envelope::{Admission, ReplyContext};
use crate::error::{ErrorCode, JobError, Route};
use crate::protocol::body::EncodedBody;
use crate::protocol::response::ErrorBody;

/// What became of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The producer is told: a result, or an error that it may see.
    Answer {
        /// Where to and under which key the answer is sealed.
        context: Box<ReplyContext>,
        /// The answer, not yet sealed.
        body: EncodedBody,
        /// The code, where the answer is an error.
        code: Option<ErrorCode>,
        /// Told when the answer is confirmed; none where the job was refused before the replay guard saw it.
        admission: Option<Admission<Confirmed>>,
    },
    /// A copy of a job that was answered: what was confirmed then stands in its place, too.
    Duplicate(Confirmed),
    /// It failed for a reason that passes; it is tried again, and is a dead letter once the attempts are used up.
    Retry {
        /// Whose job it is, for the log.
        context: Box<ReplyContext>,
        /// What failed.
        error: JobError,
    },
    /// It comes back after a pause, as it came: no attempt is counted.
    Postponed {
        /// Whose job it is, for the log.
        context: Box<ReplyContext>,
        /// Why it could not be run now.
        cause: Postponement,
    },
    /// Workers died with it: it goes to the queue of suspects, untouched.
    Suspect,
    /// Nobody can be told, or nobody may be: it is kept untouched, with the reason.
    DeadLetter {
        /// What failed.
        error: JobError,
    },
}

/// Why a job comes back, though nothing is wrong with it.
#[derive(Debug)]
pub(super) enum Postponement {
    /// Its tenant has its share of what this worker holds.
    Share,
    /// The guard that the workers share did not let it be run, or be answered.
    Guard(JobError),
}

impl Outcome {
    /// What becomes of a job that failed with `error` after it was authenticated.
    pub(super) fn failed(
        admission: Option<Admission<Confirmed>>,
        context: Box<ReplyContext>,
        id: Option<String>,
        error: JobError,
    ) -> Self {
        match error.code.route() {
            Route::Reply => {
                let body = ErrorBody::new(&error, id).encode();
                Self::Answer { context, body, code: Some(error.code), admission }
            }
            Route::Retry => Self::Retry { context, error },
            Route::Postpone => Self::Postponed { context, cause: Postponement::Guard(error) },
            Route::DeadLetter | Route::Undeliverable => Self::DeadLetter { error },
        }
    }
}
