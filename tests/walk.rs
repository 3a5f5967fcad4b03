//! One job, hop by hop, with a snapshot at every hop: the walk of the crate's documentation, seen from outside.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod house;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use house::House;
use inferq::batch::batcher::SubmitOptions;
use inferq::batch::pool::JobClass;
use inferq::broker::topology::Topology;
use inferq::broker::{Address, Consumer, Publisher};
use inferq::envelope::{OpenPolicy, UnixSeconds, open_request, seal_reply};
use inferq::protocol::properties::Message;
use inferq::protocol::request::{InferenceRequest, RequestBounds};
use inferq::protocol::response::ResponseBody;
use inferq::protocol::tensor::TensorData;
use insta::{Settings, assert_debug_snapshot, assert_json_snapshot};
use serde_json::{Value, json};

/// Ids, times and ciphertexts differ from run to run.
fn redactions() -> Settings {
    let mut settings = Settings::clone_current();
    settings.add_filter(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[uuid]");
    settings.add_filter(r"acme\.replies\.[0-9a-f]{32}", "acme.replies.[random]");
    settings.add_filter(r"(acme\.(req|res))\.[A-Za-z0-9_-]{16}", "$1.[fingerprint]");
    settings.add_filter(r#"("rqt": )"[A-Za-z0-9_-]{22}""#, "$1\"[tag of the request]\"");
    settings.add_filter(r#"("(iat|exp|timestamp|queue_us|run_us)": )\d+"#, "$1\"[time]\"");
    settings.add_filter(r#"inferq/\d+\.\d+\.\d+"#, "inferq/[version]");
    settings
}

/// The protected header of a compact JWE: what the broker can read.
fn header(message: &Message) -> Value {
    let body = std::str::from_utf8(&message.body).unwrap();
    let (header, _) = body.split_once('.').unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

fn properties(message: &Message) -> Value {
    let own = &message.properties;
    json!({
        "message_id": own.message_id, "correlation_id": own.correlation_id, "reply_to": own.reply_to,
        "content_type": own.content_type, "type": own.kind, "app_id": own.app_id, "timestamp": own.timestamp,
    })
}

#[tokio::test]
async fn a_job_from_delivery_to_settlement() {
    let _snapshots = redactions().bind_to_scope();
    let house = House::build();
    let (queue, mut replies) = house.replies(&house.keys);
    let request = r#"{"id":"42","inputs":[{"name":"text","shape":[1],"datatype":"BYTES",
        "data":["The goalie stopped every shot!"]}],"outputs":[{"name":"label"},{"name":"probabilities",
        "parameters":{"classification":2}}]}"#;
    let (message, pending) = house.seal(&house.draft("topic", &queue), request);
    assert_json_snapshot!("1_published_properties", properties(&message));
    assert_json_snapshot!("1_published_header", header(&message));
    assert!(!String::from_utf8_lossy(&message.body).contains("goalie"), "the broker sees no payload");
    house.publish(message).await;

    let mut consumer = house.broker.consumer(&house.queues, 1);
    let delivery = consumer.next().await.unwrap();
    assert_eq!(house.names.model_of_queue(&delivery.queue), "topic");
    let (message, receipt) = delivery.split();

    let policy = OpenPolicy {
        audience: "inferq.v1".into(),
        max_lifetime: house.settings.limits.max_lifetime,
        clock_skew: house.settings.limits.clock_skew,
        max_body_bytes: 10_000,
        max_plaintext_bytes: 10_000,
    };
    let opened = open_request(&house.parts.keyring.current(), &policy, &message, UnixSeconds::now()).unwrap();
    assert_eq!(std::str::from_utf8(&opened.plaintext).unwrap(), request);
    assert_eq!((opened.claims.tenant.as_str(), opened.claims.model.to_string().as_str()), ("acme", "topic"));

    let decoded = InferenceRequest::decode(&opened.plaintext, None, &RequestBounds { max_rows: 1 }).unwrap();
    assert_debug_snapshot!("3_decoded_request", decoded);

    let model = house.parts.models.resolve("topic", None, "a job").await.unwrap();
    let asked = decoded.facts();
    let prepared = model.prepare(decoded).await.unwrap();
    assert_debug_snapshot!("5_prepared_rows", prepared);

    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    let options = SubmitOptions { deadline, class: JobClass::Normal, tenant: "acme".into(), alone: false };
    let rows = model.infer(prepared, options).await.unwrap();
    let TensorData::Fp32(logits) = rows[0].output.outputs[0].elements() else { panic!("no logits") };
    let rounded: Vec<f32> = logits.iter().map(|logit| (logit * 1e3).round() / 1e3).collect();
    assert_debug_snapshot!("6_row_output", rounded);

    let response = model.shape(rows, &asked).unwrap().encode().unwrap();
    let written: Value = serde_json::from_slice(&response.bytes).unwrap();
    assert_json_snapshot!("7_response", rounded_scores(written));

    let sealed =
        seal_reply(&house.parts.keyring.current(), &opened.reply, &response, "inferq.v1", UnixSeconds::now()).unwrap();
    assert_json_snapshot!("8_sealed_properties", properties(&sealed.message));
    assert_json_snapshot!("8_sealed_header", header(&sealed.message));

    let address = Address::new(&house.names.replies_exchange(), &sealed.reply_queue);
    let confirmed = house.broker.publisher().publish(&address, sealed.message).await.unwrap();
    receipt.settle(inferq::broker::Verdict::Ack(confirmed));
    consumer.close().await;
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(0), "acknowledged, not requeued");

    let (reply, _receipt) = replies.next().await.unwrap().split();
    let ResponseBody::Result(read) = house.read(&pending, &reply) else { panic!("an error") };
    assert_eq!(read.id.as_deref(), Some("42"));
}

/// The last digits of a probability depend on the processor.
fn rounded_scores(mut response: Value) -> Value {
    let top = response["outputs"][1]["data"].as_array_mut().unwrap();
    for entry in top {
        let written = entry.as_str().unwrap().to_owned();
        let (score, rest) = written.split_once(':').unwrap();
        *entry = format!("{:.3}:{rest}", score.parse::<f32>().unwrap()).into();
    }
    response
}

#[test]
fn the_topology_is_what_the_documentation_says() {
    let (settings, _) =
        inferq::settings::Settings::load_in(&Default::default(), &inferq::settings::Environment::of([])).unwrap();
    assert_json_snapshot!(Topology::for_models(&settings.broker, &["topic".to_owned()]));
}
