//! The worker on the embedded broker, under a paused clock: what becomes of good jobs, bad jobs, and of everybody when
//! something is missing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod house;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use house::{House, settle};
use inferq::broker::memory::MemoryPublisher;
use inferq::broker::{Address, Confirmed, Consumer, PublishError, Publisher};
use inferq::client::{Job, Prediction};
use inferq::envelope::UnixSeconds;
use inferq::protocol::body::EncodedBody;
use inferq::protocol::properties::{HEADER_DEADLINE_MS, HEADER_JSON_LENGTH, HeaderValue, Message};
use inferq::protocol::response::ResponseBody;

const LIMIT: Duration = Duration::from_secs(30);

fn text_request(text: &str) -> String {
    serde_json::json!({"id": "r", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]})
        .to_string()
}

fn topic_job(text: &str) -> Job {
    Job::texts("topic".parse().unwrap(), &[text])
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    message.properties.text_header(name).unwrap_or_else(|| panic!("no header {name}: {message:?}"))
}

#[tokio::test(start_paused = true)]
async fn texts_are_classified_in_their_order() {
    let house = House::build();
    let worker = house.start();
    let client = house.client();
    let texts = ["the goalie stopped every shot in overtime", "the church and the gospel of jesus christ"];
    let job = Job::texts("topic:1".parse().unwrap(), &texts);
    let ResponseBody::Result(response) = client.predict(&job, LIMIT).await.unwrap() else { panic!("an error") };
    let labels: Vec<String> = Prediction::read_all(&response).into_iter().map(|p| p.label).collect();
    assert_eq!(labels, ["recreation", "religion"]);
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("topic", "1"));
    assert_eq!(worker.stop().await.abandoned, 0);
}

