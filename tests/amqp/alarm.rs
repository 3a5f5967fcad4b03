//! A broker that is short of memory takes no publishes; jobs must wait, not be delivered again and again.

use std::time::Duration;

use inferq::broker::{Consumer, Publisher, Verdict};
use tokio::time::timeout;

use crate::support::brokers::{MODEL, Rabbit, consuming, names};
use crate::support::rabbitmq::Node;
use crate::support::steps::{acknowledge, job_queue, jobs, next};
use crate::support::{message, soon};

#[tokio::test]
async fn while_the_broker_blocks_publishes_wait_and_acknowledgements_go_on() {
    let node = Node::start().await;
    let mut rabbit = Rabbit::at(node.fresh_vhost());
    rabbit.settings.publish_timeout = Duration::from_millis(500);
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    for id in ["first", "second"] {
        publisher.publish(&jobs(), message(id)).await.unwrap();
    }
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    let proof = publisher.publish(&names().undeliverable(), message("first")).await.unwrap();

    node.control(&["eval", "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})."]).await;
    // The broker tells its connections of an alarm one after the other: until ours has heard of it, publishes slip in.
    let aside = names().undeliverable();
    let slips_in = || timeout(Duration::from_secs(1), publisher.publish(&aside, message("slips in")));
    soon("the alarm", async { while slips_in().await.is_ok() {} }).await;
    let address = jobs();
    let waiting = publisher.publish(&address, message("waits"));
    tokio::pin!(waiting);
    let six_timeouts = Duration::from_secs(3);
    if let Ok(published) = timeout(six_timeouts, &mut waiting).await {
        panic!("not waited for: {published:?}");
    }
    first.receipt.settle(Verdict::Ack(proof));
    let acknowledged = async { while rabbit.vhost.depth(&names().job_queue(MODEL)).await != (0, 1) {} };
    soon("the acknowledgement", acknowledged).await;

    node.control(&["eval", "rabbit_alarm:clear_alarm({resource_limit, memory, node()})."]).await;
    soon("the confirm", waiting).await.unwrap();
    assert!(!connectivity.has_changed().unwrap(), "no session was broken: {:?}", connectivity.borrow());
    acknowledge(second, &publisher).await;
    let waited = next(&mut consumer).await;
    assert!(!waited.redelivered);
    acknowledge(waited, &publisher).await;
    consumer.close().await;
}
