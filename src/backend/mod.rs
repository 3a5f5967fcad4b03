//! The seam to a model runtime: a batch of rows in, as many rows out.
//!
//! `tract` is the runtime that serves, `scripted` one for tests. A backend is synchronous and is called by the
//! executor threads, one batch at a time each, and by the one that compiles; it never knows jobs, tenants or the broker.
//! Its methods have no defaults, so that whatever is put around a backend hands all of them on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::batch::row::{Batch, BatchOutput};

pub mod scripted;
pub mod tract;
pub mod watch;

/// Why a batch could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The runtime refused or failed on this batch.
    #[error("the model failed: {0}")]
    Failed(String),
    /// As many rows must come out as went in.
    #[error("the model answered {actual} rows for a batch of {expected}")]
    RowCount {
        /// Rows of the batch.
        expected: usize,
        /// Rows of the answer.
        actual: usize,
    },
    /// The runtime panicked; the executor caught it.
    #[error("the model panicked")]
    Panicked,
}

/// A loaded model that can run batches.
pub trait Backend: Send + Sync + 'static {
    /// Runs `batch` on the calling thread and answers one row for each of its rows, in order.
    ///
    /// # Errors
    /// See [`BackendError`]. A failed run leaves no trace in later ones.
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError>;

    /// The shape that a batch of `rows` rows and length `length` is filled up to when it is run: rows and length, neither
    /// smaller. What a batch costs follows it. Asked for every batch that is thought of, so it must not take long.
    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize);

    /// Whether what such a batch is run with is compiled. Another one runs all the same: with what is there, or after
    /// compiling; but its run tells nothing about the cost of later ones. Asked as often as [`Self::planned_shape`].
    fn is_warm(&self, rows: usize, length: usize) -> bool;

    /// Compiles on the calling thread what such a batch is run with, and answers whether it is warm then. Takes long; runs
    /// go on meanwhile.
    fn prepare(&self, rows: usize, length: usize) -> bool;
}

/// Runs `batch`, turns a panic into an error, and holds the backend to its word that rows in are rows out.
///
/// # Errors
/// See [`BackendError`].
pub fn run_caught(backend: &dyn Backend, batch: &Batch) -> Result<BatchOutput, BackendError> {
    let output = catch_unwind(AssertUnwindSafe(|| backend.run(batch))).unwrap_or(Err(BackendError::Panicked))?;
    let (expected, actual) = (batch.rows.len(), output.rows.len());
    if expected == actual { Ok(output) } else { Err(BackendError::RowCount { expected, actual }) }
}
