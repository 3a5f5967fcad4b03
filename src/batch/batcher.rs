//! The async driver: takes rows in, runs a batch whenever an executor is free, hands each row its answer.
//!
//! Batches run on tokio's blocking threads, at most `executors` at a time: there a panic ends one task and no thread of
//! ours, and a paused clock stands still while a batch runs. A batch that fails is halved until only the culprit fails; one of rows
//! in the background, which jobs must not wait for, is run again row by row.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::compiling::Compiling;
use super::cost::CostModel;
use super::policy::{Bounds, Decision, Dispatch, Moment, Policy};
use super::pool::{Answer, JobClass, Pool, Waiting};
use super::report::{BatchReport, Observed, Observer};
use super::row::{Batch, BatchOutput, Inferred, Row};
use crate::backend::{Backend, BackendError, run_caught};
use crate::error::{ErrorCode, JobError};
use crate::settings::{BatchingPolicy, Objectives};
use crate::telemetry::labels::DispatchReason;

/// As many rows of jobs may wait for each row in the background that may.
const BACKGROUND_SLOTS: usize = 4;

/// How a batcher is built.
#[derive(Debug, Clone, Copy)]
pub struct BatcherSettings {
    /// Batches that run at once.
    pub executors: usize,
    /// Rows of jobs that may wait in the pool, at least 1, and a fourth of that in the background; more wait outside.
    pub max_waiting_rows: usize,
    /// How batches are formed.
    pub policy: BatchingPolicy,
    /// The bounds of a batch.
    pub bounds: Bounds,
    /// How soon an answer should be there.
    pub objectives: Objectives,
}

/// How a row is to be run.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// The moment by which it must have been begun.
    pub deadline: Instant,
    /// How urgent it is.
    pub class: JobClass,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Whether it must have a batch to itself.
    pub alone: bool,
}

/// Places for rows that wait.
#[derive(Debug)]
struct Slots {
    free: Arc<Semaphore>,
    most: usize,
}

impl Slots {
    fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most }
    }
}

/// Takes rows and answers each with its own result.
#[derive(Debug)]
pub struct Batcher {
    rows: mpsc::Sender<Vec<Waiting>>,
    slots: Slots,
    /// Those of rows in the background: jobs never wait for a place behind them.
    background_slots: Slots,
    objectives: Objectives,
    driver: JoinHandle<()>,
}

