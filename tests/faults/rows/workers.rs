//! Workers that die, stop, come and go.

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Outcome, burst, finish, probe};
use crate::stand::Stand;

/// Kills the worker in each burst; the next is started at once.
pub async fn kill_a_worker(stand: &mut Stand) -> Outcome {
    let faults = stand.pace.pick(5, 20);
    let broker = stand.broker_address();
    let prefetch = usize::from(stand.settings.broker.prefetch);
    let mut worker = stand.ready_worker(broker).await;
    let mut recoveries = Vec::new();
    let mut done = 0;
    while done < faults && !stand.pace.is_over() {
        let fault_at = burst(stand, (done, faults), async |stand: &Stand| {
            let at = Instant::now();
            std::mem::replace(&mut worker, stand.start_worker(broker)).kill();
            at
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
        done += 1;
    }
    let mut outcome = finish(stand, worker, recoveries, done).await;
    let duplicates = outcome.account.duplicates;
    outcome.demand(duplicates <= done * prefetch, || format!("{duplicates} duplicates"));
    outcome
}

/// Asks the worker to stop in each burst, and starts the next when it has ended.
pub async fn terminate_under_load(stand: &mut Stand) -> Outcome {
    let faults = stand.pace.pick(6, 50);
    let broker = stand.broker_address();
    let grace = stand.settings.worker.drain_grace;
    let mut worker = stand.ready_worker(broker).await;
    let mut recoveries = Vec::new();
    let mut endings = Vec::new();
    let mut done = 0;
    while done < faults && !stand.pace.is_over() {
        let fault_at = burst(stand, (done, faults), async |stand: &Stand| {
            let at = Instant::now();
            let status = worker.terminate(grace).await;
            if status.is_none_or(|status| !status.success()) {
                endings.push(format!("stop {done}: {status:?}"));
            }
            worker = stand.start_worker(broker);
            at
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
        done += 1;
    }
    let mut outcome = finish(stand, worker, recoveries, done).await;
    outcome.demand_no_duplicates();
    outcome.demand(endings.is_empty(), || format!("not ended in order within {grace:?}: {}", endings.join("; ")));
    outcome
}

/// Starts three further workers in one burst, and stops them in the next.
pub async fn scale_up_and_down(stand: &mut Stand) -> Outcome {
    let cycles = stand.pace.pick(3, 20);
    let broker = stand.broker_address();
    let grace = stand.settings.worker.drain_grace;
    let worker = stand.ready_worker(broker).await;
    let mut recoveries = Vec::new();
    let mut endings = Vec::new();
    let mut done = 0;
    while done < cycles && !stand.pace.is_over() {
        let mut further = Vec::new();
        let up = burst(stand, (2 * done, 2 * cycles), async |stand: &Stand| {
            let at = Instant::now();
            further = join_all((0..3).map(|_| stand.ready_worker(broker))).await;
            at
        });
        let up = up.await;
        recoveries.extend(probe(stand, up).await);
        let down = burst(stand, (2 * done + 1, 2 * cycles), async |_: &Stand| {
            let at = Instant::now();
            endings.extend(join_all(further.iter_mut().map(|worker| worker.terminate(grace))).await);
            at
        });
        let down = down.await;
        recoveries.extend(probe(stand, down).await);
        done += 1;
    }
    let mut outcome = finish(stand, worker, recoveries, 2 * done).await;
    outcome.demand_no_duplicates();
    let in_order = endings.iter().flatten().filter(|status| status.success()).count();
    outcome.demand(in_order == 3 * done, || format!("{in_order} of {} workers ended in order", 3 * done));
    outcome
}
