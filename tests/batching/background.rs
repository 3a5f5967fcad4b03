//! Rows that give way to jobs, as the runs of explanations do: what jobs notice of them, and when they have their turn.

use std::time::Duration;

use inferq::batch::cost::CostModel;
use inferq::batch::policy::{BatchScope, Bounds};
use inferq::settings::BatchingPolicy;

use crate::simulator::{Job, Machine, Outcome, job, machine, poisson, simulate};
use crate::tables::TOPIC;

const ADAPTIVE: BatchingPolicy = BatchingPolicy::Adaptive;
const ALL: [BatchingPolicy; 4] = [
    ADAPTIVE,
    BatchingPolicy::Single,
    BatchingPolicy::Fifo { max_tokens: 1_024 },
    BatchingPolicy::Delay { wait: Duration::ZERO, rows: 16 },
];

fn run(policy: BatchingPolicy, jobs: &[Job]) -> Outcome {
    let cost = |rows: usize, length: usize, _: f64| TOPIC.seconds(rows, length);
    simulate(policy, &machine(1, 32, &cost), jobs, CostModel::default())
}

/// `count` rows in the background that come at `arrives`.
fn explanation(arrives: f64, count: usize) -> Vec<Job> {
    (0..count).map(|_| Job { background: true, ..job(arrives, 64, 1.0) }).collect()
}

fn together(parts: impl IntoIterator<Item = Vec<Job>>) -> Vec<Job> {
    let mut jobs = parts.into_iter().flatten().collect::<Vec<_>>();
    jobs.sort_by(|a, b| a.arrives.total_cmp(&b.arrives));
    jobs
}

/// When each job was begun; `None` where it was not.
fn beginnings(jobs: &[Job], outcome: &Outcome) -> Vec<Option<f64>> {
    let mut began = vec![None; jobs.len()];
    for batch in &outcome.batches {
        batch.jobs.iter().for_each(|number| began[*number] = Some(batch.began));
    }
    began
}

#[test]
fn a_job_that_comes_waits_for_the_batch_that_runs_and_for_no_other() {
    for policy in ALL {
        // A job now and then, each long after the one before is answered, while more explanations wait than can be run.
        let seldom = (1..20).map(|number| job(f64::from(number) * 0.1, 64, 1.0)).collect();
        let jobs = together([explanation(0.0, 3_000), seldom]);
        let outcome = run(policy, &jobs);
        for (job, began) in jobs.iter().zip(beginnings(&jobs, &outcome)).filter(|(job, _)| !job.background) {
            let began = began.unwrap();
            let between =
                outcome.batches.iter().filter(|batch| batch.began > job.arrives && batch.began < began).count();
            assert_eq!(between, 0, "{policy:?}: the job of {} s began at {began} s", job.arrives);
        }
        assert!(outcome.idle_while_waiting == 0.0 && outcome.latencies.iter().all(Option::is_some), "{policy:?}");
    }
}

#[test]
fn the_batches_that_jobs_may_have_to_wait_for_are_no_larger_than_it_pays() {
    // Ten rows cost nearly ten times as much as one: a batch gains little by being larger.
    let cost = |rows: usize, _: usize, _: f64| 0.000_5 + 0.001 * rows as f64;
    let jobs = together([poisson(3, 4_000, 300.0, &[64], 1.0), explanation(0.5, 4_000)]);
    let outcome = simulate(ADAPTIVE, &machine(1, 32, &cost), &jobs, CostModel::default());
    let sizes = outcome.batches.iter().filter(|batch| jobs[batch.jobs[0]].background && batch.began > 1.0);
    let (count, most) = sizes.fold((0, 0), |(count, most), batch| (count + 1, most.max(batch.jobs.len())));
    assert!(count > 100 && most <= 8, "{count} batches, of up to {most} rows");
}

#[test]
fn under_lasting_load_a_sixteenth_of_the_time_is_theirs() {
    for policy in ALL {
        // Twice what can be done, for two seconds; nothing is ever refused.
        let each = TOPIC.seconds(if policy == BatchingPolicy::Single { 1 } else { 16 }, 64)
            / if policy == BatchingPolicy::Single { 1.0 } else { 16.0 };
        let flood = poisson(5, (4.0 / each) as usize, 2.0 / each, &[64], 1.0);
        let jobs = together([flood, explanation(0.2, 1_000)]);
        let outcome = run(policy, &jobs);
        let lasting = outcome.batches.iter().filter(|batch| (0.5..3.5).contains(&batch.began));
        let seconds = |background: bool| -> f64 {
            lasting.clone().filter(|batch| jobs[batch.jobs[0]].background == background).map(|b| b.seconds).sum()
        };
        let share = seconds(true) / (seconds(true) + seconds(false));
        assert!((0.05..=0.0625 + 0.003).contains(&share), "{policy:?}: {share}");
    }
}

