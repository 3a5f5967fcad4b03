//! The policies that learn nothing: yardsticks to measure the adaptive one against.
//!
//! They fill batches in the order of arrival and close one at the first row that does not fit.

use std::time::Duration;

use tokio::time::Instant;

use super::{Bounds, Decision, may_share};
use crate::batch::pool::Pool;

/// Every row by itself, the oldest first.
pub(super) fn single(pool: &Pool) -> Decision {
    let oldest = pool.iter().enumerate().min_by_key(|(_, (number, _))| *number);
    oldest.map_or(Decision::Rest, |(position, _)| Decision::Run(vec![position]))
}

/// The oldest rows, as many as fit.
pub(super) fn fifo(pool: &Pool, bounds: Bounds) -> Decision {
    let mut batch = Vec::new();
    let mut longest = 0;
    let mut oldest = None;
    for position in pool.by_arrival() {
        let Some(row) = pool.get(position) else { continue };
        let first = *oldest.get_or_insert(row);
        longest = longest.max(row.row.length);
        let fits = batch.len() < bounds.max_batch_size
            && longest.saturating_mul(batch.len() + 1) <= bounds.max_batch_tokens
            && may_share(first, row, bounds.scope);
        if !batch.is_empty() && !fits {
            break;
        }
        batch.push(position);
    }
    if batch.is_empty() { Decision::Rest } else { Decision::Run(batch) }
}

/// The oldest rows, once there are `rows` of them or the oldest has waited for `wait`.
pub(super) fn delay(pool: &Pool, bounds: Bounds, wait: Duration, rows: usize, now: Instant) -> Decision {
    let Some(oldest) = pool.iter().map(|(_, row)| row.arrived).min() else { return Decision::Rest };
    let ready = oldest + wait;
    let size = rows.min(bounds.max_batch_size);
    if pool.len() < size && now < ready {
        return Decision::WaitUntil(ready);
    }
    fifo(pool, Bounds { max_batch_size: size, ..bounds })
}
