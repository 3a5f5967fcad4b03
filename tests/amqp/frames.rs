//! What is near the bound of a frame.

use inferq::broker::{Consumer as _, Publisher as _};
use inferq::protocol::properties::{HEADER_ATTEMPT, HEADER_ERROR, HeaderValue};

use crate::support::brokers::{MODEL, Rabbit, consuming, names};
use crate::support::rabbitmq::virtual_host;
use crate::support::steps::{acknowledge, job_queue, jobs, next};
use crate::support::{id_of, message, soon};

/// Bytes of a frame on the node, by its configuration.
fn frame_max() -> usize {
    let file = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq/inferq.conf"));
    let line = file.lines().find_map(|line| line.strip_prefix("frame_max = "));
    line.expect("the node's frames are bounded").parse().unwrap()
}

/// Regression: the copy did not fit into a frame, the broker closed the connection on it, and the job came back for ever.
#[tokio::test]
async fn a_job_whose_headers_fill_a_frame_becomes_a_dead_letter() {
    let rabbit = Rabbit::at(virtual_host().await);
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    let mut full = message("full");
    full.properties.headers.insert(HEADER_ATTEMPT.to_owned(), HeaderValue::Integer(2));
    // Room for the id, the other header, and what stands around them.
    full.properties.headers.insert("x-much".to_owned(), HeaderValue::Text("y".repeat(frame_max() - 100)));
    soon("the job", publisher.publish(&jobs(), full)).await.unwrap();

    let delivery = next(&mut consumer).await;
    assert_eq!(id_of(&delivery.message), "full");
    assert_eq!(delivery.message.properties.attempt(), 2);
    assert_eq!(delivery.message.properties.text_header("x-much"), None);
    let mut letter = delivery.message.clone();
    letter.properties.headers.insert(HEADER_ERROR.to_owned(), HeaderValue::Text("e".repeat(200)));
    soon("the letter", publisher.publish(&names().dead(MODEL), letter)).await.unwrap();
    acknowledge(delivery, &publisher).await;
    consumer.close().await;
}
