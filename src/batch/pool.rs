//! The rows that wait for an executor.
//!
//! Owned by the batcher's driver. It has no bound of its own: every row in it holds a slot of the batcher's.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::row::{Inferred, Row};
use crate::error::JobError;

/// What a row's owner is told.
pub type Answer = Result<Inferred, JobError>;

/// How urgent rows are: those of a job by the queue that it came from; what is run beside it, to explain its answer, less than any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobClass {
    /// The common one.
    Normal,
    /// The one of urgent jobs.
    Urgent,
    /// No job's own rows: they give way to those of jobs.
    Background,
}

/// A row that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The row.
    pub row: Row,
    /// The moment by which it must have been begun; later it is refused.
    pub deadline: Instant,
    /// The moment by which its answer is wished for; not after the deadline.
    pub due: Instant,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Whether it must have a batch to itself: it may have crashed a worker before.
    pub alone: bool,
    /// Whether it gives way to the rows of jobs. In a batch there is one kind of rows or the other.
    pub background: bool,
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

/// Waiting rows, each with its number in the order of arrival.
#[derive(Debug, Default)]
pub struct Pool {
    /// In no order: a row is taken out by putting the last in its place.
    rows: Vec<(u64, Waiting)>,
    pushed: u64,
    arrivals: u64,
    /// No row's deadline is before this; it may be earlier than all of them, since taking rows out leaves it.
    earliest: Option<Instant>,
}

impl Pool {
    /// Adds a row.
    pub fn push(&mut self, waiting: Waiting) {
        self.earliest = Some(self.earliest.map_or(waiting.deadline, |earliest| earliest.min(waiting.deadline)));
        self.arrivals += u64::from(!waiting.background);
        self.rows.push((self.pushed, waiting));
        self.pushed += 1;
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

    /// How many rows of jobs have come so far.
    #[must_use]
    pub const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// When to look for late rows next; `None` while there are none to look at.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.earliest.filter(|_| !self.is_empty())
    }

    /// The row at `position`.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&Waiting> {
        self.rows.get(position).map(|(_, waiting)| waiting)
    }

    /// The rows by position, each with its number in the order of arrival.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &Waiting)> {
        self.rows.iter().map(|(number, waiting)| (*number, waiting))
    }

    /// The rows of one kind, each with its position and its number in the order of arrival.
    pub fn of_kind(&self, background: bool) -> impl Iterator<Item = (usize, u64, &Waiting)> {
        let numbered = self.rows.iter().enumerate().map(|(position, (number, waiting))| (position, *number, waiting));
        numbered.filter(move |(_, _, waiting)| waiting.background == background)
    }

    /// The positions of the rows of one kind in the order of arrival.
    #[must_use]
    pub fn by_arrival(&self, background: bool) -> Vec<usize> {
        let mut positions: Vec<(u64, usize)> =
            self.of_kind(background).map(|(position, number, _)| (number, position)).collect();
        positions.sort_unstable();
        positions.into_iter().map(|(_, position)| position).collect()
    }

    /// Takes out the rows at `positions`, in that order; the positions of the others change.
    pub fn take(&mut self, positions: &[usize]) -> Vec<Waiting> {
        // From the back, so that what is put in a row's place is never one that is still to be taken.
        let mut descending: Vec<(usize, usize)> = positions.iter().copied().enumerate().collect();
        descending.sort_unstable_by_key(|(_, position)| std::cmp::Reverse(*position));
        let mut taken: Vec<(usize, Waiting)> = Vec::with_capacity(positions.len());
        for (place, position) in descending {
            if position < self.rows.len() {
                taken.push((place, self.rows.swap_remove(position).1));
            }
        }
        taken.sort_unstable_by_key(|(place, _)| *place);
        taken.into_iter().map(|(_, waiting)| waiting).collect()
    }

    /// Takes out the rows that there is no point in running.
    pub fn take_hopeless(&mut self, now: Instant) -> Vec<Waiting> {
        let mut hopeless = Vec::new();
        let mut position = 0;
        while let Some((_, waiting)) = self.rows.get(position) {
            if waiting.is_hopeless(now) {
                hopeless.push(self.rows.swap_remove(position).1);
            } else {
                position += 1;
            }
        }
        self.earliest = self.rows.iter().map(|(_, waiting)| waiting.deadline).min();
        hopeless
    }
}
