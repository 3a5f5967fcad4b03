//! A tenant that floods the worker, and one that does not.

use inferq::batch::cost::CostModel;
use inferq::batch::policy::{BatchScope, Bounds};
use inferq::settings::BatchingPolicy;

use crate::simulator::{Job, Machine, job, machine, poisson, simulate};
use crate::tables::TOPIC;

/// The mean latency and the 99th percentile of the quiet tenant's jobs.
fn quiet(scope: BatchScope, flood: &[Job]) -> (f64, f64) {
    let cost = |rows: usize, length: usize, _: f64| TOPIC.seconds(rows, length);
    let bounds = Bounds { max_batch_size: 8, max_batch_tokens: 1_024, scope };
    let machine = Machine { noise: 0.05, bounds, ..machine(2, 8, &cost) };
    let mut jobs = poisson(31, 600, 60.0, &[128], 1.0);
    jobs.iter_mut().for_each(|job| job.tenant = "quiet");
    jobs.extend(flood.iter().map(|job| Job { tenant: "flood", ..*job }));
    jobs.sort_by(|a, b| a.arrives.total_cmp(&b.arrives));
    let outcome = simulate(BatchingPolicy::Adaptive, &machine, &jobs, CostModel::default());
    let of_quiet = jobs.iter().zip(&outcome.latencies).filter(|(job, _)| job.tenant == "quiet");
    let mut latencies: Vec<f64> = of_quiet.map(|(_, latency)| latency.unwrap()).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    (latencies.iter().sum::<f64>() / latencies.len() as f64, latencies[latencies.len() * 99 / 100])
}

#[test]
fn a_flood_leaves_the_latency_of_others_within_twice_that_on_a_busy_worker() {
    for scope in [BatchScope::Shared, BatchScope::Tenant] {
        // Busy: the other tenant takes what is left of the capacity, and no more.
        let busy = quiet(scope, &poisson(32, 5_000, 800.0, &[128], 1.0));
        // Flood: it has two thousand rows waiting from the first second on.
        let flood: Vec<Job> = (0..6_000)
            .map(|number| job(if number < 2_000 { 0.5 } else { 0.5 + f64::from(number) / 1_500.0 }, 128, 1.0))
            .collect();
        let flooded = quiet(scope, &flood);
        println!("{scope:?}: busy {busy:?} s, flooded {flooded:?} s");
        assert!(
            flooded.0 <= 2.0 * busy.0 && flooded.1 <= 2.0 * busy.1,
            "{scope:?}: busy {busy:?}, flooded {flooded:?}"
        );
    }
}
