//! inferq beside what a user would pick instead: the same model, texts, broker and generator, in one run.
//!
//! `plan` says what is measured, `workers` starts the processes, `road` carries a question to one of them and the answer
//! back, `load` asks, `report` prints. Run by `make bench-peers`, which starts the broker; `docs/benchmarks.md` says how it
//! is measured and why so.

#![allow(clippy::disallowed_methods, reason = "a bench is told what to do by variables, and its clock is a thread")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use inferq::envelope::{Grant, ProducerKeys, generate};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

mod http;
mod load;
mod plain;
mod plan;
mod report;
mod road;
mod workers;

use http::HttpRoad;
use load::Block;
use plain::PlainRoad;
use plan::{LOADS, PROCESSES, Plan, Post, WINDOW, Worker};
use report::{Measured, median};
use road::Road;
use workers::{Memory, Running};

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Fault>;

const TENANT: &str = "bench";
/// Looks at whether a worker is ready, and the pause between two: a minute in all.
const LOOKS: usize = 600;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// One round of one worker.
#[derive(Debug)]
struct Round {
    alone: Block,
    window: Block,
    loads: Vec<Block>,
    memory: Memory,
}

impl Round {
    /// Jobs that got no answer.
    fn failed(&self) -> usize {
        self.alone.failed + self.window.failed + self.loads.iter().map(|block| block.failed).sum::<usize>()
    }
}

/// A worker that is ready, and what has been measured of it.
struct Stand {
    running: Running,
    road: Arc<Road>,
    /// Jobs a second with the window full, one figure a round.
    capacities: Vec<f64>,
    rounds: Vec<Round>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let plan = Plan::of_environment()?;
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys)?;
    generate(&keys, TENANT, &Grant::new(TENANT, vec!["topic".to_owned()]))?;
    let logs = plan.json.with_extension("logs");
    std::fs::create_dir_all(&logs)?;
    let posts = Arc::new(plan.posts.clone());
    let steps = plan.workers.len() * (2 + plan.rounds * (2 + LOADS.len()));
    let progress = progress_bar(steps)?;
    let (measured, broken) = measure(&plan, &keys, &logs, &posts, &progress).await;
    progress.finish_and_clear();
    report::report(&plan, &measured, &broken)?;
    match broken.first() {
        None => Ok(()),
        Some(Broken { worker, reason }) => {
            let (worker, others) = (worker.key(), broken.len() - 1);
            Err(format!("{worker}: {reason}; {others} others failed; logs are in {}", logs.display()).into())
        }
    }
}

/// Measures all workers. One that fails is left out from then on: the others have cost minutes, and it is told at the end.
async fn measure(
    plan: &Plan,
    keys: &Path,
    logs: &Path,
    posts: &Arc<Vec<Post>>,
    progress: &ProgressBar,
) -> (Vec<Measured>, Vec<Broken>) {
    let (mut stands, mut broken) = (Vec::new(), Vec::new());
    for worker in plan.workers.iter().copied() {
        progress.set_message(format!("starting {}", worker.key()));
        match Stand::start(worker, plan, keys, logs).await {
            Ok(stand) => stands.push(stand),
            Err(error) => broken.push(Broken::tell(worker, &error, progress)),
        }
        progress.inc(1);
    }
    // The first time warms up, and says what the loads are shares of until there is a better figure.
    for round in std::iter::once(None).chain((0..plan.rounds).map(Some)) {
        for mut stand in std::mem::take(&mut stands) {
            let went = match round {
                None => stand.warm_up(plan, posts, progress).await,
                Some(round) => stand.round(plan, posts, round, progress).await,
            };
            match went {
                Ok(()) => stands.push(stand),
                Err(error) => broken.push(Broken::tell(stand.running.worker, &error, progress)),
            }
        }
    }
    let mut measured = Vec::new();
    for stand in stands {
        let processes = stand.running.count();
        let worker = stand.running.worker;
        if let Some(road) = Arc::into_inner(stand.road) {
            road.close().await;
        }
        measured.push(Measured { worker, processes, rounds: stand.rounds });
    }
    (measured, broken)
}

/// A worker that could not be measured.
struct Broken {
    worker: Worker,
    reason: String,
}

impl Broken {
    fn tell(worker: Worker, error: &Fault, progress: &ProgressBar) -> Self {
        let reason = error.to_string();
        progress.suspend(|| eprintln!("{:<9} FAILED, and is not measured: {reason}", worker.key()));
        Self { worker, reason }
    }
}

