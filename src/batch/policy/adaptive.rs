//! The adaptive policy: earliest due first, with the neighbours that save work. Nothing ever waits for company.

use std::sync::Arc;

use tokio::time::Instant;

use super::explore::Explorer;
use super::merge::{Merge, Merged};
use super::overload::worth_keeping;
use super::turns::Turns;
use super::yielding::Yielding;
use super::{Bounds, Costs, Dispatch, Given, Moment, duration, may_share};
use crate::batch::cost::CostModel;
use crate::batch::pool::Waiting;
use crate::telemetry::labels::DispatchReason;

/// A row that has waited for so many times its objective has been passed over for long enough: it has turns again.
const PASSED_OVER_FROM: f64 = 2.0;
/// Having waited for so many times its objective it is run before all that has waited for less, and on the way there the share of such
/// rows in the time is as large as the oldest has come.
const FIRST_FROM: f64 = 16.0;

/// What the adaptive policy remembers beside costs.
#[derive(Debug)]
pub(super) struct Adaptive {
    executors: usize,
    arrivals: Arrivals,
    turns: Turns,
    /// Whether turns are accounted for in seconds: before anything is known, rows count alike.
    in_seconds: bool,
    passed_over: Yielding,
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
    /// For how many times its objective it has waited, where it was passed over for so long that it has turns again; 0 else.
    passed_over_for: f64,
    /// Whether it is its turn now, so that it is run before the others.
    in_turn: bool,
}

/// In which order rows are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    InTurn,
    InTime,
    Late,
}

impl Candidate<'_> {
    const fn rank(&self) -> Rank {
        match self.due {
            _ if self.in_turn => Rank::InTurn,
            Some(_) => Rank::InTime,
            None => Rank::Late,
        }
    }

    /// Of its rank the earliest due first; of what is late, the earliest deadline.
    fn urgency(&self) -> (Rank, Instant, u64) {
        let rank = self.rank();
        let moment = if rank == Rank::Late { self.waiting.deadline } else { self.waiting.due };
        (rank, moment, self.number)
    }
}

impl Adaptive {
    pub(super) fn new(executors: usize) -> Self {
        Self {
            executors: executors.max(1),
            arrivals: Arrivals::default(),
            turns: Turns::default(),
            in_seconds: false,
            passed_over: Yielding::default(),
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
        if std::mem::replace(&mut self.in_seconds, model.is_known()) != model.is_known() {
            // A row is no second: nobody owes or has saved up what was counted otherwise.
            self.turns = Turns::default();
        }
        let costs = Costs { model, plan: moment.plan };
        let given = Given { moment, costs, bounds };
        let mut candidates = candidates(moment, costs, background);
        let passed_over = PassedOver::among(&candidates);
        let do_others_wait = passed_over.rows < candidates.len();
        // Rows in the background are never passed over, and their batches leave what others have earned alone.
        let have_turn = !background
            && self.passed_over.has_turn(do_others_wait, passed_over.rows > 0, passed_over.others_for_each());
        candidates.iter_mut().for_each(|candidate| candidate.in_turn = have_turn && candidate.passed_over_for > 0.0);
        candidates.sort_unstable_by_key(Candidate::urgency);
        let in_turn = candidates.partition_point(|candidate| candidate.in_turn);
        if let Some(others) = candidates.get_mut(in_turn..).filter(|_| model.is_known() && !background) {
            let per_second = self.arrivals.per_second(moment.pool.arrivals(), moment.now);
            let kept_from = worth_keeping(others, (per_second, real(self.executors)), given);
            others.iter_mut().take(kept_from).for_each(|given_up| given_up.due = None);
            others.rotate_left(kept_from);
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
        if batch.iter().any(|candidate| candidate.in_turn) {
            // Whole, whatever it ran: they take from what could be in time.
            self.passed_over = Yielding::default();
        } else if passed_over.rows > 0 {
            let seconds = if model.is_known() { merged.expected } else { 1.0 };
            self.passed_over.give_way(seconds, passed_over.price(given));
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
        let Bounds { scope, .. } = given.bounds;
        let full = given.costs.best_size(first.length, given.bounds.most(first.length));
        let floods = floods(candidates, full);
        let may_join = |other: &Candidate<'a>| {
            let (own, tenant) = (&first.waiting.tenant, &other.waiting.tenant);
            may_share(first.waiting, other.waiting, scope) && (own == tenant || !floods.contains(&tenant))
        };
        let others = candidates.iter().filter(|other| other.position != first.position);
        let mut neighbours: Vec<Candidate<'a>> = others.filter(|other| may_join(other)).copied().collect();
        neighbours.sort_unstable_by_key(|other| (other.rank(), other.length.abs_diff(first.length), other.urgency()));
        merge.fill(&neighbours, share);
        self.explorer.vary(&mut merge, &neighbours, share);
        merge.finish()
    }
}

/// The tenants that have enough rows waiting for a batch of `full` rows of their own: they need no place in those of others, whose rows
/// would be longer under way by it.
fn floods<'a>(candidates: &[Candidate<'a>], full: usize) -> Vec<&'a Arc<str>> {
    let mut tenants: Vec<(&Arc<str>, usize)> = Vec::new();
    for Candidate { waiting, .. } in candidates {
        match tenants.iter_mut().find(|(tenant, _)| **tenant == waiting.tenant) {
            Some((_, rows)) => *rows += 1,
            None => tenants.push((&waiting.tenant, 1)),
        }
    }
    tenants.into_iter().filter(|(_, rows)| *rows >= full).map(|(tenant, _)| tenant).collect()
}

