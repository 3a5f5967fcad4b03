//! Watches how long runs take: one that never ends holds an executor, and no other thread can end it.
//!
//! The worker puts it around every backend, and ends its process, in order, when a run is overdue: its supervisor starts
//! another. Knows no jobs and no broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput};

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
    began: Instant,
}

#[derive(Debug, Default)]
struct Runs {
    begun: u64,
    going: BTreeMap<u64, Run>,
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

    /// Resolves when a run takes longer than it may. Cancel safe.
    pub async fn overdue(&self) -> OverdueRun {
        loop {
            // Runs are numbered as they begin: the first is the oldest. One that begins later is not overdue before that.
            let oldest = self.runs().going.first_key_value().map(|(number, run)| (*number, run.began));
            let due = oldest.map_or_else(Instant::now, |(_, began)| began) + self.limit;
            sleep_until(due).await;
            let Some((number, _)) = oldest else { continue };
            if let Some(run) = self.runs().going.get(&number) {
                return OverdueRun { model: Arc::clone(&run.model), rows: run.rows, limit: self.limit };
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
        let run = Run { model: Arc::clone(&self.model), rows: batch.rows.len(), began: Instant::now() };
        let mut runs = self.watch.runs();
        let number = runs.begun;
        runs.begun += 1;
        runs.going.insert(number, run);
        drop(runs);
        let _going = Going { watch: &self.watch, number };
        self.backend.run(batch)
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
        assert_eq!(began.elapsed(), LIMIT);
        scripted.open_gate();
        assert!(hanging.join().unwrap().is_ok());
        assert!(timeout(LIMIT * 5, watch.overdue()).await.is_err(), "it has ended after all");
    }
}
