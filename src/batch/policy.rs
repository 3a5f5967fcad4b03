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
    let mut neighbours: Vec<(usize, usize)> = rows
        .enumerate()
        .filter(|(_, row)| may_share(oldest, row, bounds.scope))
        .map(|(position, row)| (row.row.length.abs_diff(oldest.row.length), position + 1))
        .collect();
    neighbours.sort_unstable();
    std::iter::once(0).chain(neighbours.into_iter().map(|(_, position)| position)).take(size).collect()
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

    #[test]
    fn the_oldest_runs_with_its_nearest_in_length() {
        let pool = pool(&[(10, false, 0), (100, false, 0), (12, false, 0), (11, false, 0)]);
        let bounds = Bounds { max_batch_size: 3, scope: BatchScope::Shared };
        assert_eq!(next_batch(&pool, 1, bounds), [0, 3, 2]);
    }

    #[test]
    fn idle_executors_share_what_waits() {
        let pool = pool(&[(1, false, 0); 4]);
        let bounds = Bounds { max_batch_size: 32, scope: BatchScope::Shared };
        assert_eq!(next_batch(&pool, 2, bounds).len(), 2);
    }

    proptest! {
        #[test]
        fn a_batch_keeps_its_bounds(
            rows in proptest::collection::vec((1_usize..200, any::<bool>(), 0_u8..3), 0..40),
            idle in 1_usize..5,
            max_batch_size in 1_usize..33,
            tenant_scope: bool,
        ) {
            let pool = pool(&rows);
            let scope = if tenant_scope { BatchScope::Tenant } else { BatchScope::Shared };
            let batch = next_batch(&pool, idle, Bounds { max_batch_size, scope });
            prop_assert_eq!(batch.is_empty(), rows.is_empty());
            prop_assert!(batch.len() <= max_batch_size);
            prop_assert!(batch.first().is_none_or(|first| *first == 0), "the oldest never waits for younger ones");
            let mut unique = batch.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), batch.len());
            if batch.len() > 1 {
                prop_assert!(batch.iter().all(|position| !rows[*position].1), "a lonely row has company");
                if tenant_scope {
                    prop_assert!(batch.iter().all(|position| rows[*position].2 == rows[0].2));
                }
            }
        }
    }
}
