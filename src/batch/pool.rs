//! The rows that wait for an executor, oldest first.
//!
//! Owned by the batcher's driver. It has no bound of its own: every row in it holds a slot of the batcher's.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
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
    /// Its place among the rows that may wait; given back when it is run.
    pub slot: Option<OwnedSemaphorePermit>,
    /// Where its answer goes.
    pub answer: oneshot::Sender<Answer>,
}

impl Waiting {
    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whether there is no point in running it: nobody waits for the answer, or it comes too late.
    #[must_use]
    pub fn is_hopeless(&self, now: Instant) -> bool {
        self.is_cancelled() || self.deadline <= now
    }
}

/// Waiting rows in the order of their arrival.
#[derive(Debug, Default)]
pub struct Pool {
    rows: VecDeque<Waiting>,
    /// No row's deadline is before this; it may be earlier than all of them, since taking rows out leaves it.
    earliest: Option<Instant>,
}

impl Pool {
    /// Adds a row.
    pub fn push(&mut self, waiting: Waiting) {
        self.earliest = Some(self.earliest.map_or(waiting.deadline, |earliest| earliest.min(waiting.deadline)));
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

    /// When to look for late rows next; `None` while there are none to look at.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.earliest.filter(|_| !self.is_empty())
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

    /// Takes out the rows that there is no point in running.
    pub fn take_hopeless(&mut self, now: Instant) -> Vec<Waiting> {
        let is_hopeless = |waiting: &Waiting| waiting.is_hopeless(now);
        let hopeless = if self.rows.iter().any(is_hopeless) {
            let (hopeless, kept): (Vec<_>, Vec<_>) = self.rows.drain(..).partition(is_hopeless);
            self.rows = kept.into();
            hopeless
        } else {
            Vec::new()
        };
        self.earliest = self.rows.iter().map(|waiting| waiting.deadline).min();
        hopeless
    }
}