/// The rows that were passed over for so long that they have turns again.
#[derive(Debug, Clone, Copy, Default)]
struct PassedOver {
    rows: usize,
    longest: usize,
    /// For how many times its objective the one has waited that was for the longest.
    most: f64,
}

impl PassedOver {
    fn among(candidates: &[Candidate<'_>]) -> Self {
        let those = candidates.iter().filter(|candidate| candidate.passed_over_for > 0.0);
        those.fold(Self::default(), |sum, row| Self {
            rows: sum.rows + 1,
            longest: sum.longest.max(row.length),
            most: sum.most.max(row.passed_over_for),
        })
    }

    /// How many batches of other rows are run for each of theirs: none, once the oldest has waited for too long.
    fn others_for_each(self) -> f64 {
        (FIRST_FROM / self.most.max(PASSED_OVER_FROM) - 1.0).max(0.0)
    }

    /// What a batch of them costs at most, which may not have room for all; before costs are known, batches count alike.
    fn price(self, Given { costs, bounds, .. }: Given<'_>) -> f64 {
        if !costs.model.is_known() {
            return 1.0;
        }
        let most = self.rows.min(bounds.most(self.longest));
        let together = costs.seconds(most, self.longest);
        // What does not pay is not run.
        let pays = together < costs.seconds(1, self.longest) * real(most);
        if pays { together } else { costs.seconds(costs.best_size(self.longest, most), self.longest) }
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

#[expect(clippy::cast_precision_loss, reason = "a count of executors or rows")]
fn real(count: usize) -> f64 {
    count as f64
}

fn candidates<'a>(moment: Moment<'a>, costs: Costs<'a>, background: bool) -> Vec<Candidate<'a>> {
    let margin = costs.model.margin();
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
            let due = Some(waiting.due).filter(|due| moment.now + duration(apart * margin) <= *due);
            let objective = waiting.due.saturating_duration_since(waiting.arrived);
            let waited = moment.now.saturating_duration_since(waiting.arrived).as_secs_f64()
                / objective.as_secs_f64().max(f64::MIN_POSITIVE);
            let passed_over_for = if waited >= PASSED_OVER_FROM { waited } else { 0.0 };
            Candidate { position, number, waiting, length, apart, due, passed_over_for, in_turn: false }
        })
        .collect()
}
