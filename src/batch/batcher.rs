//! The async driver: takes rows in, runs a batch whenever an executor is free, hands each row its answer.
//!
//! Batches run on tokio's blocking threads, at most `executors` at a time: there a panic ends one task and no thread of
//! ours, and a paused clock stands still while a batch runs. A batch that fails is halved until only the culprit fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::policy::{Bounds, next_batch};
use super::pool::{Answer, Pool, Waiting};
use super::row::{Batch, BatchOutput, Inferred, Row};
use crate::backend::{Backend, BackendError};
use crate::error::{ErrorCode, JobError};

/// How a batcher is built.
#[derive(Debug, Clone, Copy)]
pub struct BatcherSettings {
    /// Batches that run at once.
    pub executors: usize,
    /// Rows that may wait; more wait outside, in their jobs.
    pub max_waiting_rows: usize,
    /// The bounds of a batch.
    pub bounds: Bounds,
}

/// How a row is to be run.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// The moment by which it must have been begun.
    pub deadline: Instant,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Whether it must have a batch to itself.
    pub alone: bool,
}

/// A batch as it is reported to whoever measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchReport {
    /// Rows.
    pub size: usize,
    /// Length that every row was padded to.
    pub padded_length: usize,
    /// Sum of the rows' own lengths.
    pub real_length: usize,
    /// How long it ran.
    pub ran: Duration,
}

/// Called after every batch.
pub type Observer = Arc<dyn Fn(BatchReport) + Send + Sync>;

/// Takes rows, one at a time, and answers each with its own result.
#[derive(Debug)]
pub struct Batcher {
    rows: mpsc::Sender<Waiting>,
    driver: JoinHandle<()>,
}

impl Batcher {
    /// A batcher over `backend`; its driver runs until the batcher is dropped.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, settings: BatcherSettings, observer: Observer) -> Self {
        // What waits, waits in the pool, where the policy can see it: the channel only hands over.
        let (rows, incoming) = mpsc::channel(1);
        let driver = Driver {
            backend,
            settings,
            observer,
            incoming,
            pool: Pool::default(),
            halves: VecDeque::new(),
            running: JoinSet::new(),
        };
        Self { rows, driver: tokio::spawn(driver.drive()) }
    }

    /// Runs `row` in some batch and answers its own result. Dropping the future takes the row back, unless it runs.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when it could not be begun in time, `INFERENCE_FAILED` when the model failed on it alone,
    /// `MODEL_UNAVAILABLE` when the model is being unloaded.
    pub async fn submit(&self, row: Row, options: SubmitOptions) -> Result<Inferred, JobError> {
        let (answer, answered) = oneshot::channel();
        let SubmitOptions { deadline, tenant, alone } = options;
        let waiting = Waiting { row, deadline, tenant, alone, arrived: Instant::now(), answer };
        let unloading = || JobError::new(ErrorCode::ModelUnavailable, "the model is being unloaded");
        self.rows.send(waiting).await.map_err(|_| unloading())?;
        answered.await.map_err(|_| unloading())?
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
}

struct Driver {
    backend: Arc<dyn Backend>,
    settings: BatcherSettings,
    observer: Observer,
    incoming: mpsc::Receiver<Waiting>,
    pool: Pool,
    /// Parts of failed batches, run before anything new.
    halves: VecDeque<Vec<Waiting>>,
    running: JoinSet<Finished>,
}

impl Driver {
    async fn drive(mut self) {
        loop {
            self.dispatch();
            let has_room = self.pool.len() < self.settings.max_waiting_rows;
            tokio::select! {
                Some(finished) = self.running.join_next(), if !self.running.is_empty() => match finished {
                    Ok(finished) => self.finish(finished),
                    // The panic is caught where it happens; what arrives here is the runtime's end.
                    Err(error) => tracing::error!(%error, "an executor's task was lost"),
                },
                Some(waiting) = self.incoming.recv(), if has_room => {
                    self.pool.push(waiting);
                    self.take_in();
                }
                else => return,
            }
        }
    }

    /// Takes in what else has come at the same moment, so that the first of a burst does not run alone.
    fn take_in(&mut self) {
        while self.pool.len() < self.settings.max_waiting_rows {
            match self.incoming.try_recv() {
                Ok(waiting) => self.pool.push(waiting),
                Err(_) => return,
            }
        }
    }

    /// Gives every idle executor something to run.
    fn dispatch(&mut self) {
        while self.running.len() < self.settings.executors {
            let idle = self.settings.executors - self.running.len();
            let Some(rows) = self.halves.pop_front().or_else(|| self.next_rows(idle)) else { return };
            self.run(rows);
        }
    }

    fn next_rows(&mut self, idle: usize) -> Option<Vec<Waiting>> {
        self.pool.take_if(Waiting::is_cancelled);
        let now = Instant::now();
        for late in self.pool.take_if(|waiting| waiting.deadline <= now) {
            answer(
                late,
                Err(JobError::new(ErrorCode::DeadlineExceeded, "the deadline passed before the model was free")),
            );
        }
        let positions = next_batch(&self.pool, idle, self.settings.bounds);
        Some(self.pool.take(&positions)).filter(|rows| !rows.is_empty())
    }

    fn run(&mut self, rows: Vec<Waiting>) {
        let backend = Arc::clone(&self.backend);
        let began = Instant::now();
        self.running.spawn_blocking(move || {
            let batch = Batch { rows: rows.iter().map(|waiting| waiting.row.clone()).collect() };
            let result = run_caught(&*backend, &batch);
            let report = BatchReport {
                size: batch.rows.len(),
                padded_length: batch.padded_length(),
                real_length: batch.rows.iter().map(|row| row.length).sum(),
                ran: began.elapsed(),
            };
            Finished { rows, result, report, began }
        });
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { mut rows, result, report, began } = finished;
        (self.observer)(report);
        match result {
            Ok(output) => {
                for (waiting, output) in rows.into_iter().zip(output.rows) {
                    let waited = began.duration_since(waiting.arrived);
                    let inferred = Inferred { output, batch_size: report.size, waited, ran: report.ran };
                    answer(waiting, Ok(inferred));
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

/// Runs a batch, turns a panic into an error, and holds the backend to its word that rows in are rows out.
fn run_caught(backend: &dyn Backend, batch: &Batch) -> Result<BatchOutput, BackendError> {
    let run = std::panic::AssertUnwindSafe(|| backend.run(batch));
    let output = std::panic::catch_unwind(run).unwrap_or(Err(BackendError::Panicked))?;
    let (expected, actual) = (batch.rows.len(), output.rows.len());
    if expected == actual { Ok(output) } else { Err(BackendError::RowCount { expected, actual }) }
}

fn answer(waiting: Waiting, answer: Answer) {
    // Whoever asked may have gone; then the answer is for nobody.
    let _either = waiting.answer.send(answer);
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
