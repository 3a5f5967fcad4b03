//! A soak: jobs flow gently, connections break now and then, and what the process holds must not grow.
//!
//! A worker fills up before it is flat, and what fills it last is known: it remembers each job for as long as a copy of it could
//! still be taken (`envelope::replay`), six minutes by default. Envelopes of this row live for a minute, so that it forgets as many
//! as it learns of before the row's first third is over. From there on memory is measured, as medians of many looks: right after a
//! reset two sessions are there at once, which is some mebibytes more for some seconds.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Outcome, finish, probe};
use crate::ledger::Kind;
use crate::plan::Pace;
use crate::proxy::Proxy;
use crate::stand::Stand;
use crate::worker::metric;

/// Between two looks at what the process holds.
const LOOK: Duration = Duration::from_secs(1);
/// Between two jobs.
const BREATH: Duration = Duration::from_millis(20);

/// Resets all connections again and again while jobs flow gently, and watches what the process holds.
pub async fn soak(stand: &mut Stand) -> Outcome {
    let duration = stand.pace.left(Duration::from_secs(24));
    let between = stand.pace.pick(Duration::from_secs(4), Duration::from_secs(60));
    let proxy = Proxy::start(vec![stand.broker_address()]).await;
    let worker = stand.ready_worker(proxy.address).await;
    let began = Instant::now();
    let (mut looks, mut recoveries, mut done) = (Vec::new(), Vec::new(), 0);
    let (mut next_reset, mut next_look) = (began + between, began);
    while began.elapsed() < duration {
        if Instant::now() >= next_reset {
            proxy.reset_all();
            recoveries.extend(probe(stand, Instant::now()).await);
            next_reset += between;
            done += 1;
        }
        if Instant::now() >= next_look {
            looks.extend(Look::at(worker.health(), began.elapsed()).await);
            next_look += LOOK;
        }
        stand.ledger.publish_confirmed(Kind::Sound).await;
        sleep(BREATH).await;
    }
    let filled = filled_after(stand, duration);
    let mut outcome = finish(stand, worker, recoveries, done).await;
    judge(&mut outcome, &looks, filled, stand.pace);
    outcome
}

/// When the worker is full: it has forgotten its first jobs, and a third of the time is over, for buffers and allocator. The guard
/// forgets an eighth of an envelope's life at a time. The short form ends before, and measures from its third on.
fn filled_after(stand: &Stand, duration: Duration) -> Duration {
    let limits = &stand.settings.limits;
    let forgets = (limits.max_lifetime + limits.clock_skew) * 10 / 8;
    (duration / 3).max(stand.pace.pick(Duration::ZERO, forgets))
}

/// Holds what was seen from `filled` on against the mark.
fn judge(outcome: &mut Outcome, looks: &[Look], filled: Duration, pace: Pace) {
    let full: Vec<Look> = looks.iter().filter(|look| look.at >= filled).copied().collect();
    let third = full.len() / 3;
    if third == 0 {
        outcome.missed.push(format!("only {} looks at a worker that is full after {filled:?}", full.len()));
        return;
    }
    let (early, late) = (Look::median(&full[..third]), Look::median(&full[full.len() - third..]));
    let hours = (late.at - early.at).as_secs_f64() / 3_600.0;
    outcome.measured = format!(
        "{:.1} -> {:.1} MiB ({:+.0} MiB an hour), {} -> {} threads, {} -> {} files, from {} s to {} s",
        early.mebibytes,
        late.mebibytes,
        (late.mebibytes - early.mebibytes) / hours,
        early.threads,
        late.threads,
        early.files,
        late.files,
        early.at.as_secs(),
        late.at.as_secs(),
    );
    // The short form ends within seconds of a start, while buffers still fill.
    let share = pace.pick(0.2, 0.02);
    outcome.demand(late.is_flat_since(&early, share), || "memory, threads or files grew".to_owned());
}

/// What a worker process holds at a moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Since the row began.
    at: Duration,
    /// Resident.
    mebibytes: f64,
    threads: u64,
    files: u64,
}

impl Look {
    async fn at(health: SocketAddr, at: Duration) -> Option<Self> {
        Some(Self {
            at,
            mebibytes: metric(health, "inferq_process_resident_memory_bytes").await? as f64 / f64::from(1 << 20),
            threads: metric(health, "inferq_process_threads").await?,
            files: metric(health, "inferq_process_open_files").await?,
        })
    }

    /// The median of each.
    fn median(looks: &[Self]) -> Self {
        let middle = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            at: looks[looks.len() / 2].at,
            mebibytes: middle(looks.iter().map(|look| look.mebibytes).collect()),
            threads: middle(looks.iter().map(|look| look.threads as f64).collect()) as u64,
            files: middle(looks.iter().map(|look| look.files as f64).collect()) as u64,
        }
    }

    /// An allocator breathes; a thread or file may be on its way out.
    fn is_flat_since(&self, early: &Self, share: f64) -> bool {
        self.mebibytes <= early.mebibytes * (1.0 + share)
            && self.threads <= early.threads + 2
            && self.files <= early.files + 2
    }
}
