//! A broker that answers too late has nobody behind what it grants then.

use std::pin::pin;
use std::time::Duration;

use inferq::broker::amqp::letters::LetterBox;
use inferq::broker::amqp::{ConnectError, Connectivity};
use inferq::broker::{Consumer, Publisher};
use inferq::settings::BrokerSettings;
use tokio::time::timeout;

use crate::support::brokers::{MODEL, Rabbit, consuming, losing_the_session, names};
use crate::support::rabbitmq::{VirtualHost, virtual_host};
use crate::support::steps::{acknowledge, job_queue, jobs, next};
use crate::support::{PATIENCE, id_of, message, soon};

const ATTEMPTS: u64 = 3;

/// Lets the process of a queue do nothing until it is resumed, as that of a leader that is cut off.
async fn told(vhost: &VirtualHost<'_>, queue: &str, deed: &str) {
    let found =
        format!("{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>))", vhost.name);
    vhost.node.control(&["eval", &format!("{found}, sys:{deed}(amqqueue:get_pid(Q)).")]).await;
}

async fn consumers(vhost: &VirtualHost<'_>) -> usize {
    vhost.node.control(&["list_consumers", "--no-table-headers", "--vhost", &vhost.name]).await.lines().count()
}

#[tokio::test]
async fn a_consumer_that_is_granted_too_late_takes_no_job() {
    let mut rabbit = Rabbit::at(virtual_host().await);
    rabbit.settings.connect_timeout = Duration::from_millis(500);
    let queue = names().job_queue(MODEL);
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;

    told(&rabbit.vhost, &queue, "suspend").await;
    losing_the_session(&connectivity, rabbit.vhost.close_connections()).await;
    let silent = |now: &Connectivity| matches!(now, Connectivity::Connecting { reason, failures } if *failures > ATTEMPTS && reason.contains("consumer of queue"));
    soon("several attempts", connectivity.wait_for(silent)).await.unwrap();
    told(&rabbit.vhost, &queue, "resume").await;
    consuming(&mut connectivity).await;

    let one_is_left = async { while consumers(&rabbit.vhost).await != 1 {} };
    timeout(PATIENCE, one_is_left).await.expect("the consumers of the attempts go");
    for number in 0..20 {
        publisher.publish(&jobs(), message(&format!("m{number}"))).await.unwrap();
    }
    for number in 0..20 {
        let delivery = next(&mut consumer).await;
        assert_eq!(id_of(&delivery.message), format!("m{number}"));
        acknowledge(delivery, &publisher).await;
    }
    consumer.close().await;
}

/// A broker with the dead letters `a` and `b`, and who consumes there.
async fn with_two_letters() -> (Rabbit<'static>, impl Consumer) {
    let rabbit = Rabbit::at(virtual_host().await);
    let (consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    for id in ["a", "b"] {
        publisher.publish(&names().dead(MODEL), message(id)).await.unwrap();
    }
    (rabbit, consumer)
}

#[tokio::test]
async fn letters_are_seen_however_long_their_queue_takes_to_answer() {
    let (rabbit, consumer) = with_two_letters().await;
    let queue = names().dead_queue(MODEL);
    told(&rabbit.vhost, &queue, "suspend").await;
    let mut opening = pin!(LetterBox::open(&rabbit.settings, &queue));
    // The broker waits a quarter of this for a queue's count before it says 0.
    timeout(Duration::from_secs(1), &mut opening).await.expect_err("the opening waits for the queue");
    told(&rabbit.vhost, &queue, "resume").await;
    let mut letters = soon("the opening", opening).await.unwrap();
    assert_eq!(letters.left(), 2);
    for id in ["a", "b"] {
        assert_eq!(id_of(&letters.next().await.unwrap().unwrap().message), id);
    }
    assert!(letters.next().await.unwrap().is_none());
    letters.close().await;
    consumer.close().await;
}

/// Regression: `inferq dead-letter` waited for as long as it took for a queue without a leader.
#[tokio::test]
async fn letters_are_waited_for_no_longer_than_the_limit() {
    let (rabbit, consumer) = with_two_letters().await;
    let queue = names().dead_queue(MODEL);
    let settings = BrokerSettings { connect_timeout: Duration::from_secs(2), ..rabbit.settings.clone() };
    let mut letters = soon("the opening", LetterBox::open(&settings, &queue)).await.unwrap();
    assert_eq!(id_of(&letters.next().await.unwrap().unwrap().message), "a");

    told(&rabbit.vhost, &queue, "suspend").await;
    let told_at_the_second = soon("an error", letters.next()).await.unwrap_err().to_string();
    let error = soon("an error", LetterBox::open(&settings, &queue)).await.unwrap_err();
    told(&rabbit.vhost, &queue, "resume").await;
    assert!(matches!(error, ConnectError::Silent { .. }), "{error:?}");
    let expected = format!("the broker did not answer within 2s: a letter of queue `{queue}`");
    assert_eq!([told_at_the_second, error.to_string()], [expected.clone(), expected]);
    letters.close().await;
    consumer.close().await;
}
