//! The walk of one job, as one straight function: open, admit, decode, resolve, prepare, infer, shape.
//!
//! Called by the consume loop for every delivery, many at a time. Publishes nothing: what becomes of the job is an
//! `Outcome`, which `reply` turns into a confirmed publish.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Worker;
use super::admit::{Held, Refused};
use super::outcome::{Outcome, Postponement};
use super::reply::Origin;
use super::stage::Stopwatch;
use super::suspects::Standing;
use crate::batch::batcher::SubmitOptions;
use crate::batch::pool::JobClass;
use crate::batch::row::Inferred;
use crate::broker::{Delivery, Publisher};
use crate::envelope::{OpenedJob, Rejection, RequestClaims, Tenant, UnixSeconds, open_request};
use crate::error::{ErrorCode, JobError};
use crate::limits::{INLINE_ENCODE_ELEMENTS, INLINE_OPEN_BYTES};
use crate::model::ExplainRequest;
use crate::protocol::body::EncodedBody;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::properties::{HEADER_DEADLINE_MS, Message};
use crate::protocol::request::InferenceRequest;
use crate::protocol::response::InferenceResponse;
use crate::telemetry::labels::{RequeueReason, Stage};

/// What a delivery tells about a job beside the message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// Delivered before: it runs in a batch of one, so that an input that crashes takes no neighbour along.
    pub(super) redelivered: bool,
    /// From which kind of queue it came.
    pub(super) class: JobClass,
    /// Earlier deliveries that nobody settled.
    pub(super) delivery_count: u32,
    /// It came from the queue of suspects.
    pub(super) suspected: bool,
}

impl<P: Publisher> Worker<P> {
    /// Takes one job all the way, from its delivery to its settlement.
    pub(super) async fn process(&self, delivery: Delivery) {
        let began = Instant::now();
        let _in_flight = self.metrics.job_begun();
        let queue = Arc::clone(&delivery.queue);
        let class = if self.names.is_urgent(&queue) { JobClass::Urgent } else { JobClass::Normal };
        let Delivery { redelivered, delivery_count, .. } = delivery;
        let suspected = self.names.holds_suspects(&queue);
        let circumstances = Circumstances { redelivered, class, delivery_count, suspected };
        let model = self.names.model_of_queue(&queue);
        self.metrics.received(model, circumstances.redelivered);
        let (message, receipt) = delivery.split();
        // Held until the job is settled.
        let mut held = Held::new(&self.shares, &self.left, &queue);
        let mut stopwatch = Stopwatch::start(&self.metrics, model);
        let outcome = tokio::select! {
            outcome = pin!(self.infer(&message, circumstances, &mut stopwatch, &mut held)) => Some(outcome),
            () = receipt.voided() => None,
        };
        let Some(outcome) = outcome else {
            // The broker has given it to somebody else: what is not answered yet is answered there.
            self.suspicion.outlived_a_loss();
            self.let_go(&mut held).await;
            return self.metrics.requeued(RequeueReason::SessionEnded);
        };
        let origin = Origin { model, receipt: &receipt, held: &held };
        let verdict = self.keeping(&held, pin!(self.reply(origin, message, outcome, &mut stopwatch))).await;
        self.let_go(&mut held).await;
        if receipt.is_stale() {
            self.suspicion.outlived_a_loss();
        }
        receipt.settle(verdict);
        let took = began.elapsed();
        self.loads.job(model, took, stopwatch.in_batcher());
        self.metrics.job_ended(model, took);
    }

