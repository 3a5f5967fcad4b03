//! The rows of the scorecard: what is done to the service, and the mark that it has to reach.
//!
//! A fault falls into a burst of jobs, at a place that the seed chooses. A job published right after the fault is its
//! probe: recovery is the time from the fault to the probe's reply, waiting in the queue included.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::ledger::{Account, Kind};
use super::proxy::Proxy;
use super::report::percentile;
use super::stand::{Stand, WorkerProcess};

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// Its number.
    pub number: u32,
    /// What is done.
    pub fault: &'static str,
    /// What has to hold.
    pub mark: &'static str,
}

/// The rows, in the order in which they are run.
pub const ROWS: &[Row] = &[
    Row {
        number: 1,
        fault: "`kill -9` of a worker, 20 times",
        mark: "0 lost; duplicates at most 20 x prefetch; no dead letter",
    },
    Row {
        number: 3,
        fault: "TCP reset of all of a worker's connections, 100 times",
        mark: "0 lost; recovery p99 at most 2 s; prefetch as before",
    },
    Row {
        number: 11,
        fault: "SIGTERM of a worker under load, 50 times",
        mark: "exits with 0 within its grace; 0 lost; 0 duplicates",
    },
    Row {
        number: 2,
        fault: "the broker ended with SIGTERM, 2 times, and SIGKILL, 2 times, and brought back",
        mark: "0 lost; recovery at most 15 s after the broker is ready",
    },
    Row { number: 12, fault: "workers 1 -> 4 -> 1, 20 times", mark: "0 lost; 0 duplicates" },
    Row {
        number: 10,
        fault: "1 % of the jobs changed on the way, sealed with a wrong key, or no envelope",
        mark: "each a dead letter with a reason after one attempt; all others answered",
    },
    Row {
        number: 13,
        fault: "10 % of the jobs past their deadline when a worker sees them",
        mark: "none is run; every producer is told",
    },
];

/// What a row came to.
#[derive(Debug)]
pub struct Outcome {
    /// Every job.
    pub account: Account,
    /// From each fault to its probe's reply.
    pub recoveries: Vec<Duration>,
    /// What missed the mark; empty when the row passes.
    pub missed: Vec<String>,
}

impl Outcome {
    /// Holds `account` against what every row demands.
    fn of(account: Account, recoveries: Vec<Duration>, faults: usize) -> Self {
        let Account { lost, wrong, innocent_dead, badly_kept, undeliverable, left, .. } = &account;
        let mut outcome = Self { missed: Vec::new(), recoveries, account: Account::default() };
        outcome.demand(lost.is_empty(), || format!("lost: {}", lost.join(", ")));
        outcome.demand(*wrong == 0, || format!("{wrong} replies are wrong"));
        outcome.demand(*innocent_dead == 0, || format!("{innocent_dead} dead letters of innocent jobs"));
        outcome.demand(*badly_kept == 0, || format!("{badly_kept} spoiled jobs are no dead letter as they should be"));
        outcome.demand(*undeliverable == 0, || format!("{undeliverable} undeliverable replies"));
        outcome.demand(*left == 0, || format!("{left} jobs still in the queue"));
        let recovered = outcome.recoveries.len();
        outcome.demand(recovered == faults, || format!("{recovered} of {faults} probes were answered in time"));
        Self { account, ..outcome }
    }

    fn demand(&mut self, holds: bool, missed: impl FnOnce() -> String) {
        if !holds {
            self.missed.push(missed());
        }
    }
}

