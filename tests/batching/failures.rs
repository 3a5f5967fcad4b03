//! What can go wrong with a policy that learns, and must not.

use inferq::batch::cost::CostModel;
use inferq::settings::BatchingPolicy;
use inferq::telemetry::labels::DispatchReason;
use proptest::prelude::*;

use crate::simulator::{Job, Machine, Outcome, job, machine, poisson, simulate, simulate_and_learn};

const ADAPTIVE: BatchingPolicy = BatchingPolicy::Adaptive;

/// Seconds of a batch on a model where batches pay.
fn affine(rows: usize, length: usize) -> f64 {
    0.0014 + rows as f64 * 0.000_011 * length as f64
}

fn run(jobs: &[Job], cost: &dyn Fn(usize, usize, f64) -> f64) -> Outcome {
    simulate(ADAPTIVE, &Machine { noise: 0.05, ..machine(1, 32, cost) }, jobs, CostModel::default())
}

/// Jobs a second that keep one executor busy for `load` of its time where rows of 128 run one by one.
fn load(load: f64) -> f64 {
    load / affine(1, 128)
}

#[test]
fn a_fit_of_constant_length_and_size_neither_runs_away_nor_stops_batching() {
    // One by one for a long time: nothing tells how much of it is the batch's own.
    let mut jobs: Vec<Job> = (0..3_000).map(|number| job(f64::from(number) * 0.005, 128, 1.0)).collect();
    jobs.extend((0..200).map(|_| job(15.1, 128, 1.0)));
    let (outcome, costs) = simulate_and_learn(
        ADAPTIVE,
        &Machine { noise: 0.05, ..machine(1, 32, &|rows, length, _| affine(rows, length)) },
        &jobs,
        CostModel::default(),
    );
    let rows_in_last: usize = outcome.batches[3_000..].iter().map(|batch| batch.jobs.len()).max().unwrap();
    assert!(rows_in_last >= 16, "the burst ran in batches of {rows_in_last} at most");
    assert!((costs.seconds(32, 128) / affine(32, 128) - 1.0).abs() < 0.2);
}

#[test]
fn a_stall_of_ten_times_is_forgotten_at_once() {
    let stalled = |rows: usize, length: usize, now: f64| {
        affine(rows, length) * if (2.0..2.005).contains(&now) { 10.0 } else { 1.0 }
    };
    let jobs = poisson(1, 3_000, load(1.2), &[128], 0.1);
    let (with, without) = (run(&jobs, &stalled), run(&jobs, &|rows, length, _| affine(rows, length)));
    let after = jobs.iter().position(|job| job.arrives > 2.5).unwrap();
    let ratio = with.mean(after) / without.mean(after);
    assert!(ratio < 1.02, "the mean latency after it is {ratio} times that without it");
}

