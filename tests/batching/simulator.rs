//! The policy on a virtual clock: jobs of a trace, executors that take as long as a cost table says, and what became of all.
//!
//! The policy and the pool are those of the program; only the clock and the executors are made up. The same trace and the same
//! seed give the same outcome, so that ratios between policies have no noise.

use std::time::Duration;

use inferq::batch::cost::CostModel;
use inferq::batch::policy::{BatchScope, Bounds, Decision, Moment, Policy};
use inferq::batch::pool::{Answer, Pool, Waiting};
use inferq::batch::row::Row;
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::BatchingPolicy;
use inferq::telemetry::labels::DispatchReason;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A job of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    /// Seconds from the beginning.
    pub(crate) arrives: f64,
    pub(crate) length: usize,
    pub(crate) tenant: &'static str,
    /// Delivered before.
    pub(crate) alone: bool,
    /// No job's own: it gives way to jobs.
    pub(crate) background: bool,
    /// Seconds from its arrival.
    pub(crate) objective: f64,
    /// Seconds from its arrival.
    pub(crate) deadline: f64,
    /// Seconds from its arrival until its owner goes away, where he does.
    pub(crate) cancelled: Option<f64>,
}

/// What runs batches.
pub(crate) struct Machine<'a> {
    pub(crate) executors: usize,
    pub(crate) bounds: Bounds,
    /// Seconds of a batch by rows and length, at a time.
    pub(crate) cost: &'a dyn Fn(usize, usize, f64) -> f64,
    /// What batches are filled up to.
    pub(crate) plan: &'a dyn Fn(usize, usize) -> (usize, usize),
    /// Whether a batch of that shape runs without being compiled first.
    pub(crate) is_warm: &'a dyn Fn(usize, usize) -> bool,
    /// Share by which costs scatter.
    pub(crate) noise: f64,
    /// Which share of the batches is held up, and how many times as long it takes.
    pub(crate) stalls: (f64, f64),
}

/// A machine without noise or plans.
pub(crate) fn machine<'a>(
    executors: usize,
    max_batch_size: usize,
    cost: &'a dyn Fn(usize, usize, f64) -> f64,
) -> Machine<'a> {
    let bounds = Bounds { max_batch_size, max_batch_tokens: usize::MAX, scope: BatchScope::Shared };
    Machine {
        executors,
        bounds,
        cost,
        plan: &|rows, length| (rows, length),
        is_warm: &|_, _| true,
        noise: 0.0,
        stalls: (0.0, 1.0),
    }
}

/// A batch that was run.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) began: f64,
    pub(crate) seconds: f64,
    pub(crate) expected: f64,
    pub(crate) jobs: Vec<usize>,
    pub(crate) reason: DispatchReason,
}

/// What became of a trace.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Seconds from arrival to answer, by job; `None` for those refused or cancelled.
    pub(crate) latencies: Vec<Option<f64>>,
    pub(crate) batches: Vec<Ran>,
    pub(crate) refused: usize,
    /// Seconds in which an executor was idle while a row waited.
    pub(crate) idle_while_waiting: f64,
    /// When the last batch ended.
    pub(crate) ended: f64,
}

impl Outcome {
    /// The `share` quantile of the latencies from the job `from` on; refused jobs are infinitely late.
    pub(crate) fn quantile(&self, share: f64, from: usize) -> f64 {
        let mut sorted: Vec<f64> = self.latencies[from..].iter().map(|l| l.unwrap_or(f64::INFINITY)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
    }

    /// The mean latency from the job `from` on.
    pub(crate) fn mean(&self, from: usize) -> f64 {
        let answered: Vec<f64> = self.latencies[from..].iter().flatten().copied().collect();
        answered.iter().sum::<f64>() / answered.len() as f64
    }

    /// The mean size of the batches from the one `from` on.
    pub(crate) fn mean_batch(&self, from: usize) -> f64 {
        let sizes = self.batches[from..].iter().map(|batch| batch.jobs.len() as f64);
        sizes.sum::<f64>() / self.batches[from..].len() as f64
    }
}

/// Numbers that look random and are the same each time (G. Steele and others, `SplitMix64`, OOPSLA 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From 0 to 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.uniform() * choices.len() as f64) as usize]
    }
}