impl Batcher {
    /// A batcher over `backend`, which knows `costs` to begin with; its driver runs until the batcher is dropped.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, settings: BatcherSettings, costs: CostModel, observer: Observer) -> Self {
        let max_waiting_rows = settings.max_waiting_rows.clamp(1, Semaphore::MAX_PERMITS / 2);
        let slots = Slots::new(max_waiting_rows);
        let background_slots = Slots::new(max_waiting_rows.div_ceil(BACKGROUND_SLOTS));
        // What waits, waits in the pool, where the policy can see it. Every message holds a slot at least, so that
        // the channel never fills.
        let (rows, incoming) = mpsc::channel(slots.most + background_slots.most);
        let driver = Driver {
            compiling: Compiling::new(Arc::clone(&backend)),
            backend,
            executors: settings.executors,
            policy: Policy::new(settings.policy, settings.bounds, settings.executors, costs),
            observer,
            incoming,
            pool: Pool::default(),
            halves: VecDeque::new(),
            waiting_rows: 0,
            ask_again: None,
            running: JoinSet::new(),
        };
        let objectives = settings.objectives;
        Self { rows, slots, background_slots, objectives, driver: tokio::spawn(driver.drive()) }
    }

    /// Runs `row` in some batch and answers its own result. Dropping the future takes the row back, unless it runs.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when it could not be begun in time, `INFERENCE_FAILED` when the model failed on it alone,
    /// `MODEL_UNAVAILABLE` when the model is being unloaded.
    pub async fn submit(&self, row: Row, options: &SubmitOptions) -> Result<Inferred, JobError> {
        let answers = self.hand_over(vec![row], options).await?;
        answers.into_iter().next().ok_or_else(unloading)?.await.map_err(|_| unloading())?
    }

    /// Runs the rows of one job, handed over at once so that they can share batches, and answers in their order.
    /// The first failure is the job's; the rows that still wait are then taken back.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_all(&self, rows: Vec<Row>, options: &SubmitOptions) -> Result<Vec<Inferred>, JobError> {
        let mut answers = Vec::with_capacity(rows.len());
        let mut rest = rows;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(self.slots(options.class).most));
            answers.extend(self.hand_over(rest, options).await?);
            rest = later;
        }
        let answered = answers.into_iter().map(|answer| async { answer.await.map_err(|_| unloading())? });
        futures_util::future::try_join_all(answered).await
    }

    const fn slots(&self, class: JobClass) -> &Slots {
        match class {
            JobClass::Normal | JobClass::Urgent => &self.slots,
            JobClass::Background => &self.background_slots,
        }
    }

    /// Waits until all of `rows` may wait, and gives them to the driver.
    async fn hand_over(
        &self,
        rows: Vec<Row>,
        options: &SubmitOptions,
    ) -> Result<Vec<oneshot::Receiver<Answer>>, JobError> {
        let arrived = Instant::now();
        let (due, background) = match options.class {
            JobClass::Normal => (options.deadline.min(arrived + self.objectives.normal), false),
            JobClass::Urgent => (options.deadline.min(arrived + self.objectives.urgent), false),
            JobClass::Background => (options.deadline, true),
        };
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let slots = Arc::clone(&self.slots(options.class).free).acquire_many_owned(count);
        let mut slots = tokio::time::timeout_at(options.deadline, slots).await.map_err(|_| late())?;
        let (waiting, answers): (Vec<Waiting>, Vec<_>) = rows
            .into_iter()
            .map(|row| {
                let (answer, answered) = oneshot::channel();
                let slot = slots.as_mut().ok().and_then(|slots| slots.split(1));
                let SubmitOptions { deadline, tenant, alone, .. } = options.clone();
                (Waiting { row, deadline, due, tenant, alone, background, arrived, slot, answer }, answered)
            })
            .unzip();
        self.rows.send(waiting).await.map_err(|_| unloading())?;
        Ok(answers)
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A batch that has run.
struct Finished {
    rows: Vec<Waiting>,
    result: Result<BatchOutput, BackendError>,
    report: BatchReport,
    began: Instant,
    was_warm: bool,
}

struct Driver {
    backend: Arc<dyn Backend>,
    executors: usize,
    policy: Policy,
    observer: Observer,
    incoming: mpsc::Receiver<Vec<Waiting>>,
    pool: Pool,
    /// Parts of failed batches, run before anything new.
    halves: VecDeque<Vec<Waiting>>,
    running: JoinSet<Finished>,
    compiling: Compiling,
    /// Rows that wait, as the observer knows it.
    waiting_rows: usize,
    /// When to ask the policy again, though nothing has happened.
    ask_again: Option<Instant>,
}

impl Driver {
    async fn drive(mut self) {
        // One for all looks: most are put off long before they are due, and one that is made anew is a turn at the timers' lock.
        let mut alarm = pin!(sleep_until(Instant::now()));
        loop {
            self.dispatch();
            self.tell_waiting();
            let look = self.pool.next_look().into_iter().chain(self.ask_again).min();
            if let Some(look) = look.filter(|look| *look != alarm.deadline()) {
                alarm.as_mut().reset(look);
            }
            tokio::select! {
                Some(finished) = self.running.join_next(), if !self.running.is_empty() => match finished {
                    Ok(finished) => self.finish(finished),
                    // The panic is caught where it happens; what arrives here is the runtime's end.
                    Err(error) => tracing::error!(%error, "an executor's task was lost"),
                },
                Some(rows) = self.incoming.recv() => self.take_in(rows),
                () = self.compiling.done(), if self.compiling.is_busy() => {}
                // Whoever waits for a busy model is told in time that it is too late.
                () = alarm.as_mut(), if look.is_some() => {}
                else => return,
            }
        }
    }

    /// Takes in `rows` and what else has come at the same moment, so that the first of a burst does not run alone.
    fn take_in(&mut self, rows: Vec<Waiting>) {
        let mut next = Some(rows);
        while let Some(rows) = next {
            rows.into_iter().for_each(|waiting| self.pool.push(waiting));
            next = self.incoming.try_recv().ok();
        }
    }

    /// Gives every idle executor something to run.
    fn dispatch(&mut self) {
        let now = Instant::now();
        let any_late = self.pool.next_look().is_some_and(|look| look <= now);
        if any_late || self.running.len() < self.executors {
            self.pool.take_hopeless(now).into_iter().for_each(refuse);
        }
        self.ask_again = None;
        while let Some(idle @ 1..) = self.executors.checked_sub(self.running.len()) {
            let Some((rows, dispatch)) = self.next_half(now).or_else(|| self.next_rows(idle, now)) else { return };
            self.run(rows, &dispatch);
        }
    }

    /// Tells how many rows are left after a turn, where that has changed.
    fn tell_waiting(&mut self) {
        let now = self.pool.len() + self.halves.iter().map(Vec::len).sum::<usize>();
        let before = std::mem::replace(&mut self.waiting_rows, now);
        if now != before {
            (self.observer)(Observed::Waiting { before, now });
        }
    }

    fn next_half(&mut self, now: Instant) -> Option<(Vec<Waiting>, Dispatch)> {
        while let Some(half) = self.halves.pop_front() {
            let (hopeless, rows): (Vec<_>, Vec<_>) = half.into_iter().partition(|waiting| waiting.is_hopeless(now));
            hopeless.into_iter().for_each(refuse);
            if !rows.is_empty() {
                let (reason, unknown) = (DispatchReason::Bisected, Duration::ZERO);
                let dispatch = Dispatch {
                    positions: Vec::new(),
                    reason,
                    expected: unknown,
                    expected_apart: unknown,
                    contended: false,
                    missed: None,
                };
                return Some((rows, dispatch));
            }
        }
        None
    }

    fn next_rows(&mut self, idle: usize, now: Instant) -> Option<(Vec<Waiting>, Dispatch)> {
        let plan = |rows, length| self.backend.planned_shape(rows, length);
        let warm = |rows, length| self.backend.is_warm(rows, length);
        match self.policy.decide(Moment { pool: &self.pool, idle, plan: &plan, warm: &warm, now }) {
            Decision::Run(dispatch) => {
                if let Some(shape) = dispatch.missed {
                    self.compiling.want(shape, now);
                }
                let rows = self.pool.take(&dispatch.positions);
                (!rows.is_empty()).then_some((rows, dispatch))
            }
            Decision::WaitUntil(moment) => {
                self.ask_again = Some(moment);
                None
            }
            Decision::Rest => None,
        }
    }

    fn run(&mut self, mut rows: Vec<Waiting>, dispatch: &Dispatch) {
        let Dispatch { reason, expected, expected_apart, contended, .. } = *dispatch;
        rows.iter_mut().for_each(|waiting| drop(waiting.slot.take()));
        let backend = Arc::clone(&self.backend);
        let began = Instant::now();
        self.running.spawn_blocking(move || {
            let batch = Batch { rows: rows.iter_mut().map(|waiting| waiting.row.take()).collect() };
            let (size, length) = (batch.rows.len(), batch.padded_length());
            let was_warm = backend.is_warm(size, length);
            let planned_shape = backend.planned_shape(size, length);
            let result = run_caught(&*backend, &batch);
            let real_length = batch.rows.iter().map(|row| row.length).sum();
            if result.is_err() {
                // They are run again, in smaller batches.
                rows.iter_mut().zip(batch.rows).for_each(|(waiting, row)| waiting.row = row);
            }
            let background = rows.iter().any(|waiting| waiting.background);
            let report = BatchReport {
                size,
                padded_length: length,
                planned_shape,
                real_length,
                ran: began.elapsed(),
                reason,
                expected: if was_warm { expected } else { Duration::ZERO },
                expected_apart,
                contended,
                background,
                best_size: size,
            };
            Finished { rows, result, report, began, was_warm }
        });
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { mut rows, result, mut report, began, was_warm } = finished;
        if !was_warm {
            self.compiling.want((report.size, report.padded_length), Instant::now());
        } else if result.is_ok() {
            self.policy.ran(report.planned_shape, report.ran);
        }
        let plan = |rows, length| self.backend.planned_shape(rows, length);
        report.best_size = self.policy.best_size(&plan, report.padded_length);
        (self.observer)(Observed::Ran(report));
        match result {
            Ok(output) => {
                for (waiting, output) in rows.into_iter().zip(output.rows) {
                    let waited = began.duration_since(waiting.arrived);
                    let inferred = Inferred { output, batch_size: report.size, waited, ran: report.ran };
                    answer(waiting, Ok(inferred));
                }
            }
            Err(error) if rows.len() > 1 && report.background => {
                tracing::warn!(%error, batch.size = rows.len(), "a batch in the background failed, its rows are run apart");
                for waiting in rows {
                    self.pool.push(Waiting { alone: true, ..waiting });
                }
            }
            Err(error) if rows.len() > 1 => {
                tracing::warn!(%error, batch.size = rows.len(), "a batch failed, its halves are run apart");
                let half = rows.split_off(rows.len() / 2);
                self.halves.extend([rows, half]);
            }
            Err(error) => {
                for waiting in rows {
                    answer(waiting, Err(JobError::new(ErrorCode::InferenceFailed, error.to_string())));
                }
            }
        }
    }
}

/// Ends a row that is cancelled or late; the former's owner does not hear it.
fn refuse(waiting: Waiting) {
    answer(waiting, Err(late()));
}

fn late() -> JobError {
    JobError::new(ErrorCode::DeadlineExceeded, "the deadline passed before the model was free")
}

fn unloading() -> JobError {
    JobError::new(ErrorCode::ModelUnavailable, "the model is being unloaded")
}

fn answer(waiting: Waiting, answer: Answer) {
    // Whoever asked may have gone; then the answer is for nobody.
    let _either = waiting.answer.send(answer);
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
