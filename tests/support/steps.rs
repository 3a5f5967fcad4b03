//! What most tests of a broker do: publish jobs, take them, acknowledge them.

use inferq::broker::{Address, Consumer, Delivery, Publisher, Verdict};
use tokio::time::timeout;

use super::brokers::{MODEL, names};
use super::{QUIET, soon};

/// Where jobs are published.
pub fn jobs() -> Address {
    Address::new(&names().jobs_exchange(), MODEL)
}

/// The queue that they come to.
pub fn job_queue() -> Vec<String> {
    vec![names().job_queue(MODEL)]
}

/// The next delivery.
pub async fn next(consumer: &mut impl Consumer) -> Delivery {
    soon("a delivery", consumer.next()).await.expect("the consumer is not stopped")
}

/// For a while, no delivery.
pub async fn nothing_comes(consumer: &mut impl Consumer) {
    if let Ok(delivery) = timeout(QUIET, consumer.next()).await {
        panic!("unexpected: {delivery:?}");
    }
}

/// Acknowledges a delivery by the only proof there is: a confirmed publish, here of a copy for the operator.
pub async fn acknowledge(delivery: Delivery, publisher: &impl Publisher) {
    let (message, receipt) = delivery.split();
    let confirmed = publisher.publish(&names().undeliverable(), message).await.unwrap();
    receipt.settle(Verdict::Ack(confirmed));
}
