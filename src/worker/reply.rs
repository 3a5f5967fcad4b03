//! From an outcome to a verdict: seal, publish where the outcome belongs, and acknowledge only what was confirmed.
//!
//! The table of settlement in code. What cannot be confirmed is published again and again as long as the job is ours; once
//! its session has ended, the broker has given it to somebody else. A reply is published only while no other worker may run its job.

use tokio::time::{Instant, sleep, timeout};

use super::Worker;
use super::admit::Held;
use super::outcome::{Outcome, Postponement};
use super::process::blocking;
use super::stage::Stopwatch;
use crate::broker::{Address, Confirmed, PublishError, Publisher, Receipt, Verdict};
use crate::envelope::{Admission, ReplyContext, SealError, SealedReply, UnixSeconds, seal_reply};
use crate::error::{ErrorCode, JobError};
use crate::limits::{
    INLINE_OPEN_BYTES, MAX_REPUBLISH_PAUSE, REFUSED_REPLY_PAUSE, REFUSED_REPLY_TRIES, REPUBLISH_PAUSE,
};
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

/// Where a job came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The model whose queue it was in.
    pub(super) model: &'a str,
    /// What is owed for it.
    pub(super) receipt: &'a Receipt,
    /// What it has of this worker.
    pub(super) held: &'a Held<'a>,
}

/// What is published in a job's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Its reply: one worker may publish it, and what a reply queue does not take can be kept elsewhere.
    Reply,
    /// Its copy, its dead letter or its undeliverable reply, which nothing else can stand for.
    Last,
}

