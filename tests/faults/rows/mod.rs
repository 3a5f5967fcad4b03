//! The rows of the scorecard: what is done to the service, and the mark that it has to reach.
//!
//! A fault falls into a burst of jobs, at a place that the seed chooses. A job published right after the fault is its
//! probe: recovery is the time from the fault to the probe's reply, waiting in the queue included. Marks for speed are held
//! against the long form alone: in the short one, rows run side by side, on a machine that does other things as well.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::ledger::{Account, Kind};
use super::stand::Stand;
use super::worker::WorkerProcess;
use super::{Broker, Seeded};

pub mod broker;
pub mod cluster;
pub mod jobs;
pub mod network;
pub mod replies;
pub mod soak;
pub mod workers;

const POLL: Duration = Duration::from_millis(50);
/// How long the queues may take to run empty after the last answer.
const EMPTIED: Duration = Duration::from_secs(20);

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// Its number.
    pub number: u32,
    /// Its name as a test.
    pub name: &'static str,
    /// What is done.
    pub fault: &'static str,
    /// What has to hold.
    pub mark: &'static str,
    /// The broker that it needs.
    pub broker: Broker,
    /// Its share of the time.
    pub weight: u32,
}

const fn row(
    number: u32,
    name: &'static str,
    (fault, mark): (&'static str, &'static str),
    broker: Broker,
    weight: u32,
) -> Row {
    Row { number, name, fault, mark, broker, weight }
}

/// The rows, in the order in which they are begun: what takes longest comes first.
pub const ROWS: &[Row] = &[
    row(
        18,
        "soak",
        (
            "soak: all connections reset once a minute; envelopes live for a minute",
            "memory (2 %), threads and file descriptors flat from where the worker forgets as many jobs as it learns of; 0 lost",
        ),
        Broker::Shared,
        0,
    ),
    row(
        19,
        "cluster",
        ("three nodes: the leader of the job queue ended with `kill -9`; then a node cut off for 30 s", "0 lost"),
        Broker::Cluster,
        7,
    ),
    row(
        2,
        "broker_ends",
        (
            "the broker ended with SIGTERM and SIGKILL in turn, and brought back",
            "0 lost; recovery at most 15 s after the broker is ready",
        ),
        Broker::Own,
        8,
    ),
    row(
        9,
        "crashing_inputs",
        (
            "1 in 1,000 inputs makes the backend panic or ends the process",
            "a panic is told its producer; a job that ends processes is a dead letter within its limit; no other is; at \
             least 80 % of the throughput",
        ),
        Broker::Shared,
        6,
    ),
    row(
        15,
        "acknowledgement_timeout",
        ("a worker frozen past the broker's acknowledgement timeout", "channel rebuilt; 0 lost"),
        Broker::Own,
        3,
    ),
    row(
        7,
        "alarm",
        (
            "an alarm of the broker's memory, then of its disk",
            "0 lost; memory grows 10 % at most; acknowledgements go on; 0 delivered twice",
        ),
        Broker::Own,
        3,
    ),
    row(4, "black_hole", ("a black hole: nothing passes for 60 s", "noticed within 25 s; 0 lost"), Broker::Shared, 4),
    row(
        1,
        "worker_killed",
        ("`kill -9` of a worker", "0 lost; duplicates at most one prefetch a kill; no dead letter"),
        Broker::Shared,
        3,
    ),
    row(
        3,
        "connections_reset",
        ("TCP reset of all of a worker's connections", "0 lost; recovery p99 at most 2 s; prefetch as before"),
        Broker::Shared,
        5,
    ),
    row(
        11,
        "worker_terminated",
        ("SIGTERM of a worker under load", "exits with 0 within its grace; 0 lost; 0 duplicates"),
        Broker::Shared,
        4,
    ),
    row(12, "scaling", ("workers 1 -> 4 -> 1", "0 lost; 0 duplicates"), Broker::Shared, 5),
    row(
        5,
        "slow_network",
        ("200 ms latency; 64 KiB/s; writes of one byte", "0 lost; no connection given up"),
        Broker::Shared,
        6,
    ),
    row(
        17,
        "replay_killed",
        ("`inferq dead-letter replay` ended with `kill -9` on its way", "0 lost; duplicates at most one a kill"),
        Broker::Shared,
        4,
    ),
    row(
        6,
        "reply_queues_deleted",
        (
            "reply queues deleted while their jobs are under way",
            "every returned reply in the undeliverable queue, once; none misattributed",
        ),
        Broker::Shared,
        3,
    ),
    row(
        8,
        "full_reply_queue",
        (
            "a reply queue that is full",
            "its replies in the undeliverable queue after bounded retries; p99 of the others at most 1.2 times",
        ),
        Broker::Shared,
        3,
    ),
    row(
        10,
        "spoiled_jobs",
        (
            "1 % of the jobs changed on the way, sealed with a wrong key, or no envelope",
            "each a dead letter with a reason after one attempt; all others answered",
        ),
        Broker::Shared,
        2,
    ),
    row(
        13,
        "expired_jobs",
        ("10 % of the jobs past their deadline when a worker sees them", "none is run; every producer is told"),
        Broker::Shared,
        2,
    ),
    row(
        14,
        "job_queue_deleted",
        ("the job queue deleted", "made again; consuming within 10 s; not ready meanwhile"),
        Broker::Shared,
        2,
    ),
    row(
        16,
        "duplicate_publishes",
        ("5 % of the jobs published twice", "the same result each time; 0 lost"),
        Broker::Shared,
        2,
    ),
    row(
        20,
        "hanging_input",
        (
            "an input whose run never ends",
            "reported, not alive, ended with exit code 6; a dead letter within its limit; no other is",
        ),
        Broker::Shared,
        2,
    ),
];