#[test]
fn a_turn_is_paid_for_with_what_it_ran() {
    let flood = poisson(5, 3_000, 1_500.0, &[64], 1.0);
    let short = |count| (0..count).map(|_| Job { background: true, deadline: 100.0, ..job(0.2, 32, 1.0) });
    // One that is long and comes after all others, and a batch that failed, whose rows are run one by one.
    let long = Job { background: true, ..job(0.2, 512, 1.0) };
    let beside_a_long_one = short(1_000).chain([long]).collect();
    let one_by_one = short(1_000).map(|row| Job { alone: true, ..row }).collect();
    for (what, background) in [("beside a long one", beside_a_long_one), ("one by one", one_by_one)] {
        let jobs = together([flood.clone(), background]);
        let outcome = run(ADAPTIVE, &jobs);
        let seconds = |background: bool| -> f64 {
            let lasting = outcome.batches.iter().filter(|batch| (0.5..2.0).contains(&batch.began));
            lasting.filter(|batch| jobs[batch.jobs[0]].background == background).map(|batch| batch.seconds).sum()
        };
        let share = seconds(true) / (seconds(true) + seconds(false));
        println!("{what}: {share} of the time");
        assert!((0.05..=0.0625 + 0.003).contains(&share), "{what}: {share} of the time");
    }
}

#[test]
fn a_turn_that_waits_for_company_holds_no_job_up() {
    let policy = BatchingPolicy::Delay { wait: Duration::from_secs(10), rows: 8 };
    let jobs = together([explanation(0.0, 3), (0..800).map(|_| job(0.0, 64, 1.0)).collect()]);
    let outcome = run(policy, &jobs);
    for (job, latency) in jobs.iter().zip(&outcome.latencies) {
        let latency = latency.unwrap();
        assert!(if job.background { latency >= 10.0 } else { latency < 2.0 }, "{job:?}: {latency} s");
    }
}

#[test]
fn an_explanation_ends_though_the_load_does_not() {
    let flood = poisson(6, 4_000, 2_000.0, &[64], 1.0);
    let jobs = together([flood, explanation(0.2, 32)]);
    let outcome = run(ADAPTIVE, &jobs);
    let last = jobs.iter().zip(&outcome.latencies).filter(|(job, _)| job.background).map(|(_, l)| l.unwrap());
    let last = last.fold(0.0, f64::max);
    let end_of_load = jobs.last().unwrap().arrives;
    assert!(0.2 + last < end_of_load, "ended {last} s after it began, the load after {end_of_load} s");
}

#[test]
fn what_cannot_have_its_turn_in_time_is_refused_at_its_deadline() {
    let flood = poisson(7, 6_000, 2_000.0, &[64], 1.0);
    let mut explained = explanation(0.5, 1_000);
    explained.iter_mut().for_each(|row| row.deadline = 1.0);
    let jobs = together([flood, explained]);
    let outcome = run(ADAPTIVE, &jobs);
    let began = beginnings(&jobs, &outcome);
    let mut late = 0;
    for (job, began) in jobs.iter().zip(&began).filter(|(job, _)| job.background) {
        assert!(began.is_none_or(|began| began <= job.arrives + job.deadline), "begun at {began:?}");
        late += usize::from(began.is_none());
    }
    assert!(late > 0 && outcome.refused == late, "{late} of 1000 were late, {} refused", outcome.refused);
}

#[test]
fn what_is_given_up_is_not_run_and_leaves_the_others_alone() {
    let mut given_up = explanation(0.1, 500);
    given_up.iter_mut().for_each(|row| row.cancelled = Some(0.02));
    let jobs = together([poisson(8, 500, 100.0, &[64], 1.0), given_up, explanation(0.1, 50)]);
    let outcome = run(ADAPTIVE, &jobs);
    for ((job, latency), began) in jobs.iter().zip(&outcome.latencies).zip(beginnings(&jobs, &outcome)) {
        match job.cancelled {
            Some(after) => assert!(began.is_none_or(|began| began <= job.arrives + after), "begun at {began:?}"),
            None => assert!(latency.is_some()),
        }
    }
    let ran: usize = outcome.batches.iter().map(|batch| batch.jobs.len()).sum();
    assert_eq!(ran + outcome.refused, jobs.len());
    assert!(outcome.refused > 100, "{}", outcome.refused);
}

#[test]
fn explanations_count_for_the_tenant_that_asked() {
    // One tenant asks for explanations beside its jobs, the other for answers alone, both more than can be done.
    let of = |tenant, jobs: Vec<Job>| jobs.into_iter().map(move |job| Job { tenant, ..job }).collect::<Vec<_>>();
    let flood = |seed| poisson(seed, 4_000, 1_000.0, &[64], 1.0);
    let jobs = together([of("explains", flood(9)), of("explains", explanation(0.5, 2_000)), of("asks", flood(10))]);
    let cost = |rows: usize, length: usize, _: f64| TOPIC.seconds(rows, length);
    // In batches of its own, what a tenant gets is told by its turns alone.
    let apart = machine(1, 32, &cost);
    let bounds = Bounds { scope: BatchScope::Tenant, ..apart.bounds };
    let outcome = simulate(ADAPTIVE, &Machine { bounds, ..apart }, &jobs, CostModel::default());
    let mut seconds = [0.0, 0.0];
    for batch in outcome.batches.iter().filter(|batch| (0.6..3.6).contains(&batch.began)) {
        for number in &batch.jobs {
            seconds[usize::from(jobs[*number].tenant == "asks")] += batch.seconds / batch.jobs.len() as f64;
        }
    }
    let ratio = seconds[0] / seconds[1];
    assert!((0.95..1.05).contains(&ratio), "{seconds:?}");
}
