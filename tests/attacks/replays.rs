//! Copies of a job: published twice, redelivered, replayed from the dead letters, under a worker and under two.

use std::sync::Arc;
use std::time::Duration;

use inferq::broker::memory::MemoryPublisher;
use inferq::broker::{Address, Confirmed, Consumer, PublishError, Publisher};
use inferq::envelope::UnixSeconds;
use inferq::protocol::properties::Message;
use inferq::protocol::response::ResponseBody;
use tokio::sync::Semaphore;

use super::house::{House, settle};
use super::{code_of, text_request};

/// Publishes as many replies as it is given permits for; the rest of what it is told waits.
struct Gated {
    inner: MemoryPublisher,
    gate: Arc<Semaphore>,
}

impl Publisher for Gated {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        self.gate.acquire().await.unwrap().forget();
        self.inner.publish(address, message).await
    }
}

/// How often this worker has acknowledged a copy without a second answer.
fn duplicates(house: &House) -> u64 {
    let page = house.parts.metrics.exposition();
    let value = page.lines().find_map(|line| line.strip_prefix("inferq_jobs_duplicate_total "));
    value.unwrap().parse().unwrap()
}

fn job_depth(house: &House) -> Option<usize> {
    house.broker.depth(&house.names.job_queue("topic"))
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_published_again_is_answered_once() {
    let house = House::build();
    let worker = house.start();
    let queue = "acme.replies";
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    let (message, _) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
    for _ in 0..3 {
        house.publish(message.clone()).await;
        settle().await;
    }
    worker.stop().await;
    assert_eq!((house.broker.peek(queue).len(), duplicates(&house), job_depth(&house)), (1, 2, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_copy_waits_for_the_one_that_is_under_way() {
    let house = House::build();
    let gate = Arc::new(Semaphore::new(0));
    let worker = house.start_with(Gated { inner: house.broker.publisher(), gate: Arc::clone(&gate) });
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    for _ in 0..4 {
        house.publish(message.clone()).await;
    }
    settle().await;
    assert_eq!(duplicates(&house), 0, "nothing is answered yet");
    gate.add_permits(10);
    let (reply, _receipt) = replies.next().await.unwrap().split();
    assert!(matches!(house.read(&pending, &reply), ResponseBody::Result(_)));
    settle().await;
    worker.stop().await;
    assert_eq!((gate.available_permits(), duplicates(&house)), (9, 3), "one reply was published");
    assert_eq!(job_depth(&house), Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_confirmed_is_given_again_under_the_same_id() {
    let house = House::build();
    let worker = house.start_with(Doubtful { inner: house.broker.publisher(), once: Semaphore::new(1) });
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    house.publish(message).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.stop().await;
    let (first, _receipt) = replies.next().await.unwrap().split();
    let (second, _receipt) = replies.next().await.unwrap().split();
    assert_eq!(first.properties.message_id, second.properties.message_id);
    assert_eq!(first.body, second.body, "the very same reply is published again");
    assert_eq!(house.read(&pending, &first), house.read(&pending, &second));
}

/// Publishes, and says of the first time that it does not know.
struct Doubtful {
    inner: MemoryPublisher,
    once: Semaphore,
}

impl Publisher for Doubtful {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let confirmed = self.inner.publish(address, message).await?;
        match self.once.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Err(PublishError::TimedOut(Duration::from_secs(10)))
            }
            Err(_) => Ok(confirmed),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_workers_give_a_copy_the_same_answer_under_the_same_id() {
    let house = House::build();
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    let mut answers = Vec::new();
    for _ in 0..2 {
        // A worker remembers for itself alone.
        let worker = house.start();
        house.publish(message.clone()).await;
        let (reply, _receipt) = replies.next().await.unwrap().split();
        answers.push((reply.properties.message_id.clone(), house.read(&pending, &reply)));
        worker.stop().await;
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test(start_paused = true)]
async fn another_ciphertext_under_a_used_id_is_a_dead_letter() {
    let house = House::build();
    let worker = house.start();
    let (queue, mut replies) = house.replies(&house.keys);
    let draft = house.draft("topic", &queue);
    let (first, pending) = house.seal(&draft, &text_request("hockey"));
    let (second, _) = house.seal(&draft, &text_request("church"));
    house.publish(first).await;
    let (reply, _receipt) = replies.next().await.unwrap().split();
    assert!(matches!(house.read(&pending, &reply), ResponseBody::Result(_)));
    house.publish(second.clone()).await;
    settle().await;
    worker.stop().await;
    let letters = house.broker.peek(&house.names.dead_queue("topic"));
    assert_eq!((letters.len(), code_of(&letters[0]), &letters[0].body), (1, "REPLAY_CONFLICT", &second.body));
    assert_eq!(house.broker.depth(&queue), Some(0), "it is not answered");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_replayed_is_answered() {
    let house = House::build();
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    house.publish(message.clone()).await;
    // Delivered as often as may be, and never settled: each time whoever had it has gone.
    let mut crashing = house.broker.consumer(&vec![house.names.job_queue("topic")].into(), 1);
    for _ in 0..house.settings.broker.delivery_limit {
        drop(crashing.next().await.unwrap());
    }
    drop(crashing);
    let worker = house.start();
    settle().await;
    let letters = house.broker.peek(&house.names.dead_queue("topic"));
    assert_eq!(code_of(&letters[0]), "DELIVERY_LIMIT_EXCEEDED");
    house.publish(message).await;
    let (reply, _receipt) = replies.next().await.unwrap().split();
    assert!(matches!(house.read(&pending, &reply), ResponseBody::Result(_)));
    worker.stop().await;
    assert_eq!(duplicates(&house), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_found_no_queue_can_be_asked_for_again() {
    let house = House::build();
    let worker = house.start();
    let queue = "acme.late";
    let (message, pending) = house.seal(&house.draft("topic", queue), &text_request("hockey"));
    house.publish(message.clone()).await;
    settle().await;
    let kept = house.broker.peek(&house.names.undeliverable_queue());
    house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    house.publish(message).await;
    settle().await;
    worker.stop().await;
    let replies = house.broker.peek(queue);
    assert_eq!(replies[0].properties.message_id, kept[0].properties.message_id);
    assert_eq!(house.read(&pending, &replies[0]), house.read(&pending, &kept[0]));
}

#[tokio::test(start_paused = true)]
async fn an_expired_copy_is_refused_by_its_time_whoever_remembers_it() {
    let house = House::build();
    let _worker = house.start();
    let (queue, _replies) = house.replies(&house.keys);
    let body = inferq::protocol::body::EncodedBody { bytes: text_request("x").into_bytes().into(), json_length: None };
    let sealed_at = UnixSeconds(UnixSeconds::now().0 - 361);
    let (message, _) = house.keys.seal_request(&house.draft("topic", &queue), &body, sealed_at).unwrap();
    house.publish(message).await;
    settle().await;
    assert_eq!(code_of(&house.broker.peek(&house.names.dead_queue("topic"))[0]), "OUTSIDE_TIME_WINDOW");
}