/// Kills the worker in each burst; the next is started at once.
pub async fn kill_a_worker(stand: &mut Stand, jobs: usize) -> Outcome {
    const FAULTS: usize = 20;
    let broker = stand.broker_address();
    let mut worker = stand.ready_worker(broker).await;
    let mut recoveries = Vec::new();
    for round in 0..FAULTS {
        let fault_at = burst(stand, jobs, (round, FAULTS), async |stand: &Stand| {
            let at = Instant::now();
            std::mem::replace(&mut worker, stand.start_worker(broker)).kill();
            at
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
    }
    let prefetch = usize::from(stand.settings.broker.prefetch);
    let mut outcome = finish(stand, worker, recoveries, FAULTS).await;
    let duplicates = outcome.account.duplicates;
    outcome.demand(duplicates <= FAULTS * prefetch, || format!("{duplicates} duplicates"));
    outcome
}

/// Resets both connections of the worker in each burst.
pub async fn reset_connections(stand: &mut Stand, jobs: usize) -> Outcome {
    const FAULTS: usize = 100;
    const P99: Duration = Duration::from_secs(2);
    let proxy = Proxy::start(stand.broker_address()).await;
    let worker = stand.ready_worker(proxy.address).await;
    let before = prefetches(stand).await;
    let mut recoveries = Vec::new();
    let mut broken = 0;
    for round in 0..FAULTS {
        let fault_at = burst(stand, jobs, (round, FAULTS), async |_: &Stand| {
            broken += proxy.reset_all();
            Instant::now()
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
    }
    let after = prefetches(stand).await;
    let mut outcome = finish(stand, worker, recoveries, FAULTS).await;
    let p99 = percentile(&outcome.recoveries, 99);
    outcome.demand(p99 <= P99, || format!("recovery p99 is {p99:?}"));
    outcome.demand(before == after && !before.is_empty(), || format!("prefetch was {before:?}, is {after:?}"));
    outcome.demand(broken >= 2 * FAULTS, || format!("only {broken} connections were reset"));
    outcome
}

/// Asks the worker to stop in each burst, and starts the next when it has ended.
pub async fn terminate_under_load(stand: &mut Stand, jobs: usize) -> Outcome {
    const FAULTS: usize = 50;
    let broker = stand.broker_address();
    let grace = stand.settings.worker.drain_grace;
    let mut worker = stand.ready_worker(broker).await;
    let mut recoveries = Vec::new();
    let mut endings = Vec::new();
    for round in 0..FAULTS {
        let fault_at = burst(stand, jobs, (round, FAULTS), async |stand: &Stand| {
            let at = Instant::now();
            let status = worker.terminate(grace).await;
            if status.is_none_or(|status| !status.success()) {
                endings.push(format!("stop {round}: {status:?}"));
            }
            worker = stand.start_worker(broker);
            at
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
    }
    let mut outcome = finish(stand, worker, recoveries, FAULTS).await;
    let duplicates = outcome.account.duplicates;
    outcome.demand(duplicates == 0, || format!("{duplicates} duplicates"));
    outcome.demand(endings.is_empty(), || format!("not ended in order within {grace:?}: {}", endings.join("; ")));
    outcome
}

/// Ends the broker in each burst, in order and as a crash would in turn, and brings it back.
pub async fn end_the_broker(stand: &mut Stand, jobs: usize) -> Outcome {
    const FAULTS: usize = 4;
    const MOST: Duration = Duration::from_secs(15);
    let worker = stand.ready_worker(stand.broker_address()).await;
    let mut recoveries = Vec::new();
    for round in 0..FAULTS {
        let back_at = burst(stand, jobs, (round, FAULTS), async |stand: &Stand| {
            let node = stand.vhost.node;
            if round % 2 == 0 {
                node.stop().await
            } else {
                node.kill().await
            }
            node.bring_back().await;
            Instant::now()
        });
        let back_at = back_at.await;
        recoveries.extend(probe(stand, back_at).await);
    }
    let mut outcome = finish(stand, worker, recoveries, FAULTS).await;
    let longest = percentile(&outcome.recoveries, 100);
    outcome.demand(longest <= MOST, || format!("the longest recovery is {longest:?}"));
    outcome
}

/// Starts three further workers in one burst, and stops them in the next.
pub async fn scale_up_and_down(stand: &mut Stand, jobs: usize) -> Outcome {
    const CYCLES: usize = 20;
    let broker = stand.broker_address();
    let grace = stand.settings.worker.drain_grace;
    let worker = stand.ready_worker(broker).await;
    let mut recoveries = Vec::new();
    let mut endings = Vec::new();
    for cycle in 0..CYCLES {
        let mut further = Vec::new();
        let up = burst(stand, jobs, (2 * cycle, 2 * CYCLES), async |stand: &Stand| {
            let at = Instant::now();
            further = join_all((0..3).map(|_| stand.ready_worker(broker))).await;
            at
        });
        let up = up.await;
        recoveries.extend(probe(stand, up).await);
        let down = burst(stand, jobs, (2 * cycle + 1, 2 * CYCLES), async |_: &Stand| {
            let at = Instant::now();
            endings.extend(join_all(further.iter_mut().map(|worker| worker.terminate(grace))).await);
            at
        });
        let down = down.await;
        recoveries.extend(probe(stand, down).await);
    }
    let mut outcome = finish(stand, worker, recoveries, 2 * CYCLES).await;
    let duplicates = outcome.account.duplicates;
    outcome.demand(duplicates == 0, || format!("{duplicates} duplicates"));
    let in_order = endings.iter().flatten().filter(|status| status.success()).count();
    outcome.demand(in_order == 3 * CYCLES, || format!("{in_order} of {} workers ended in order", 3 * CYCLES));
    outcome
}

/// Mixes jobs that no worker can open among the others.
pub async fn spoil_jobs(stand: &mut Stand, jobs: usize) -> Outcome {
    const SPOILED: [Kind; 3] = [Kind::Garbled, Kind::Foreign, Kind::Garbage];
    let kinds = mixed(stand, jobs, jobs.div_ceil(100), &SPOILED);
    let broker = stand.broker_address();
    let worker = stand.ready_worker(broker).await;
    stand.ledger.publish_all(kinds).await;
    finish(stand, worker, Vec::new(), 0).await
}

/// Mixes jobs among the others whose deadline is over.
pub async fn let_jobs_expire(stand: &mut Stand, jobs: usize) -> Outcome {
    let kinds = mixed(stand, jobs, jobs.div_ceil(10), &[Kind::Late]);
    let worker = stand.ready_worker(stand.broker_address()).await;
    stand.ledger.publish_all(kinds).await;
    finish(stand, worker, Vec::new(), 0).await
}

/// `jobs` kinds, `odd` of them from `kinds` in turn, at places that the seed chooses.
fn mixed(stand: &mut Stand, jobs: usize, odd: usize, kinds: &[Kind]) -> Vec<Kind> {
    let mut mixed = vec![Kind::Sound; jobs];
    let mut placed = 0;
    while placed < odd {
        let place = &mut mixed[stand.seeded.below(jobs)];
        if *place == Kind::Sound {
            *place = kinds[placed % kinds.len()];
            placed += 1;
        }
    }
    mixed
}

/// Publishes this round's share of `jobs`, and injects the fault when the seed's number of them is answered.
async fn burst(
    stand: &mut Stand,
    jobs: usize,
    (round, rounds): (usize, usize),
    inject: impl AsyncFnOnce(&Stand) -> Instant,
) -> Instant {
    // The probe is one of the round's jobs.
    let share = (jobs * (round + 1) / rounds - jobs * round / rounds).saturating_sub(1);
    let answered = stand.ledger.answered() + stand.seeded.below(share);
    let stand = &*stand;
    let fault = async {
        stand.ledger.until_answered(answered).await;
        inject(stand).await
    };
    let ((), fault_at) = tokio::join!(stand.ledger.publish_burst(share), fault);
    fault_at
}

/// The time from the fault to the reply of a job published after it; `None` when there is none.
async fn probe(stand: &Stand, fault_at: Instant) -> Option<Duration> {
    let id = stand.ledger.publish_confirmed(Kind::Sound).await?;
    let reply_at = stand.ledger.reply_to(&id).await?;
    Some(reply_at.saturating_duration_since(fault_at))
}

/// Waits for the last replies, ends the worker in order, and accounts for every job.
async fn finish(stand: &Stand, mut worker: WorkerProcess, recoveries: Vec<Duration>, faults: usize) -> Outcome {
    stand.ledger.settle().await;
    let ended = worker.terminate(stand.settings.worker.drain_grace).await;
    let mut outcome = Outcome::of(stand.ledger.account().await, recoveries, faults);
    outcome.demand(ended.is_some_and(|status| status.success()), || format!("the last worker ended with {ended:?}"));
    outcome
}

/// The prefetch of each consumer of a job queue.
async fn prefetches(stand: &Stand) -> Vec<String> {
    let arguments =
        ["list_consumers", "--no-table-headers", "--vhost", &stand.vhost.name, "queue_name", "prefetch_count"];
    let listed = stand.vhost.node.control(&arguments).await;
    let mut consumers: Vec<String> =
        listed.lines().filter(|line| line.starts_with("inferq.jobs.")).map(str::to_owned).collect();
    consumers.sort();
    consumers
}