/// Jobs that arrive at random, `per_second` of them, of one of `lengths`.
pub(crate) fn poisson(seed: u64, count: usize, per_second: f64, lengths: &[usize], objective: f64) -> Vec<Job> {
    let mut random = Random(seed);
    let mut arrives = 0.0;
    let job = |_| {
        arrives += random.exponential(1.0 / per_second);
        job(arrives, random.one_of(lengths), objective)
    };
    (0..count).map(job).collect()
}

pub(crate) fn job(arrives: f64, length: usize, objective: f64) -> Job {
    Job { arrives, length, tenant: "t", alone: false, background: false, objective, deadline: 3_600.0, cancelled: None }
}

/// What runs on an executor.
struct Running {
    ends: f64,
    batch: usize,
    shape: (usize, usize),
    was_warm: bool,
}

struct Run<'a> {
    machine: &'a Machine<'a>,
    jobs: &'a [Job],
    policy: Policy,
    pool: Pool,
    running: Vec<Running>,
    owners: Vec<Option<oneshot::Receiver<Answer>>>,
    to_cancel: Vec<usize>,
    random: Random,
    began: Instant,
    now: f64,
    ask_again: Option<f64>,
    outcome: Outcome,
}

/// Runs `jobs`, sorted by arrival, under `policy`, which begins with what `costs` knows.
pub(crate) fn simulate(policy: BatchingPolicy, machine: &Machine<'_>, jobs: &[Job], costs: CostModel) -> Outcome {
    simulate_and_learn(policy, machine, jobs, costs).0
}

/// The same, with what was learned.
pub(crate) fn simulate_and_learn(
    policy: BatchingPolicy,
    machine: &Machine<'_>,
    jobs: &[Job],
    costs: CostModel,
) -> (Outcome, CostModel) {
    let mut run = Run {
        machine,
        jobs,
        policy: Policy::new(policy, machine.bounds, machine.executors, costs),
        pool: Pool::default(),
        running: Vec::new(),
        owners: Vec::new(),
        to_cancel: (0..jobs.len()).filter(|number| jobs[*number].cancelled.is_some()).collect(),
        random: Random(0xc057),
        began: Instant::now(),
        now: 0.0,
        ask_again: None,
        outcome: Outcome { latencies: vec![None; jobs.len()], ..Outcome::default() },
    };
    run.run_out();
    (run.outcome, run.policy.costs().clone())
}

