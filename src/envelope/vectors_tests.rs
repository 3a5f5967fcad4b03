//! The vectors that every producer can check itself against: `tests/vectors/*.json`, written by this test.
//!
//! Keys, content keys, ids and times are fixed, so that they come out the same; the keys are public and protect
//! nothing. `INFERQ_BLESS=1 cargo test --lib vectors` writes the files anew.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::claims::{ALG, ENC, ReplyHeader, RequestHeader, TYP_REPLY, TYP_REQUEST};
use super::jwe::{Framing, Fresh, KEY_BYTES, Sealed, WrappingKey};
use super::seal::{content_kind, framing, json_length_header};
use super::*;
use crate::error::{ErrorCode, JobError};
use crate::protocol::body::EncodedBody;
use crate::protocol::properties::{HeaderValue, Headers, Message, Properties, TYPE_REPLY, TYPE_REQUEST};
use crate::protocol::request::{InferInput, InferenceRequest, RequestBounds, RequestedOutput};
use crate::protocol::response::{ErrorBody, InferOutput, InferenceResponse};
use crate::protocol::tensor::{Tensor, TensorData};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const TENANT: &str = "acme";
const AUDIENCE: &str = "inferq.v1";
const REPLY_QUEUE: &str = "acme.replies.1";

/// Which key a direction has here: nobody may use them for anything else.
fn key(direction: Direction) -> WrappingKey {
    let first = match direction {
        Direction::Request => 0x00,
        Direction::Response => 0x80,
    };
    WrappingKey::new(Zeroizing::new(std::array::from_fn::<u8, KEY_BYTES, _>(|index| {
        first + u8::try_from(index).unwrap()
    })))
}

