//! What is promised: as good as the best static setting, without tuning, whatever the load, the lengths and the model.

use std::time::Duration;

use inferq::batch::cost::CostModel;
use inferq::settings::BatchingPolicy;

use crate::simulator::{Machine, Recorded, machine, poisson, simulate};
use crate::tables::{MAGIKA, MLP, OPENNSFW, PPOCR, TOPIC};

const ADAPTIVE: BatchingPolicy = BatchingPolicy::Adaptive;
const EXECUTORS: usize = 2;
/// Jobs of which nothing is measured: what a worker learns in its first second.
const WARM_UP: usize = 500;

/// A model with the lengths of its rows.
struct Subject {
    name: &'static str,
    table: &'static Recorded,
    lengths: &'static [usize],
}

const SUBJECTS: &[Subject] = &[
    Subject { name: "topic, 128 tokens", table: &TOPIC, lengths: &[128] },
    Subject { name: "topic, mixed lengths", table: &TOPIC, lengths: &[16, 24, 40, 64, 128, 128] },
    Subject { name: "magika", table: &MAGIKA, lengths: &[1] },
    Subject { name: "opennsfw", table: &OPENNSFW, lengths: &[1] },
    Subject { name: "ppocr", table: &PPOCR, lengths: &[1] },
    Subject { name: "dense layers", table: &MLP, lengths: &[1] },
];

impl Subject {
    /// The mean time of a row by itself.
    fn alone(&self) -> f64 {
        self.lengths.iter().map(|length| self.table.seconds(1, *length)).sum::<f64>() / self.lengths.len() as f64
    }

    /// Rows in a second, one by one.
    fn capacity_alone(&self) -> f64 {
        EXECUTORS as f64 / self.alone()
    }

    /// Whether `policy` answers 99 of 100 jobs within the objective at `load`, in multiples of what is done one by one.
    fn holds(&self, policy: BatchingPolicy, load: f64) -> bool {
        let objective = 10.0 * self.alone();
        let cost = |rows: usize, length: usize, _: f64| self.table.seconds(rows, length);
        let machine = Machine { noise: 0.1, ..machine(EXECUTORS, 32, &cost) };
        let mut jobs = poisson(7, 3_000, self.capacity_alone() * load, self.lengths, objective);
        // What is that late is lost anyhow; so the search stays short beyond the capacity.
        jobs.iter_mut().for_each(|job| job.deadline = 3.0 * objective);
        let outcome = simulate(policy, &machine, &jobs, CostModel::default());
        outcome.quantile(0.99, WARM_UP) <= objective
    }

