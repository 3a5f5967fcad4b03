//! What a broker does to a worker: it ends, raises alarms, loses a queue, and runs out of patience.

use std::time::Duration;

use inferq::broker::topology::Names;
use tokio::time::{Instant, sleep, timeout};

use super::network::until_not_ready;
use super::{Outcome, burst, finish, probe};
use crate::ledger::PATIENCE;
use crate::report::percentile;
use crate::stand::{MODEL, Stand};
use crate::worker::metric;

const MEMORY: &str = "inferq_process_resident_memory_bytes";
const REDELIVERED: &str = "inferq_jobs_redelivered_total";
const RECONNECTS: &str = "inferq_broker_reconnects_total";
const POLL: Duration = Duration::from_millis(100);

/// Ends the broker in each burst, in order and as a crash would in turn, and brings it back.
pub async fn end_the_broker(stand: &mut Stand) -> Outcome {
    const MOST: Duration = Duration::from_secs(15);
    let faults = stand.pace.pick(2, 20);
    let worker = stand.ready_worker(stand.broker_address()).await;
    let mut recoveries = Vec::new();
    let mut done = 0;
    while done < faults && !stand.pace.is_over() {
        let back_at = burst(stand, (done, faults), async |stand: &Stand| {
            let node = stand.vhost.node;
            if done % 2 == 0 {
                node.stop().await;
            } else {
                node.kill().await;
            }
            node.bring_back().await;
            Instant::now()
        });
        let back_at = back_at.await;
        recoveries.extend(probe(stand, back_at).await);
        done += 1;
    }
    let mut outcome = finish(stand, worker, recoveries, done).await;
    let longest = percentile(&outcome.recoveries, 100);
    outcome.demand(stand.pace.short || longest <= MOST, || format!("the longest recovery is {longest:?}"));
    outcome
}

/// Raises an alarm of the memory, then of the disk, while jobs wait to be answered.
pub async fn raise_alarms(stand: &mut Stand) -> Outcome {
    let mut misses = Vec::new();
    let mut measured = Vec::new();
    let mut recoveries = Vec::new();
    let mut last = None;
    for resource in ["memory", "disk"] {
        if let Some(mut worker) = last.take() {
            stand.ledger.settle().await;
            crate::worker::WorkerProcess::terminate(&mut worker, stand.settings.worker.drain_grace).await;
        }
        // An alarm blocks the ledger as well: all jobs are there before.
        stand.ledger.publish_burst(stand.pace.jobs / 2).await;
        let set = format!("rabbit_alarm:set_alarm({{{{resource_limit, {resource}, node()}}, []}}).");
        if stand.pace.short {
            // So few jobs would be answered before the alarm is up.
            stand.vhost.node.control(&["eval", &set]).await;
        }
        let worker = stand.ready_worker(stand.broker_address()).await;
        if !stand.pace.short {
            stand.vhost.node.control(&["eval", &set]).await;
        }
        let during = watch_alarm(stand, worker.health()).await;
        measured.push(format!("{resource}: {:.1} -> {:.1} MiB", during.before, during.after));
        misses.extend(during.missed.into_iter().map(|missed| format!("{resource}: {missed}")));
        let clear = format!("rabbit_alarm:clear_alarm({{resource_limit, {resource}, node()}}).");
        stand.vhost.node.control(&["eval", &clear]).await;
        recoveries.extend(probe(stand, Instant::now()).await);
        stand.ledger.settle().await;
        for (name, what) in [(REDELIVERED, "jobs were delivered twice"), (RECONNECTS, "sessions were given up")] {
            let count = metric(worker.health(), name).await;
            if count != Some(0) {
                misses.push(format!("{resource}: {count:?} {what}"));
            }
        }
        last = Some(worker);
    }
    let mut outcome = finish(stand, last.expect("two alarms were raised"), recoveries, 2).await;
    outcome.measured = measured.join("; ");
    outcome.missed.extend(misses);
    outcome.demand_no_duplicates();
    outcome
}

/// What was seen while an alarm lasted.
struct DuringAlarm {
    /// Resident memory, in MiB.
    before: f64,
    after: f64,
    missed: Vec<String>,
}