/// Settings that a row's service differs in.
pub fn overrides(number: u32, short: bool) -> Vec<(&'static str, String)> {
    match (number, short) {
        // The pulse that notices a black hole; the long form has the one that the product has.
        (4, true) => vec![("broker.heartbeat_s", "2".to_owned())],
        (5 | 18, true) => vec![("broker.heartbeat_s", "4".to_owned())],
        (9, true) => vec![("broker.delivery_limit", "7".to_owned())],
        // What a worker remembers of its jobs reaches its full size within the row.
        (18, false) => vec![("limits.max_lifetime_s", "60".to_owned()), ("limits.clock_skew_s", "10".to_owned())],
        (15, _) => vec![("broker.heartbeat_s", "60".to_owned())],
        (19, _) => vec![("broker.heartbeat_s", "5".to_owned())],
        (20, _) => vec![
            ("broker.delivery_limit", "6".to_owned()),
            ("batching.max_run_ms", "1000".to_owned()),
            ("broker.publish_timeout_ms", "2000".to_owned()),
            ("worker.drain_grace_ms", "2000".to_owned()),
        ],
        _ => Vec::new(),
    }
}

/// Runs row `number`.
pub async fn run(number: u32, stand: &mut Stand) -> Outcome {
    match number {
        1 => workers::kill_a_worker(stand).await,
        2 => broker::end_the_broker(stand).await,
        3 => network::reset_connections(stand).await,
        4 => network::swallow_everything(stand).await,
        5 => network::slow_everything_down(stand).await,
        6 => replies::delete_reply_queues(stand).await,
        7 => broker::raise_alarms(stand).await,
        8 => replies::fill_a_reply_queue(stand).await,
        9 => jobs::crash_on_inputs(stand).await,
        10 => jobs::spoil_jobs(stand).await,
        11 => workers::terminate_under_load(stand).await,
        12 => workers::scale_up_and_down(stand).await,
        13 => jobs::let_jobs_expire(stand).await,
        14 => broker::delete_the_job_queue(stand).await,
        15 => broker::time_acknowledgements_out(stand).await,
        16 => jobs::publish_twice(stand).await,
        17 => jobs::kill_the_replay(stand).await,
        18 => soak::soak(stand).await,
        19 => cluster::lose_nodes(stand).await,
        20 => jobs::hang_on_an_input(stand).await,
        other => panic!("row {other} is listed and not written"),
    }
}

