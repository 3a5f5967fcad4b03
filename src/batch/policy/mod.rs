//! Which waiting rows to run now. Pure: no clock, no I/O; the batcher asks whenever an executor is free.
//!
//! The adaptive policy takes whose `turns` it is, drops under `overload` what cannot be kept, merges what saves work
//! (`merge`) and now and then tries a size of which it knows little (`explore`). `fixed` holds the policies that learn
//! nothing: yardsticks. Under each, `yielding` says when rows have a turn that give way to jobs.

use std::time::Duration;

use tokio::time::Instant;

use self::adaptive::Adaptive;
use self::yielding::Yielding;
use super::cost::CostModel;
use super::pool::{Pool, Waiting};
pub use super::row::BatchScope;
use crate::settings::BatchingPolicy;
use crate::telemetry::labels::DispatchReason;

mod adaptive;
mod explore;
mod fixed;
mod merge;
mod overload;
mod turns;
mod yielding;

/// Batches, by their cost, that jobs run for each of the background, while both wait.
const JOBS_FOR_EACH: f64 = 15.0;
/// What rows may cost more than the cheapest, in batches that are as good.
const AS_GOOD: f64 = 1.1;

/// The bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows at most.
    pub max_batch_size: usize,
    /// Rows times the longest row's length at most, unless a row alone is longer.
    pub max_batch_tokens: usize,
    /// Who may share it.
    pub scope: BatchScope,
}

impl Bounds {
    /// Rows of `length` at most.
    fn most(&self, length: usize) -> usize {
        self.max_batch_size.min(self.max_batch_tokens / length.max(1)).max(1)
    }
}

/// The rows and the length that a batch of some rows and some length is filled up to.
pub type Plan<'a> = &'a dyn Fn(usize, usize) -> (usize, usize);

/// Whether what a batch of some rows and some length is run with is compiled.
pub type Warm<'a> = &'a dyn Fn(usize, usize) -> bool;

/// What is the case at the moment of a decision.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// What waits.
    pub pool: &'a Pool,
    /// How many executors have nothing to do, at least 1.
    pub idle: usize,
    /// What batches are filled up to.
    pub plan: Plan<'a>,
    /// What is compiled.
    pub warm: Warm<'a>,
    /// When it is.
    pub now: Instant,
}

/// A batch to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// Where in the pool its rows are.
    pub positions: Vec<usize>,
    /// Why it is as large as it is.
    pub reason: DispatchReason,
    /// How long it is expected to run; zero while that is unknown.
    pub expected: Duration,
    /// How long its rows would run one by one.
    pub expected_apart: Duration,
    /// Whether rows of several tenants waited.
    pub contended: bool,
    /// Rows and length of the batch that would have been run if it were compiled for.
    pub missed: Option<(usize, usize)>,
}

/// What an idle executor is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Run this batch.
    Run(Dispatch),
    /// Nothing before this moment, unless more rows come.
    WaitUntil(Instant),
    /// Nothing: no row waits.
    Rest,
}

/// How batches of one model are formed, with what was learned so far.
#[derive(Debug)]
pub struct Policy {
    kind: BatchingPolicy,
    bounds: Bounds,
    costs: CostModel,
    adaptive: Adaptive,
    background: Yielding,
}

impl Policy {
    /// A policy for a model with so many executors, which begins with what is known of its costs.
    #[must_use]
    pub fn new(kind: BatchingPolicy, bounds: Bounds, executors: usize, costs: CostModel) -> Self {
        Self { kind, bounds, costs, adaptive: Adaptive::new(executors), background: Yielding::default() }
    }

    /// What one of the idle executors is to do now.
    #[must_use]
    pub fn decide(&mut self, moment: Moment<'_>) -> Decision {
        let pool = moment.pool;
        let longest = pool.of_kind(true).map(|(_, _, waiting)| waiting.row.length).max();
        let largest = longest.map(|longest| (self.best_size(moment.plan, longest), longest));
        let do_jobs_wait = pool.of_kind(false).next().is_some();
        let mut background = self.background.has_turn(do_jobs_wait, largest.is_some(), JOBS_FOR_EACH);
        let bounds = match largest {
            // A job that comes waits for such a batch to end: it is no larger than it pays.
            Some((size, _)) if background => Bounds { max_batch_size: size, ..self.bounds },
            Some(_) | None => self.bounds,
        };
        let mut decision = self.decide_among(background, bounds, moment);
        if let (Decision::WaitUntil(company), true, true) = (&decision, background, do_jobs_wait) {
            // The turn is kept, and no job waits with them for company.
            let company = *company;
            background = false;
            decision = match self.decide_among(false, self.bounds, moment) {
                Decision::WaitUntil(until) => Decision::WaitUntil(until.min(company)),
                Decision::Rest => Decision::WaitUntil(company),
                run @ Decision::Run(_) => run,
            };
        }
        if let (Decision::Run(dispatch), Some(largest)) = (&decision, largest) {
            // Before costs are known, batches count alike.
            let seconds = if self.costs.is_known() { dispatch.expected.as_secs_f64() } else { 1.0 };
            let price = self.price(moment, largest);
            if background {
                self.background.had_turn((seconds, price), JOBS_FOR_EACH);
            } else {
                self.background.give_way(seconds, price);
            }
        }
        decision
    }

