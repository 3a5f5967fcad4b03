//! What the batcher tells whoever measures.

use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::labels::DispatchReason;

/// A batch as it is reported to whoever measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchReport {
    /// Rows.
    pub size: usize,
    /// Length that every row was padded to.
    pub padded_length: usize,
    /// Rows and length of the plan that ran: the batch was filled up to it.
    pub planned_shape: (usize, usize),
    /// Sum of the rows' own lengths.
    pub real_length: usize,
    /// How long it ran.
    pub ran: Duration,
    /// Why it was as large as it was.
    pub reason: DispatchReason,
    /// How long it was expected to run; zero while that is unknown, or where something had to be compiled first.
    pub expected: Duration,
    /// How long its rows would have run one by one, as expected.
    pub expected_apart: Duration,
    /// Whether rows of several tenants waited when it was formed.
    pub contended: bool,
    /// Whether its rows are in the background, and no job's own.
    pub background: bool,
    /// Rows of a batch of its length that would be as good as the best, as far as is known; see
    /// [`Policy::best_size`](super::policy::Policy::best_size).
    pub best_size: usize,
}

/// What the driver tells whoever measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// A batch has run.
    Ran(BatchReport),
    /// The number of rows that wait for an executor is another.
    Waiting {
        /// What it was when it was told last; 0 at first.
        before: usize,
        /// What it is.
        now: usize,
    },
}

/// Called by the driver, and must not wait.
pub type Observer = Arc<dyn Fn(Observed) + Send + Sync>;
