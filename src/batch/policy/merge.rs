//! One batch as it grows: a row joins where that saves work, breaks no neighbour's due time and keeps the bounds.

use tokio::time::Instant;

use super::adaptive::Candidate;
use super::{Bounds, Costs, Given, Warm};
use crate::telemetry::labels::DispatchReason;

/// Share of its own cost that a row must save by joining.
const LEAST_SAVING: f64 = 0.02;

/// A batch that grows.
pub(super) struct Merge<'a> {
    pub(super) rows: Vec<Candidate<'a>>,
    pub(super) costs: Costs<'a>,
    pub(super) bounds: Bounds,
    warm: Warm<'a>,
    now: Instant,
    state: State,
    reason: DispatchReason,
    /// Rows and length of a better batch that is not compiled for.
    missed: Option<(usize, usize)>,
}

/// A batch that is to be run.
pub(super) struct Merged<'a> {
    pub(super) rows: Vec<Candidate<'a>>,
    pub(super) expected: f64,
    pub(super) reason: DispatchReason,
    pub(super) missed: Option<(usize, usize)>,
}

/// What is known of the rows so far.
#[derive(Clone, Copy)]
struct State {
    longest: usize,
    /// What the batch costs.
    expected: f64,
    /// What its rows cost one by one.
    apart: f64,
    /// The earliest moment by which one of its rows is due.
    due: Option<Instant>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(first: Candidate<'a>, given: Given<'a>) -> Self {
        let Given { costs, bounds, moment } = given;
        let state = State { longest: first.length, expected: first.apart, apart: first.apart, due: first.due };
        let (warm, now, reason) = (moment.warm, moment.now, DispatchReason::Drained);
        Self { rows: vec![first], costs, bounds, warm, now, state, reason, missed: None }
    }

    /// What the batch costs so far, in seconds.
    pub(super) fn expected(&self) -> f64 {
        self.state.expected
    }

    /// Why the batch grew no further.
    pub(super) fn reason(&self) -> DispatchReason {
        self.reason
    }