impl Run<'_> {
    fn run_out(&mut self) {
        loop {
            self.dispatch();
            let Some(next) = self.next_event() else { return };
            if !self.pool.is_empty() && self.running.len() < self.machine.executors {
                self.outcome.idle_while_waiting += next - self.now;
            }
            self.now = next;
            self.cancel();
            self.finish();
            while let Some(job) = self.jobs.get(self.owners.len()).filter(|job| job.arrives <= self.now) {
                self.arrive(job);
            }
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.began + Duration::from_secs_f64(seconds)
    }

    fn arrive(&mut self, job: &Job) {
        let number = self.owners.len() as i64;
        let (answer, owner) = oneshot::channel();
        let tensor = Tensor::new(vec![1], TensorData::Int64(vec![number])).unwrap();
        let deadline = self.at(job.arrives + job.deadline);
        self.pool.push(Waiting {
            row: Row { inputs: vec![tensor], length: job.length, may_be_padded: true },
            deadline,
            due: if job.background { deadline } else { deadline.min(self.at(job.arrives + job.objective)) },
            tenant: job.tenant.into(),
            alone: job.alone,
            background: job.background,
            arrived: self.at(job.arrives),
            slot: None,
            answer,
        });
        self.owners.push(Some(owner));
    }

    fn cancel(&mut self) {
        for number in &self.to_cancel {
            let job = &self.jobs[*number];
            if job.cancelled.is_some_and(|after| job.arrives + after <= self.now) && *number < self.owners.len() {
                self.owners[*number] = None;
            }
        }
    }

    fn next_event(&self) -> Option<f64> {
        let arrival = self.jobs.get(self.owners.len()).map(|job| job.arrives);
        let ends = self.running.iter().map(|running| running.ends);
        arrival.into_iter().chain(ends).chain(self.ask_again).min_by(f64::total_cmp).map(|at| at.max(self.now))
    }

    fn finish(&mut self) {
        let now = self.now;
        let (ended, running): (Vec<_>, Vec<_>) = self.running.drain(..).partition(|running| running.ends <= now);
        self.running = running;
        for Running { batch, shape, was_warm, .. } in ended {
            let ran = &self.outcome.batches[batch];
            if was_warm {
                self.policy.ran(shape, Duration::from_secs_f64(ran.seconds));
            }
            for job in &ran.jobs {
                if self.owners[*job].take().is_some() {
                    assert!(self.outcome.latencies[*job].is_none(), "job {job} was answered twice");
                    self.outcome.latencies[*job] = Some(now - self.jobs[*job].arrives);
                }
            }
            self.outcome.ended = now;
        }
    }

    fn dispatch(&mut self) {
        self.ask_again = None;
        let now = self.at(self.now);
        self.outcome.refused += self.pool.take_hopeless(now).len();
        while let Some(idle @ 1..) = self.machine.executors.checked_sub(self.running.len()) {
            let moment = Moment { pool: &self.pool, idle, plan: self.machine.plan, warm: self.machine.is_warm, now };
            let dispatch = match self.policy.decide(moment) {
                Decision::Run(dispatch) => dispatch,
                Decision::WaitUntil(moment) => {
                    self.ask_again = Some(moment.duration_since(self.began).as_secs_f64());
                    return;
                }
                Decision::Rest => return,
            };
            let rows = self.pool.take(&dispatch.positions);
            let (size, longest) = (rows.len(), rows.iter().map(|row| row.row.length).max().unwrap());
            assert!(size > 0 && size <= self.machine.bounds.max_batch_size);
            let scatter = 1.0 + self.machine.noise * (2.0 * self.random.uniform() - 1.0);
            let shape = (self.machine.plan)(size, longest);
            let (share, times) = self.machine.stalls;
            let stall = if share > 0.0 && self.random.uniform() < share { times } else { 1.0 };
            let seconds = (self.machine.cost)(shape.0, shape.1, self.now) * scatter * stall;
            let (was_warm, batch) = ((self.machine.is_warm)(size, longest), self.outcome.batches.len());
            self.outcome.batches.push(Ran {
                began: self.now,
                seconds,
                expected: dispatch.expected.as_secs_f64(),
                jobs: rows.iter().map(number).collect(),
                reason: dispatch.reason,
            });
            self.running.push(Running { ends: self.now + seconds, batch, shape, was_warm });
        }
    }
}

fn number(waiting: &Waiting) -> usize {
    match waiting.row.inputs[0].elements() {
        TensorData::Int64(elements) => elements[0] as usize,
        other => panic!("{other:?}"),
    }
}

/// A table of milliseconds a row by batch size and length, as recorded: between its points the cost of a row is interpolated, by
/// the logarithm of the size and by the length.
pub(crate) struct Recorded {
    pub(crate) sizes: &'static [f64],
    /// Length, and milliseconds a row for each size.
    pub(crate) rows: &'static [(f64, &'static [f64])],
}

impl Recorded {
    pub(crate) fn seconds(&self, rows: usize, length: usize) -> f64 {
        let size = rows as f64;
        let each = interpolate(self.rows, length as f64, |(length, row)| {
            (*length, interpolate(self.sizes, size.log2(), |known| (known.log2(), row[place(self.sizes, *known)])))
        });
        each * size / 1e3
    }
}

fn place(sizes: &[f64], size: f64) -> usize {
    sizes.iter().position(|known| *known == size).unwrap()
}

/// Straight lines between the points, and beyond the outer ones; never less than nothing.
fn interpolate<P>(points: &[P], at: f64, point: impl Fn(&P) -> (f64, f64)) -> f64 {
    let above = points.iter().position(|known| point(known).0 >= at).unwrap_or(points.len() - 1).max(1);
    if points.len() == 1 {
        return point(&points[0]).1;
    }
    let ((low, from), (high, to)) = (point(&points[above - 1]), point(&points[above]));
    (from + (to - from) * (at - low) / (high - low)).max(0.001)
}
