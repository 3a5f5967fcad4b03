//! The adaptive policy: whatever waits at the moment an executor is free is run, oldest first, with its nearest neighbours
//! in length, since a batch costs what its longest row costs. Nothing ever waits for company.

use super::{Bounds, Decision, may_share};
use crate::batch::pool::Pool;

/// What one of `idle` executors is to run.
pub(super) fn adaptive(pool: &Pool, idle: usize, bounds: Bounds) -> Decision {
    let Some((first, (_, oldest))) = pool.iter().enumerate().min_by_key(|(_, (number, _))| *number) else {
        return Decision::Rest;
    };
    // The other idle executors get their share.
    let size = pool.len().div_ceil(idle.max(1)).min(bounds.max_batch_size);
    let mut neighbours: Vec<(usize, u64, usize, usize)> = pool
        .iter()
        .enumerate()
        .filter(|(position, (_, row))| *position != first && may_share(oldest, row, bounds.scope))
        .map(|(position, (number, row))| (row.row.length.abs_diff(oldest.row.length), number, position, row.row.length))
        .collect();
    neighbours.sort_unstable();
    let mut batch = vec![first];
    let mut longest = oldest.row.length;
    for (_, _, position, length) in neighbours {
        if batch.len() >= size {
            break;
        }
        let padded = longest.max(length);
        // A shorter one may still fit where this one does not.
        if padded.saturating_mul(batch.len() + 1) <= bounds.max_batch_tokens {
            longest = padded;
            batch.push(position);
        }
    }
    Decision::Run(batch)
}
