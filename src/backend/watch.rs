//! Watches how long runs take: one that never ends holds an executor, and no other thread can end it.
//!
//! The worker puts it around every backend, and ends its process, in order, when a run is overdue: its supervisor starts
//! another. Knows no jobs and no broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput};

/// Steps in which the limit of a run is counted, and how short and long they are at most.
const STEPS: u32 = 20;
const SHORTEST_STEP: Duration = Duration::from_millis(1);
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// A run that takes longer than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverdueRun {
    /// The model.
    pub model: Arc<str>,
    /// Rows of its batch.
    pub rows: usize,
    /// How long it may take.
    pub limit: Duration,
}

/// A run that has begun and not ended.
#[derive(Debug)]
struct Run {
    model: Arc<str>,
    rows: usize,
    /// How long it has been seen to go on.
    age: Option<Duration>,
}

#[derive(Debug, Default)]
struct Runs {
    begun: u64,
    going: BTreeMap<u64, Run>,
}

impl Runs {
    /// Every run is `by` older than it was; answers one that exceeds `limit`.
    fn grow_older(&mut self, by: Duration, limit: Duration) -> Option<OverdueRun> {
        for run in self.going.values_mut() {
            // One that has begun since the step before is not as old as a step.
            let age = run.age.map_or(Duration::ZERO, |age| age + by);
            run.age = Some(age);
            if age >= limit {
                return Some(OverdueRun { model: Arc::clone(&run.model), rows: run.rows, limit });
            }
        }
        None
    }
}

/// Knows every run that is going on.
#[derive(Debug)]
pub struct RunWatch {
    limit: Duration,
    runs: Mutex<Runs>,
}

impl RunWatch {
    /// A watch that allows each run `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self { limit, runs: Mutex::default() })
    }

    /// `backend` of `model`, watched.
    pub fn around(self: &Arc<Self>, model: &str, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Watched { backend, model: model.into(), watch: Arc::clone(self) })
    }

    /// Resolves when a run takes longer than it may, by up to a tenth. Cancel safe.
    ///
    /// Time is counted in small steps, none of them for more than twice its length: while the process is stopped, or its machine
    /// asleep, no run can get on.
    pub async fn overdue(&self) -> OverdueRun {
        let step = (self.limit / STEPS).clamp(SHORTEST_STEP, LONGEST_STEP);
        loop {
            let began = Instant::now();
            sleep(step).await;
            if let Some(overdue) = self.runs().grow_older(began.elapsed().min(step * 2), self.limit) {
                return overdue;
            }
        }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watched {
    backend: Arc<dyn Backend>,
    model: Arc<str>,
    watch: Arc<RunWatch>,
}

/// A run that goes on; dropped when it ends, be it by a panic.
struct Going<'a> {
    watch: &'a RunWatch,
    number: u64,
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.watch.runs().going.remove(&self.number);
    }
}

impl Backend for Watched {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        let run = Run { model: Arc::clone(&self.model), rows: batch.rows.len(), age: None };
        let mut runs = self.watch.runs();
        let number = runs.begun;
        runs.begun += 1;
        runs.going.insert(number, run);
        drop(runs);
        let _going = Going { watch: &self.watch, number };
        self.backend.run(batch)
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        self.backend.planned_shape(rows, length)
    }

    fn is_warm(&self, rows: usize, length: usize) -> bool {
        self.backend.is_warm(rows, length)
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        self.backend.prepare(rows, length)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::super::scripted::{Misdeed, ScriptedBackend};
    use super::*;
    use crate::batch::row::Row;
    use crate::protocol::tensor::{Tensor, TensorData};

    const LIMIT: Duration = Duration::from_secs(10);

    fn batch(mark: i64) -> Batch {
        let tensor = Tensor::new(vec![1], TensorData::Int64(vec![mark])).unwrap();
        Batch { rows: vec![Row { inputs: vec![tensor], length: 1, may_be_padded: false }] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_does_not_end_is_overdue_and_others_are_not() {
        let watch = RunWatch::new(LIMIT);
        let scripted = Arc::new(ScriptedBackend::gated_with(vec![(1, Misdeed::Fail), (2, Misdeed::Panic)]));
        let backend = watch.around("topic", Arc::clone(&scripted) as Arc<dyn Backend>);
        assert!(backend.run(&batch(1)).is_err());
        let panicking = Arc::clone(&backend);
        assert!(tokio::task::spawn_blocking(move || panicking.run(&batch(2))).await.is_err());
        assert!(timeout(LIMIT * 5, watch.overdue()).await.is_err(), "both have ended");

        let began = Instant::now();
        let hanging = std::thread::spawn({
            let (backend, runtime) = (Arc::clone(&backend), tokio::runtime::Handle::current());
            move || {
                let _entered = runtime.enter();
                backend.run(&batch(0))
            }
        });
        while scripted.batches().len() < 3 {
            std::thread::yield_now();
        }
        let overdue = watch.overdue().await;
        assert_eq!(overdue, OverdueRun { model: "topic".into(), rows: 1, limit: LIMIT });
        assert!((LIMIT..=LIMIT * 11 / 10).contains(&began.elapsed()), "{:?}", began.elapsed());
        scripted.open_gate();
        assert!(hanging.join().unwrap().is_ok());
        assert!(timeout(LIMIT * 5, watch.overdue()).await.is_err(), "it has ended after all");
    }

    #[test]
    fn a_process_that_was_stopped_for_long_makes_no_run_overdue() {
        let mut runs = Runs::default();
        runs.going.insert(0, Run { model: "topic".into(), rows: 1, age: None });
        let step = LIMIT / STEPS;
        // As `overdue` counts it: hours outside are two steps.
        for _ in 0..STEPS / 2 {
            assert_eq!(runs.grow_older(step * 2, LIMIT), None);
        }
        assert!(runs.grow_older(step * 2, LIMIT).is_some());
    }
}