#[test]
fn where_the_machine_is_slower_for_a_while_it_is_followed_there_and_back() {
    // A neighbour takes half of the processor for two seconds.
    let stolen =
        |rows: usize, length: usize, now: f64| affine(rows, length) * if (2.0..4.0).contains(&now) { 2.0 } else { 1.0 };
    let jobs = poisson(2, 4_000, load(0.9), &[32, 128], 1.0);
    let outcome = run(&jobs, &stolen);
    let errors = |from: f64, to: f64| {
        let there = outcome.batches.iter().filter(|batch| (from..to).contains(&batch.began));
        let mut errors: Vec<f64> = there.map(|batch| (batch.seconds / batch.expected).ln().abs()).collect();
        errors.sort_unstable_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    for (from, to) in [(1.0, 2.0), (2.2, 4.0), (4.2, 6.0)] {
        assert!(errors(from, to) < 0.12, "from {from} to {to} s predictions are off by {}", errors(from, to));
    }
}

#[test]
fn a_step_that_turns_batching_into_a_loss_is_found_out_and_so_is_the_way_back() {
    let cost = |rows: usize, length: usize, now: f64| {
        let pays = !(4.0..12.0).contains(&now);
        if pays { affine(rows, length) } else { rows as f64 * affine(1, length) * if rows > 1 { 1.5 } else { 1.0 } }
    };
    let jobs = poisson(3, 9_000, load(0.95), &[128], 1.0);
    let outcome = run(&jobs, &cost);
    let mean = |from: f64, to: f64| {
        let there = outcome.batches.iter().filter(|batch| (from..to).contains(&batch.began));
        let sizes: Vec<f64> = there.map(|batch| batch.jobs.len() as f64).collect();
        sizes.iter().sum::<f64>() / sizes.len() as f64
    };
    let (pays, costs, again) = (mean(2.0, 4.0), mean(6.0, 12.0), mean(20.0, 26.0));
    assert!(pays > 1.3 && costs < 1.1 && again > 1.3, "mean batches of {pays}, {costs}, {again}");
}

#[test]
fn a_cold_plan_teaches_nothing() {
    // A row alone is run in any case; of anything else, only what is compiled for.
    let warm = |rows: usize, _: usize| rows.is_power_of_two() && rows > 1;
    let cost = |rows: usize, length: usize, _: f64| affine(rows, length) * if warm(rows, length) { 1.0 } else { 100.0 };
    let machine = Machine { is_warm: &warm, ..machine(1, 4, &cost) };
    let jobs: Vec<Job> = (0..900).map(|number| job(f64::from(number / 3), 128, 1.0)).collect();
    let (outcome, costs) = simulate_and_learn(ADAPTIVE, &machine, &jobs, CostModel::default());
    let sizes: Vec<usize> = outcome.batches.iter().map(|batch| batch.jobs.len()).collect();
    assert!(sizes.contains(&1) && sizes.contains(&2) && !sizes.contains(&3), "three are not compiled for");
    assert!(costs.seconds(2, 128) < 1.5 * affine(2, 128), "{} s", costs.seconds(2, 128));
    assert!(costs.seconds(1, 128) < 1.5 * affine(1, 128), "{} s", costs.seconds(1, 128));
}

#[test]
fn without_overhead_rows_run_one_by_one() {
    for cost in [|rows: usize| 0.002 * rows as f64, |rows: usize| 0.002 * (rows as f64).powf(1.6)] {
        // A load at which rows wait all the time.
        let jobs = poisson(4, 4_000, 0.9 / 0.002, &[1], 1.0);
        let outcome = run(&jobs, &|rows, _, _| cost(rows));
        assert!(outcome.mean_batch(100) < 1.03, "mean batch {}", outcome.mean_batch(100));
        let single = simulate(
            BatchingPolicy::Single,
            &Machine { noise: 0.05, ..machine(1, 32, &|rows, _, _| cost(rows)) },
            &jobs,
            CostModel::default(),
        );
        let ratio = outcome.mean(500) / single.mean(500);
        assert!(ratio < 1.15, "the mean latency is {ratio} times that without batches, at 0.9 of the capacity");
    }
}

#[test]
fn a_long_job_does_not_hold_short_ones_up_longer_than_it_must() {
    // All at once: one of 512 among short ones. In one batch all would be as long as the longest.
    let mut jobs: Vec<Job> = poisson(5, 2_000, load(0.7), &[8, 12, 16, 512], 1.0);
    let at = jobs.last().unwrap().arrives + 1.0;
    jobs.extend((0..32).map(|number| job(at, if number == 7 { 512 } else { 8 + number % 8 }, 1.0)));
    let outcome = run(&jobs, &|rows, length, _| affine(rows, length));
    let lengths = |ran: &[usize]| ran.iter().map(|number| jobs[*number].length).collect::<Vec<_>>();
    let mixed = outcome.batches[1_000..].iter().filter(|batch| {
        let lengths = lengths(&batch.jobs);
        lengths.contains(&512) && lengths.iter().any(|length| *length < 512)
    });
    assert_eq!(mixed.count(), 0, "a short row was run with a long one");
}

#[test]
fn a_rare_length_is_not_put_off_for_common_ones() {
    let mut jobs = poisson(6, 4_000, load(1.6), &[16], 0.2);
    jobs.iter_mut().step_by(100).for_each(|rare| rare.length = 300);
    let outcome = run(&jobs, &|rows, length, _| affine(rows, length));
    let worst = outcome.latencies.iter().step_by(100).map(|latency| latency.unwrap()).fold(0.0, f64::max);
    let worst_common = outcome.quantile(1.0, 0);
    assert!(
        worst <= worst_common.max(0.05),
        "a rare one waited for {worst} s, a common one for {worst_common} s at most"
    );
}

#[test]
fn overload_does_not_make_all_late() {
    let objective = 10.0 * affine(1, 128);
    let cost = |rows: usize, length: usize, _: f64| affine(rows, length);
    let capacity = 8.0 / affine(8, 128);
    let mut jobs = poisson(7, 4_000, 2.0 * capacity, &[128], objective);
    jobs.iter_mut().for_each(|job| job.deadline = 4.0 * objective);
    let outcome = simulate(ADAPTIVE, &machine(1, 8, &cost), &jobs, CostModel::default());
    let in_time = outcome.latencies.iter().flatten().filter(|latency| **latency <= objective).count();
    // Half of them could be. What waits for more than two objectives has turns again, and these are of what was in time.
    assert!(in_time as f64 > 0.38 * jobs.len() as f64, "{in_time} of {} in time at twice the capacity", jobs.len());
    assert_eq!(outcome.latencies.iter().flatten().count() + outcome.refused, jobs.len());
}

#[test]
fn a_burst_of_ten_full_batches_takes_ten_batches() {
    let mut jobs = poisson(8, 500, load(0.8), &[64], 10.0);
    let at = jobs.last().unwrap().arrives + 1.0;
    jobs.extend((0..320).map(|_| job(at, 64, 10.0)));
    let outcome = run(&jobs, &|rows, length, _| affine(rows, length));
    let took = outcome.ended - at;
    assert!(took < 1.08 * 10.0 * affine(32, 64), "{took} s, {} at best", 10.0 * affine(32, 64));
}

#[test]
fn from_idle_to_a_burst_nothing_waits_for_company() {
    let outcome = run(&[job(1.0, 64, 1.0)], &|rows, length, _| affine(rows, length));
    assert!((outcome.latencies[0].unwrap() - affine(1, 64)).abs() < 0.1 * affine(1, 64));
    let jobs: Vec<Job> = (0..16).map(|_| job(1.0, 64, 1.0)).collect();
    let outcome = run(&jobs, &|rows, length, _| affine(rows, length));
    assert_eq!(outcome.batches.len(), 1, "a burst from idle ran in {} batches", outcome.batches.len());
}

#[test]
fn a_prefetch_below_the_mean_batch_limits_the_batches_and_nothing_else() {
    // Two jobs at a time, the next two when these are answered: a closed window of two.
    let cost = |rows: usize, length: usize, _: f64| affine(rows, length);
    let pair = 2.0 * affine(2, 64);
    let jobs: Vec<Job> = (0..1_000).map(|number| job(f64::from(number / 2) * pair, 64, 1.0)).collect();
    let outcome = simulate(ADAPTIVE, &machine(1, 32, &cost), &jobs, CostModel::default());
    assert!(outcome.idle_while_waiting == 0.0 && outcome.batches.iter().all(|batch| batch.jobs.len() <= 2));
    assert!(outcome.mean_batch(10) > 1.9, "{}", outcome.mean_batch(10));
}

#[test]
fn redelivered_jobs_run_alone_however_many_wait() {
    let mut jobs = poisson(9, 2_000, load(1.5), &[64], 1.0);
    jobs.iter_mut().step_by(7).for_each(|job| job.alone = true);
    let outcome = run(&jobs, &|rows, length, _| affine(rows, length));
    for batch in &outcome.batches {
        let redelivered = batch.jobs.iter().filter(|number| jobs[**number].alone).count();
        assert!(redelivered == 0 || batch.jobs.len() == 1 && batch.reason == DispatchReason::Alone);
    }
    assert!(outcome.latencies.iter().all(Option::is_some));
}

#[test]
fn what_is_cancelled_while_it_waits_is_not_run_and_while_it_runs_harms_nobody() {
    let mut jobs = poisson(10, 2_000, load(1.5), &[64], 1.0);
    jobs.iter_mut().step_by(5).for_each(|job| job.cancelled = Some(0.002));
    let outcome = run(&jobs, &|rows, length, _| affine(rows, length));
    for (job, latency) in jobs.iter().zip(&outcome.latencies) {
        match job.cancelled {
            Some(after) => assert!(latency.is_none_or(|latency| latency <= after + 1e-9)),
            None => assert!(latency.is_some()),
        }
    }
    let ran: usize = outcome.batches.iter().map(|batch| batch.jobs.len()).sum();
    assert!(ran < 1_950 && outcome.refused > 50, "{ran} ran, {} were taken out", outcome.refused);
}

fn traces() -> impl Strategy<Value = Vec<Job>> {
    let row = (0.0..0.02_f64, 1_usize..300, 0_usize..3, proptest::bool::weighted(0.1), 0.001..0.2_f64, 0.01..0.5_f64);
    let row = (row, proptest::bool::weighted(0.3));
    proptest::collection::vec(row, 1..150).prop_map(|rows| {
        let mut arrives = 0.0;
        let made = |((pause, length, tenant, alone, objective, deadline), background)| {
            arrives += pause;
            Job { tenant: ["a", "b", "c"][tenant], alone, background, deadline, ..job(arrives, length, objective) }
        };
        rows.into_iter().map(made).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_job_is_answered_or_refused_at_its_deadline_and_no_executor_waits(
        jobs in traces(),
        executors in 1_usize..4,
        max_batch_size in 1_usize..20,
        max_batch_tokens in 50_usize..4_000,
        overhead in 0.0..0.01_f64,
        by_row in 0.000_1..0.01_f64,
        power in 0.7..1.6_f64,
    ) {
        let cost = |rows: usize, length: usize, _: f64| {
            overhead + by_row * (rows as f64).powf(power) * (0.2 + length as f64 / 100.0)
        };
        let mut machine = Machine { noise: 0.2, ..machine(executors, max_batch_size, &cost) };
        machine.bounds.max_batch_tokens = max_batch_tokens;
        let outcome = simulate(ADAPTIVE, &machine, &jobs, CostModel::default());
        let answered = outcome.latencies.iter().flatten().count();
        prop_assert_eq!(answered + outcome.refused, jobs.len(), "a job was lost");
        prop_assert!(outcome.idle_while_waiting == 0.0);
        for batch in &outcome.batches {
            let longest = batch.jobs.iter().map(|number| jobs[*number].length).max().unwrap();
            prop_assert!(batch.jobs.len() == 1 || longest * batch.jobs.len() <= max_batch_tokens);
            let in_background = batch.jobs.iter().filter(|number| jobs[**number].background).count();
            prop_assert!(in_background == 0 || in_background == batch.jobs.len(), "a job's batch has others in it");
            // Nobody is begun after its deadline, nor refused before it.
            for number in &batch.jobs {
                prop_assert!(batch.began <= jobs[*number].arrives + jobs[*number].deadline + 1e-6);
            }
        }
    }
}
