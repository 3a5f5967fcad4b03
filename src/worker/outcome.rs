//! What became of one job, before anything is published about it.
//!
//! Made by `process` at the end of a job's walk, read by `reply`, which turns it into a confirmed publish.

use crate::envelope::ReplyContext;
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
    },
    /// It failed for a reason that passes; it is tried again, and is a dead letter once the attempts are used up.
    Retry {
        /// Whose job it is, for the log.
        context: Box<ReplyContext>,
        /// What failed.
        error: JobError,
    },
    /// Nobody can be told, or nobody may be: it is kept untouched, with the reason.
    DeadLetter {
        /// What failed.
        error: JobError,
    },
}

impl Outcome {
    /// What becomes of a job that failed with `error` after it was authenticated.
    pub(super) fn failed(context: Box<ReplyContext>, id: Option<String>, error: JobError) -> Self {
        match error.code.route() {
            Route::Reply => Self::told(context, id, &error),
            Route::Retry => Self::Retry { context, error },
            Route::DeadLetter | Route::Undeliverable => Self::DeadLetter { error },
        }
    }

    /// An encrypted error for the producer.
    pub(super) fn told(context: Box<ReplyContext>, id: Option<String>, error: &JobError) -> Self {
        Self::Answer { context, body: ErrorBody::new(error, id).encode(), code: Some(error.code) }
    }
}