/// What a row came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every job.
    pub account: Account,
    /// Faults that were injected.
    pub faults: usize,
    /// From each fault to its probe's reply.
    pub recoveries: Vec<Duration>,
    /// What else was measured.
    pub measured: String,
    /// What missed the mark; empty when the row passes.
    pub missed: Vec<String>,
}

/// What a row's faults may leave behind beside replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing.
    Nothing,
    /// Replies that their queue does not take.
    Undeliverable,
}

impl Outcome {
    /// Holds `account` against what every row demands: each of `faults` has its probe's recovery.
    fn of(account: Account, recoveries: Vec<Duration>, faults: usize, leaves: Leaves) -> Self {
        let Account { lost, wrong, innocent_dead, badly_kept, undeliverable, left, .. } = &account;
        let mut outcome = Self { recoveries, faults, ..Self::default() };
        outcome.demand(lost.is_empty(), || format!("{} lost: {}", lost.len(), lost[..lost.len().min(5)].join(", ")));
        outcome.demand(*wrong == 0, || format!("{wrong} replies are wrong"));
        outcome.demand(*innocent_dead == 0, || format!("{innocent_dead} dead letters of innocent jobs"));
        outcome.demand(*badly_kept == 0, || format!("{badly_kept} jobs are no dead letter as they should be"));
        let kept = *undeliverable == 0 || leaves == Leaves::Undeliverable;
        outcome.demand(kept, || format!("{undeliverable} undeliverable replies"));
        outcome.demand(*left == 0, || format!("{left} jobs still in the queue"));
        let recovered = outcome.recoveries.len();
        // The reply to a probe may be among the undeliverable, where the fault took its queue's node away.
        let told = recovered == faults || leaves == Leaves::Undeliverable;
        outcome.demand(told, || format!("{recovered} of {faults} probes were answered in time"));
        Self { account, ..outcome }
    }

    /// Of a row that could not come to its end.
    pub fn broken_off() -> Self {
        Self { missed: vec!["it broke off, see its words above".to_owned()], ..Self::default() }
    }

    fn demand(&mut self, holds: bool, missed: impl FnOnce() -> String) {
        if !holds {
            self.missed.push(missed());
        }
    }

    fn demand_no_duplicates(&mut self) {
        let duplicates = self.account.duplicates;
        self.demand(duplicates == 0, || format!("{duplicates} duplicates"));
    }
}

/// Publishes this round's share of the row's jobs, and injects the fault when the seed's number of them is answered.
async fn burst(
    stand: &mut Stand,
    (round, rounds): (usize, usize),
    inject: impl AsyncFnOnce(&Stand) -> Instant,
) -> Instant {
    let jobs = stand.pace.jobs;
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
async fn finish(stand: &Stand, worker: WorkerProcess, recoveries: Vec<Duration>, faults: usize) -> Outcome {
    finish_leaving(stand, worker, (recoveries, faults), Leaves::Nothing).await
}

/// The same, where something may be left behind.
async fn finish_leaving(
    stand: &Stand,
    mut worker: WorkerProcess,
    (recoveries, faults): (Vec<Duration>, usize),
    leaves: Leaves,
) -> Outcome {
    stand.ledger.settle().await;
    // Copies of what is answered already: a worker that ended between a confirm and an acknowledgement left them.
    let emptied = async {
        while stand.ledger.jobs_left().await > 0 {
            sleep(POLL).await;
        }
    };
    let _either = timeout(EMPTIED, emptied).await;
    let ended = worker.terminate(stand.settings.worker.drain_grace).await;
    let mut outcome = Outcome::of(stand.ledger.account().await, recoveries, faults, leaves);
    outcome.demand(ended.is_some_and(|status| status.success()), || format!("the last worker ended with {ended:?}"));
    outcome
}

/// `jobs` kinds, `odd` of them from `kinds` in turn, at places that the seed chooses.
fn mixed(seeded: &mut Seeded, jobs: usize, odd: usize, kinds: &[Kind]) -> Vec<Kind> {
    let mut mixed = vec![Kind::Sound; jobs];
    let mut placed = 0;
    while placed < odd.min(jobs) {
        let place = &mut mixed[seeded.below(jobs)];
        if *place == Kind::Sound {
            *place = kinds[placed % kinds.len()];
            placed += 1;
        }
    }
    mixed
}