/// Why nothing confirmed stands in a job's place.
#[derive(Debug, thiserror::Error)]
enum Unconfirmed {
    #[error(transparent)]
    Broker(#[from] PublishError),
    /// Another worker may have the job by now, and answer it.
    #[error("the right to answer the job ended before its reply was confirmed")]
    NotOurs,
}

impl<P: Publisher> Worker<P> {
    /// Publishes what the outcome asks for. `job` is the job untouched.
    pub(super) async fn reply(
        &self,
        origin: Origin<'_>,
        job: Message,
        outcome: Outcome,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Verdict {
        let published = match outcome {
            Outcome::Answer { context, body, code, admission } => {
                let answer = Answer { context, body, code, admission };
                self.publish_answer(origin, job, answer, stopwatch).await
            }
            Outcome::Duplicate(confirmed) => Ok(confirmed),
            Outcome::Retry { context, error } => self.publish_retry(origin, job, &context, error).await,
            Outcome::Postponed { context, cause } => self.postpone(origin, &job, &context, cause).await,
            Outcome::Suspect => self.set_apart(origin, &job).await,
            Outcome::DeadLetter { error } => self.publish_dead_letter(origin, job, &error).await,
        };
        match published {
            Ok(confirmed) => Verdict::Ack(confirmed),
            Err(error) => {
                tracing::warn!(%error, "nothing was confirmed for a job before its session ended, it is delivered again");
                self.metrics.requeued(RequeueReason::PublishFailed);
                Verdict::Requeue
            }
        }
    }

    async fn publish_answer(
        &self,
        origin: Origin<'_>,
        job: Message,
        answer: Answer,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<Confirmed, Unconfirmed> {
        let Answer { context, body, code, admission } = answer;
        let sealed = match self.seal(&context, body).await {
            Ok(sealed) => sealed,
            // The key was taken away while the job ran: nobody could read an answer any more.
            Err(error) => {
                let error = JobError::new(ErrorCode::ReplyUndeliverable, error.to_string());
                return self.publish_dead_letter(origin, job, &error).await;
            }
        };
        stopwatch.lap(Stage::Seal);
        let published = self.publish_reply(origin, &sealed).await;
        stopwatch.lap(Stage::Publish);
        match published {
            Ok(confirmed) => {
                self.metrics.replied(origin.model, code);
                log_answer(&context, code);
                if let Some(admission) = admission {
                    admission.answered(confirmed.for_duplicate());
                    origin.held.was_answered();
                }
                Ok(confirmed)
            }
            Err(Unconfirmed::Broker(PublishError::Returned { .. })) => {
                self.keep_undeliverable(origin, sealed, &context, UndeliverableReason::Returned).await
            }
            Err(Unconfirmed::Broker(PublishError::Refused { .. })) => {
                self.keep_undeliverable(origin, sealed, &context, UndeliverableReason::Refused).await
            }
            Err(error @ Unconfirmed::Broker(PublishError::TimedOut(_) | PublishError::Unavailable(_))) => Err(error),
            Err(error @ Unconfirmed::NotOurs) => {
                let error = JobError::new(ErrorCode::ReplayGuardUnavailable, error.to_string());
                self.postpone(origin, &job, &context, Postponement::Guard(error)).await
            }
        }
    }

    /// Seals a reply; a large one off the async threads.
    async fn seal(&self, context: &ReplyContext, body: EncodedBody) -> Result<SealedReply, SealError> {
        let (keyring, now) = (self.keyring.current(), UnixSeconds::now());
        if body.bytes.len() <= INLINE_OPEN_BYTES {
            return seal_reply(&keyring, context, &body, &self.open_policy.audience, now);
        }
        let (context, audience) = (context.clone(), self.open_policy.audience.clone());
        blocking(move || seal_reply(&keyring, &context, &body, &audience, now)).await
    }

    /// Publishes a reply; a full reply queue is given a few chances to empty itself.
    async fn publish_reply(&self, origin: Origin<'_>, sealed: &SealedReply) -> Result<Confirmed, Unconfirmed> {
        let address = Address::new(&self.names.replies_exchange(), &sealed.reply_queue);
        let mut tries = 1;
        loop {
            match self.publish_until(origin, &address, &sealed.message, Stand::Reply).await {
                Err(Unconfirmed::Broker(PublishError::Refused { .. })) if tries < REFUSED_REPLY_TRIES => {
                    sleep(REFUSED_REPLY_PAUSE).await;
                }
                published => return published,
            }
            tries += 1;
        }
    }

    /// Keeps a reply that its queue does not take, so that an operator can find it. It stays sealed.
    async fn keep_undeliverable(
        &self,
        origin: Origin<'_>,
        sealed: SealedReply,
        context: &ReplyContext,
        reason: UndeliverableReason,
    ) -> Result<Confirmed, Unconfirmed> {
        let code = ErrorCode::ReplyUndeliverable;
        tracing::warn!(
            job.id = context.message_id, tenant = context.tenant, queue = sealed.reply_queue, %code,
            "the reply queue is gone or full, the reply is kept in the undeliverable queue"
        );
        let mut message = sealed.message;
        self.give_reason(&mut message, code);
        message.properties.headers.insert(HEADER_REPLY_QUEUE.to_owned(), HeaderValue::Text(sealed.reply_queue));
        let confirmed = self.publish_until_confirmed(origin, &self.names.undeliverable(), &message).await?;
        self.metrics.undeliverable(reason);
        Ok(confirmed)
    }

    async fn publish_retry(
        &self,
        origin: Origin<'_>,
        mut job: Message,
        context: &ReplyContext,
        error: JobError,
    ) -> Result<Confirmed, Unconfirmed> {
        let model = origin.model;
        let attempt = job.properties.attempt();
        if attempt >= self.max_attempts {
            tracing::warn!(job.id = context.message_id, model.name = model, %error, attempt, "out of attempts");
            return self.publish_dead_letter(origin, job, &error).await;
        }
        let next = i64::from(attempt).saturating_add(1);
        job.properties.headers.insert(HEADER_ATTEMPT.to_owned(), HeaderValue::Integer(next));
        tracing::info!(job.id = context.message_id, model.name = model, %error, attempt, "retried after a pause");
        let confirmed = self.publish_until_confirmed(origin, &self.names.retry(model, attempt), &job).await?;
        self.metrics.retried(error.code);
        Ok(confirmed)
    }

    /// Has a job come back as it came: after the shortest pause, or among the suspects, where each is taken after one.
    async fn postpone(
        &self,
        origin: Origin<'_>,
        job: &Message,
        context: &ReplyContext,
        cause: Postponement,
    ) -> Result<Confirmed, Unconfirmed> {
        let (id, tenant, model) = (&context.message_id, &context.tenant, origin.model);
        match &cause {
            Postponement::Share => {
                tracing::debug!(
                    job.id = id,
                    tenant,
                    model.name = model,
                    "its tenant has its share, it comes back later"
                );
            }
            Postponement::Guard(error) => {
                tracing::info!(job.id = id, tenant, model.name = model, %error, "it comes back later");
            }
        }
        let confirmed = self.publish_until_confirmed(origin, &self.names.postponed(origin.held.queue()), job).await?;
        match cause {
            Postponement::Share => self.metrics.postponed(model),
            Postponement::Guard(error) => self.metrics.retried(error.code),
        }
        Ok(confirmed)
    }

    /// Moves a suspected job to the queue of suspects, where its deliveries are counted anew.
    async fn set_apart(&self, origin: Origin<'_>, job: &Message) -> Result<Confirmed, Unconfirmed> {
        tracing::warn!(
            job.id = ?job.properties.message_id, model.name = origin.model,
            "workers ended while they held this job, it runs among the suspects"
        );
        let confirmed = self.publish_until_confirmed(origin, &self.names.suspects(origin.model), job).await?;
        self.metrics.suspected(origin.model);
        Ok(confirmed)
    }

    async fn publish_dead_letter(
        &self,
        origin: Origin<'_>,
        mut job: Message,
        error: &JobError,
    ) -> Result<Confirmed, Unconfirmed> {
        tracing::warn!(
            job.id = ?job.properties.message_id, model.name = origin.model, code = %error.code,
            reason = error.message, body_bytes = job.body.len(), "dead letter"
        );
        self.give_reason(&mut job, error.code);
        let confirmed = self.publish_until_confirmed(origin, &self.names.dead(origin.model), &job).await?;
        self.metrics.dead_lettered(error.code);
        Ok(confirmed)
    }

    /// Publishes what nothing else can stand for.
    async fn publish_until_confirmed(
        &self,
        origin: Origin<'_>,
        address: &Address,
        message: &Message,
    ) -> Result<Confirmed, Unconfirmed> {
        self.publish_until(origin, address, message, Stand::Last).await
    }

    /// Publishes again and again, until it is confirmed, fails with an error that has another way, or the job is no longer ours.
    ///
    /// Giving the job back instead would have the broker deliver it again at once, each time nearer to its delivery limit,
    /// until a job without fault is a dead letter; and the prefetch bounds what is held.
    async fn publish_until(
        &self,
        origin: Origin<'_>,
        address: &Address,
        message: &Message,
        stand: Stand,
    ) -> Result<Confirmed, Unconfirmed> {
        let mut pause = REPUBLISH_PAUSE;
        loop {
            // Looked at as late as can be: between here and the broker nothing is.
            if stand == Stand::Reply && !origin.held.is_ours() {
                return Err(Unconfirmed::NotOurs);
            }
            let ends = |error: &PublishError| stand == Stand::Reply && has_another_way(error);
            match self.publish(address, message.clone()).await {
                Err(error) if !ends(&error) => {
                    tracing::warn!(
                        %error, job.id = ?message.properties.message_id, queue = &*address.routing_key,
                        pause_ms = pause.as_millis(), "not confirmed; published again after a pause, if the job is ours then"
                    );
                    if timeout(pause, origin.receipt.voided()).await.is_ok() {
                        return Err(error.into());
                    }
                    pause = pause.saturating_mul(2).min(MAX_REPUBLISH_PAUSE);
                }
                decided => return Ok(decided?),
            }
        }
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

/// Whether a reply that met this error can be kept elsewhere.
fn has_another_way(error: &PublishError) -> bool {
    match error {
        PublishError::Returned { .. } | PublishError::Refused { .. } => true,
        PublishError::TimedOut(_) | PublishError::Unavailable(_) => false,
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
