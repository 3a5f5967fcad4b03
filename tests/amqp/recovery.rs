//! Whatever breaks, consuming comes back, and nothing is lost or settled twice.

use std::collections::BTreeSet;

use inferq::broker::amqp::{self, Connectivity};
use inferq::broker::prefetch::Prefetch;
use inferq::broker::topology::Topology;
use inferq::broker::{Address, Consumer, PublishError, Publisher, Verdict};

use crate::support::brokers::{MODEL, Rabbit, consuming, losing_the_session, names, not_consuming, topology};
use crate::support::rabbitmq::{Node, virtual_host};
use crate::support::steps::{acknowledge, job_queue, jobs, next, nothing_comes};
use crate::support::{id_of, message, soon};

#[tokio::test]
async fn after_a_crash_of_the_broker_every_job_comes_again() {
    let node = Node::start().await;
    let rabbit = Rabbit::at(node.fresh_vhost());
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    for number in 0..6 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    acknowledge(next(&mut consumer).await, &publisher).await;
    let held = [next(&mut consumer).await, next(&mut consumer).await];

    node.sync_definitions().await;
    node.kill().await;
    let noticed = not_consuming(&mut connectivity).await;
    assert!(matches!(noticed, Connectivity::Connecting { failures: 1.., .. }), "{noticed:?}");
    // Published while nobody answers: waits for the broker, and is confirmed by it.
    let late = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(&jobs(), message("late")).await }
    });
    node.bring_back().await;
    consuming(&mut connectivity).await;
    soon("the late confirm", late).await.unwrap().unwrap();

    // Of before the crash: whatever is said about them now is about nothing.
    held.into_iter().for_each(|delivery| delivery.receipt.settle(Verdict::Requeue));
    // The first may be among them: its acknowledgement may not have been written when the broker died.
    let expected: BTreeSet<String> = ["m1", "m2", "m3", "m4", "m5", "late"].map(str::to_owned).into();
    let mut again = BTreeSet::new();
    while !again.is_superset(&expected) {
        let delivery = next(&mut consumer).await;
        again.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    again.remove("m0");
    assert_eq!(again, expected);
    consumer.close().await;
}

#[tokio::test]
async fn after_a_closed_connection_the_prefetch_holds_and_old_receipts_are_void() {
    let rabbit = Rabbit::at(virtual_host().await);
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 2);
    consuming(&mut connectivity).await;
    for number in 0..4 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    let before = [next(&mut consumer).await, next(&mut consumer).await];
    let mut proofs = Vec::new();
    for _ in 0..2 {
        proofs.push(publisher.publish(&names().undeliverable(), message("proof")).await.unwrap());
    }
    losing_the_session(&connectivity, rabbit.vhost.close_connections()).await;
    consuming(&mut connectivity).await;

    let after = [next(&mut consumer).await, next(&mut consumer).await];
    nothing_comes(&mut consumer).await;
    // Tags begin again with each channel: an old acknowledgement must not settle a new delivery of the same tag.
    for (delivery, proof) in before.into_iter().zip(proofs) {
        delivery.receipt.settle(Verdict::Ack(proof));
    }
    nothing_comes(&mut consumer).await;
    assert!(after.iter().all(|delivery| delivery.redelivered), "{after:?}");
    let ids: BTreeSet<String> = after.iter().map(|delivery| id_of(&delivery.message)).collect();
    assert_eq!(ids, ["m0".to_owned(), "m1".to_owned()].into());
    for delivery in after {
        acknowledge(delivery, &publisher).await;
    }
    for _ in 0..2 {
        acknowledge(next(&mut consumer).await, &publisher).await;
    }
    nothing_comes(&mut consumer).await;
    consumer.close().await;
}