impl Stand {
    async fn start(worker: Worker, plan: &Plan, keys: &Path, logs: &Path) -> Result<Self> {
        let mut running = Running::start(worker, plan, keys, logs)?;
        let road = match worker {
            Worker::Inferq => {
                wait_for_consumers(&mut running, plan, "inferq.jobs.topic", plan.inferq_processes).await?;
                Road::to_inferq(ProducerKeys::load(keys, TENANT)?).await?
            }
            Worker::Celery => {
                wait_for_consumers(&mut running, plan, "peers.celery", 1).await?;
                Road::Plain(Box::new(PlainRoad::connect(&plan.url, worker).await?))
            }
            Worker::AioPika => {
                wait_for_consumers(&mut running, plan, "peers.aio_pika", PROCESSES).await?;
                Road::Plain(Box::new(PlainRoad::connect(&plan.url, worker).await?))
            }
            Worker::Mosec => Road::Http(wait_for_answer(&mut running).await?),
        };
        Ok(Self { running, road: Arc::new(road), capacities: Vec::new(), rounds: Vec::new() })
    }

    fn say(&self, progress: &ProgressBar, what: &str) {
        progress.set_message(format!("{}: {what}", self.running.worker.key()));
    }

    async fn warm_up(&mut self, plan: &Plan, posts: &Arc<Vec<Post>>, progress: &ProgressBar) -> Result<()> {
        self.say(progress, "warming up");
        let block = load::closed(&self.running, &self.road, posts, (WINDOW, plan.block)).await?;
        self.capacities.push(block.jobs_per_s);
        progress.inc(1);
        Ok(())
    }

    async fn round(&mut self, plan: &Plan, posts: &Arc<Vec<Post>>, round: usize, progress: &ProgressBar) -> Result<()> {
        self.running.check()?;
        let (running, road) = (&self.running, &self.road);
        self.say(progress, "window full");
        let window = load::closed(running, road, posts, (WINDOW, plan.block)).await?;
        let memory = running.memory();
        progress.inc(1);
        self.say(progress, "one at a time");
        let alone = load::closed(running, road, posts, (1, plan.block / 2)).await?;
        progress.inc(1);
        self.capacities.push(window.jobs_per_s);
        let capacity = median(self.capacities.iter().copied());
        let mut loads = Vec::with_capacity(LOADS.len());
        for (index, share) in LOADS.into_iter().enumerate() {
            self.say(progress, &format!("{:.0}% load", share * 100.0));
            let seed = plan.seed.wrapping_add((round * LOADS.len() + index) as u64);
            let arrivals = load::poisson(seed, capacity * share, plan.block);
            loads.push(load::open(running, road, posts, arrivals).await?);
            progress.inc(1);
        }
        let name = running.worker.key();
        progress.suspend(|| {
            let (rate, p50, p99) = (window.jobs_per_s, alone.p50_ms, window.p99_ms);
            eprintln!("{name:<9} {rate:>6.0} jobs/s, p50 alone {p50:.1} ms, p99 window {p99:.0} ms");
        });
        self.rounds.push(Round { alone, window, loads, memory });
        Ok(())
    }
}

/// Waits until `count` consumers read `queue`.
async fn wait_for_consumers(running: &mut Running, plan: &Plan, queue: &str, count: usize) -> Result<()> {
    let connection = Connection::connect(&plan.url, ConnectionProperties::default()).await?;
    for _ in 0..LOOKS {
        // Asking for a queue that is not there closes the channel.
        let probe = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = probe.queue_declare(queue.into(), options, FieldTable::default()).await;
        if found.is_ok_and(|found| found.consumer_count() as usize >= count) {
            connection.close(200, "done".into()).await?;
            return Ok(());
        }
        running.check()?;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(format!("{count} consumers of queue `{queue}` did not come").into())
}

/// Waits until the HTTP server answers.
async fn wait_for_answer(running: &mut Running) -> Result<HttpRoad> {
    let road = HttpRoad::new(running.port.ok_or("an HTTP server without a port")?);
    for _ in 0..LOOKS {
        if road.ask("the goalie stopped every shot").await.is_ok() {
            return Ok(road);
        }
        running.check()?;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err("the HTTP server did not answer".into())
}

fn progress_bar(steps: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} blocks  {elapsed} (about {eta} left)  {msg}")?;
    Ok(ProgressBar::new(steps as u64).with_style(style))
}
