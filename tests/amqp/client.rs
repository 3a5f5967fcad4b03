//! A client's publishing channels: many tasks, each with its own answer, whatever happens to the others.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use inferq::broker::amqp::{self, pool::ChannelPool};
use inferq::broker::topology::Topology;
use inferq::broker::{Address, PublishError, Publisher};
use inferq::settings::BrokerSettings;

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

#[tokio::test]
async fn what_is_for_whoever_listens_is_confirmed_though_nobody_does() {
    let (_rabbit, pool) = pool(1).await;
    let returned = soon("a return", pool.publish(&nowhere(), message("needed"))).await;
    assert!(matches!(returned, Err(PublishError::Returned { .. })), "{returned:?}");
    let announced = pool.clone().for_whoever_listens();
    soon("a confirm", announced.publish(&nowhere(), message("for whoever listens"))).await.unwrap();
    pool.close().await;
}

/// Regression: a channel whose publish was given up went back to the pool. Where the broker confirmed that publish and the
/// next one together, the next one's returned message went to the other: it was lost, and called confirmed.
#[tokio::test]
async fn a_publish_that_is_given_up_answers_nobody_else() {
    let (_rabbit, pool) = pool(1).await;
    let (bound, gone) = (jobs(), nowhere());
    for round in 0..1_000 {
        // Each is begun, with whatever channel is there, and dropped before it can be confirmed.
        for _ in 0..round % 7 {
            assert!(pool.publish(&bound, message("given up")).now_or_never().is_none(), "nobody confirms at once");
        }
        let returned = soon("a return", pool.publish(&gone, message("returned"))).await;
        assert!(matches!(returned, Err(PublishError::Returned { .. })), "round {round}: {returned:?}");
    }
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
