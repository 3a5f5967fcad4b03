//! How much of what a worker holds of a queue one tenant may have, so that the jobs of another find a place.
//!
//! Asked by `process` for every authenticated job. A tenant that is alone has all of it: the bound holds while others have
//! had jobs in the same queue lately. What is beyond it is not refused; it comes back after a pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::broker::prefetch::Prefetch;
use crate::limits::SHARED_QUEUE_MEMORY;

/// One tenant's part in one queue.
#[derive(Debug)]
struct Share {
    held: usize,
    seen: Instant,
}

type Tenants = HashMap<String, Share>;

/// Counts what each tenant has of each queue. Tenants are those of the key ring: the job was authenticated.
#[derive(Debug)]
pub(super) struct Shares {
    prefetch: Prefetch,
    percent: usize,
    queues: Mutex<HashMap<Arc<str>, Tenants>>,
}

impl Shares {
    /// Of the jobs that `prefetch` allows for a queue a tenant may have `percent`, one at least.
    pub(super) fn new(prefetch: Prefetch, percent: u32) -> Self {
        Self { prefetch, percent: percent as usize, queues: Mutex::new(HashMap::new()) }
    }

    /// The same share of what another prefetch allows.
    pub(super) fn following(self, prefetch: Prefetch) -> Self {
        Self { prefetch, ..self }
    }

    /// A place for a job of `tenant` from `queue`; none where it has its share, and others are there as well.
    pub(super) fn take<'a>(&'a self, queue: &Arc<str>, tenant: &str) -> Option<Place<'a>> {
        let now = Instant::now();
        let mut queues = self.lock();
        let tenants = queues.entry(Arc::clone(queue)).or_default();
        let is_recent = |share: &Share| now.duration_since(share.seen) < SHARED_QUEUE_MEMORY;
        // Those that have left are forgotten here, so that nobody has to sweep.
        tenants.retain(|name, share| share.held > 0 || name == tenant || is_recent(share));
        let is_shared = tenants.iter().any(|(name, share)| name != tenant && (share.held > 0 || is_recent(share)));
        let share = tenants.entry(tenant.to_owned()).or_insert(Share { held: 0, seen: now });
        share.seen = now;
        let most = (usize::from(self.prefetch.of(queue)) * self.percent / 100).max(1);
        if is_shared && share.held >= most {
            return None;
        }
        share.held += 1;
        Some(Place { shares: self, queue: Arc::clone(queue), tenant: tenant.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Tenants>> {
        // Each change is a single one.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One job's place; free again when this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub(super) struct Place<'a> {
    shares: &'a Shares,
    queue: Arc<str>,
    tenant: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.shares.lock();
        if let Some(share) = queues.get_mut(&self.queue).and_then(|tenants| tenants.get_mut(&self.tenant)) {
            share.held = share.held.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken<'a>(shares: &'a Shares, queue: &str, tenant: &str, jobs: usize) -> Vec<Place<'a>> {
        (0..jobs).filter_map(|_| shares.take(&queue.into(), tenant)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_has_everything() {
        let shares = Shares::new(Prefetch::fixed(64), 75);
        assert_eq!(taken(&shares, "a", "acme", 64).len(), 64);
        // Others in another queue are no neighbours.
        assert_eq!(taken(&shares, "b", "other", 1).len(), 1);
        assert_eq!(taken(&shares, "a", "acme", 64).len(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn among_others_it_is_a_share_until_they_have_left() {
        let shares = Shares::new(Prefetch::fixed(64), 75);
        drop(taken(&shares, "a", "other", 1));
        let held = taken(&shares, "a", "acme", 64);
        assert_eq!(held.len(), 48);
        assert_eq!(taken(&shares, "a", "other", 16).len(), 16, "the rest is for the other");
        drop(held);
        assert_eq!(taken(&shares, "a", "acme", 64).len(), 48, "what ended is given back");
        tokio::time::advance(SHARED_QUEUE_MEMORY).await;
        assert_eq!(taken(&shares, "a", "acme", 64).len(), 64, "the other has left");
    }

    #[tokio::test(start_paused = true)]
    async fn one_job_is_always_possible_and_nobody_is_kept_in_memory() {
        let shares = Shares::new(Prefetch::fixed(1), 1);
        let _other = taken(&shares, "a", "other", 1);
        assert_eq!(taken(&shares, "a", "acme", 5).len(), 1);
        for number in 0..100 {
            drop(taken(&shares, "a", &format!("tenant-{number}"), 1));
        }
        tokio::time::advance(SHARED_QUEUE_MEMORY).await;
        drop(taken(&shares, "a", "last", 1));
        assert!(shares.lock().values().all(|tenants| tenants.len() <= 2), "{shares:?}");
    }
}
