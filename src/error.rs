//! The closed set of error codes and where each sends its job.
//!
//! An [`ErrorCode`] is at once the string on the wire, the metric label and the dead-letter header, so that an
//! operator, a dashboard and a producer speak of one thing in one word. Every module keeps a small error type of
//! its own; this file knows none of them and does no I/O.

use std::fmt;

/// What went wrong with a job, in the field's words. The set is closed: see `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// Steps 1-7 of the validation: not an envelope this service can open.
    EnvelopeRejected,
    /// Step 8: authenticated, but the AMQP properties or the audience are not the header's.
    BindingMismatch,
    /// Step 9: issued in the future, expired, or valid for longer than allowed.
    OutsideTimeWindow,
    /// Step 10: the tenant may not name this reply queue.
    ReplyQueueForbidden,
    /// Step 11: the same message id with another ciphertext.
    ReplayConflict,
    /// Step 11: the tenant has more unexpired jobs than the worker may remember.
    ReplayGuardFull,
    /// Step 11: the guard that several workers share does not answer, or another worker has taken the job.
    ReplayGuardUnavailable,
    /// Step 10: the key's grant does not name this model.
    ModelForbidden,
    /// The tenant sends more jobs a second than its grant allows.
    RateLimited,
    /// The plaintext is no Open Inference Protocol v2 request.
    MalformedRequest,
    /// No such model, or no such version of it.
    UnknownModel,
    /// The request is well formed, but its inputs are not what the model takes.
    InvalidInput,
    /// An input is larger than a bound of the model or the service.
    InputTooLarge,
    /// The job's deadline passed before it was run.
    DeadlineExceeded,
    /// The model ran and failed on this input, or its output is not finite.
    InferenceFailed,
    /// The result does not fit into a reply.
    ReplyTooLarge,
    /// The model exists but cannot be run at the moment.
    ModelUnavailable,
    /// Delivered more often than the limit allows without ever being settled.
    DeliveryLimitExceeded,
    /// The reply queue is gone or refuses the reply.
    ReplyUndeliverable,
}

/// Where a failed job goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// The producer is told, encrypted, on its reply queue.
    Reply,
    /// Published to a retry queue with `x-attempt + 1`; a dead letter once the attempts are used up.
    Retry,
    /// Published to the shortest retry queue as it came: no attempt was made, or none that counts.
    Postpone,
    /// Published untouched to the dead-letter queue, with the reason in headers.
    DeadLetter,
    /// The sealed reply is kept in the undeliverable queue.
    Undeliverable,
}

impl ErrorCode {
    /// Every code, in the order of `docs/errors.md`.
    pub const ALL: [Self; 19] = [
        Self::EnvelopeRejected,
        Self::BindingMismatch,
        Self::OutsideTimeWindow,
        Self::ReplyQueueForbidden,
        Self::ReplayConflict,
        Self::ReplayGuardFull,
        Self::ReplayGuardUnavailable,
        Self::ModelForbidden,
        Self::RateLimited,
        Self::MalformedRequest,
        Self::UnknownModel,
        Self::InvalidInput,
        Self::InputTooLarge,
        Self::DeadlineExceeded,
        Self::InferenceFailed,
        Self::ReplyTooLarge,
        Self::ModelUnavailable,
        Self::DeliveryLimitExceeded,
        Self::ReplyUndeliverable,
    ];