#[tokio::test]
async fn another_prefetch_is_another_consumer_and_outlives_the_session() {
    let rabbit = Rabbit::at(virtual_host().await);
    let queue = names().job_queue(MODEL);
    let (dial, prefetch) = Prefetch::turned(4, 64);
    let (mut consumer, publisher, mut connectivity) = rabbit.start_following(job_queue().into(), prefetch);
    consuming(&mut connectivity).await;
    for number in 0..8 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    let mut before = Vec::new();
    for _ in 0..4 {
        before.push(next(&mut consumer).await);
    }
    nothing_comes(&mut consumer).await;
    dial.set(&queue, 1);
    // Of the new consumer: the old one has as many as it may have, and is gone when the new one is heard.
    let fifth = next(&mut consumer).await;
    for delivery in before {
        acknowledge(delivery, &publisher).await;
    }
    nothing_comes(&mut consumer).await;

    losing_the_session(&connectivity, rabbit.vhost.close_connections()).await;
    consuming(&mut connectivity).await;
    drop(fifth);
    let mut ids = BTreeSet::new();
    while ids.len() < 4 {
        let delivery = next(&mut consumer).await;
        nothing_comes(&mut consumer).await;
        ids.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    nothing_comes(&mut consumer).await;
    consumer.close().await;
}

/// A queue that is deleted takes its consumer's channel down; deliveries of other queues must not hang in the connection
/// that is given up.
#[tokio::test]
async fn a_deleted_job_queue_is_made_again_and_consumed() {
    let rabbit = Rabbit::at(virtual_host().await);
    let queues = [names().urgent_queue(MODEL), names().job_queue(MODEL)];
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&queues, 4);
    consuming(&mut connectivity).await;
    let urgent = Address::new(&names().jobs_exchange(), &format!("{MODEL}.high"));
    publisher.publish(&urgent, message("held")).await.unwrap();
    let held = next(&mut consumer).await;

    let deed = async { amqp::remove(&rabbit.settings, &only(&rabbit, &queues[1])).await.unwrap() };
    let noticed = losing_the_session(&connectivity, deed).await;
    let Connectivity::Connecting { reason, .. } = noticed else { panic!("{noticed:?}") };
    assert!(reason.contains(&queues[1]), "{reason}");
    consuming(&mut connectivity).await;
    publisher.publish(&jobs(), message("new")).await.unwrap();
    let mut arrived = BTreeSet::new();
    for _ in 0..2 {
        let delivery = next(&mut consumer).await;
        arrived.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    assert_eq!(arrived, ["held".to_owned(), "new".to_owned()].into());
    drop(held);
    consumer.close().await;
}

fn only(rabbit: &Rabbit<'_>, queue: &str) -> Topology {
    let mut topology = topology(&rabbit.settings);
    topology.exchanges.clear();
    topology.queues.retain(|other| other.name == queue);
    assert_eq!(topology.queues.len(), 1);
    topology
}

#[tokio::test]
async fn a_reply_queue_that_is_gone_returns_the_reply() {
    let rabbit = Rabbit::at(virtual_host().await);
    let (consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    let replies = Topology::for_replies(&names(), "acme.replies.1");
    let address = Address::new(&names().replies_exchange(), "acme.replies.1");
    amqp::apply(&rabbit.settings, &replies).await.unwrap();
    publisher.publish(&address, message("there")).await.unwrap();
    amqp::remove(&rabbit.settings, &Topology { exchanges: Vec::new(), ..replies }).await.unwrap();
    let returned = publisher.publish(&address, message("gone")).await;
    assert!(matches!(returned, Err(PublishError::Returned { .. })), "{returned:?}");
    consumer.close().await;
}

#[tokio::test]
async fn a_consumer_of_nothing_can_be_stopped() {
    let rabbit = Rabbit::at(virtual_host().await);
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&[], 4);
    consuming(&mut connectivity).await;
    publisher.publish(&jobs(), message("m")).await.unwrap();
    soon("stopping", consumer.stop()).await;
    soon("closing", consumer.close()).await;
}

#[tokio::test]
async fn stopping_while_nobody_answers_ends() {
    let node = Node::start().await;
    let rabbit = Rabbit::at(node.fresh_vhost());
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    node.kill().await;
    not_consuming(&mut connectivity).await;
    soon("stopping", consumer.stop()).await;
    soon("closing", consumer.close()).await;
    let published = publisher.publish(&jobs(), message("m")).await;
    assert!(matches!(published, Err(PublishError::Unavailable(_))), "{published:?}");
}