/// So large that it is encoded and sealed on another thread than small ones.
#[tokio::test(start_paused = true)]
async fn a_large_response_is_answered_whole() {
    let house = House::build();
    let worker = house.start();
    let client = house.client();
    let texts = ["the goalie stopped every shot in overtime", "the church and the gospel of jesus christ"];
    let many: Vec<&str> = texts.into_iter().cycle().take(1_000).collect();
    let job = Job::texts("topic".parse().unwrap(), &many);
    let ResponseBody::Result(response) = client.predict(&job, LIMIT).await.unwrap() else { panic!("an error") };
    let elements: usize = response.outputs.iter().map(|output| output.tensor.elements().len()).sum();
    assert!(elements > inferq::limits::INLINE_ENCODE_ELEMENTS, "{elements}");
    assert!(response.encode().unwrap().bytes.len() > inferq::limits::INLINE_OPEN_BYTES);
    let labels: Vec<String> = Prediction::read_all(&response).into_iter().map(|p| p.label).collect();
    assert_eq!(labels.len(), 1_000);
    assert!(labels.chunks(2).all(|pair| pair == ["recreation", "religion"]));
    assert_eq!(worker.stop().await.abandoned, 0);
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_answered_with_their_code_and_the_worker_lives_on() {
    let house = House::build();
    let _worker = house.start();
    let cases = [
        ("topic", text_request(""), "INVALID_INPUT", "has no word in its 0 bytes"),
        ("topic", text_request(&"word ".repeat(220_000)), "INPUT_TOO_LARGE", "1100000 bytes, at most 262144"),
        ("nosuch", text_request("x"), "UNKNOWN_MODEL", "there is no model `nosuch`; served are `topic`"),
        ("topic:9", text_request("x"), "UNKNOWN_MODEL", "model `topic` has no version 9; it has 1"),
        ("topic", "not json".to_owned(), "MALFORMED_REQUEST", "syntax error at line 1"),
        (
            "topic",
            r#"{"inputs":[{"name":"text","shape":[1],"datatype":"FP32","data":[NaN]}]}"#.to_owned(),
            "MALFORMED_REQUEST",
            "NaN or infinity",
        ),
        (
            "topic",
            r#"{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["a"]}]}"#.to_owned(),
            "INVALID_INPUT",
            "shape [2] holds 2 elements, 1 came",
        ),
        (
            "topic",
            r#"{"inputs":[{"name":"text","shape":[1,2],"datatype":"BYTES","data":["a","b"]}]}"#.to_owned(),
            "INVALID_INPUT",
            "shape [1, 2], [N] or [N, 1] was expected",
        ),
        (
            "topic",
            r#"{"inputs":[{"name":"words","shape":[1],"datatype":"BYTES","data":["a"]}]}"#.to_owned(),
            "INVALID_INPUT",
            "one input, `text`; `words` came",
        ),
        (
            "topic",
            r#"{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["a"]}],"outputs":[{"name":"mood"}]}"#
                .to_owned(),
            "INVALID_INPUT",
            "no output `mood`; it has `label`, `probabilities`, `logits`",
        ),
    ];
    for (model, json, code, part) in cases {
        let (queue, mut replies) = house.replies(&house.keys);
        let (message, pending) = house.seal(&house.draft(model, &queue), &json);
        house.publish(message).await;
        let (reply, _receipt) = replies.next().await.unwrap().split();
        let ResponseBody::Error(error) = house.read(&pending, &reply) else { panic!("{model}: a result") };
        assert_eq!(error.code, code, "{}", error.error);
        assert!(error.error.contains(part), "{code}: {}", error.error);
    }
    let good = house.client().predict(&topic_job("hockey"), LIMIT).await.unwrap();
    assert!(matches!(good, ResponseBody::Result(_)), "{good:?}");
    assert_eq!(house.broker.depth(&house.names.dead_queue("topic")), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_tensor_job_that_does_not_say_where_its_json_ends_is_told_so() {
    let house = House::build();
    let _worker = house.start();
    let (queue, mut replies) = house.replies(&house.keys);
    let bytes = text_request("hockey").into_bytes();
    let body = EncodedBody { json_length: Some(bytes.len()), bytes: bytes.into() };
    let (mut message, pending) =
        house.keys.seal_request(&house.draft("topic", &queue), &body, UnixSeconds::now()).unwrap();
    assert!(message.properties.headers.remove(HEADER_JSON_LENGTH).is_some());
    house.publish(message).await;
    let (reply, _receipt) = replies.next().await.unwrap().split();
    let ResponseBody::Error(error) = house.read(&pending, &reply) else { panic!("a result") };
    let expected = "`cty` is x-tensor, but header `inference-header-content-length` is missing or no length; \
                    it says where the JSON ends";
    assert_eq!((error.code.as_str(), error.error.as_str()), ("MALFORMED_REQUEST", expected));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_authenticated_becomes_a_dead_letter_untouched_and_unanswered() {
    let house = House::build();
    let _worker = house.start();
    let (queue, _replies) = house.replies(&house.keys);
    let (good, _) = house.seal(&house.draft("topic", &queue), &text_request("x"));
    let stranger = House::build();
    let (foreign, _) = stranger.seal(&stranger.draft("topic", &queue), &text_request("x"));
    let (mut other_reply, _) = house.seal(&house.draft("topic", &queue), &text_request("x"));
    other_reply.properties.reply_to = Some("acme.elsewhere".into());
    let (other_prefix, _) = house.seal(&house.draft("topic", "other.replies"), &text_request("x"));
    let not_a_jwe = Message { body: "hello".into(), properties: good.properties.clone() };
    let cases = [
        (not_a_jwe, "ENVELOPE_REJECTED"),
        (foreign, "ENVELOPE_REJECTED"),
        (other_reply, "BINDING_MISMATCH"),
        (other_prefix, "REPLY_QUEUE_FORBIDDEN"),
    ];
    let dead = house.names.dead_queue("topic");
    for (index, (message, code)) in cases.into_iter().enumerate() {
        house.publish(message.clone()).await;
        settle().await;
        let letters = house.broker.peek(&dead);
        let letter = letters.get(index).unwrap_or_else(|| panic!("{code}: no dead letter"));
        assert_eq!(header(letter, "x-inferq-error"), code);
        assert_eq!(header(letter, "x-inferq-worker"), "w-1");
        assert_eq!(letter.body, message.body, "the body is untouched");
        assert_eq!(letter.properties.message_id, message.properties.message_id);
    }
    assert_eq!(house.broker.depth(&queue), Some(0), "none is answered");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_a_grant_is_told() {
    let house = House::build();
    let _worker = house.start();
    let narrow = house.keys_of("narrow");
    let (queue, mut replies) = house.replies(&narrow);
    let body = EncodedBody { bytes: text_request("x").into_bytes().into(), json_length: None };
    let (message, pending) = narrow.seal_request(&house.draft("topic", &queue), &body, UnixSeconds::now()).unwrap();
    house.publish(message).await;
    let (reply, _receipt) = replies.next().await.unwrap().split();
    let opened = narrow.open_reply(&pending, &reply, UnixSeconds::now()).unwrap();
    let ResponseBody::Error(error) = ResponseBody::decode(&opened.plaintext, None).unwrap() else { panic!("a result") };
    assert_eq!(error.code, "MODEL_FORBIDDEN");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_nobody_takes_is_kept_sealed() {
    let house = House::build();
    let _worker = house.start();
    let undeliverable = house.names.undeliverable_queue();
    let (gone, pending) = house.seal(&house.draft("topic", "acme.gone"), &text_request("hockey"));
    house.publish(gone).await;
    settle().await;
    let kept = house.broker.peek(&undeliverable);
    assert_eq!(header(&kept[0], "x-inferq-error"), "REPLY_UNDELIVERABLE");
    assert_eq!(header(&kept[0], "x-inferq-reply-queue"), "acme.gone");
    assert!(matches!(house.read(&pending, &kept[0]), ResponseBody::Result(_)), "only its producer can read it");

    let (full, _replies) = house.replies(&house.keys);
    house.broker.bound_queue(&full, 10);
    let (message, _) = house.seal(&house.draft("topic", &full), &text_request("hockey"));
    house.publish(message).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(header(&house.broker.peek(&undeliverable)[1], "x-inferq-reply-queue"), full);
}

#[tokio::test(start_paused = true)]
async fn a_job_past_its_deadline_is_not_run_and_its_producer_is_told() {
    let house = House::build();
    let _worker = house.start();
    let (queue, mut replies) = house.replies(&house.keys);
    let (mut message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    message.properties.headers.insert(HEADER_DEADLINE_MS.into(), HeaderValue::Integer(1));
    house.publish(message).await;
    let (reply, _receipt) = replies.next().await.unwrap().split();
    let ResponseBody::Error(error) = house.read(&pending, &reply) else { panic!("it was run") };
    assert_eq!((error.code.as_str(), error.id.as_deref()), ("DEADLINE_EXCEEDED", Some("r")));
}

/// Fails the first publishes, as a broker does that is going away.
struct Flaky {
    inner: MemoryPublisher,
    failures: AtomicU32,
}

impl Publisher for Flaky {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let left = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(PublishError::Unavailable("as told".into())),
            Err(_) => self.inner.publish(address, message).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_acknowledged_only_when_its_reply_is_confirmed() {
    let house = House::build();
    let _worker = house.start_with(Flaky { inner: house.broker.publisher(), failures: AtomicU32::new(2) });
    let reply = house.client().predict(&topic_job("hockey"), LIMIT).await.unwrap();
    assert!(matches!(reply, ResponseBody::Result(_)), "{reply:?}");
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(0));
    assert_eq!(requeued(&house), [("publish_failed", 0), ("dropped", 0), ("draining", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_for_long_brings_no_job_nearer_to_its_delivery_limit() {
    let house = House::build();
    // With the longest pauses, more than an hour.
    let _worker = house.start_with(Flaky { inner: house.broker.publisher(), failures: AtomicU32::new(1_000) });
    let (queue, mut replies) = house.replies(&house.keys);
    let (message, pending) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    house.publish(message).await;
    let (reply, _receipt) = replies.next().await.unwrap().split();
    assert!(matches!(house.read(&pending, &reply), ResponseBody::Result(_)));
    settle().await;
    assert!(house.broker.peek(&house.names.dead_queue("topic")).is_empty());
    let page = house.parts.metrics.exposition();
    assert!(page.contains("inferq_jobs_received_total{model=\"topic\"} 1\n"), "it was delivered once: {page}");
}

/// How many jobs the worker has counted as given back, by reason.
fn requeued(house: &House) -> [(&'static str, u64); 3] {
    let page = house.parts.metrics.exposition();
    ["publish_failed", "dropped", "draining"].map(|reason| {
        let name = format!("inferq_jobs_requeued_total{{reason=\"{reason}\"}} ");
        let count = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        (reason, count.parse().unwrap())
    })
}

/// Panics at the first publishes, as a fault of this program would.
struct Panicking {
    inner: MemoryPublisher,
    panics: AtomicU32,
}

impl Publisher for Panicking {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        let left = self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "as told");
        self.inner.publish(address, message).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_task_panics_is_counted_and_answered_by_the_next_delivery() {
    let house = House::build();
    let worker = house.start_with(Panicking { inner: house.broker.publisher(), panics: AtomicU32::new(1) });
    let reply = house.client().predict(&topic_job("hockey"), LIMIT).await.unwrap();
    assert!(matches!(reply, ResponseBody::Result(_)), "{reply:?}");
    assert_eq!(worker.stop().await.abandoned, 0);
    assert_eq!(requeued(&house), [("publish_failed", 0), ("dropped", 1), ("draining", 0)]);
}

/// Never hears from the broker.
struct Silent;

impl Publisher for Silent {
    async fn publish(&self, _: &Address, _: Message) -> Result<Confirmed, PublishError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_finished_within_the_grace_is_counted_and_goes_back() {
    let house = House::build();
    let worker = house.start_with(Silent);
    let (queue, _replies) = house.replies(&house.keys);
    for _ in 0..3 {
        let (message, _) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
        house.publish(message).await;
    }
    settle().await;
    assert_eq!(worker.stop().await.abandoned, 3);
    assert_eq!(requeued(&house), [("publish_failed", 0), ("dropped", 0), ("draining", 3)]);
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_never_settled_becomes_a_dead_letter_within_its_limit() {
    let house = House::build();
    let _worker = house.start_with(Panicking { inner: house.broker.publisher(), panics: AtomicU32::new(3) });
    let (queue, _replies) = house.replies(&house.keys);
    let (message, _) = house.seal(&house.draft("topic", &queue), &text_request("hockey"));
    house.publish(message.clone()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let letters = house.broker.peek(&house.names.dead_queue("topic"));
    assert_eq!(header(&letters[0], "x-inferq-error"), "DELIVERY_LIMIT_EXCEEDED");
    assert_eq!(letters[0].body, message.body);
}

/// Hears from the broker after a while, which under a paused clock passes only when nobody has anything to do.
struct Slow(MemoryPublisher);

impl Publisher for Slow {
    async fn publish(&self, address: &Address, message: Message) -> Result<Confirmed, PublishError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.0.publish(address, message).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_loses_nothing_and_repeats_nothing() {
    let house = House::build();
    let jobs = 2 * usize::from(house.settings.broker.prefetch);
    let client = house.client();
    let mut submitted = Vec::new();
    for _ in 0..jobs {
        submitted.push(client.submit(&topic_job("a game of hockey")).await.unwrap());
    }
    // No reply is confirmed while others still run: when the first one is here, no more than a prefetch was taken.
    let worker = house.start_with(Slow(house.broker.publisher()));
    let first = submitted.swap_remove(0);
    assert!(matches!(first.reply(LIMIT).await.unwrap(), ResponseBody::Result(_)));
    assert_eq!(worker.stop().await.abandoned, 0);
    let left = house.broker.depth(&house.names.job_queue("topic")).unwrap();
    assert!(left > 0, "the worker was stopped in the middle");
    let second = house.start();
    for job in submitted {
        assert!(matches!(job.reply(LIMIT).await.unwrap(), ResponseBody::Result(_)));
    }
    second.stop().await;
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(0));
}
