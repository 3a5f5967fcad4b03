//! A client's publishing channels: many tasks, each with its own answer, whatever happens to the others.

use std::time::Duration;

use futures_util::future::join_all;
use inferq::broker::amqp::{self, pool::ChannelPool};
use inferq::broker::topology::Topology;
use inferq::broker::{Address, PublishError, Publisher};
use inferq::settings::BrokerSettings;
use tokio::time::timeout;

use crate::support::brokers::{Rabbit, names, topology};
use crate::support::rabbitmq::virtual_host;
use crate::support::steps::jobs;
use crate::support::{message, soon};

async fn pool(channels: usize) -> (Rabbit<'static>, ChannelPool) {
    let rabbit = Rabbit::at(virtual_host().await);
    amqp::apply(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
    let settings = BrokerSettings { publisher_channels: channels, ..rabbit.settings.clone() };
    let pool = ChannelPool::new(&settings).unwrap();
    pool.warm_up().await.unwrap();
    (rabbit, pool)
}

fn nowhere() -> Address {
    Address::new(&names().replies_exchange(), "acme.replies.gone")
}

#[tokio::test]
async fn many_tasks_share_the_channels_and_keep_their_answers() {
    let (_rabbit, pool) = pool(4).await;
    let publishes = (0..400).map(|number| {
        let (pool, address) = (pool.clone(), if number % 3 == 0 { nowhere() } else { jobs() });
        tokio::spawn(async move { (number, pool.publish(&address, message(&format!("m{number}"))).await) })
    });
    for answered in soon("all answers", join_all(publishes)).await {
        let (number, published) = answered.unwrap();
        match published {
            Ok(_) => assert_ne!(number % 3, 0, "m{number} went nowhere and was confirmed"),
            Err(PublishError::Returned { .. }) => assert_eq!(number % 3, 0, "m{number} was routed"),
            Err(error) => panic!("m{number}: {error}"),
        }
    }
    pool.close().await;
}

/// Regression: a channel whose publish was given up went back to the pool, and the next publish got the other's answer.
#[tokio::test]
async fn a_publish_that_is_given_up_answers_nobody_else() {
    let (_rabbit, pool) = pool(1).await;
    let mut given_up = 0;
    for number in 0..200 {
        let wait = Duration::from_micros(20 * (number % 40));
        let gone = nowhere();
        let publish = pool.publish(&gone, message("given up"));
        given_up += u32::from(timeout(wait, publish).await.is_err());
        let next = soon("the next", pool.publish(&jobs(), message(&format!("m{number}")))).await;
        assert!(next.is_ok(), "m{number}: {next:?}");
    }
    assert!(given_up > 0, "every publish was answered in time, nothing was tested");
    pool.close().await;
}

#[tokio::test]
async fn a_closed_connection_is_opened_again() {
    let (rabbit, pool) = pool(2).await;
    pool.publish(&jobs(), message("before")).await.unwrap();
    rabbit.vhost.close_connections().await;
    // The pool may learn of it only by trying.
    soon("a publish", async { while pool.publish(&jobs(), message("after")).await.is_err() {} }).await;
    pool.close().await;
}

#[tokio::test]
async fn a_reply_queue_is_declared_and_bound_under_its_name() {
    let (rabbit, pool) = pool(2).await;
    let address = Address::new(&names().replies_exchange(), "acme.replies.7");
    amqp::apply(&rabbit.settings, &Topology::for_replies(&names(), "acme.replies.7")).await.unwrap();
    pool.publish(&address, message("reply")).await.unwrap();
    assert_eq!(rabbit.vhost.depth("acme.replies.7").await, (1, 0));
    pool.close().await;
}
