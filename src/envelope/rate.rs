//! How many jobs a tenant may have run in a second: a bucket of tokens for each tenant that has a bound.
//!
//! Asked by the worker for every job that is to be run. Each worker counts for itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::tenant::Tenant;

/// Seconds of its rate that a tenant which was silent may use at once.
const BURST_SECONDS: f64 = 1.0;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    /// When the tokens were counted.
    at: Duration,
}

/// Counts the jobs of each tenant.
#[derive(Debug, Default)]
pub struct RateLimiter(Mutex<HashMap<String, Bucket>>);

impl RateLimiter {
    /// Whether `tenant` may have one more job run. `now` is the time since any moment, always the same one.
    pub fn allows(&self, tenant: &Tenant, now: Duration) -> bool {
        let Some(per_second) = tenant.grant.max_jobs_per_second.map(f64::from) else { return true };
        // At least one job, or a bound of a few an hour would never let one pass.
        let most = (per_second * BURST_SECONDS).max(1.0);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(tenant.name.clone()).or_insert(Bucket { tokens: most, at: now });
        let gained = now.saturating_sub(bucket.at).as_secs_f64() * per_second;
        bucket.tokens = (bucket.tokens + gained).min(most);
        bucket.at = bucket.at.max(now);
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Grant;

    fn tenant(name: &str, rate: Option<u32>) -> Tenant {
        let grant = Grant { max_jobs_per_second: rate, ..Grant::new(name, vec!["*".into()]) };
        Tenant { name: name.to_owned(), grant }
    }

    fn passed(limiter: &RateLimiter, tenant: &Tenant, at_ms: u64, jobs: usize) -> usize {
        (0..jobs).filter(|_| limiter.allows(tenant, Duration::from_millis(at_ms))).count()
    }

    #[test]
    fn a_tenant_has_its_rate_and_no_more() {
        let (limiter, acme) = (RateLimiter::default(), tenant("acme", Some(10)));
        assert_eq!(passed(&limiter, &acme, 0, 50), 10, "a second's worth at once");
        assert_eq!(passed(&limiter, &acme, 99, 50), 0);
        assert_eq!(passed(&limiter, &acme, 100, 50), 1);
        assert_eq!(passed(&limiter, &acme, 600, 50), 5);
        assert_eq!(passed(&limiter, &acme, 60_000, 50), 10, "silence is not saved up");
        assert_eq!(passed(&limiter, &acme, 10, 50), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn tenants_do_not_share_and_those_without_a_bound_are_not_counted() {
        let limiter = RateLimiter::default();
        assert_eq!(passed(&limiter, &tenant("acme", Some(1)), 0, 5), 1);
        assert_eq!(passed(&limiter, &tenant("other", Some(1)), 0, 5), 1);
        assert_eq!(passed(&limiter, &tenant("free", None), 0, 500), 500);
        assert_eq!(passed(&limiter, &tenant("none", Some(0)), 0, 5), 1, "zero a second is one, once");
        assert_eq!(passed(&limiter, &tenant("none", Some(0)), 90_000, 5), 0);
    }
}