/// A folder with the two keys, as `inferq keys generate` would have written them.
fn key_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tenant = folder.path().join(TENANT);
    fs::create_dir(&tenant).unwrap();
    fs::write(tenant.join("tenant.toml"), "models = [\"*\"]\nreply_prefix = \"acme.\"\n").unwrap();
    for direction in Direction::ALL {
        let file = tenant.join(format!("{}.jwk", direction.file_stem()));
        jwk::write(&file, &jwk::key_id(TENANT, direction, &key(direction)), &key(direction)).unwrap();
    }
    folder
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn assert_current(name: &str, vector: &Value) {
    let text = format!("{vector:#}\n");
    if std::env::var_os("INFERQ_BLESS").is_some() {
        fs::create_dir_all(place("")).unwrap();
        fs::write(place(name), &text).unwrap();
    }
    let actual = fs::read_to_string(place(name)).unwrap_or_default();
    assert!(actual == text, "tests/vectors/{name} is out of date; run `INFERQ_BLESS=1 cargo test --lib vectors`");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A sealed message with all that went into it.
struct Vector {
    message: Message,
    tag_segment: String,
    written: Value,
}

fn seal(header: &impl Serialize, key: &WrappingKey, body: &EncodedBody, properties: Properties, fresh: u8) -> Vector {
    let (framing, content_type) = framing(body);
    let header_json = serde_json::to_vec(header).unwrap();
    let Sealed { body: sealed, tag_segment } =
        Fresh::fixed(fresh).seal(framing, key, &header_json, &body.bytes).unwrap();
    let properties = Properties {
        content_type: Some(content_type.to_owned()),
        app_id: Some("inferq".to_owned()),
        timestamp: Some(NOW.0),
        headers: json_length_header(body),
        ..properties
    };
    let written = json!({
        "now": NOW.0,
        "content_key": hex(&[fresh; KEY_BYTES]),
        "iv": hex(&[fresh; 12]),
        "protected_header": serde_json::from_slice::<Value>(&header_json).unwrap(),
        "plaintext_hex": hex(&body.bytes),
        "plaintext_json": serde_json::from_slice::<Value>(&body.bytes[..body.json_length.unwrap_or(body.bytes.len())]).unwrap(),
        "properties": {
            "content_type": properties.content_type,
            "type": properties.kind,
            "message_id": properties.message_id,
            "correlation_id": properties.correlation_id,
            "reply_to": properties.reply_to,
            "timestamp": properties.timestamp,
            "headers": written_headers(&properties.headers),
        },
        "tag_segment": tag_segment,
        "body": match framing {
            Framing::Compact => Value::from(std::str::from_utf8(&sealed).unwrap()),
            Framing::Binary => Value::Null,
        },
        "body_hex": match framing {
            Framing::Compact => Value::Null,
            Framing::Binary => Value::from(hex(&sealed)),
        },
    });
    Vector { message: Message { body: sealed, properties }, tag_segment, written }
}

fn written_headers(headers: &Headers) -> Value {
    let value = |value: &HeaderValue| match value {
        HeaderValue::Text(text) => Value::from(text.as_str()),
        HeaderValue::Integer(number) => Value::from(*number),
        HeaderValue::Boolean(flag) => Value::from(*flag),
    };
    headers.iter().map(|(name, header)| (name.clone(), value(header))).collect::<serde_json::Map<_, _>>().into()
}

fn request(number: u8, body: &EncodedBody) -> Vector {
    let ids = (format!("job-{number}"), format!("exchange-{number}"));
    let header = RequestHeader {
        alg: ALG.to_owned(),
        enc: ENC.to_owned(),
        typ: TYP_REQUEST.to_owned(),
        cty: content_kind(body),
        kid: jwk::key_id(TENANT, Direction::Request, &key(Direction::Request)),
        iss: TENANT.to_owned(),
        aud: AUDIENCE.to_owned(),
        jti: ids.0.clone(),
        cid: ids.1.clone(),
        rto: REPLY_QUEUE.to_owned(),
        mdl: "topic:1".to_owned(),
        iat: NOW,
        exp: UnixSeconds(NOW.0 + 300),
    };
    let properties = Properties {
        message_id: Some(ids.0),
        correlation_id: Some(ids.1),
        reply_to: Some(REPLY_QUEUE.to_owned()),
        kind: Some(TYPE_REQUEST.to_owned()),
        ..Properties::default()
    };
    seal(&header, &key(Direction::Request), body, properties, number)
}

/// The reply to `request`.
fn reply(number: u8, request: &Vector, body: &EncodedBody) -> Vector {
    let asked = &request.message.properties;
    let id = format!("reply-{number}");
    let header = ReplyHeader {
        alg: ALG.to_owned(),
        enc: ENC.to_owned(),
        typ: TYP_REPLY.to_owned(),
        cty: content_kind(body),
        kid: jwk::key_id(TENANT, Direction::Response, &key(Direction::Response)),
        iss: AUDIENCE.to_owned(),
        aud: TENANT.to_owned(),
        jti: id.clone(),
        cid: asked.correlation_id.clone().unwrap(),
        rto: REPLY_QUEUE.to_owned(),
        irt: asked.message_id.clone().unwrap(),
        rqt: request.tag_segment.clone(),
        iat: NOW,
        exp: UnixSeconds(NOW.0 + 86_400),
    };
    let properties = Properties {
        message_id: Some(id),
        correlation_id: asked.correlation_id.clone(),
        kind: Some(TYPE_REPLY.to_owned()),
        ..Properties::default()
    };
    seal(&header, &key(Direction::Response), body, properties, number)
}

fn text_request() -> EncodedBody {
    let tensor = Tensor::new(vec![1], TensorData::Bytes(vec![b"the goalie stopped every shot".to_vec()])).unwrap();
    let request = InferenceRequest {
        id: Some("42".to_owned()),
        parameters: serde_json::Map::new(),
        inputs: vec![InferInput { name: "text".to_owned(), tensor, binary_data: false }],
        outputs: Vec::new(),
    };
    request.encode().unwrap()
}

fn tensor_request() -> EncodedBody {
    let ids = Tensor::new(vec![1, 4], TensorData::Int64(vec![5, 6, 7, -1])).unwrap();
    let text = Tensor::new(vec![1], TensorData::Bytes(vec![vec![0xff, 0x00]])).unwrap();
    let input = |name: &str, tensor| InferInput { name: name.to_owned(), tensor, binary_data: true };
    let output = RequestedOutput { name: "logits".to_owned(), classification: None, binary_data: true };
    let request = InferenceRequest {
        id: None,
        parameters: serde_json::Map::new(),
        inputs: vec![input("ids", ids), input("blob", text)],
        outputs: vec![output],
    };
    request.encode().unwrap()
}

fn response(outputs: Vec<InferOutput>) -> EncodedBody {
    let response = InferenceResponse {
        model_name: "topic".to_owned(),
        model_version: "1".to_owned(),
        id: Some("42".to_owned()),
        parameters: serde_json::Map::new(),
        outputs,
    };
    response.encode().unwrap()
}

fn text_response() -> EncodedBody {
    let tensor = Tensor::new(vec![1], TensorData::Bytes(vec![b"recreation".to_vec()])).unwrap();
    response(vec![InferOutput { name: "label".to_owned(), tensor, binary_data: false }])
}

fn tensor_response() -> EncodedBody {
    let tensor = Tensor::new(vec![1, 2], TensorData::Fp32(vec![0.5, -1.25])).unwrap();
    response(vec![InferOutput { name: "logits".to_owned(), tensor, binary_data: true }])
}

fn error_response() -> EncodedBody {
    let error = JobError::new(ErrorCode::UnknownModel, "model `topic` has no version 3; it has 1");
    ErrorBody::new(&error, None).encode()
}

fn policy() -> OpenPolicy {
    OpenPolicy {
        audience: AUDIENCE.to_owned(),
        max_lifetime: std::time::Duration::from_secs(300),
        clock_skew: std::time::Duration::from_secs(60),
        max_body_bytes: 100_000,
        max_plaintext_bytes: 100_000,
    }
}

#[test]
fn the_key_vectors_are_current() {
    let folder = key_folder();
    let read = |name: &str| {
        let text = fs::read_to_string(folder.path().join(TENANT).join(name)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let vector = json!({ "tenant": TENANT, "request_jwk": read("request.jwk"), "response_jwk": read("response.jwk") });
    assert_current("keys.json", &vector);
}

#[test]
fn the_message_vectors_are_current_and_the_worker_and_the_producer_open_them() {
    let folder = key_folder();
    let ring = Keyring::load(folder.path()).unwrap();
    let producer = ProducerKeys::load(folder.path(), TENANT).unwrap();
    let text = request(1, &text_request());
    let tensor = request(2, &tensor_request());
    for (name, request, body) in
        [("request-text.json", &text, text_request()), ("request-tensor.json", &tensor, tensor_request())]
    {
        assert_current(name, &request.written);
        let opened = open_request(&ring, &policy(), &request.message, NOW).unwrap();
        assert_eq!(opened.plaintext, body.bytes);
        let bounds = RequestBounds { max_rows: 4 };
        InferenceRequest::decode(&opened.plaintext, opened.json_length, &bounds).unwrap();
    }
    for (name, request, reply, body) in [
        ("reply-text.json", &text, reply(3, &text, &text_response()), text_response()),
        ("reply-error.json", &text, reply(4, &text, &error_response()), error_response()),
        ("reply-tensor.json", &tensor, reply(5, &tensor, &tensor_response()), tensor_response()),
    ] {
        assert_current(name, &reply.written);
        let asked = &request.message.properties;
        let pending = PendingReply {
            message_id: asked.message_id.clone().unwrap(),
            correlation_id: asked.correlation_id.clone().unwrap(),
            reply_to: REPLY_QUEUE.to_owned(),
            audience: AUDIENCE.to_owned(),
            request_tag: request.tag_segment.clone(),
        };
        assert_eq!(producer.open_reply(&pending, &reply.message, NOW).unwrap().plaintext, body.bytes);
    }
}
