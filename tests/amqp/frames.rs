//! What is near the bound of a frame.

use std::collections::BTreeSet;

use inferq::broker::amqp::Connectivity;
use inferq::broker::amqp::letters::LetterBox;
use inferq::broker::{Consumer as _, Publisher as _, Verdict};
use inferq::limits::LEAST_FRAME_BYTES;
use inferq::protocol::properties::{HEADER_ATTEMPT, HEADER_ERROR, HEADER_WORKER, HeaderValue};

use crate::support::brokers::{MODEL, Rabbit, consuming, losing_the_session, names};
use crate::support::rabbitmq::virtual_host;
use crate::support::steps::{acknowledge, job_queue, jobs, next};
use crate::support::{id_of, message, soon};

/// Bytes of a frame on the node, by its configuration.
fn frame_max() -> usize {
    let file = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq/inferq.conf"));
    let line = file.lines().find_map(|line| line.strip_prefix("frame_max = "));
    let bytes = line.expect("the node's frames are bounded").parse().unwrap();
    assert!(bytes >= LEAST_FRAME_BYTES, "{bytes}: a copy of a message does not fit");
    bytes
}

/// Regression: neither copy fitted into a frame, the broker closed the connection on it, and the job came back.
#[tokio::test]
async fn what_fills_a_frame_is_given_up_and_retried_without_some_of_its_headers() {
    let rabbit = Rabbit::at(virtual_host().await);
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    let mut full = message("full");
    full.properties.headers.insert(HEADER_ATTEMPT.to_owned(), HeaderValue::Integer(2));
    full.properties.headers.insert("x-short".to_owned(), "kept".into());
    // Room for the id, the other headers, and what stands around them.
    full.properties.headers.insert("x-much".to_owned(), HeaderValue::Text("y".repeat(frame_max() - 120)));
    soon("the job", publisher.publish(&jobs(), full)).await.unwrap();

    let delivery = next(&mut consumer).await;
    assert_eq!(id_of(&delivery.message), "full");
    let mut letter = delivery.message.clone();
    letter.properties.headers.insert(HEADER_ERROR.to_owned(), "PREDICTION_FAILED".into());
    letter.properties.headers.insert(HEADER_WORKER.to_owned(), HeaderValue::Text("w".repeat(255)));
    soon("the letter", publisher.publish(&names().dead(MODEL), letter)).await.unwrap();
    soon("the retry", publisher.publish(&names().retry(MODEL, 0), delivery.message.clone())).await.unwrap();
    acknowledge(delivery, &publisher).await;

    let mut letters = soon("the letters", LetterBox::open(&rabbit.settings, &names().dead_queue(MODEL))).await.unwrap();
    let letter = letters.next().await.unwrap().unwrap().message;
    assert_eq!(id_of(&letter), "full");
    assert_eq!(letter.properties.attempt(), 2);
    assert_eq!(letter.properties.text_header("x-short"), Some("kept"));
    assert_eq!(letter.properties.text_header("x-much"), None);
    letters.close().await;
    consumer.close().await;
}

/// What a node adds to a message that it delivers again does not fit into the frame that the message fills, and lapin closes the
/// connection on it. With each delivery the node counts what was delivered beside it, too, and at last gives it up.
#[tokio::test]
async fn what_cannot_be_delivered_again_takes_nobody_with_it() {
    const LIMIT: u32 = 8;
    const NEIGHBOURS: usize = 20;
    let mut rabbit = Rabbit::at(virtual_host().await);
    rabbit.settings.delivery_limit = LIMIT;
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 32);
    consuming(&mut connectivity).await;
    let mut full = message("full");
    full.properties.headers.insert("x-much".to_owned(), HeaderValue::Text("y".repeat(frame_max() - 60)));
    soon("the job", publisher.publish(&jobs(), full)).await.unwrap();
    let unsettled = next(&mut consumer).await;
    assert_eq!(id_of(&unsettled.message), "full");
    for number in 0..NEIGHBOURS {
        soon("a neighbour", publisher.publish(&jobs(), message(&format!("n{number}")))).await.unwrap();
    }

    losing_the_session(&connectivity, rabbit.vhost.close_connections()).await;
    let broken = |now: &Connectivity| matches!(now, Connectivity::Connecting { reason, .. } if reason.contains("frame too large"));
    soon("a frame that is too large", connectivity.wait_for(broken)).await.unwrap();
    let mut left: BTreeSet<String> = (0..NEIGHBOURS).map(|number| format!("n{number}")).collect();
    while !left.is_empty() {
        let delivery = next(&mut consumer).await;
        left.remove(&id_of(&delivery.message));
        let (message, receipt) = delivery.split();
        // Where the session broke meanwhile, it comes again.
        if let Ok(confirmed) = publisher.publish(&names().undeliverable(), message).await {
            receipt.settle(Verdict::Ack(confirmed));
        }
    }
    drop(unsettled);
    consumer.close().await;
}
