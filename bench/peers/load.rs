//! The two kinds of load: a closed window, and an open loop with Poisson arrivals.
//!
//! Latency counts from the moment at which a job should have been sent: a generator that comes late cannot hide it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use inferq::cli::bench::random::Random;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::plan::Post;
use super::road::Road;
use super::workers::Running;
use super::{Fault, Result};

/// Arrivals that may wait between the clock's thread and the tasks.
const ARRIVALS: usize = 4_096;

/// One job in so many may fail before nothing more is measured.
const MAX_FAILED_SHARE: usize = 100;

/// What one block came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) jobs_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_s_per_1000: f64,
    /// The share of answers that name the true topic: the same for all, or they do not do the same work.
    pub(crate) accuracy: f64,
    /// Jobs that got no answer.
    pub(crate) failed: usize,
}

/// Asks with `window` questions under way for as long as `length`, and waits for the last answer.
pub(crate) async fn closed(
    running: &Running,
    road: &Arc<Road>,
    posts: &Arc<Vec<Post>>,
    (window, length): (usize, Duration),
) -> Result<Block> {
    let (cpu, began) = (running.cpu_time(), Instant::now());
    let mut asking = JoinSet::new();
    for first in 0..window {
        let (road, posts) = (Arc::clone(road), Arc::clone(posts));
        asking.spawn(async move {
            let mut answers = Answers::default();
            for post in posts.iter().cycle().skip(first * posts.len() / window) {
                if began.elapsed() >= length {
                    break;
                }
                answers.ask(&road, post, Instant::now()).await;
            }
            answers
        });
    }
    finish(asking, running, cpu, began).await
}

/// Asks at `rate` questions a second for as long as `length`, whether answers come or not.
pub(crate) async fn open(
    running: &Running,
    road: &Arc<Road>,
    posts: &Arc<Vec<Post>>,
    arrivals: Vec<Duration>,
) -> Result<Block> {
    let (cpu, began) = (running.cpu_time(), Instant::now());
    let (sender, mut due) = mpsc::channel(ARRIVALS);
    // A thread of its own: tokio's timer rounds up to a millisecond.
    let clock = std::thread::spawn(move || {
        for (index, at) in arrivals.into_iter().enumerate() {
            let intended = began + at;
            std::thread::sleep(intended.saturating_duration_since(Instant::now()));
            if sender.blocking_send((index, intended)).is_err() {
                break;
            }
        }
    });
    let mut asking = JoinSet::new();
    while let Some((index, intended)) = due.recv().await {
        let (road, posts) = (Arc::clone(road), Arc::clone(posts));
        asking.spawn(async move {
            let mut answers = Answers::default();
            if let Some(post) = posts.get(index % posts.len()) {
                answers.ask(&road, post, intended).await;
            }
            answers
        });
    }
    clock.join().map_err(|_| "the clock's thread panicked")?;
    finish(asking, running, cpu, began).await
}

/// Moments with exponential pauses between them, `rate` a second, up to `length`; the same for the same `seed`.
pub(crate) fn poisson(seed: u64, rate: f64, length: Duration) -> Vec<Duration> {
    let mut random = Random::new(seed);
    let mut at = 0.0;
    let mut arrivals = Vec::new();
    loop {
        at += random.exponential(1.0 / rate);
        if at >= length.as_secs_f64() {
            return arrivals;
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
}

/// What one task of the generator saw.
#[derive(Debug, Default)]
struct Answers {
    latencies: Vec<Duration>,
    right: usize,
    failed: usize,
    fault: Option<Fault>,
}

impl Answers {
    async fn ask(&mut self, road: &Road, post: &Post, intended: Instant) {
        match road.ask(&post.text).await {
            Ok(label) => {
                self.latencies.push(intended.elapsed());
                self.right += usize::from(label == post.label);
            }
            Err(fault) => {
                self.failed += 1;
                self.fault = Some(fault);
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.right += other.right;
        self.failed += other.failed;
        self.fault = other.fault.or(self.fault.take());
    }
}

#[expect(clippy::cast_precision_loss, reason = "a block has some thousand jobs")]
async fn finish(mut asking: JoinSet<Answers>, running: &Running, cpu: Duration, began: Instant) -> Result<Block> {
    let mut all = Answers::default();
    while let Some(answers) = asking.join_next().await {
        all.add(answers?);
    }
    let (elapsed, cpu) = (began.elapsed(), running.cpu_time().saturating_sub(cpu));
    if let Some(fault) = all.fault.filter(|_| all.failed * MAX_FAILED_SHARE > all.latencies.len()) {
        let (name, failed, answered) = (running.worker.key(), all.failed, all.latencies.len());
        return Err(format!("{name}: {failed} jobs failed, {answered} were answered; one of them: {fault}").into());
    }
    all.latencies.sort_unstable();
    let count = all.latencies.len().max(1) as f64;
    Ok(Block {
        jobs_per_s: count / elapsed.as_secs_f64(),
        p50_ms: quantile_ms(&all.latencies, 0.5),
        p99_ms: quantile_ms(&all.latencies, 0.99),
        cpu_s_per_1000: cpu.as_secs_f64() * 1_000.0 / count,
        accuracy: all.right as f64 / count,
        failed: all.failed,
    })
}

/// The smallest latency that at least `share` of all do not exceed.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}