    /// What a batch of the rows in the background costs at most, which has so many rows of that length and no more.
    fn price(&self, moment: Moment<'_>, (size, length): (usize, usize)) -> f64 {
        let rows = moment.pool.of_kind(true).count().min(size);
        let costs = Costs { model: &self.costs, plan: moment.plan };
        if self.costs.is_known() { costs.seconds(rows, length) } else { 1.0 }
    }

    /// What to do with the rows of one kind.
    fn decide_among(&mut self, background: bool, bounds: Bounds, moment: Moment<'_>) -> Decision {
        let Moment { pool, now, .. } = moment;
        let (positions, reason) = match self.kind {
            BatchingPolicy::Adaptive => {
                let dispatch = self.adaptive.decide(moment, &self.costs, (background, bounds));
                return dispatch.map_or(Decision::Rest, Decision::Run);
            }
            BatchingPolicy::Single => (fixed::single(pool, background), DispatchReason::Fixed),
            BatchingPolicy::Fifo { max_tokens } => {
                let max_batch_tokens = bounds.max_batch_tokens.min(max_tokens);
                (fixed::fifo(pool, background, Bounds { max_batch_tokens, ..bounds }), DispatchReason::Fixed)
            }
            BatchingPolicy::Delay { wait, rows } => match fixed::delay(pool, background, bounds, (wait, rows), now) {
                Ok(positions) => (positions, DispatchReason::Fixed),
                Err(moment) => return Decision::WaitUntil(moment),
            },
        };
        if positions.is_empty() {
            return Decision::Rest;
        }
        let costs = Costs { model: &self.costs, plan: moment.plan };
        let rows = || positions.iter().filter_map(|position| pool.get(*position));
        let longest = rows().map(|row| row.row.length).max().unwrap_or(0);
        let expected = duration(costs.seconds(positions.len(), longest));
        let expected_apart = duration(rows().map(|row| costs.seconds(1, row.row.length)).sum());
        Decision::Run(Dispatch { positions, reason, expected, expected_apart, contended: false, missed: None })
    }

    /// Takes in that a batch that was filled up to this shape has run for so long.
    pub fn ran(&mut self, (rows, length): (usize, usize), ran: Duration) {
        self.costs.observe(rows, length, ran);
    }

    /// The rows of a batch of `length` that is as good as the best: the smallest power of two whose rows cost at most a tenth
    /// more each than those of any other. The most that may be, where nothing is known or nothing is learned.
    #[must_use]
    pub fn best_size(&self, plan: Plan<'_>, length: usize) -> usize {
        let most = self.bounds.most(length);
        match self.kind {
            BatchingPolicy::Single => 1,
            BatchingPolicy::Fifo { max_tokens } => most.min(max_tokens / length.max(1)).max(1),
            BatchingPolicy::Delay { .. } => most,
            BatchingPolicy::Adaptive => Costs { model: &self.costs, plan }.best_size(length, most),
        }
    }

    /// What is known of the costs.
    #[must_use]
    pub const fn costs(&self) -> &CostModel {
        &self.costs
    }
}

/// What batches cost, by the shapes that they are filled up to.
#[derive(Clone, Copy)]
struct Costs<'a> {
    model: &'a CostModel,
    plan: Plan<'a>,
}

impl Costs<'_> {
    /// See [`Policy::best_size`]; at `most` rows.
    fn best_size(&self, length: usize, most: usize) -> usize {
        if !self.model.is_known() {
            return most;
        }
        #[expect(clippy::cast_precision_loss, reason = "rows of a batch")]
        let each = |rows: usize| self.seconds(rows, length) / rows as f64;
        let doubled = std::iter::successors(Some(1_usize), |rows| rows.checked_mul(2));
        let sizes = doubled.take_while(|rows| *rows < most).chain([most]);
        let costs: Vec<(usize, f64)> = sizes.map(|rows| (rows, each(rows))).collect();
        let best = costs.iter().map(|(_, each)| *each).fold(f64::INFINITY, f64::min);
        costs.iter().find(|(_, each)| *each <= best * AS_GOOD).map_or(most, |(rows, _)| *rows)
    }

    fn seconds(&self, rows: usize, length: usize) -> f64 {
        let (rows, length) = (self.plan)(rows, length);
        self.model.seconds(rows, length)
    }

    /// How long such a batch runs, with a margin.
    fn with_margin(&self, rows: usize, length: usize) -> Duration {
        duration(self.seconds(rows, length) * self.model.margin())
    }
}

/// What a decision is made with.
#[derive(Clone, Copy)]
struct Given<'a> {
    moment: Moment<'a>,
    costs: Costs<'a>,
    bounds: Bounds,
}

/// Whether `row` may be in a batch that `first` is in.
fn may_share(first: &Waiting, row: &Waiting, scope: BatchScope) -> bool {
    let tenants_may = match scope {
        BatchScope::Shared => true,
        BatchScope::Tenant => row.tenant == first.tenant,
    };
    !row.alone && !first.alone && tenants_may && first.row.fits_with(&row.row)
}

/// A day at most: what comes out of a prediction is never added to a moment that it would overflow.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
