//! A backend that does as it is told: for tests of everything above the models.
//!
//! Answers each row with its own first input, and fails, panics or miscounts on marked rows. It never sleeps: a run
//! that shall take a while waits behind a gate that the test opens.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput, Row, RowOutput};
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
    /// One row too many comes back.
    InventARow,
}

/// Rows whose first element is a mark do its misdeed.
#[derive(Debug, Default)]
pub struct ScriptedBackend {
    misdeeds: Vec<(i64, Misdeed)>,
    gate: Option<Gate>,
    batches: Mutex<Vec<Vec<i64>>>,
    /// Sizes of batches that are not compiled.
    cold: Mutex<BTreeSet<usize>>,
    /// Whether compiling fails.
    refuses: bool,
    prepared: Mutex<Vec<usize>>,
}

/// What holds runs back.
#[derive(Debug, Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl ScriptedBackend {
    /// A backend that always answers, at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A backend on which rows that begin with a mark do its misdeed.
    #[must_use]
    pub fn with(misdeeds: Vec<(i64, Misdeed)>) -> Self {
        Self { misdeeds, ..Self::default() }
    }

    /// A backend whose runs do not end before [`Self::open_gate`] is called.
    #[must_use]
    pub fn gated() -> Self {
        Self { gate: Some(Gate::default()), ..Self::default() }
    }

    /// A backend on which rows that begin with a mark do its misdeed at once, while all other runs wait for the gate.
    #[must_use]
    pub fn gated_with(misdeeds: Vec<(i64, Misdeed)>) -> Self {
        Self { misdeeds, ..Self::gated() }
    }

    /// A backend that has yet to compile what batches of these sizes take.
    #[must_use]
    pub fn cold_for(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self { cold: Mutex::new(sizes.into_iter().collect()), ..Self::default() }
    }

    /// A backend that cannot compile what batches of these sizes take.
    #[must_use]
    pub fn never_warm_for(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self { refuses: true, ..Self::cold_for(sizes) }
    }

    /// The sizes that were compiled for, in order.
    #[must_use]
    pub fn prepared(&self) -> Vec<usize> {
        locked(&self.prepared).clone()
    }

    /// Lets all runs end, those that have begun and those that will.
    pub fn open_gate(&self) {
        if let Some(gate) = &self.gate {
            *locked(&gate.is_open) = true;
            gate.opened.notify_all();
        }
    }

    /// The first element of every row of every batch that was begun, in the order in which they were.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<i64>> {
        locked(&self.batches).clone()
    }

    /// The sizes of the batches begun so far.
    #[must_use]
    pub fn batch_sizes(&self) -> Vec<usize> {
        locked(&self.batches).iter().map(Vec::len).collect()
    }

    fn wait_for_gate(&self) {
        if let Some(gate) = &self.gate {
            let is_open = gate.opened.wait_while(locked(&gate.is_open), |is_open| !*is_open);
            drop(is_open.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Backend for ScriptedBackend {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        let marks: Vec<i64> = batch.rows.iter().map(mark).collect();
        let misdeed = self.misdeeds.iter().find(|(mark, _)| marks.contains(mark)).map(|(_, misdeed)| *misdeed);
        locked(&self.batches).push(marks);
        if misdeed.is_none() {
            self.wait_for_gate();
        }
        let answered = |row: &Row| RowOutput { outputs: row.inputs.iter().take(1).cloned().collect() };
        let mut rows: Vec<RowOutput> = batch.rows.iter().map(answered).collect();
        match misdeed {
            None => {}
            Some(Misdeed::Fail) => return Err(BackendError::Failed("as told".to_owned())),
            #[allow(clippy::panic, reason = "a test asks for it")]
            Some(Misdeed::Panic) => panic!("as told"),
            Some(Misdeed::LoseARow) => drop(rows.pop()),
            Some(Misdeed::InventARow) => rows.extend(rows.first().cloned()),
        }
        Ok(BatchOutput { rows })
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        (rows, length)
    }

    fn is_warm(&self, rows: usize, _length: usize) -> bool {
        !locked(&self.cold).contains(&rows)
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        locked(&self.prepared).push(rows);
        if !self.refuses {
            locked(&self.cold).remove(&rows);
        }
        self.is_warm(rows, length)
    }
}

/// The row's first element; rows of other datatypes have none and are all 0.
fn mark(row: &Row) -> i64 {
    match row.inputs.first().map(Tensor::elements) {
        Some(TensorData::Int64(elements)) => elements.first().copied().unwrap_or(0),
        Some(_) | None => 0,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