async fn watch_alarm(stand: &Stand, health: std::net::SocketAddr) -> DuringAlarm {
    let mebibytes = async || metric(health, MEMORY).await.unwrap_or_default() as f64 / f64::from(1 << 20);
    // What the worker had under way when the alarm came is with the broker by then.
    sleep(Duration::from_secs(1)).await;
    let before = mebibytes().await;
    sleep(stand.pace.pick(Duration::from_secs(3), Duration::from_secs(20))).await;
    let after = mebibytes().await;
    let mut missed = Vec::new();
    if after > before * 1.1 {
        missed.push(format!("memory grew from {before:.1} to {after:.1} MiB"));
    }
    // Every answered job is acknowledged, or it would still be counted as delivered.
    let queue = Names::new(&stand.settings.broker.name_prefix).job_queue(MODEL);
    let published = u64::try_from(stand.ledger.confirmed()).unwrap();
    let mut fault = String::new();
    // The queue tells its figures every few seconds.
    let counted = async {
        loop {
            let (ready, unsettled) = stand.vhost.depth(&queue).await;
            let answered = u64::try_from(stand.ledger.answered()).unwrap();
            // A batch of replies that the alarm cut in two is confirmed, and its jobs acknowledged, when the alarm is over.
            let undecided = if stand.pace.short { 0 } else { u64::from(stand.settings.broker.prefetch) };
            if (answered + ready + unsettled).checked_sub(published).is_some_and(|more| more <= undecided) {
                return;
            }
            fault = format!("{published} jobs are {answered} answered, {ready} waiting and {unsettled} unsettled");
            sleep(POLL).await;
        }
    };
    if timeout(PATIENCE, counted).await.is_err() {
        missed.push(fault);
    }
    DuringAlarm { before, after, missed }
}

/// Deletes the job queue once it is empty; the worker has to notice, and to make it again.
pub async fn delete_the_job_queue(stand: &mut Stand) -> Outcome {
    const MOST: Duration = Duration::from_secs(10);
    let faults = stand.pace.pick(1, 5);
    let worker = stand.ready_worker(stand.broker_address()).await;
    let queue = Names::new(&stand.settings.broker.name_prefix).job_queue(MODEL);
    let mut recoveries = Vec::new();
    let mut unnoticed = 0;
    let mut done = 0;
    while done < faults && !stand.pace.is_over() {
        stand.ledger.publish_burst(stand.pace.jobs / faults - 1).await;
        stand.ledger.settle().await;
        // What is in a queue is deleted with it: that is no fault of the worker's.
        while stand.vhost.depth(&queue).await != (0, 0) {
            sleep(POLL).await;
        }
        let noticing = timeout(PATIENCE, until_not_ready(worker.health()));
        let (noticed, ()) = tokio::join!(noticing, stand.vhost.delete_queue(&queue));
        unnoticed += usize::from(noticed.is_err());
        recoveries.extend(probe(stand, Instant::now()).await);
        done += 1;
    }
    let mut outcome = finish(stand, worker, recoveries, done).await;
    let longest = percentile(&outcome.recoveries, 100);
    outcome.demand(stand.pace.short || longest <= MOST, || format!("the longest recovery is {longest:?}"));
    outcome.demand(unnoticed == 0, || format!("{unnoticed} times the worker never said that it is not ready"));
    outcome
}

/// Freezes the worker with deliveries in its hands until the broker has lost its patience.
pub async fn time_acknowledgements_out(stand: &mut Stand) -> Outcome {
    let faults = stand.pace.pick(1, 5);
    // A channel reads both when it is opened.
    let impatient = "application:set_env(rabbit, consumer_timeout, 2000), \
                     application:set_env(rabbit, channel_tick_interval, 500).";
    stand.vhost.node.control(&["eval", impatient]).await;
    let worker = stand.ready_worker(stand.broker_address()).await;
    let mut recoveries = Vec::new();
    let mut done = 0;
    while done < faults && !stand.pace.is_over() {
        // Frozen before the jobs come: a quick worker would have answered them all by then.
        worker.freeze();
        stand.ledger.publish_burst(stand.pace.jobs / faults - 1).await;
        sleep(Duration::from_secs(6)).await;
        worker.thaw();
        let thawed_at = Instant::now();
        recoveries.extend(probe(stand, thawed_at).await);
        done += 1;
    }
    stand.ledger.settle().await;
    let rebuilt = metric(worker.health(), RECONNECTS).await;
    let mut outcome = finish(stand, worker, recoveries, done).await;
    let expected = u64::try_from(done).unwrap();
    outcome.demand(rebuilt >= Some(expected), || format!("the session was rebuilt {rebuilt:?} of {done} times"));
    outcome
}