    /// Everything up to the outcome.
    async fn infer(
        &self,
        message: &Message,
        circumstances: Circumstances,
        stopwatch: &mut Stopwatch<'_>,
        held: &mut Held<'_>,
    ) -> Outcome {
        let Circumstances { delivery_count: count, suspected, .. } = circumstances;
        if count >= self.delivery_limit {
            return out_of_deliveries(format!("delivered {count} times without being settled"));
        }
        match self.suspicion.standing(&circumstances) {
            Standing::Clear => {}
            Standing::Suspect => return Outcome::Suspect,
            Standing::Guilty => {
                return out_of_deliveries(format!("{count} workers ended while they ran it among the suspects"));
            }
        }
        let mut opened = match self.open(message).await {
            Ok(opened) => opened,
            Err(rejection) => return rejected(rejection),
        };
        stopwatch.lap(Stage::Open);
        // Of suspects a worker holds one: there is no share of that.
        let has_place = suspected || held.take(&opened.claims.tenant);
        // What was delivered before has a count to keep, and what is urgent its queue: a copy would have neither.
        if !has_place && !circumstances.redelivered && circumstances.class == JobClass::Normal {
            return Outcome::Postponed { context: Box::new(opened.reply), cause: Postponement::Share };
        }
        match self.admit(&opened, held).await {
            Ok(admission) => {
                let ran = self.keeping(held, pin!(self.run(&mut opened, message, circumstances, stopwatch))).await;
                if let Err(error) = self.still_ours(held).await {
                    return Outcome::failed(None, Box::new(opened.reply), None, error);
                }
                let (context, admission) = (Box::new(opened.reply), Some(admission));
                match ran {
                    Ok(body) => Outcome::Answer { context, body, code: None, admission },
                    Err((id, error)) => Outcome::failed(admission, context, id, error),
                }
            }
            Err(Refused::Duplicate(proof)) => {
                tracing::info!(
                    job.id = opened.claims.message_id,
                    tenant = opened.claims.tenant,
                    "a copy of an answered job"
                );
                self.metrics.duplicate();
                Outcome::Duplicate(proof)
            }
            // The producer is not told: a copy of it may have been answered, or may be yet.
            Err(Refused::NotRun(error)) => Outcome::failed(None, Box::new(opened.reply), None, error),
        }
    }

    /// Validates and opens the envelope; a large one off the async threads.
    async fn open(&self, message: &Message) -> Result<OpenedJob, Rejection> {
        if message.body.len() <= INLINE_OPEN_BYTES {
            return open_request(&self.keyring.current(), &self.open_policy, message, UnixSeconds::now());
        }
        let (keyring, policy, message) = (self.keyring.current(), self.open_policy.clone(), message.clone());
        blocking(move || open_request(&keyring, &policy, &message, UnixSeconds::now())).await
    }

    /// Reads the request, whose plaintext is gone then; a large one off the async threads.
    async fn decode(&self, opened: &mut OpenedJob) -> Result<InferenceRequest, JobError> {
        let (plaintext, json_length) = (std::mem::take(&mut opened.plaintext), opened.json_length);
        let bounds = self.request_bounds;
        if plaintext.len() <= INLINE_OPEN_BYTES {
            return InferenceRequest::decode(&plaintext, json_length, &bounds);
        }
        blocking(move || InferenceRequest::decode(&plaintext, json_length, &bounds)).await
    }

