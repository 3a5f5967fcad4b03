//! From an outcome to a verdict: seal, publish where the outcome belongs, and acknowledge only what was confirmed.
//!
//! The table of settlement in code. A publish that cannot be confirmed leaves the job with the broker.

use tokio::time::{Instant, sleep};

use super::Worker;
use super::outcome::Outcome;
use super::stage::Stopwatch;
use crate::broker::{Address, Confirmed, PublishError, Publisher, Verdict};
use crate::envelope::{Admission, ReplyContext, SealedReply, UnixSeconds, seal_reply};
use crate::error::{ErrorCode, JobError};
use crate::limits::{REFUSED_REPLY_PAUSE, REFUSED_REPLY_TRIES, REQUEUE_PAUSE};
use crate::protocol::body::EncodedBody;
use crate::protocol::properties::{
    HEADER_ATTEMPT, HEADER_ERROR, HEADER_FAILED_AT, HEADER_FAILED_ATTEMPT, HEADER_REPLY_QUEUE, HEADER_WORKER,
    HeaderValue, Message,
};
use crate::telemetry::labels::{PublishOutcome, RequeueReason, Stage, UndeliverableReason};

/// What the producer is told.
struct Answer {
    context: Box<ReplyContext>,
    body: EncodedBody,
    code: Option<ErrorCode>,
    admission: Option<Admission<Confirmed>>,
}

