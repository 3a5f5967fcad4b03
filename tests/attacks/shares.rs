//! A flood of one tenant: another's job finds a place in the worker, and nothing of the flood is lost.

use std::sync::Arc;
use std::time::Duration;

use inferq::broker::memory::MemoryPublisher;
use inferq::broker::{Address, Confirmed, PublishError, Publisher};
use inferq::envelope::{Grant, generate};
use inferq::protocol::properties::Message;
use inferq::worker::Parts;
use tokio::sync::Semaphore;

use super::house::{House, settle};
use super::text_request;

/// Publishes as many replies as it is given permits for, and everything else at once: a worker whose jobs take long.
struct Slow {
    inner: MemoryPublisher,
    replies: String,
    gate: Arc<Semaphore>,
}

impl Publisher for Slow {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        if *address.exchange == *self.replies {
            self.gate.acquire().await.unwrap().forget();
        }
        self.inner.publish(address, message).await
    }
}

fn counter(house: &House, line: &str) -> u64 {
    let page = house.parts.metrics.exposition();
    page.lines().find_map(|found| found.strip_prefix(line)).map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_tenant_leaves_places_for_another() {
    let mut house = House::build();
    // So that the flood is more than fits.
    house.settings.broker.prefetch = 64;
    generate(house.ring(), "other", &Grant::new("other", vec!["*".into()])).unwrap();
    house.parts = Parts::load(&house.settings).unwrap();
    let gate = Arc::new(Semaphore::new(1));
    let replies = house.names.replies_exchange();
    let worker = house.start_with(Slow { inner: house.broker.publisher(), replies, gate: Arc::clone(&gate) });
    let other = house.keys_of("other");
    for tenant in ["acme", "other"] {
        house.broker.declare_reply_queue(&house.names.replies_exchange(), &format!("{tenant}.replies"));
    }
    let of_other = || house.seal_as(&other, &house.draft("topic", "other.replies"), &text_request("hockey"));
    house.publish(of_other()).await;
    settle().await;
    assert_eq!(house.broker.peek("other.replies").len(), 1);

    // More than a worker takes up at a time.
    let prefetch = u64::from(house.settings.broker.prefetch);
    let flood = 2 * usize::from(house.settings.broker.prefetch);
    for _ in 0..flood {
        house.publish(house.seal(&house.draft("topic", "acme.replies"), &text_request("hockey")).0).await;
    }
    settle().await;
    assert_eq!(counter(&house, "inferq_jobs_in_flight"), prefetch * 3 / 4, "the flood has its share");
    // The whole flood was looked at, and is not in the way of what comes after it.
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(0));
    house.publish(of_other()).await;
    settle().await;
    assert_eq!(counter(&house, "inferq_jobs_in_flight"), prefetch * 3 / 4 + 1, "another's job is taken up");

    gate.add_permits(flood + 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(house.broker.peek("acme.replies").len(), flood);
    assert_eq!(house.broker.peek("other.replies").len(), 2);
    assert!(counter(&house, "inferq_jobs_postponed_total{model=\"topic\"}") >= flood as u64 - prefetch * 3 / 4);
    assert_eq!(house.broker.depth(&house.names.dead_queue("topic")), Some(0));
    worker.stop().await;
}