    /// Lets those of `neighbours` join that save work, until there are `share` rows.
    ///
    /// A row that does not pay by itself may do so together with those after it: a plan may have room for more rows than it is run for,
    /// and what is known of one size may be off by more than the step to the next saves. `self.state` is where the batch
    /// last paid; rows beyond it are on trial. So are those with which the batch is one that is not compiled for: it would
    /// be run in parts that are, which saves nothing. A longer row has to pay by itself, since all would be filled up to it.
    pub(super) fn fill(&mut self, neighbours: &[Candidate<'a>], share: usize) {
        let size = share.min(self.bounds.max_batch_size).max(1);
        let mut settled = self.rows.len();
        let mut trial = self.state;
        let mut reason = DispatchReason::Drained;
        for (place, candidate) in neighbours.iter().enumerate() {
            if self.rows.len() >= size {
                let is_full = size == self.bounds.max_batch_size;
                reason = if is_full { DispatchReason::Full } else { DispatchReason::Shared };
                break;
            }
            let joined = match self.joined(trial, candidate) {
                Ok(joined) => joined,
                Err(why) => {
                    reason = why;
                    continue;
                }
            };
            self.rows.push(*candidate);
            let before = std::mem::replace(&mut trial, joined);
            let pays = self.pays(trial, self.rows.len() - settled, settled, neighbours.len() - place);
            if pays && self.is_warm(self.rows.len(), trial.longest) {
                self.state = trial;
                settled = self.rows.len();
                self.missed = None;
            } else if pays {
                self.missed = Some((self.rows.len(), trial.longest));
            } else {
                let room = (self.costs.plan)(settled + 1, trial.longest).0;
                if self.rows.len() >= room && trial.longest > self.state.longest {
                    reason = DispatchReason::Costly;
                    self.rows.pop();
                    trial = before;
                }
            }
        }
        if self.rows.len() > settled {
            reason = if self.missed.is_some() { DispatchReason::Cold } else { DispatchReason::Costly };
        }
        self.rows.truncate(settled);
        self.reason = reason;
    }

    /// The batch with `candidate` in it, or why it may not be.
    fn joined(&self, before: State, candidate: &Candidate<'a>) -> Result<State, DispatchReason> {
        let size = self.rows.len() + 1;
        let longest = before.longest.max(candidate.length);
        if longest.saturating_mul(size) > self.bounds.max_batch_tokens {
            return Err(DispatchReason::Full);
        }
        let due = before.due.into_iter().chain(candidate.due).min();
        if due.is_some_and(|due| self.now + self.costs.with_margin(size, longest) > due) {
            return Err(DispatchReason::Due);
        }
        let expected = self.costs.seconds(size, longest);
        Ok(State { longest, expected, apart: before.apart + candidate.apart, due })
    }

    /// Whether it costs less to run the last `added` rows with the `settled` ones than elsewhere.
    fn pays(&self, trial: State, added: usize, settled: usize, left: usize) -> bool {
        if !self.costs.model.is_known() {
            return true;
        }
        let elsewhere = trial.apart - self.state.apart;
        // With as many rows left as this batch has, they can be in one that is as good as this one.
        let as_good = self.state.expected / self.state.apart;
        let (price, least) =
            if settled > 1 && left > settled + added && as_good < 1.0 { (as_good, 0.0) } else { (1.0, LEAST_SAVING) };
        self.state.expected + elsewhere * price - trial.expected > least * elsewhere
    }

    /// Whether a batch of so many rows is compiled for; a row alone is run in any case.
    fn is_warm(&self, rows: usize, length: usize) -> bool {
        rows == 1 || (self.warm)(rows, length)
    }

    /// Whether a batch of so many rows can be tried: where it is not compiled for, it is asked for instead.
    pub(super) fn can_be_tried(&mut self, rows: usize, length: usize) -> bool {
        let is_warm = self.is_warm(rows, length);
        if !is_warm {
            self.missed.get_or_insert((rows, length));
        }
        is_warm
    }

    /// The batch with only its first `size` rows, for `reason`.
    pub(super) fn cut(&mut self, size: usize, reason: DispatchReason) {
        self.rows.truncate(size);
        self.retell(reason);
    }

    /// The batch with rows of `neighbours` up to `size`, whatever that costs, as long as the bounds hold and nobody is late by
    /// it; whether there were as many.
    pub(super) fn stretch(&mut self, neighbours: &[Candidate<'a>], size: usize, reason: DispatchReason) -> bool {
        let before = (self.rows.clone(), self.state, self.reason);
        self.rows.truncate(1);
        let mut due = self.rows.first().and_then(|row| row.due);
        for candidate in neighbours {
            if self.rows.len() >= size {
                break;
            }
            let longest = self.rows.iter().map(|row| row.length).max().unwrap_or(0);
            if let Ok(joined) = self.joined(State { longest, due, ..self.state }, candidate) {
                self.rows.push(*candidate);
                due = joined.due;
            }
        }
        let enough = self.rows.len() == size;
        if enough {
            self.retell(reason);
        } else {
            (self.rows, self.state, self.reason) = before;
        }
        enough
    }

    fn retell(&mut self, reason: DispatchReason) {
        self.reason = reason;
        self.state.longest = self.rows.iter().map(|row| row.length).max().unwrap_or(0);
        self.state.apart = self.rows.iter().map(|row| row.apart).sum();
        self.state.due = self.rows.iter().filter_map(|row| row.due).min();
        self.state.expected = self.costs.seconds(self.rows.len(), self.state.longest);
    }

    /// The batch as it is, for `reason`.
    pub(super) fn done(self, reason: DispatchReason) -> Merged<'a> {
        Merged { rows: self.rows, expected: self.state.expected, reason, missed: self.missed }
    }

    /// The batch as it is.
    pub(super) fn finish(self) -> Merged<'a> {
        let reason = self.reason;
        self.done(reason)
    }
}
