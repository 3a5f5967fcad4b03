//! Three nodes of which one is gone: ended as by a crash, or cut off.

use std::time::Duration;

use inferq::broker::topology::Names;
use tokio::time::{Instant, sleep};

use super::{Leaves, Outcome, burst, finish_leaving, probe};
use crate::stand::{MODEL, Stand};

/// Ends the node that leads the job queue in each burst, and brings it back; at last, cuts the leading one off for a while.
pub async fn lose_nodes(stand: &mut Stand) -> Outcome {
    let kills = stand.pace.pick(1, 5);
    let cut_off = stand.pace.pick(Duration::from_secs(8), Duration::from_secs(30));
    let queue = Names::new(&stand.settings.broker.name_prefix).job_queue(MODEL);
    let cluster = stand.cluster.as_ref().expect("this row has a cluster").0;
    let vhost = stand.vhost.name.clone();
    for node in &cluster.nodes {
        node.sync_definitions().await;
    }
    let worker = stand.ready_worker(stand.broker_address()).await;
    let mut recoveries = Vec::new();
    let mut done = 0;
    while done <= kills && (!stand.pace.is_over() || done == 0) {
        let leader = &cluster.nodes[cluster.leader_when_whole(&vhost, &queue).await];
        let fault_at = burst(stand, (done, kills + 1), async |_: &Stand| {
            let at = Instant::now();
            if done < kills {
                leader.kill().await;
                leader.bring_back().await;
            } else {
                leader.freeze().await;
                sleep(cut_off).await;
                leader.thaw().await;
            }
            at
        });
        let fault_at = fault_at.await;
        recoveries.extend(probe(stand, fault_at).await);
        done += 1;
    }
    cluster.leader_when_whole(&vhost, &queue).await;
    finish_leaving(stand, worker, (recoveries, done), Leaves::Undeliverable).await
}
