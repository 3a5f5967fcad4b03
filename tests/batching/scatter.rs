//! Costs that scatter as on a machine that is shared: near the capacity and beyond it, and what is late there.

use std::time::Duration;

use inferq::batch::cost::CostModel;
use inferq::settings::BatchingPolicy;

use crate::simulator::{Job, Machine, Outcome, machine, poisson, simulate};
use crate::tables::TOPIC;

const ADAPTIVE: BatchingPolicy = BatchingPolicy::Adaptive;
const FIFO: BatchingPolicy = BatchingPolicy::Fifo { max_tokens: 1_024 };
const STATIC: [BatchingPolicy; 3] =
    [FIFO, BatchingPolicy::Fifo { max_tokens: 512 }, BatchingPolicy::Delay { wait: Duration::ZERO, rows: 8 }];
/// Jobs of which nothing is measured.
const WARM_UP: usize = 500;
/// Most texts are cut off at what the model takes.
const TEXTS: &[usize] = &[12, 60, 80, 100, 120, 128, 128, 128, 128, 128, 128, 128];
const MIXED: &[usize] = &[12, 16, 20, 24, 30, 36, 44, 52, 64, 80, 110, 128];

fn alone(lengths: &[usize]) -> f64 {
    lengths.iter().map(|length| TOPIC.seconds(1, *length)).sum::<f64>() / lengths.len() as f64
}

fn objective(lengths: &[usize]) -> f64 {
    10.0 * alone(lengths)
}

/// Jobs at `load`, in multiples of what is done row by row, that nobody refuses.
fn jobs(seed: u64, lengths: &[usize], load: f64) -> Vec<Job> {
    poisson(seed, 4_000, load * 2.0 / alone(lengths), lengths, objective(lengths))
}

/// Two executors on which runs differ by 30% either way, and one in fifty takes three times as long; what batches cost was measured
/// when the model was loaded.
fn run(policy: BatchingPolicy, jobs: &[Job], lengths: &[usize]) -> Outcome {
    let cost = |rows: usize, length: usize, _: f64| TOPIC.seconds(rows, length);
    let mut machine = Machine { noise: 0.3, stalls: (0.02, 3.0), ..machine(2, 32, &cost) };
    machine.bounds.max_batch_tokens = 1_024;
    let sizes = [1, 2, 4, 8].into_iter().flat_map(|rows| lengths.iter().map(move |length| (rows, *length)));
    let measured = sizes.map(|(rows, length)| ((rows, length), Duration::from_secs_f64(cost(rows, length, 0.0))));
    simulate(policy, &machine, jobs, CostModel::measured(measured))
}

/// The share of the jobs that were answered within the objective.
fn in_time(outcome: &Outcome, objective: f64) -> f64 {
    let measured = outcome.latencies.get(WARM_UP..).unwrap();
    measured.iter().flatten().filter(|latency| **latency <= objective).count() as f64 / measured.len() as f64
}

#[test]
fn at_every_load_as_many_are_in_time_as_with_the_best_static_setting() {
    for (name, lengths) in [("texts", TEXTS), ("mixed", MIXED)] {
        for load in [0.5, 0.9, 1.1, 1.3, 1.5] {
            let jobs = jobs(101, lengths, load);
            let outcomes = STATIC.map(|policy| run(policy, &jobs, lengths));
            let best = outcomes.iter().map(|outcome| in_time(outcome, objective(lengths))).fold(0.0, f64::max);
            let median = outcomes.iter().map(|outcome| outcome.quantile(0.5, WARM_UP)).fold(f64::INFINITY, f64::min);
            let adaptive = run(ADAPTIVE, &jobs, lengths);
            let (ours, our_median) = (in_time(&adaptive, objective(lengths)), adaptive.quantile(0.5, WARM_UP));
            println!(
                "{name}, {load}: in time {ours:.3}, {best:.3} at best; median {our_median:.4} s, {median:.4} s at best"
            );
            assert!(ours >= 0.97 * best, "{name}, {load}: {ours} in time, {best} with the best static setting");
            assert!(median >= 0.97 * our_median, "{name}, {load}: median {our_median} s, {median} s at best");
        }
    }
}

/// Where batches do not pay, a turn of what was passed over is a row, and no full batch that would never be run.
#[test]
fn a_turn_of_those_that_were_passed_over_costs_what_it_runs() {
    let cost = |rows: usize, _: usize, _: f64| 0.002 * (rows as f64).powf(1.3);
    let sizes = [1, 2, 4, 8, 16, 32].map(|rows| ((rows, 1), Duration::from_secs_f64(cost(rows, 1, 0.0))));
    let jobs = poisson(103, 1_000, 1_000.0, &[1], 0.02);
    let outcome = simulate(ADAPTIVE, &machine(1, 32, &cost), &jobs, CostModel::measured(sizes));
    // From when the oldest has waited for three objectives until it has for eight.
    let there: Vec<_> = outcome.batches.iter().filter(|batch| (0.06..0.16).contains(&batch.began)).collect();
    let old = there.iter().filter(|batch| batch.began - jobs[batch.jobs[0]].arrives >= 0.04).count();
    let share = old as f64 / there.len() as f64;
    println!("{old} of {} batches", there.len());
    assert!((0.12..=0.5).contains(&share), "{share} of the batches were of rows that were passed over");
}

#[test]
fn nobody_is_passed_over_for_ever_for_those_that_can_be_in_time() {
    // More than can be done, for seconds, and no deadline that would end the wait of what is late.
    let jobs = jobs(102, TEXTS, 1.8);
    let (adaptive, fifo) = (run(ADAPTIVE, &jobs, TEXTS), run(FIFO, &jobs, TEXTS));
    let (worst, in_order) = (adaptive.quantile(1.0, 0), fifo.quantile(1.0, 0));
    let (ours, theirs) = (in_time(&adaptive, objective(TEXTS)), in_time(&fifo, objective(TEXTS)));
    println!("worst {worst} s, {in_order} s in the order of arrival; in time {ours} and {theirs}");
    assert!(worst <= 1.5 * in_order, "one waited for {worst} s, {in_order} s at most in the order of arrival");
    assert!(ours >= 0.4 && theirs < 0.1, "{ours} in time, {theirs} in the order of arrival");
}
