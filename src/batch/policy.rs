//! Which waiting rows to run now. Pure: no clock, no I/O; the batcher calls it whenever an executor is free.
//!
//! Greedy and late: whatever waits at the moment an executor is free is run, oldest first, with its nearest neighbours
//! in length, since a batch costs what its longest row costs. Nothing ever waits for company.

use super::pool::{Pool, Waiting};

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

/// The positions in `pool` of the rows to run now on one of `idle` executors, the oldest first; empty when none waits.
#[must_use]
pub fn next_batch(pool: &Pool, idle: usize, bounds: Bounds) -> Vec<usize> {
    let mut rows = pool.iter();
    let Some(oldest) = rows.next() else { return Vec::new() };
    // The other idle executors get their share.
    let size = pool.len().div_ceil(idle.max(1)).min(bounds.max_batch_size);
    if oldest.alone || size <= 1 {
        return vec![0];
    }
    let mut neighbours: Vec<(usize, usize, usize)> = rows
        .enumerate()
        .filter(|(_, row)| may_share(oldest, row, bounds.scope))
        .map(|(position, row)| (row.row.length.abs_diff(oldest.row.length), position + 1, row.row.length))
        .collect();
    neighbours.sort_unstable_by_key(|(distance, position, _)| (*distance, *position));
    let mut batch = vec![0];
    let mut longest = oldest.row.length;
    for (_, position, length) in neighbours {
        if batch.len() == size {
            break;
        }
        let padded = longest.max(length);
        // A shorter one may still fit where this one does not.
        if padded.saturating_mul(batch.len() + 1) <= bounds.max_batch_tokens {
            longest = padded;
            batch.push(position);
        }
    }
    batch
}

fn may_share(oldest: &Waiting, row: &Waiting, scope: BatchScope) -> bool {
    let tenants_may = match scope {
        BatchScope::Shared => true,
        BatchScope::Tenant => row.tenant == oldest.tenant,
    };
    !row.alone && tenants_may && oldest.row.fits_with(&row.row)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;
    use crate::batch::row::Row;

    fn pool(rows: &[(usize, bool, u8)]) -> Pool {
        let mut pool = Pool::default();
        for (length, alone, tenant) in rows {
            pool.push(Waiting {
                row: Row { inputs: Vec::new(), length: *length, may_be_padded: true },
                deadline: Instant::now(),
                tenant: tenant.to_string().into(),
                alone: *alone,
                arrived: Instant::now(),
                slot: None,
                answer: oneshot::channel().0,
            });
        }
        pool
    }

    const fn bounds(max_batch_size: usize) -> Bounds {
        Bounds { max_batch_size, max_batch_tokens: usize::MAX, scope: BatchScope::Shared }
    }

    #[test]
    fn a_batch_is_bounded_in_tokens_and_filled_with_what_still_fits() {
        let pool = pool(&[(40, false, 0), (45, false, 0), (50, false, 0), (30, false, 0), (10, false, 0)]);
        let tokens = |max_batch_tokens| next_batch(&pool, 1, Bounds { max_batch_tokens, ..bounds(32) });
        // Two of 45 are 90; with the one of 50 three would be 150, with the one of 30 they are 135.
        assert_eq!(tokens(140), [0, 1, 3]);
        assert_eq!(tokens(usize::MAX), [0, 1, 2, 3, 4]);
        assert_eq!(tokens(90), [0, 1]);
        assert_eq!(tokens(39), [0], "a row that is longer runs alone");
    }

    #[test]
    fn the_oldest_runs_with_its_nearest_in_length() {
        let pool = pool(&[(10, false, 0), (100, false, 0), (12, false, 0), (11, false, 0)]);
        assert_eq!(next_batch(&pool, 1, bounds(3)), [0, 3, 2]);
    }

    #[test]
    fn idle_executors_share_what_waits() {
        let pool = pool(&[(1, false, 0); 4]);
        assert_eq!(next_batch(&pool, 2, bounds(32)).len(), 2);
    }

    proptest! {
        #[test]
        fn a_batch_keeps_its_bounds(
            rows in proptest::collection::vec((1_usize..200, any::<bool>(), 0_u8..3), 0..40),
            idle in 1_usize..5,
            max_batch_size in 1_usize..33,
            max_batch_tokens in 1_usize..3_000,
            tenant_scope: bool,
        ) {
            let pool = pool(&rows);
            let scope = if tenant_scope { BatchScope::Tenant } else { BatchScope::Shared };
            let batch = next_batch(&pool, idle, Bounds { max_batch_size, max_batch_tokens, scope });
            prop_assert_eq!(batch.is_empty(), rows.is_empty());
            prop_assert!(batch.len() <= max_batch_size);
            prop_assert!(batch.first().is_none_or(|first| *first == 0), "the oldest never waits for younger ones");
            let mut unique = batch.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), batch.len());
            let longest = batch.iter().map(|position| rows[*position].0).max().unwrap_or(0);
            prop_assert!(batch.len() <= 1 || longest * batch.len() <= max_batch_tokens);
            if batch.len() > 1 {
                prop_assert!(batch.iter().all(|position| !rows[*position].1), "a lonely row has company");
                if tenant_scope {
                    prop_assert!(batch.iter().all(|position| rows[*position].2 == rows[0].2));
                }
            }
        }
    }
}