    /// From an admitted job to its answer; a failure comes with the request's own id, where that was read.
    async fn run(
        &self,
        opened: &mut OpenedJob,
        message: &Message,
        circumstances: Circumstances,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<EncodedBody, (Option<String>, JobError)> {
        if !self.rates.allows(&opened.tenant, self.began.elapsed()) {
            return Err((None, JobError::new(ErrorCode::RateLimited, rate_message(&opened.tenant))));
        }
        let request = self.decode(opened).await.map_err(|error| (None, error))?;
        stopwatch.lap(Stage::Decode);
        let id = request.id.clone();
        let deadline = match self.deadline(opened, message) {
            Ok(deadline) => deadline,
            Err(error) => return Err((id, error)),
        };
        let Circumstances { redelivered, class, suspected, .. } = circumstances;
        let alone = redelivered || suspected;
        let options = SubmitOptions { deadline, class, tenant: opened.claims.tenant.as_str().into(), alone };
        self.answer(&opened.claims, request, options, stopwatch).await.map_err(|error| (id, error))
    }

    /// From the request to the encoded response.
    async fn answer(
        &self,
        claims: &RequestClaims,
        request: InferenceRequest,
        options: SubmitOptions,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<EncodedBody, JobError> {
        // The job's id decides between versions, so that a copy of the job is answered by the same.
        let ModelRef { name, version } = &claims.model;
        let model = self.models.resolve(name, *version, &claims.message_id).await?;
        let (asked, explain) = (request.facts(), ExplainRequest::read(&request)?);
        let prepared = model.prepare(request).await?;
        // Of most jobs nothing is explained, and no row is copied.
        let explained = explain.and_then(|explain| Some((explain, prepared.first()?.clone())));
        stopwatch.lap(Stage::Prepare);
        let rows = model.infer(prepared, options.clone()).await?;
        stopwatch.ran(longest(&rows, |row| row.waited), longest(&rows, |row| row.ran));
        let whole = explained.as_ref().and(rows.first()).map(|row| row.output.clone());
        let mut response = model.shape(rows, &asked)?;
        if let Some(((explain, row), whole)) = explained.zip(whole) {
            model.explain(&explain, (row, &whole), &options, &mut response).await?;
            stopwatch.lap(Stage::Explain);
        }
        let body = encode(response).await?;
        let (bytes, most) = (body.bytes.len(), self.open_policy.max_plaintext_bytes);
        if bytes > most {
            let message =
                format!("the response has {bytes} bytes, at most {most} are sent (limits.max_plaintext_bytes)");
            return Err(JobError::new(ErrorCode::ReplyTooLarge, message));
        }
        Ok(body)
    }

    /// The moment by which the job must have been begun: the earlier of its envelope's end and its own deadline, which is the
    /// worker's default where it names none.
    fn deadline(&self, opened: &OpenedJob, message: &Message) -> Result<Instant, JobError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let end_of_envelope = Duration::from_secs(opened.claims.expires.0).saturating_sub(now);
        let own = message.properties.integer_header(HEADER_DEADLINE_MS).map_or(self.default_deadline, |at| {
            Duration::from_millis(u64::try_from(at).unwrap_or(0)).saturating_sub(now)
        });
        let left = end_of_envelope.min(own);
        if left.is_zero() {
            return Err(JobError::new(
                ErrorCode::DeadlineExceeded,
                "the deadline had passed when the job was taken up",
            ));
        }
        Ok(Instant::now() + left)
    }
}

/// Encodes the response; a large one off the async threads.
async fn encode(response: InferenceResponse) -> Result<EncodedBody, JobError> {
    let elements: usize = response.outputs.iter().map(|output| output.tensor.elements().len()).sum();
    if elements <= INLINE_ENCODE_ELEMENTS { response.encode() } else { blocking(move || response.encode()).await }
}

/// Does `work` on a thread that may be busy for a while. Its panic is the caller's.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

fn longest(rows: &[Inferred], of: impl Fn(&Inferred) -> Duration) -> Duration {
    rows.iter().map(of).max().unwrap_or_default()
}

fn out_of_deliveries(reason: String) -> Outcome {
    Outcome::DeadLetter { error: JobError::new(ErrorCode::DeliveryLimitExceeded, reason) }
}

/// What becomes of a job that did not pass the validation of its envelope.
fn rejected(rejection: Rejection) -> Outcome {
    let error = JobError::new(rejection.code, rejection.reason);
    match rejection.reply {
        Some(context) => Outcome::failed(None, context, None, error),
        None => Outcome::DeadLetter { error },
    }
}

fn rate_message(tenant: &Tenant) -> String {
    let rate = tenant.grant.max_jobs_per_second.unwrap_or_default();
    format!("tenant `{}` may have {rate} jobs run in a second by one worker", tenant.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::amqp::AmqpPublisher;

    /// As many of them as the prefetch lie in memory, and each is moved when its task begins.
    const MOST_BYTES: usize = 8 * 1024;

    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_job_under_way_takes_little_room() {
        let bytes = size_of_future(|worker: &'static Worker<AmqpPublisher>, job: Delivery| worker.process(job));
        assert!(bytes <= MOST_BYTES, "{bytes} bytes; a future that is handed on by value lies in each that it passes");
    }
}