impl<P: Publisher> Worker<P> {
    /// Publishes what the outcome asks for. `model` is the one whose queue the job came from, `job` the job untouched.
    pub(super) async fn reply(
        &self,
        model: &str,
        job: Message,
        outcome: Outcome,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Verdict {
        let published = match outcome {
            Outcome::Answer { context, body, code, admission } => {
                let answer = Answer { context, body, code, admission };
                self.publish_answer(model, job, answer, stopwatch).await
            }
            Outcome::Duplicate(confirmed) => Ok(confirmed),
            Outcome::Retry { context, error } => self.publish_retry(model, job, &context, error).await,
            Outcome::DeadLetter { error } => self.publish_dead_letter(model, job, &error).await,
        };
        match published {
            Ok(confirmed) => Verdict::Ack(confirmed),
            Err(error) => {
                tracing::warn!(%error, "nothing was confirmed for a job, the broker keeps it");
                sleep(REQUEUE_PAUSE).await;
                // Counted after the pause: a job that is abandoned in it has been given back by the drain.
                self.metrics.requeued(RequeueReason::PublishFailed);
                Verdict::Requeue
            }
        }
    }

    async fn publish_answer(
        &self,
        model: &str,
        job: Message,
        answer: Answer,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<Confirmed, PublishError> {
        let Answer { context, body, code, admission } = answer;
        let sealed =
            seal_reply(&self.keyring.current(), &context, &body, &self.open_policy.audience, UnixSeconds::now());
        let sealed = match sealed {
            Ok(sealed) => sealed,
            // The key was taken away while the job ran: nobody could read an answer any more.
            Err(error) => {
                let error = JobError::new(ErrorCode::ReplyUndeliverable, error.to_string());
                return self.publish_dead_letter(model, job, &error).await;
            }
        };
        stopwatch.lap(Stage::Seal);
        let published = self.publish_reply(&sealed).await;
        stopwatch.lap(Stage::Publish);
        match published {
            Ok(confirmed) => {
                self.metrics.replied(model, code);
                log_answer(&context, code);
                if let Some(admission) = admission {
                    admission.answered(confirmed.for_duplicate());
                }
                Ok(confirmed)
            }
            Err(PublishError::Returned { .. }) => {
                self.keep_undeliverable(sealed, &context, UndeliverableReason::Returned).await
            }
            Err(PublishError::Refused { .. }) => {
                self.keep_undeliverable(sealed, &context, UndeliverableReason::Refused).await
            }
            Err(error @ (PublishError::TimedOut(_) | PublishError::Unavailable(_))) => Err(error),
        }
    }

    /// Publishes a reply; a full reply queue is given a few chances to empty itself.
    async fn publish_reply(&self, sealed: &SealedReply) -> Result<Confirmed, PublishError> {
        let address = Address::new(&self.names.replies_exchange(), &sealed.reply_queue);
        let mut tries = 1;
        loop {
            match self.publish(&address, sealed.message.clone()).await {
                Err(PublishError::Refused { .. }) if tries < REFUSED_REPLY_TRIES => sleep(REFUSED_REPLY_PAUSE).await,
                published => return published,
            }
            tries += 1;
        }
    }

    /// Keeps a reply that its queue does not take, so that an operator can find it. It stays sealed.
    async fn keep_undeliverable(
        &self,
        sealed: SealedReply,
        context: &ReplyContext,
        reason: UndeliverableReason,
    ) -> Result<Confirmed, PublishError> {
        let code = ErrorCode::ReplyUndeliverable;
        tracing::warn!(
            job.id = context.message_id, tenant = context.tenant, queue = sealed.reply_queue, %code,
            "the reply queue is gone or full, the reply is kept in the undeliverable queue"
        );
        let mut message = sealed.message;
        self.give_reason(&mut message, code);
        message.properties.headers.insert(HEADER_REPLY_QUEUE.to_owned(), HeaderValue::Text(sealed.reply_queue));
        let confirmed = self.publish(&self.names.undeliverable(), message).await?;
        self.metrics.undeliverable(reason);
        Ok(confirmed)
    }

    async fn publish_retry(
        &self,
        model: &str,
        mut job: Message,
        context: &ReplyContext,
        error: JobError,
    ) -> Result<Confirmed, PublishError> {
        let attempt = job.properties.attempt();
        if attempt >= self.max_attempts {
            tracing::warn!(job.id = context.message_id, model.name = model, %error, attempt, "out of attempts");
            return self.publish_dead_letter(model, job, &error).await;
        }
        let next = i64::from(attempt).saturating_add(1);
        job.properties.headers.insert(HEADER_ATTEMPT.to_owned(), HeaderValue::Integer(next));
        tracing::info!(job.id = context.message_id, model.name = model, %error, attempt, "retried after a pause");
        let confirmed = self.publish(&self.names.retry(model, attempt), job).await?;
        self.metrics.retried(error.code);
        Ok(confirmed)
    }

    async fn publish_dead_letter(
        &self,
        model: &str,
        mut job: Message,
        error: &JobError,
    ) -> Result<Confirmed, PublishError> {
        tracing::warn!(
            job.id = ?job.properties.message_id, model.name = model, code = %error.code,
            reason = error.message, body_bytes = job.body.len(), "dead letter"
        );
        self.give_reason(&mut job, error.code);
        let confirmed = self.publish(&self.names.dead(model), job).await?;
        self.metrics.dead_lettered(error.code);
        Ok(confirmed)
    }

    /// Publishes, and measures how long the broker took to answer.
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let began = Instant::now();
        let published = self.publisher.publish(address, message).await;
        let outcome = match &published {
            Ok(_) => PublishOutcome::Confirmed,
            Err(PublishError::Returned { .. }) => PublishOutcome::Returned,
            Err(PublishError::Refused { .. }) => PublishOutcome::Refused,
            Err(PublishError::TimedOut(_)) => PublishOutcome::TimedOut,
            Err(PublishError::Unavailable(_)) => PublishOutcome::Unavailable,
        };
        self.metrics.published(outcome, began.elapsed());
        published
    }

    /// Writes code, attempt and worker into the headers. The body stays as it came.
    fn give_reason(&self, message: &mut Message, code: ErrorCode) {
        let attempt = i64::from(message.properties.attempt());
        let headers = &mut message.properties.headers;
        headers.insert(HEADER_ERROR.to_owned(), code.as_str().into());
        headers.insert(HEADER_FAILED_ATTEMPT.to_owned(), attempt.into());
        let now = i64::try_from(UnixSeconds::now().0).unwrap_or(i64::MAX);
        headers.insert(HEADER_FAILED_AT.to_owned(), now.into());
        headers.insert(HEADER_WORKER.to_owned(), self.worker_id.as_str().into());
    }
}

fn log_answer(context: &ReplyContext, code: Option<ErrorCode>) {
    let model = &context.model;
    match code {
        None => {
            tracing::debug!(job.id = context.message_id, tenant = context.tenant, model.name = model.name, "answered")
        }
        Some(code) => {
            tracing::info!(job.id = context.message_id, tenant = context.tenant, model.name = model.name, %code, "answered with an error");
        }
    }
}
