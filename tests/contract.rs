//! The contract of a broker, held by RabbitMQ and by the broker inside the process: the same tests for both.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use inferq::broker::prefetch::Prefetch;
use inferq::broker::{Address, Consumer, PublishError, Publisher, Queues, Verdict};
use inferq::protocol::properties::{HEADER_DELIVERY_COUNT, HeaderValue, Message, Properties};
use support::brokers::{MODEL, TestBroker, names};
use support::steps::{acknowledge, job_queue, jobs, next, nothing_comes};
use support::{id_of, message, soon};
use tokio::time::Instant;

async fn a_message_arrives_as_it_was_published<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 4).await;
    let properties = Properties {
        message_id: Some("m".into()),
        correlation_id: Some("c".into()),
        reply_to: Some("acme.replies.1".into()),
        content_type: Some("application/jose".into()),
        kind: Some("inferq.request.v1".into()),
        app_id: Some("test".into()),
        timestamp: Some(1_800_000_000),
        priority: Some(3),
        headers: [
            ("x-attempt".to_owned(), HeaderValue::Integer(2)),
            ("traceparent".to_owned(), HeaderValue::Text("00-ab-cd-01".into())),
            ("flag".to_owned(), HeaderValue::Boolean(true)),
        ]
        .into(),
    };
    let sent = Message { body: vec![0, 159, 146, 150].into(), properties };
    publisher.publish(&jobs(), sent.clone()).await.unwrap();

    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.message, sent);
    assert_eq!(&*delivery.queue, names().job_queue(MODEL));
    assert!(!delivery.redelivered);
    assert_eq!(delivery.delivery_count, 0);
    acknowledge(delivery, &publisher).await;
    consumer.close().await;
}

async fn what_nobody_is_bound_to_is_returned<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (consumer, publisher) = broker.open(&job_queue(), 4).await;
    let nowhere = Address::new(&names().replies_exchange(), "acme.replies.gone");
    let error = publisher.publish(&nowhere, message("lost")).await.unwrap_err();
    let Address { exchange, routing_key } = nowhere.clone();
    assert_eq!(error, PublishError::Returned { exchange, routing_key, reply_text: "NO_ROUTE".into() });
    broker.declare_reply_queue("acme.replies.gone").await;
    publisher.publish(&nowhere, message("found")).await.unwrap();
    consumer.close().await;
}

async fn a_requeued_job_comes_again_and_is_counted<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 4).await;
    publisher.publish(&jobs(), message("m")).await.unwrap();
    for count in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(id_of(&delivery.message), "m");
        assert_eq!((delivery.redelivered, delivery.delivery_count), (count > 0, count));
        delivery.receipt.settle(Verdict::Requeue);
    }
    acknowledge(next(&mut consumer).await, &publisher).await;
    consumer.close().await;
}

async fn a_job_over_its_delivery_limit_is_a_dead_letter<B: TestBroker>() {
    let broker = B::fresh(|settings| settings.delivery_limit = 2).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 4).await;
    let (mut dead, _) = broker.open(&[names().dead_queue(MODEL)], 4).await;
    publisher.publish(&jobs(), message("poison")).await.unwrap();
    publisher.publish(&jobs(), message("innocent")).await.unwrap();
    let mut deliveries = 0;
    let letter = loop {
        tokio::select! {
            letter = next(&mut dead) => break letter,
            delivery = next(&mut consumer) => match id_of(&delivery.message).as_str() {
                "poison" => {
                    deliveries += 1;
                    delivery.receipt.settle(Verdict::Requeue);
                }
                _ => acknowledge(delivery, &publisher).await,
            },
        }
    };
    assert_eq!(id_of(&letter.message), "poison");
    assert_eq!(deliveries, 3, "delivered once, and twice again");
    letter.receipt.settle(Verdict::Requeue);
    consumer.close().await;
    dead.close().await;
}

async fn a_dropped_receipt_requeues<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 4).await;
    publisher.publish(&jobs(), message("m")).await.unwrap();
    drop(next(&mut consumer).await);
    let delivery = next(&mut consumer).await;
    assert!(delivery.redelivered);
    acknowledge(delivery, &publisher).await;
    consumer.close().await;
}

/// Regression: a session took the end of its publishing channels for a fault and began again, for ever.
async fn a_consumer_outlives_its_publisher<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, only_consuming) = broker.open(&job_queue(), 4).await;
    drop(only_consuming);
    let (other, publisher) = broker.open(&[names().undeliverable_queue()], 4).await;
    for _ in 0..3 {
        publisher.publish(&jobs(), message("m")).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert!(!delivery.redelivered, "no session was broken in between");
        acknowledge(delivery, &publisher).await;
    }
    consumer.close().await;
    drop(other);
}