    /// The highest load that `policy` holds, to within one step of a hundredth.
    fn capacity(&self, policy: BatchingPolicy) -> f64 {
        let (mut low, mut high) = (30, 400);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.holds(policy, f64::from(middle) / 100.0) {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::from(low) / 100.0
    }
}

/// Every setting that does not learn, within reason.
fn static_settings() -> Vec<BatchingPolicy> {
    let greedy = [4, 8, 16, 32].map(|rows| BatchingPolicy::Delay { wait: Duration::ZERO, rows });
    let fifo = [512, 1_024].map(|max_tokens| BatchingPolicy::Fifo { max_tokens });
    let delay = BatchingPolicy::Delay { wait: Duration::from_millis(1), rows: 8 };
    std::iter::once(BatchingPolicy::Single).chain(greedy).chain(fifo).chain([delay]).collect()
}

#[test]
fn the_capacity_within_the_objective_is_that_of_the_best_static_setting() {
    for subject in SUBJECTS {
        let adaptive = subject.capacity(ADAPTIVE);
        // The best static setting holds no more than adaptive by more than 3%: no need to find out what exactly each holds.
        for setting in static_settings() {
            assert!(
                !subject.holds(setting, adaptive / 0.97 + 0.01),
                "{}: {setting:?} holds more than {adaptive}/0.97 times the capacity one by one",
                subject.name
            );
        }
        println!("{}: {adaptive:.2} times the capacity one by one", subject.name);
    }
}

#[test]
fn at_a_tenth_of_the_load_nobody_waits_longer_than_without_batches() {
    for subject in SUBJECTS {
        let cost = |rows: usize, length: usize, _: f64| subject.table.seconds(rows, length);
        let machine = Machine { noise: 0.1, ..machine(EXECUTORS, 32, &cost) };
        let jobs = poisson(3, 4_000, 0.1 * subject.capacity_alone(), subject.lengths, 10.0 * subject.alone());
        let median = |policy| simulate(policy, &machine, &jobs, CostModel::default()).quantile(0.5, WARM_UP);
        let (adaptive, single) = (median(ADAPTIVE), median(BatchingPolicy::Single));
        assert!(adaptive <= 1.02 * single, "{}: {adaptive} s, {single} s one by one", subject.name);
    }
}

#[test]
fn no_executor_is_idle_while_a_row_waits() {
    for subject in SUBJECTS {
        for load in [0.3, 0.9, 1.5] {
            let cost = |rows: usize, length: usize, _: f64| subject.table.seconds(rows, length);
            let machine = machine(EXECUTORS, 32, &cost);
            let mut jobs = poisson(5, 1_500, load * subject.capacity_alone(), subject.lengths, 10.0 * subject.alone());
            jobs.iter_mut().for_each(|job| job.deadline = 30.0 * subject.alone());
            let outcome = simulate(ADAPTIVE, &machine, &jobs, CostModel::default());
            assert!(outcome.idle_while_waiting == 0.0, "{}, {load}: {}", subject.name, outcome.idle_while_waiting);
        }
    }
}

/// Rows that a clairvoyant could answer within the objective, in a second: a batch of `b` rows, all in time, holds only rows that
/// arrived in the last `objective - T(b)` seconds before it began, of which there are `arrivals` a second. (That they must
/// also be free of all other batches is not asked: so no schedule does better, and none may do as well.)
fn clairvoyant(cost: impl Fn(usize) -> f64, arrivals: f64, objective: f64, max_batch_size: usize) -> f64 {
    let rate = |rows: usize| {
        let seconds = cost(rows);
        let in_time = arrivals * (objective - seconds);
        if in_time >= rows as f64 { rows as f64 / seconds } else { 0.0 }
    };
    (1..=max_batch_size).map(rate).fold(0.0, f64::max) * EXECUTORS as f64
}

#[test]
fn at_twice_what_can_be_done_as_many_are_in_time_as_a_clairvoyant_could_answer() {
    for (subject, max_batch_size) in SUBJECTS.iter().filter(|s| s.lengths.len() == 1).zip([8, 8, 8, 8, 16]) {
        let (length, objective) = (subject.lengths[0], 10.0 * subject.alone());
        let cost = |rows: usize, length: usize, _: f64| subject.table.seconds(rows, length);
        let machine = Machine { noise: 0.02, ..machine(EXECUTORS, max_batch_size, &cost) };
        let each = (1..=max_batch_size).map(|rows| subject.table.seconds(rows, length) / rows as f64);
        let arrivals = 2.0 * EXECUTORS as f64 / each.fold(f64::INFINITY, f64::min);
        let mut jobs = poisson(9, 6_000, arrivals, &[length], objective);
        jobs.iter_mut().for_each(|job| job.deadline = 2.0 * objective);
        let outcome = simulate(ADAPTIVE, &machine, &jobs, CostModel::default());
        let in_time = outcome.latencies[WARM_UP..].iter().flatten().filter(|latency| **latency <= objective).count();
        let goodput = in_time as f64 / (jobs[jobs.len() - 1].arrives - jobs[WARM_UP].arrives);
        let best = clairvoyant(|rows| subject.table.seconds(rows, length), arrivals, objective, max_batch_size);
        println!("{}: {:.3} of a clairvoyant's", subject.name, goodput / best);
        assert!(goodput >= 0.95 * best, "{}: {goodput} in time a second, {best} at best", subject.name);
    }
}

/// The bounds of Y. Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching", arXiv 1912.06322, for the
/// mean latency where whatever waits is run at once: cost `a b + c`, Poisson arrivals at `rate`, one executor.
fn inoue(a: f64, c: f64, rate: f64) -> f64 {
    let load = rate * a;
    let f0 = (a + c) / (2.0 * (1.0 - load)) * (1.0 + 2.0 * rate * c + (1.0 - rate * c) / (1.0 + load));
    let f1 = 1.5 * c / (1.0 - load) + a / 2.0 * (load + 2.0) / (1.0 - load * load);
    f0.min(f1)
}

#[test]
fn the_mean_latency_is_within_the_bound_for_affine_costs() {
    let (a, c) = (0.001, 0.003);
    let cost = |rows: usize, _: usize, _: f64| a * rows as f64 + c;
    let machine = machine(1, 1_024, &cost);
    for load in [0.1, 0.3, 0.5, 0.7] {
        let jobs = poisson(21, 6_000, load / a, &[1], 10.0);
        let mean = simulate(ADAPTIVE, &machine, &jobs, CostModel::default()).mean(WARM_UP);
        let bound = inoue(a, c, load / a);
        assert!(mean <= 1.03 * bound, "load {load}: {mean} s, at most {bound} s");
    }
}
