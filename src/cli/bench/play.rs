//! One block of one arm: a trace played in an open loop, or a window kept full.
//!
//! Latency counts from the moment at which a job should have been sent: a generator that comes late cannot hide it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cargo::Load;
use super::stand::Stand;
use super::trace::Arrival;
use crate::cli::failure::{Exit, Failure};
use crate::protocol::response::ResponseBody;

/// Longest wait for one reply.
const LIMIT: Duration = Duration::from_secs(120);
/// The longest latency that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600 * 1_000_000;
/// Arrivals that may wait between the clock's thread and the tasks.
const DUE: usize = 4_096;

/// What one block came to.
#[derive(Debug, Clone)]
pub(super) struct Played {
    /// Of the jobs that got a result.
    pub(super) latencies_us: Histogram<u64>,
    /// Jobs that got none, by what went wrong.
    pub(super) failed: BTreeMap<String, u64>,
    /// From the beginning to the last reply.
    pub(super) elapsed: Duration,
}

impl Played {
    pub(super) fn empty() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Self { latencies_us, failed: BTreeMap::new(), elapsed: Duration::ZERO }
    }

    /// Adds another block.
    pub(super) fn add(&mut self, other: &Self) {
        self.latencies_us.add(&other.latencies_us).expect("both have the same bounds");
        self.elapsed += other.elapsed;
        for (code, count) in &other.failed {
            *self.failed.entry(code.clone()).or_default() += count;
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.latencies_us.len()
    }

    /// Results a second.
    #[expect(clippy::cast_precision_loss, reason = "nobody measures 2^52 jobs")]
    pub(super) fn per_second(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The latency below which `share` of the results came, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is exact")]
    pub(super) fn latency_ms(&self, share: f64) -> f64 {
        self.latencies_us.value_at_quantile(share) as f64 / 1e3
    }

    /// The share of all jobs that got a result within `objective`.
    #[expect(clippy::cast_precision_loss, reason = "nobody measures 2^52 jobs")]
    pub(super) fn within(&self, objective: Duration) -> f64 {
        let limit = u64::try_from(objective.as_micros()).unwrap_or(LONGEST_US);
        let all = self.answered() + self.failed.values().sum::<u64>();
        self.latencies_us.count_between(0, limit) as f64 / (all as f64).max(1.0)
    }

    fn count(&mut self, one: &One) {
        match one {
            Ok(latency) => {
                self.latencies_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US))
            }
            Err(code) => *self.failed.entry(code.clone()).or_default() += 1,
        }
    }
}

/// How one job ended.
type One = Result<Duration, String>;

/// Sends every arrival at its moment, whether replies come or not, and waits for the last.
pub(super) async fn open(stand: &Arc<Stand>, cargo: &Arc<Vec<Load>>, trace: Vec<Arrival>) -> Result<Played, Failure> {
    let began = Instant::now();
    let (sender, mut due) = mpsc::channel(DUE);
    // A thread of its own: tokio's timer rounds up to a millisecond.
    let clock = thread::spawn(move || {
        for arrival in trace {
            let intended = began + arrival.at;
            wait_until(intended);
            if sender.blocking_send((arrival.job, intended)).is_err() {
                break;
            }
        }
    });
    let mut played = Played::empty();
    let mut asking = JoinSet::new();
    while let Some((job, intended)) = due.recv().await {
        asking.spawn(ask(Arc::clone(stand), Arc::clone(cargo), job, intended));
        while let Some(one) = asking.try_join_next() {
            played.count(&one.map_err(|error| broken(&error))?);
        }
    }
    while let Some(one) = asking.join_next().await {
        played.count(&one.map_err(|error| broken(&error))?);
    }
    played.elapsed = began.elapsed();
    clock.join().map_err(|_| broken(&"its clock panicked"))?;
    Ok(played)
}

/// Keeps `window` jobs under way for as long as `length`, and waits for the last reply.
pub(super) async fn closed(
    stand: &Arc<Stand>,
    cargo: &Arc<Vec<Load>>,
    (window, length): (usize, Duration),
) -> Result<Played, Failure> {
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for lane in 0..window {
        let (stand, cargo) = (Arc::clone(stand), Arc::clone(cargo));
        asking.spawn(async move {
            let mut ended = Vec::new();
            for job in (lane..).step_by(window) {
                if began.elapsed() >= length {
                    break;
                }
                ended.push(ask(Arc::clone(&stand), Arc::clone(&cargo), job, Instant::now()).await);
            }
            ended
        });
    }
    let mut played = Played::empty();
    while let Some(lane) = asking.join_next().await {
        lane.map_err(|error| broken(&error))?.iter().for_each(|one| played.count(one));
    }
    played.elapsed = began.elapsed();
    Ok(played)
}

async fn ask(stand: Arc<Stand>, cargo: Arc<Vec<Load>>, job: usize, intended: Instant) -> One {
    let Some(load) = cargo.get(job % cargo.len().max(1)) else { return Err("no_job".to_owned()) };
    match stand.ask(&load.job, load.tenant, LIMIT).await {
        Ok(ResponseBody::Result(_)) => Ok(intended.elapsed()),
        Ok(ResponseBody::Error(error)) => Err(error.code),
        Err(error) => Err(error.kind().to_owned()),
    }
}

/// Parks the thread until `moment`; waking early is no harm.
fn wait_until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("the generator failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(latencies_ms: &[u64], failed: u64) -> Played {
        let mut played = Played { elapsed: Duration::from_secs(2), ..Played::empty() };
        latencies_ms.iter().for_each(|ms| played.count(&Ok(Duration::from_millis(*ms))));
        (0..failed).for_each(|_| played.count(&Err("TIMED_OUT".to_owned())));
        played
    }

    #[test]
    fn a_block_is_counted() {
        let played = played(&[1, 2, 3, 100], 1);
        assert!((played.per_second() - 2.0).abs() < 1e-9);
        assert!((played.latency_ms(0.5) - 2.0).abs() < 0.01);
        // Three of five, since a job that failed came in no time at all.
        assert!((played.within(Duration::from_millis(50)) - 0.6).abs() < 1e-9);
    }

    #[test]
    fn blocks_add_up() {
        let mut all = played(&[1, 2], 1);
        all.add(&played(&[4, 8], 2));
        assert_eq!((all.answered(), all.failed.get("TIMED_OUT")), (4, Some(&3)));
        assert!((all.per_second() - 1.0).abs() < 1e-9);
    }
}