async fn no_more_than_the_prefetch_is_unsettled<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let queues = [names().urgent_queue(MODEL), names().job_queue(MODEL)];
    let (mut consumer, publisher) = broker.open(&queues, 3).await;
    let urgent = Address::new(&names().jobs_exchange(), &format!("{MODEL}.high"));
    for number in 0..10 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
        publisher.publish(&urgent, message(&format!("u{number}"))).await.unwrap();
    }
    // Three of each queue: the bound is each consumer's own.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(next(&mut consumer).await);
    }
    nothing_comes(&mut consumer).await;
    let of_urgent = held.iter().filter(|delivery| *delivery.queue == queues[0]).count();
    assert_eq!(of_urgent, 3);
    let first = held.remove(0);
    let queue = first.queue.clone();
    acknowledge(first, &publisher).await;
    let seventh = next(&mut consumer).await;
    assert_eq!(seventh.queue, queue, "room was made in the queue that was acknowledged");
    nothing_comes(&mut consumer).await;
    drop((held, seventh));
    consumer.close().await;
}

async fn a_larger_prefetch_holds_from_the_next_delivery_on<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (dial, prefetch) = Prefetch::turned(2, 64);
    let queues = [names().urgent_queue(MODEL), names().job_queue(MODEL)];
    let (mut consumer, publisher) = broker.open_following(&queues, prefetch).await;
    for number in 0..12 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    let first = [next(&mut consumer).await, next(&mut consumer).await];
    nothing_comes(&mut consumer).await;
    dial.set(&queues[0], 1);
    dial.set(&queues[1], 5);
    let mut held = vec![next(&mut consumer).await];
    let mut ids = BTreeSet::new();
    for delivery in first {
        ids.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    for _ in 0..4 {
        held.push(next(&mut consumer).await);
    }
    nothing_comes(&mut consumer).await;
    while let Some(delivery) = held.pop() {
        assert!(!delivery.redelivered, "{delivery:?}");
        ids.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
        if ids.len() + held.len() < 12 {
            held.push(next(&mut consumer).await);
        }
    }
    assert_eq!(ids.len(), 12, "each came once: {ids:?}");
    nothing_comes(&mut consumer).await;
    consumer.close().await;
}

async fn stop_gives_back_what_was_not_begun<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 8).await;
    for number in 0..6 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    let begun = next(&mut consumer).await;
    soon("stopping", consumer.stop()).await;
    assert!(soon("the end", consumer.next()).await.is_none());

    let (mut other, _) = broker.open(&job_queue(), 8).await;
    let mut taken = BTreeSet::new();
    for _ in 0..5 {
        let delivery = next(&mut other).await;
        taken.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    let given_back: Vec<&str> = taken.iter().map(String::as_str).collect();
    assert_eq!(given_back, ["m1", "m2", "m3", "m4", "m5"]);
    // What was begun is still this consumer's, can be published for, and settled.
    acknowledge(begun, &publisher).await;
    soon("closing", consumer.close()).await;
    nothing_comes(&mut other).await;
    other.close().await;
}

async fn close_sends_the_last_acknowledgements<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 64).await;
    for number in 0..40 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(next(&mut consumer).await);
    }
    consumer.stop().await;
    // Backwards, so that no acknowledgement can cover its neighbours but the last.
    for delivery in held.into_iter().rev() {
        acknowledge(delivery, &publisher).await;
    }
    soon("closing", consumer.close()).await;
    let (mut other, _) = broker.open(&job_queue(), 64).await;
    nothing_comes(&mut other).await;
    other.close().await;
}

async fn a_consumer_that_vanishes_loses_nothing<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 8).await;
    for number in 0..4 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    let held = [next(&mut consumer).await, next(&mut consumer).await];
    drop(consumer);
    let (mut other, publisher) = broker.open(&job_queue(), 8).await;
    let mut again = BTreeSet::new();
    for _ in 0..4 {
        let delivery = next(&mut other).await;
        again.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    assert_eq!(again.len(), 4);
    // Too late: they are settled by somebody else, and this must not disturb him.
    drop(held);
    nothing_comes(&mut other).await;
    other.close().await;
}

async fn each_of_many_publishes_has_its_own_answer<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (consumer, publisher) = broker.open(&job_queue(), 4).await;
    let here = "acme.replies.here";
    broker.declare_reply_queue(here).await;
    let to = |key: &str| Address::new(&names().replies_exchange(), key);
    let (bound, gone) = (to(here), to("acme.replies.gone"));
    let publishes = (0..600).map(|number| {
        let address = if number % 3 == 0 { &gone } else { &bound };
        let publisher = &publisher;
        async move { (number, publisher.publish(address, message(&format!("m{number}"))).await) }
    });
    for (number, published) in soon("all answers", join_all(publishes)).await {
        match published {
            Ok(_) => assert_ne!(number % 3, 0, "m{number} went nowhere and was confirmed"),
            Err(PublishError::Returned { .. }) => assert_eq!(number % 3, 0, "m{number} was routed and called returned"),
            Err(error) => panic!("m{number}: {error}"),
        }
    }
    let (mut replies, _) = broker.open(&[here.to_owned()], 500).await;
    let mut arrived = BTreeSet::new();
    for _ in 0..400 {
        let delivery = next(&mut replies).await;
        arrived.insert(id_of(&delivery.message));
        acknowledge(delivery, &publisher).await;
    }
    let expected: BTreeSet<_> = (0..600).filter(|number| number % 3 != 0).map(|number| format!("m{number}")).collect();
    assert_eq!(arrived, expected);
    replies.close().await;
    consumer.close().await;
}

