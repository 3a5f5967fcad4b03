//! Which waiting rows to run now. Pure: no clock, no I/O; the batcher asks whenever an executor is free.
//!
//! `merge` is the adaptive policy, `fixed` holds the yardsticks that it is measured against.

use tokio::time::Instant;

use super::pool::{Pool, Waiting};
use crate::settings::BatchingPolicy;

mod fixed;
mod merge;

/// Who may share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchScope {
    /// Rows of all tenants.
    Shared,
    /// Rows of one tenant.
    Tenant,
}

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

/// What an idle executor is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Run the rows at these positions of the pool as one batch.
    Run(Vec<usize>),
    /// Nothing before this moment, unless more rows come.
    WaitUntil(Instant),
    /// Nothing: no row waits.
    Rest,
}

/// What one of `idle` executors is to do now.
#[must_use]
pub fn decide(policy: BatchingPolicy, pool: &Pool, idle: usize, bounds: Bounds, now: Instant) -> Decision {
    match policy {
        BatchingPolicy::Adaptive => merge::adaptive(pool, idle, bounds),
        BatchingPolicy::Single => fixed::single(pool),
        BatchingPolicy::Fifo { max_tokens } => {
            let max_batch_tokens = bounds.max_batch_tokens.min(max_tokens);
            fixed::fifo(pool, Bounds { max_batch_tokens, ..bounds })
        }
        BatchingPolicy::Delay { wait, rows } => fixed::delay(pool, bounds, wait, rows, now),
    }
}

/// Whether `row` may be in a batch that `first` is in.
fn may_share(first: &Waiting, row: &Waiting, scope: BatchScope) -> bool {
    let tenants_may = match scope {
        BatchScope::Shared => true,
        BatchScope::Tenant => row.tenant == first.tenant,
    };
    !row.alone && !first.alone && tenants_may && first.row.fits_with(&row.row)
}

#[cfg(test)]
mod tests;
