//! What a network does to a worker: resets, black holes, latency, narrow lines.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Outcome, burst, finish, probe};
use crate::proxy::{Proxy, Weather};
use crate::report::percentile;
use crate::stand::Stand;
use crate::worker::{get, is_ready, metric};

const POLL: Duration = Duration::from_millis(5);
const RECONNECTS: &str = "inferq_broker_reconnects_total";

/// Resets both connections of the worker in each burst.
pub async fn reset_connections(stand: &mut Stand) -> Outcome {
    const P99: Duration = Duration::from_secs(2);
    let faults = stand.pace.pick(10, 100);
    let proxy = Proxy::start(vec![stand.broker_address()]).await;
    let worker = stand.ready_worker(proxy.address).await;
    let before = prefetches(stand).await;
    let mut recoveries = Vec::new();
    let (mut done, mut broken) = (0, 0);
    while done < faults && !stand.pace.is_over() {
        let fault_at = burst(stand, (done, faults), async |_: &Stand| {
            broken += proxy.reset_all();
            Instant::now()
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
        done += 1;
    }
    let after = prefetches(stand).await;
    let mut outcome = finish(stand, worker, recoveries, done).await;
    let p99 = percentile(&outcome.recoveries, 99);
    outcome.demand(stand.pace.short || p99 <= P99, || format!("recovery p99 is {p99:?}"));
    outcome.demand(before == after && !before.is_empty(), || format!("prefetch was {before:?}, is {after:?}"));
    outcome.demand(broken >= 2 * done, || format!("only {broken} connections were reset"));
    outcome
}

/// Lets nothing pass for a while, and measures when the worker notices.
pub async fn swallow_everything(stand: &mut Stand) -> Outcome {
    const NOTICED_WITHIN: Duration = Duration::from_secs(25);
    let duration = stand.pace.pick(Duration::from_secs(10), Duration::from_secs(60));
    let proxy = Proxy::start(vec![stand.broker_address()]).await;
    let worker = stand.ready_worker(proxy.address).await;
    let health = worker.health();
    let mut noticed = None;
    let over = burst(stand, (0, 1), async |_: &Stand| {
        proxy.set(Weather { black_hole: true, ..Weather::FAIR });
        let began = Instant::now();
        let noticing = async {
            while is_ready(health).await {
                sleep(POLL).await;
            }
        };
        noticed = timeout(duration, noticing).await.is_ok().then(|| began.elapsed());
        sleep(duration.saturating_sub(began.elapsed())).await;
        proxy.set(Weather::FAIR);
        Instant::now()
    });
    let over = over.await;
    let recoveries = probe(stand, over).await.into_iter().collect();
    let mut outcome = finish(stand, worker, recoveries, 1).await;
    outcome.measured =
        noticed.map_or("not noticed".to_owned(), |after| format!("noticed after {:.1} s", after.as_secs_f64()));
    let in_time = noticed.is_some_and(|after| after <= NOTICED_WITHIN);
    outcome.demand(in_time, || format!("noticed after {noticed:?}, at most {NOTICED_WITHIN:?} were allowed"));
    outcome
}

/// Makes the network slow, narrow, and cut into single bytes, one after the other.
pub async fn slow_everything_down(stand: &mut Stand) -> Outcome {
    let far = Weather { latency: Duration::from_millis(200), ..Weather::FAIR };
    let narrow = Weather { bandwidth: Some(64 << 10), ..Weather::FAIR };
    let sliced = Weather { slice: Some(1), ..Weather::FAIR };
    let bursts = stand.pace.pick(1, 20);
    let proxy = Proxy::start(vec![stand.broker_address()]).await;
    let worker = stand.ready_worker(proxy.address).await;
    let mut recoveries = Vec::new();
    let mut done = 0;
    for number in 0..bursts {
        for (kind, weather) in [far, narrow, sliced].into_iter().enumerate() {
            if stand.pace.is_over() {
                continue;
            }
            let begun = burst(stand, (3 * number + kind, 3 * bursts), async |_: &Stand| {
                proxy.set(weather);
                Instant::now()
            });
            let begun = begun.await;
            recoveries.extend(probe(stand, begun).await);
            done += 1;
        }
    }
    stand.ledger.settle().await;
    let reconnects = metric(worker.health(), RECONNECTS).await;
    proxy.set(Weather::FAIR);
    let mut outcome = finish(stand, worker, recoveries, done).await;
    outcome.demand(reconnects == Some(0), || format!("the broker was connected to again {reconnects:?} times"));
    outcome.demand_no_duplicates();
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

/// Watches whether the worker at `health` says for once that it is not ready.
pub async fn until_not_ready(health: SocketAddr) -> String {
    loop {
        match get(health, "/readyz").await {
            Some(answer) if answer.starts_with("HTTP/1.1 503") => return answer,
            Some(_) | None => {}
        }
    }
}