async fn a_retried_job_comes_back_after_its_pause<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 4).await;
    let began = Instant::now();
    publisher.publish(&names().retry(MODEL, 0), message("m")).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(began.elapsed() >= Duration::from_millis(990), "after {:?}", began.elapsed());
    assert_eq!(id_of(&delivery.message), "m");
    assert_eq!(delivery.delivery_count, 0, "a retry is no delivery that failed");
    acknowledge(delivery, &publisher).await;
    nothing_comes(&mut consumer).await;
    consumer.close().await;
}

async fn every_place_of_a_failed_job_is_bound<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (consumer, publisher) = broker.open(&job_queue(), 4).await;
    let names = names();
    let retries = (0..5).map(|attempt| names.retry(MODEL, attempt));
    for address in retries.chain([names.dead(MODEL), names.undeliverable()]) {
        publisher.publish(&address, message("m")).await.unwrap_or_else(|error| panic!("{address:?}: {error}"));
    }
    let other_model = publisher.publish(&names.dead("no-such-model"), message("m")).await;
    assert!(matches!(other_model, Err(PublishError::Returned { .. })), "{other_model:?}");
    consumer.close().await;
}

async fn a_full_queue_refuses<B: TestBroker>() {
    let broker = B::fresh(|settings| settings.job_queue_max_bytes = 8_000).await;
    let (dead, publisher) = broker.open(&[names().dead_queue(MODEL)], 4).await;
    let large = || Message { body: vec![7; 1_000].into(), ..message("m") };
    let mut stored = 0;
    // A quorum queue notices a little late.
    let refused = loop {
        match publisher.publish(&jobs(), large()).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "a queue of 8,000 bytes took {stored} messages of 1,000");
    };
    assert_eq!(refused, PublishError::Refused { routing_key: MODEL.into() });
    assert!(stored >= 7, "refused after {stored} messages");

    let (mut consumer, _) = broker.open(&job_queue(), 16).await;
    for _ in 0..stored {
        acknowledge(next(&mut consumer).await, &publisher).await;
    }
    soon("room", async { while publisher.publish(&jobs(), large()).await.is_err() {} }).await;
    assert_eq!(next(&mut consumer).await.message.body.len(), 1_000);
    consumer.close().await;
    dead.close().await;
}

async fn a_copy_begins_its_own_count<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    let (mut consumer, publisher) = broker.open(&job_queue(), 4).await;
    let mut counted = message("a");
    counted.properties.headers.insert(HEADER_DELIVERY_COUNT.to_owned(), HeaderValue::Integer(19));
    publisher.publish(&jobs(), counted).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.delivery_count, 0, "the count of another queue");
    acknowledge(delivery, &publisher).await;
    consumer.close().await;
}

async fn queues_of_suspects_hand_out_one_job_together<B: TestBroker>() {
    let broker = B::fresh(|_| {}).await;
    // Any other queue stands for that of another model.
    let singly = vec![names().suspects_queue(MODEL), names().dead_queue(MODEL)];
    let (mut consumer, publisher) =
        broker.open_all(Queues { prefetched: job_queue(), singly: singly.clone() }, Prefetch::fixed(4)).await;
    for (address, id) in [(names().suspects(MODEL), "a"), (names().suspects(MODEL), "b"), (names().dead(MODEL), "c")] {
        publisher.publish(&address, message(id)).await.unwrap();
    }
    for number in 0..3 {
        let suspect = next(&mut consumer).await;
        assert!(singly.iter().any(|queue| **queue == *suspect.queue));
        publisher.publish(&jobs(), message("others")).await.unwrap();
        let other = next(&mut consumer).await;
        assert_eq!(id_of(&other.message), "others", "round {number}: while a suspect is held");
        acknowledge(other, &publisher).await;
        nothing_comes(&mut consumer).await;
        acknowledge(suspect, &publisher).await;
    }
    nothing_comes(&mut consumer).await;
    consumer.close().await;
}

macro_rules! contract {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test::<super::support::brokers::Memory>().await;
            })*
        }
        mod rabbitmq {
            $(#[tokio::test]
            async fn $test() {
                super::$test::<super::support::brokers::Rabbit<'static>>().await;
            })*
        }
    };
}

contract! {
    a_message_arrives_as_it_was_published
    what_nobody_is_bound_to_is_returned
    a_requeued_job_comes_again_and_is_counted
    a_job_over_its_delivery_limit_is_a_dead_letter
    a_dropped_receipt_requeues
    a_consumer_outlives_its_publisher
    no_more_than_the_prefetch_is_unsettled
    a_larger_prefetch_holds_from_the_next_delivery_on
    stop_gives_back_what_was_not_begun
    close_sends_the_last_acknowledgements
    a_consumer_that_vanishes_loses_nothing
    each_of_many_publishes_has_its_own_answer
    a_retried_job_comes_back_after_its_pause
    every_place_of_a_failed_job_is_bound
    a_full_queue_refuses
    a_copy_begins_its_own_count
    queues_of_suspects_hand_out_one_job_together
}
