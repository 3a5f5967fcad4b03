//! The rows that wait for an executor, oldest first.
//!
//! Owned by the batcher's driver. It has no bound of its own: the driver takes no more in than may wait.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::row::{Inferred, Row};
use crate::error::JobError;

/// What a row's owner is told.
pub(super) type Answer = Result<Inferred, JobError>;

/// A row that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The row.
    pub row: Row,
    /// The moment by which it must have been run.
    pub deadline: Instant,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Whether it must have a batch to itself: it may have crashed a worker before.
    pub alone: bool,
    /// When it came.
    pub arrived: Instant,
    /// Where its answer goes.
    pub answer: oneshot::Sender<Answer>,
}

impl Waiting {
    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Waiting rows in the order of their arrival.
#[derive(Debug, Default)]
pub struct Pool {
    rows: VecDeque<Waiting>,
}

impl Pool {
    /// Adds a row.
    pub fn push(&mut self, waiting: Waiting) {
        self.rows.push_back(waiting);
    }

    /// How many rows wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.rows.iter()
    }

    /// Takes out the rows at `positions`, in that order.
    pub fn take(&mut self, positions: &[usize]) -> Vec<Waiting> {
        let mut slots: Vec<Option<Waiting>> = self.rows.drain(..).map(Some).collect();
        let taken = positions.iter().filter_map(|position| slots.get_mut(*position)?.take()).collect();
        self.rows = slots.into_iter().flatten().collect();
        taken
    }

    /// Takes out every row for which `leaves` says so.
    pub fn take_if(&mut self, leaves: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        if !self.rows.iter().any(&leaves) {
            return Vec::new();
        }
        let (taken, kept): (Vec<_>, Vec<_>) = self.rows.drain(..).partition(leaves);
        self.rows = kept.into();
        taken
    }
}
