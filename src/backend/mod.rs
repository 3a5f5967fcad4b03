//! The seam to a model runtime: a batch of rows in, as many rows out.
//!
//! `tract` is the runtime that serves, `scripted` one for tests. A backend is synchronous and is called by the
//! executor threads only, one batch at a time each; it never knows jobs, tenants or the broker.

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
    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        (rows, length)
    }

    /// Whether a batch of that shape runs without anything being compiled first. A run that was cold tells nothing about the
    /// cost of later ones.
    fn is_warm(&self, _rows: usize, _length: usize) -> bool {
        true
    }
}
