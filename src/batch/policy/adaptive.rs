//! The adaptive policy: earliest due first, with the neighbours that save work. Nothing ever waits for company.

use tokio::time::Instant;

use super::explore::Explorer;
use super::merge::{Merge, Merged};
use super::overload::worth_keeping;
use super::turns::Turns;
use super::{Bounds, Costs, Dispatch, Given, Moment, duration, may_share};
use crate::batch::cost::CostModel;
use crate::batch::pool::Waiting;
use crate::telemetry::labels::DispatchReason;

/// What the adaptive policy remembers beside costs.
#[derive(Debug)]
pub(super) struct Adaptive {
    executors: usize,
    arrivals: Arrivals,
    turns: Turns,
    explorer: Explorer,
}

/// A row that may be run now.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) position: usize,
    pub(super) number: u64,
    pub(super) waiting: &'a Waiting,
    pub(super) length: usize,
    /// What it costs by itself, in seconds.
    pub(super) apart: f64,
    /// By when it is to be answered; `None` where that is too late already, or given up for the others' sake.
    pub(super) due: Option<Instant>,
}

impl Candidate<'_> {
    /// What can still be in time first, the earliest due first; then what is late, by its deadline.
    fn urgency(&self) -> (bool, Instant, u64) {
        (self.due.is_none(), self.due.unwrap_or(self.waiting.deadline), self.number)
    }
}

impl Adaptive {
    pub(super) fn new(executors: usize) -> Self {
        Self {
            executors: executors.max(1),
            arrivals: Arrivals::default(),
            turns: Turns::default(),
            explorer: Explorer::default(),
        }
    }

    /// What one of the idle executors is to run of the rows of jobs, or of those in the background; `None` where none waits.
    pub(super) fn decide(
        &mut self,
        moment: Moment<'_>,
        model: &CostModel,
        (background, bounds): (bool, Bounds),
    ) -> Option<Dispatch> {
        let costs = Costs { model, plan: moment.plan };
        let given = Given { moment, costs, bounds };
        let mut candidates = candidates(moment, costs, background);
        candidates.sort_unstable_by_key(Candidate::urgency);
        if model.is_known() && !background {
            let per_second = self.arrivals.per_second(moment.pool.arrivals(), moment.now);
            let kept_from = worth_keeping(&candidates, (per_second, real(self.executors)), given);
            candidates.iter_mut().take(kept_from).for_each(|given_up| given_up.due = None);
            candidates.rotate_left(kept_from);
        }
        let rows = candidates.iter().map(|candidate| (&candidate.waiting.tenant, candidate.apart));
        let others = moment.pool.of_kind(!background).map(|(_, _, waiting)| &waiting.tenant);
        let tenant = self.turns.next(rows, (others, background))?;
        let first = *candidates.iter().find(|candidate| *candidate.waiting.tenant == *tenant)?;
        let merged = self.merge(first, &candidates, given);
        let batch = merged.rows;
        let apart: f64 = batch.iter().map(|candidate| candidate.apart).sum();
        for candidate in &batch {
            // Before anything is known, rows count alike.
            let share = if apart > 0.0 { candidate.apart / apart * merged.expected } else { 1.0 };
            self.turns.charge(&candidate.waiting.tenant, share);
        }
        self.explorer.earn(merged.expected);
        Some(Dispatch {
            positions: batch.iter().map(|candidate| candidate.position).collect(),
            reason: merged.reason,
            expected: duration(merged.expected),
            expected_apart: duration(apart),
            contended: self.turns.are_contended(),
            missed: merged.missed,
        })
    }

    fn merge<'a>(&mut self, first: Candidate<'a>, candidates: &[Candidate<'a>], given: Given<'a>) -> Merged<'a> {
        // The other idle executors get their share.
        let share = candidates.len().div_ceil(given.moment.idle.max(1));
        let mut merge = Merge::new(first, given);
        if first.waiting.alone {
            return merge.done(DispatchReason::Alone);
        }
        let scope = given.bounds.scope;
        let mut neighbours: Vec<Candidate<'a>> = candidates
            .iter()
            .filter(|other| other.position != first.position && may_share(first.waiting, other.waiting, scope))
            .copied()
            .collect();
        neighbours
            .sort_unstable_by_key(|other| (other.due.is_none(), other.length.abs_diff(first.length), other.urgency()));
        merge.fill(&neighbours, share);
        self.explorer.vary(&mut merge, &neighbours, share);
        merge.finish()
    }
}

/// How many rows come in a second, over the last that came.
#[derive(Debug, Default)]
struct Arrivals {
    /// How many had come when it was looked at last, and when that was.
    last: Option<(u64, Instant)>,
    /// Rows and seconds, the older ones counting less.
    rows: f64,
    seconds: f64,
}

impl Arrivals {
    /// Rows over which the mean goes.
    const WINDOW: f64 = 128.0;

    fn per_second(&mut self, arrivals: u64, now: Instant) -> f64 {
        if let Some((before, at)) = self.last.replace((arrivals, now)) {
            #[expect(clippy::cast_precision_loss, reason = "rows between two decisions")]
            let rows = arrivals.saturating_sub(before) as f64;
            let kept = (-rows / Self::WINDOW).exp();
            self.rows = self.rows.mul_add(kept, rows);
            self.seconds = self.seconds.mul_add(kept, now.saturating_duration_since(at).as_secs_f64());
        }
        if self.seconds > 0.0 { self.rows / self.seconds } else { 0.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of executors")]
fn real(count: usize) -> f64 {
    count as f64
}

fn candidates<'a>(moment: Moment<'a>, costs: Costs<'a>, background: bool) -> Vec<Candidate<'a>> {
    let far_end = costs.model.far_end();
    // Neighbours in the pool are often of one length.
    let mut last = (usize::MAX, 0.0);
    moment
        .pool
        .of_kind(background)
        .map(|(position, number, waiting)| {
            let length = waiting.row.length;
            if last.0 != length {
                last = (length, costs.seconds(1, length));
            }
            let apart = last.1;
            let due = Some(waiting.due).filter(|due| moment.now + duration(apart * far_end) <= *due);
            Candidate { position, number, waiting, length, apart, due }
        })
        .collect()
}
