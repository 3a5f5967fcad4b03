//! Reply queues that are gone, and reply queues that are full.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use inferq::broker::amqp::apply;
use inferq::broker::topology::{Argument, Names, Topology};
use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep};

use super::{Leaves, Outcome, finish_leaving};
use crate::ledger::{Kind, PATIENCE};
use crate::report::percentile;
use crate::stand::Stand;

const POLL: Duration = Duration::from_millis(50);

/// Publishes jobs for many reply queues; half of these are deleted before a worker comes. The others are taken off their
/// exchange while it runs, and deleted at the end: deleting one at once would leave open whether a reply that the broker had
/// just routed there was taken or lost.
pub async fn delete_reply_queues(stand: &mut Stand) -> Outcome {
    let count = stand.pace.pick(40, 1_000).min(stand.pace.jobs / 2);
    let names = Names::new(&stand.settings.broker.name_prefix);
    let mut doomed: Vec<(String, String)> = Vec::new();
    let queues: Vec<String> = (0..count).map(|_| stand.ledger.another_reply_queue()).collect();
    let declared = queues.iter().flat_map(|queue| Topology::for_replies(&names, queue).queues).collect();
    let exchanges = vec![names.replies_exchange()];
    apply(&stand.settings.broker, &Topology { exchanges, queues: declared }).await.unwrap();
    for queue in queues {
        // One for a queue that goes, some for one that stays, in every batch of confirms.
        let job = stand.ledger.publish_for(&queue).await.unwrap();
        stand.ledger.publish_burst(stand.pace.jobs / count - 1).await;
        doomed.push((queue, job));
    }
    for place in (1..count).rev() {
        let other = stand.seeded.below(place + 1);
        doomed.swap(place, other);
    }
    let url = stand.settings.broker.url.expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (before, meanwhile) = doomed.split_at(count / 2);
    for (queue, _) in before {
        assert_eq!(delete(&channel, queue).await, 0, "no worker has replied yet");
    }
    let worker = stand.ready_worker(stand.broker_address()).await;
    for (queue, _) in meanwhile {
        let (name, exchange) = (queue.as_str(), names.replies_exchange());
        channel.queue_unbind(name.into(), exchange.as_str().into(), name.into(), FieldTable::default()).await.unwrap();
    }
    stand.ledger.settle().await;
    until_taken(stand).await;
    let mut swallowed = 0;
    let mut worker = worker;
    // Everything is settled when it has ended.
    let ended = worker.terminate(stand.settings.worker.drain_grace).await;
    for (queue, job) in meanwhile {
        if delete(&channel, queue).await == 1 {
            stand.ledger.swallowed(job);
            swallowed += 1;
        }
    }
    connection.close(200, "done".into()).await.unwrap();
    let mut outcome = Outcome::of(stand.ledger.account().await, Vec::new(), 0, Leaves::Undeliverable);
    let kept = outcome.account.undeliverable;
    outcome.faults = count;
    outcome.measured = format!("{kept} replies returned, {swallowed} taken before");
    outcome.demand(ended.is_some_and(|status| status.success()), || format!("the worker ended with {ended:?}"));
    outcome
        .demand(kept + swallowed == count, || format!("{kept} replies are kept, {} were returned", count - swallowed));
    outcome.demand_no_duplicates();
    outcome
}

/// Deletes `queue`; how many messages went with it.
async fn delete(channel: &lapin::Channel, queue: &str) -> u32 {
    let options = QueueDeleteOptions { if_unused: false, if_empty: false, nowait: false };
    channel.queue_delete(queue.into(), options).await.unwrap()
}

/// Waits until no job waits in the queue.
async fn until_taken(stand: &Stand) {
    let began = Instant::now();
    while stand.ledger.jobs_left().await > 0 && began.elapsed() < PATIENCE {
        sleep(POLL).await;
    }
}

/// Has some replies go to a queue that takes no more, and compares how long the others take with and without that.
pub async fn fill_a_reply_queue(stand: &mut Stand) -> Outcome {
    const MOST: f64 = 1.2;
    let rounds = stand.pace.pick(1, 6);
    let share = stand.pace.jobs / rounds / 2;
    let names = Names::new(&stand.settings.broker.name_prefix);
    let full = stand.ledger.another_reply_queue();
    let mut topology = Topology::for_replies(&names, &full);
    topology.queues[0].arguments =
        vec![("x-max-length", Argument::Integer(1)), ("x-overflow", Argument::Text("reject-publish".to_owned()))];
    apply(&stand.settings.broker, &topology).await.unwrap();
    let worker = stand.ready_worker(stand.broker_address()).await;
    let first = stand.ledger.publish_for(&full).await.unwrap();
    while stand.ledger.messages_in(&full).await == 0 {
        sleep(POLL).await;
    }
    // It has room for one reply, and that is this one.
    stand.ledger.swallowed(&first);
    let (mut without, mut with, mut refused) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        if stand.pace.is_over() && round > 0 {
            break;
        }
        without.extend(latencies(stand, share, None).await);
        with.extend(latencies(stand, share, Some(&full)).await);
        refused += share.div_ceil(EVERY);
    }
    let mut outcome = finish_leaving(stand, worker, (Vec::new(), 0), Leaves::Undeliverable).await;
    outcome.faults = refused;
    let (plain, beside) = (percentile(&without, 99).as_secs_f64(), percentile(&with, 99).as_secs_f64());
    outcome.measured =
        format!("p99 {:.1} ms without, {:.1} ms with ({:.2}x)", plain * 1e3, beside * 1e3, beside / plain);
    outcome
        .demand(stand.pace.short || beside <= plain * MOST, || format!("p99 is {:.2} times as long", beside / plain));
    let kept = outcome.account.undeliverable;
    outcome.demand(kept == refused, || format!("{kept} of {refused} refused replies are kept"));
    outcome.demand_no_duplicates();
    outcome
}

/// One in so many jobs beside the others goes to the full queue.
const EVERY: usize = 20;
/// Jobs that wait for their reply at once.
const AT_ONCE: usize = 4;

/// How long each of `count` jobs waited for its reply, while some others go to the queue `full`.
async fn latencies(stand: &Stand, count: usize, full: Option<&str>) -> Vec<Duration> {
    let ledger = &stand.ledger;
    let one = async |number: usize| {
        if let (0, Some(full)) = (number % EVERY, full) {
            ledger.publish_for(full).await.unwrap();
        }
        let id = ledger.publish_confirmed(Kind::Sound).await?;
        ledger.reply_to(&id).await?;
        ledger.latency(&id)
    };
    stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).filter_map(async |latency| latency).collect().await
}
