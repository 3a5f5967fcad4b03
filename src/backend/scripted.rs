//! A backend that does as it is told: for tests of everything above the models.
//!
//! Answers each row with its own first input, and fails, panics or miscounts on marked rows.

use std::sync::Mutex;
use std::time::Duration;

use super::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput, RowOutput};
use crate::protocol::tensor::{Tensor, TensorData};

/// What a marked row does to its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// The run fails.
    Fail,
    /// The run panics.
    Panic,
    /// One row too few comes back.
    LoseARow,
}

/// Rows whose first element is the mark do the misdeed; every batch takes `takes`.
#[derive(Debug)]
pub struct ScriptedBackend {
    /// The mark and what it does.
    pub misdeed: Option<(i64, Misdeed)>,
    /// How long a run holds its thread.
    pub takes: Duration,
    /// The size of every batch that was run.
    pub batches: Mutex<Vec<usize>>,
}

impl ScriptedBackend {
    /// A backend that always answers.
    #[must_use]
    pub const fn new() -> Self {
        Self { misdeed: None, takes: Duration::ZERO, batches: Mutex::new(Vec::new()) }
    }

    /// A backend on which rows that begin with `mark` do `misdeed`.
    #[must_use]
    pub const fn with(mark: i64, misdeed: Misdeed) -> Self {
        Self { misdeed: Some((mark, misdeed)), takes: Duration::ZERO, batches: Mutex::new(Vec::new()) }
    }

    /// The sizes of the batches run so far.
    #[must_use]
    pub fn batch_sizes(&self) -> Vec<usize> {
        self.batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Default for ScriptedBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for ScriptedBackend {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        self.batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(batch.rows.len());
        if !self.takes.is_zero() {
            std::thread::park_timeout(self.takes);
        }
        let mut rows: Vec<RowOutput> =
            batch.rows.iter().map(|row| RowOutput { outputs: row.inputs.iter().take(1).cloned().collect() }).collect();
        let marked = self.misdeed.filter(|(mark, _)| rows.iter().any(|row| begins_with(row, *mark)));
        match marked {
            None => {}
            Some((_, Misdeed::Fail)) => return Err(BackendError::Failed("as told".to_owned())),
            #[allow(clippy::panic, reason = "a test asks for it")]
            Some((_, Misdeed::Panic)) => panic!("as told"),
            Some((_, Misdeed::LoseARow)) => drop(rows.pop()),
        }
        Ok(BatchOutput { rows })
    }
}

fn begins_with(row: &RowOutput, mark: i64) -> bool {
    let first = row.outputs.first().map(Tensor::elements);
    matches!(first, Some(TensorData::Int64(elements)) if elements.first() == Some(&mark))
}
