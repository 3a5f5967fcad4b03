//! A worker's publisher, when much of what it publishes has nowhere to go.

use futures_util::future::join_all;
use inferq::broker::{Address, PublishError, Publisher};

use crate::support::brokers::{Rabbit, consuming, names};
use crate::support::rabbitmq::virtual_host;
use crate::support::steps::{job_queue, jobs};
use crate::support::{message, soon};

/// Bursts, so that the broker confirms many with one frame.
#[tokio::test]
async fn in_bursts_only_what_was_returned_is_called_so() {
    const ROUNDS: usize = 8;
    const BURST: usize = 250;
    let rabbit = Rabbit::at(virtual_host().await);
    let (_consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 1);
    consuming(&mut connectivity).await;
    for round in 0..ROUNDS {
        let publishes = (0..BURST).map(|number| {
            let publisher = publisher.clone();
            async move {
                // Most of them are returned, each with a queue of its own, as replies are.
                let gone = number % 5 != 0;
                let nowhere = Address::new(&names().replies_exchange(), &format!("acme.gone.{number}"));
                let address = if gone { nowhere } else { jobs() };
                (number, gone, publisher.publish(&address, message(&format!("{round}.{number}"))).await)
            }
        });
        for (number, gone, published) in soon("all answers", join_all(publishes)).await {
            match published {
                Ok(_) => assert!(!gone, "{round}.{number} went nowhere and was confirmed"),
                Err(PublishError::Returned { .. }) => assert!(gone, "{round}.{number} was routed"),
                Err(error) => panic!("{round}.{number}: {error}"),
            }
        }
    }
}
