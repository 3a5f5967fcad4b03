//! The policies that learn nothing: yardsticks to measure the adaptive one against.
//!
//! They fill batches in the order of arrival and close one at the first row that does not fit. Each looks at rows of one kind, of
//! jobs or in the background.

use std::time::Duration;

use tokio::time::Instant;

use super::{Bounds, may_share};
use crate::batch::pool::Pool;

/// Every row by itself, the oldest first.
pub(super) fn single(pool: &Pool, background: bool) -> Vec<usize> {
    let oldest = pool.of_kind(background).min_by_key(|(_, number, _)| *number);
    oldest.map(|(position, ..)| position).into_iter().collect()
}

/// The oldest rows, as many as fit.
pub(super) fn fifo(pool: &Pool, background: bool, bounds: Bounds) -> Vec<usize> {
    let mut batch = Vec::new();
    let mut longest = 0;
    let mut oldest = None;
    for position in pool.by_arrival(background) {
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
    batch
}

/// The oldest rows, once there are so many or the oldest has waited for so long; before that the moment when it will have.
pub(super) fn delay(
    pool: &Pool,
    background: bool,
    bounds: Bounds,
    (wait, rows): (Duration, usize),
    now: Instant,
) -> Result<Vec<usize>, Instant> {
    let size = rows.min(bounds.max_batch_size);
    let waiting = pool.of_kind(background);
    let (waiting, oldest) = waiting.fold((0, None), |(count, oldest): (usize, Option<Instant>), (_, _, row)| {
        (count + 1, Some(oldest.map_or(row.arrived, |oldest| oldest.min(row.arrived))))
    });
    match oldest.map(|oldest| oldest + wait) {
        Some(ready) if waiting < size && now < ready => Err(ready),
        Some(_) | None => Ok(fifo(pool, background, Bounds { max_batch_size: size, ..bounds })),
    }
}