    /// The code as it stands on the wire, in metrics and in dead-letter headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EnvelopeRejected => "ENVELOPE_REJECTED",
            Self::BindingMismatch => "BINDING_MISMATCH",
            Self::OutsideTimeWindow => "OUTSIDE_TIME_WINDOW",
            Self::ReplyQueueForbidden => "REPLY_QUEUE_FORBIDDEN",
            Self::ReplayConflict => "REPLAY_CONFLICT",
            Self::ReplayGuardFull => "REPLAY_GUARD_FULL",
            Self::ReplayGuardUnavailable => "REPLAY_GUARD_UNAVAILABLE",
            Self::ModelForbidden => "MODEL_FORBIDDEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::MalformedRequest => "MALFORMED_REQUEST",
            Self::UnknownModel => "UNKNOWN_MODEL",
            Self::InvalidInput => "INVALID_INPUT",
            Self::InputTooLarge => "INPUT_TOO_LARGE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::InferenceFailed => "INFERENCE_FAILED",
            Self::ReplyTooLarge => "REPLY_TOO_LARGE",
            Self::ModelUnavailable => "MODEL_UNAVAILABLE",
            Self::DeliveryLimitExceeded => "DELIVERY_LIMIT_EXCEEDED",
            Self::ReplyUndeliverable => "REPLY_UNDELIVERABLE",
        }
    }

    /// Where a job that failed with this code goes.
    #[must_use]
    pub const fn route(self) -> Route {
        match self {
            Self::EnvelopeRejected
            | Self::BindingMismatch
            | Self::OutsideTimeWindow
            | Self::ReplyQueueForbidden
            | Self::ReplayConflict
            | Self::DeliveryLimitExceeded => Route::DeadLetter,
            Self::ModelForbidden
            | Self::RateLimited
            | Self::MalformedRequest
            | Self::UnknownModel
            | Self::InvalidInput
            | Self::InputTooLarge
            | Self::DeadlineExceeded
            | Self::InferenceFailed
            | Self::ReplyTooLarge => Route::Reply,
            Self::ReplayGuardFull | Self::ModelUnavailable => Route::Retry,
            Self::ReplayGuardUnavailable => Route::Postpone,
            Self::ReplyUndeliverable => Route::Undeliverable,
        }
    }

    /// What happened, in one sentence for `docs/errors.md`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::EnvelopeRejected => {
                "the body is no envelope that this service can open: size, content type, form, algorithm, key or tag"
            }
            Self::BindingMismatch => {
                "message_id, correlation_id or reply_to differ from the authenticated header, or it names another audience"
            }
            Self::OutsideTimeWindow => {
                "the envelope is expired, from the future, or valid for longer than the service allows"
            }
            Self::ReplyQueueForbidden => "the reply queue does not carry the tenant's prefix",
            Self::ReplayConflict => "the message id was used before with another ciphertext",
            Self::ReplayGuardFull => {
                "the tenant has more unexpired jobs than a worker remembers to tell replays; the job is retried"
            }
            Self::ReplayGuardUnavailable => {
                "the guard that the workers share does not answer, or another worker has taken the job"
            }
            Self::ModelForbidden => "the key's grant does not name the model",
            Self::RateLimited => "the tenant sends more jobs a second than its grant allows",
            Self::MalformedRequest => "the plaintext is no Open Inference Protocol v2 request",
            Self::UnknownModel => "no such model or version is served",
            Self::InvalidInput => "an input's name, datatype, shape or content is not what the model takes",
            Self::InputTooLarge => "an input is larger than a bound of the model or of the service",
            Self::DeadlineExceeded => "the job's deadline passed before it was run",
            Self::InferenceFailed => "the model failed on this input, or answered with a value that is not finite",
            Self::ReplyTooLarge => "the result is larger than a reply may be",
            Self::ModelUnavailable => "the model exists but cannot be run now; the job is retried",
            Self::DeliveryLimitExceeded => "the job was delivered too often without being settled",
            Self::ReplyUndeliverable => "the reply queue is gone, or refused the reply",
        }
    }

    /// What the producer, or the operator, should do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::EnvelopeRejected => {
                "check the key id, that the key is active, and that the JOSE library uses A256KW with A256GCM"
            }
            Self::BindingMismatch => "set the AMQP properties from the same values as the header, and aud to inferq.v1",
            Self::OutsideTimeWindow => "synchronise the clock; seal again with a fresh iat and exp",
            Self::ReplyQueueForbidden => "name a reply queue that starts with the tenant's prefix",
            Self::ReplayConflict => "use a fresh message id for every job",
            Self::ReplayGuardFull => {
                "seal with a shorter exp - iat, or add worker replicas; the job comes back after a pause"
            }
            Self::ReplayGuardUnavailable => {
                "look at the Redis of worker.replay_redis_url; the job comes back until its envelope ends"
            }
            Self::ModelForbidden => "ask the operator for a grant, or name a model that the key may use",
            Self::RateLimited => {
                "send more slowly, or ask the operator for a higher rate; seal the job again with a fresh id"
            }
            Self::MalformedRequest => "compare the request with docs/wire-protocol.md; the message names the place",
            Self::UnknownModel => "name a model and version that `inferq models list` shows",
            Self::InvalidInput => "compare the inputs with `inferq models show`; the message names the input",
            Self::InputTooLarge => "send less, or ask the operator to raise the bound that the message names",
            Self::DeadlineExceeded => "allow more time, or add worker replicas",
            Self::InferenceFailed => "check the input; if it is sound, give the operator the message id",
            Self::ReplyTooLarge => "ask for fewer outputs or fewer rows",
            Self::ModelUnavailable => "nothing: the job comes back after a pause",
            Self::DeliveryLimitExceeded => "look at the worker's log for what ended it, then replay the dead letter",
            Self::ReplyUndeliverable => "declare the reply queue before publishing, and keep it until the reply came",
        }
    }

    /// Reads a code as it stands on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A job's failure: one code, and a message that names the thing, what was expected and what came.
///
/// The message may quote names, shapes and sizes, never content: it can reach a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct JobError {
    /// What went wrong.
    pub code: ErrorCode,
    /// What exactly, without content.
    pub message: String,
}

impl JobError {
    /// A failure with `code`, described by `message`.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_own_word() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::parse("NO_SUCH_CODE"), None);
    }

    #[test]
    fn what_cannot_be_authenticated_is_never_answered() {
        for code in [
            ErrorCode::EnvelopeRejected,
            ErrorCode::BindingMismatch,
            ErrorCode::OutsideTimeWindow,
            ErrorCode::ReplyQueueForbidden,
            ErrorCode::ReplayConflict,
        ] {
            assert_eq!(code.route(), Route::DeadLetter, "{code}");
        }
    }
}
