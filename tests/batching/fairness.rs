//! A tenant that floods the worker, and one that does not: whose rows are in whose batches.

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

/// Before anything is known rows count alike, afterwards in seconds: a first batch of 32 rows was a debt of 32 seconds.
#[test]
fn what_ran_before_costs_were_known_is_no_debt_afterwards() {
    let cost = |rows: usize, _: usize, _: f64| 0.001 * rows as f64;
    let apart = machine(1, 32, &cost);
    let bounds = Bounds { scope: BatchScope::Tenant, ..apart.bounds };
    let of = |tenant| (0..2_000).map(move |_| Job { tenant, ..job(0.0, 64, 10.0) });
    let jobs: Vec<Job> = of("first").chain(of("second")).collect();
    let machine = Machine { bounds, ..apart };
    let outcome = simulate(BatchingPolicy::Adaptive, &machine, &jobs, CostModel::default());
    let first_second = outcome.batches.iter().filter(|batch| batch.began < 1.0);
    let those = first_second.filter(|batch| jobs[batch.jobs[0]].tenant == "first");
    let share: f64 = those.map(|batch| batch.seconds).sum();
    assert!((0.4..=0.6).contains(&share), "who was run first had {share} of the first second");
}

/// A tenant of many small demands was held to one row a batch: the rest of each batch of its was filled with rows of the flood, so that
/// it took as long as eight rows do, and the quiet tenant had an eighth of the machine and no half.
#[test]
fn a_flood_takes_no_places_in_the_batches_of_others() {
    let cost = |rows: usize, length: usize, _: f64| TOPIC.seconds(rows, length);
    let bounds = Bounds { max_batch_size: 8, max_batch_tokens: 1_024, scope: BatchScope::Shared };
    let machine = Machine { noise: 0.05, bounds, ..machine(2, 8, &cost) };
    let outcome = |quiet: &[Job], flood: usize| {
        let flood = (0..flood).map(|_| Job { tenant: "flood", ..job(0.5, 128, 1.0) });
        let mut jobs: Vec<Job> = quiet.iter().copied().chain(flood).collect();
        jobs.sort_by(|a, b| a.arrives.total_cmp(&b.arrives));
        let outcome = simulate(BatchingPolicy::Adaptive, &machine, &jobs, CostModel::default());
        let of_quiet =
            jobs.iter().zip(&outcome.latencies).filter(|(job, _)| job.tenant == "quiet" && job.arrives > 0.6);
        let latencies: Vec<f64> = of_quiet.map(|(_, latency)| latency.unwrap()).collect();
        let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
        let during = outcome.batches.iter().filter(|batch| (0.6..2.6).contains(&batch.began));
        (mean, during.map(|batch| batch.jobs.len()).sum::<usize>() as f64 / 2.0)
    };
    // Two hundred small demands a second, a fourth of what the machine does row by row.
    let quiet: Vec<Job> =
        poisson(33, 600, 200.0, &[128], 1.0).into_iter().map(|job| Job { tenant: "quiet", ..job }).collect();
    let ((alone, _), (beside, rows), (_, most)) =
        (outcome(&quiet, 0), outcome(&quiet, 5_000), outcome(&quiet[..1], 5_000));
    println!("alone {alone} s, beside a flood {beside} s; {rows} rows a second, {most} of the flood alone");
    assert!(beside <= 4.0 * alone, "alone {alone} s, beside a flood {beside} s");
    assert!(rows >= 0.9 * most, "{rows} rows a second, {most} of the flood alone");
}
