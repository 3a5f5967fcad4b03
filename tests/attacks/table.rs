//! The table of attacks: each row changes a valid message, and says which end it comes to and with which code.

use inferq::envelope::{PendingReply, UnixSeconds};
use inferq::protocol::properties::{
    CONTENT_TYPE_BINARY, CONTENT_TYPE_COMPACT, HEADER_ATTEMPT, HEADER_JSON_LENGTH, HeaderValue, Message,
};
use inferq::protocol::response::ResponseBody;

use super::forge::{Forgery, StolenKey};
use super::house::{House, TENANT, settle};
use super::{code_of, text_request};

/// Where everything that is answered goes.
const REPLIES: &str = "acme.replies";
/// The queue of the tenant that must get nothing.
const FOREIGN: &str = "narrow.replies";

/// What must become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A dead letter with this code, untouched; nobody is answered.
    Dead(&'static str),
    /// Its producer alone is told this code.
    Told(&'static str),
    /// Nothing at all comes of it.
    Dropped,
}

use End::{Dead, Dropped, Told};

/// What every step before the authentication answers: one face.
const REJECTED: End = Dead("ENVELOPE_REJECTED");
const UNBOUND: End = Dead("BINDING_MISMATCH");
const UNTIMELY: End = Dead("OUTSIDE_TIME_WINDOW");
const NO_QUEUE: End = Dead("REPLY_QUEUE_FORBIDDEN");

/// What an attacker has.
struct Loot {
    acme: StolenKey,
    acme_response: StolenKey,
    narrow: StolenKey,
    /// A reply of the service, as it went over the broker.
    reply: Message,
    /// A job that was answered, as it went over the broker.
    answered: Message,
}

impl Loot {
    /// An honest job; a fresh id for every `id`.
    fn job(&self, id: &str) -> Forgery {
        Forgery::honest(&self.acme, id, REPLIES, &text_request("hockey"))
    }

    fn with(&self, id: &str, member: &str, value: impl Into<serde_json::Value>) -> Message {
        self.job(id).with(member, value).seal()
    }

    fn body(&self, id: &str, change: impl FnOnce(&mut Vec<u8>)) -> Message {
        let mut message = self.job(id).seal();
        let mut body = message.body.to_vec();
        change(&mut body);
        message.body = body.into();
        message
    }

    /// The honest job with part `index` of another one.
    fn spliced(&self, id: &str, index: usize) -> Message {
        let mut segments = self.job(id).segments();
        let other = Forgery { plaintext: text_request("church").into_bytes(), ..self.job("another") };
        let mut foreign = other.segments();
        // The forger's content key and nonce are always the same; these two have to differ to be foreign.
        foreign[1] = foreign[1].replace(|c: char| c.is_ascii_lowercase(), "q");
        foreign[2] = "AAAAAAAAAAAAAAAA".to_owned();
        assert_ne!(segments[index], foreign[index]);
        segments[index].clone_from(&foreign[index]);
        Message { body: segments.join(".").into(), ..self.job(id).seal() }
    }

    fn typed(&self, id: &str, binary: bool, content_type: Option<&str>) -> Message {
        let mut message = Forgery { binary, ..self.job(id) }.seal();
        message.properties.content_type = content_type.map(str::to_owned);
        message
    }

    fn payload(&self, id: &str, json: &str) -> Message {
        Forgery { plaintext: json.into(), ..self.job(id) }.seal()
    }

    fn property(&self, id: &str, change: impl FnOnce(&mut Message)) -> Message {
        let mut message = self.job(id).seal();
        change(&mut message);
        message
    }

    fn text(&self, id: &str, change: impl FnOnce(String) -> String) -> Message {
        let job = self.job(id);
        let text = change(job.text());
        job.with_text(text).seal()
    }
}

type Row = (&'static str, End, fn(&Loot, &str) -> Message);

/// Forms: what is not five parts of the right sizes in the form that the content type names.
const FORMS: &[Row] = &[
    ("an empty body", REJECTED, |l, id| l.body(id, Vec::clear)),
    ("no envelope at all", REJECTED, |l, id| l.body(id, |b| *b = b"hello".to_vec())),
    ("plaintext in the clear", REJECTED, |l, id| l.body(id, |b| *b = text_request("hockey").into_bytes())),
    ("four parts", REJECTED, |l, id| l.body(id, |b| b.truncate(b.len() - 23))),
    ("six parts", REJECTED, |l, id| l.body(id, |b| b.extend_from_slice(b".AAAA"))),
    ("three parts, as of a signature", REJECTED, |l, id| {
        let [header, _, _, ciphertext, tag] = l.job(id).segments();
        l.body(id, |b| *b = [header, ciphertext, tag].join(".").into_bytes())
    }),
    ("the JSON form of the same envelope", REJECTED, |l, id| {
        let [protected, encrypted_key, iv, ciphertext, tag] = l.job(id).segments();
        let json = serde_json::json!({"protected": protected, "encrypted_key": encrypted_key, "iv": iv,
            "ciphertext": ciphertext, "tag": tag});
        l.body(id, |b| *b = json.to_string().into_bytes())
    }),
    ("cut in half", REJECTED, |l, id| l.body(id, |b| b.truncate(b.len() / 2))),
    ("a line break at its end", REJECTED, |l, id| l.body(id, |b| b.push(b'\n'))),
    ("padding at its end", REJECTED, |l, id| l.body(id, |b| b.extend_from_slice(b"=="))),
    ("a space before it", REJECTED, |l, id| l.body(id, |b| b.insert(0, b' '))),
    ("no content type", REJECTED, |l, id| l.typed(id, false, None)),
    ("the content type of JSON", REJECTED, |l, id| l.typed(id, false, Some("application/json"))),
    ("a content type with a parameter", REJECTED, |l, id| l.typed(id, false, Some("application/jose; x=1"))),
    ("the compact form as binary", REJECTED, |l, id| l.typed(id, false, Some(CONTENT_TYPE_BINARY))),
    ("the binary form as compact", REJECTED, |l, id| l.typed(id, true, Some(CONTENT_TYPE_COMPACT))),
    ("another magic", REJECTED, |l, id| {
        let mut message = Forgery { binary: true, ..l.job(id) }.seal();
        message.body = [b"MQJ2", &message.body[4..]].concat().into();
        message
    }),
    ("a header that is longer than the body", REJECTED, |l, id| {
        let mut message = Forgery { binary: true, ..l.job(id) }.seal();
        message.body = [b"MQJ1\xff\xff", &message.body[6..]].concat().into();
        message
    }),
    ("a header beyond its bound", REJECTED, |l, id| l.text(id, |text| format!("{}{text}", " ".repeat(1_600)))),
    ("a body beyond its bound", REJECTED, |l, id| l.body(id, |b| b.resize((12 << 20) + 1, b'A'))),
    ("a plaintext beyond its bound", REJECTED, |l, id| l.payload(id, &" ".repeat((8 << 20) + 1))),
];

/// Parts of two authentic messages, put together.
const SPLICES: &[Row] = &[
    ("another's header", REJECTED, |l, id| l.spliced(id, 0)),
    ("another's content key", REJECTED, |l, id| l.spliced(id, 1)),
    ("another's nonce", REJECTED, |l, id| l.spliced(id, 2)),
    ("another's ciphertext", REJECTED, |l, id| l.spliced(id, 3)),
    ("another's tag", REJECTED, |l, id| l.spliced(id, 4)),
];

/// Headers that are sealed with a good key and are not the pinned one.
const HEADERS: &[Row] = &[
    ("alg none", REJECTED, |l, id| l.with(id, "alg", "none")),
    ("alg dir", REJECTED, |l, id| l.with(id, "alg", "dir")),
    ("alg A128KW", REJECTED, |l, id| l.with(id, "alg", "A128KW")),
    ("alg RSA-OAEP", REJECTED, |l, id| l.with(id, "alg", "RSA-OAEP")),
    ("alg in small letters", REJECTED, |l, id| l.with(id, "alg", "a256kw")),
    ("alg PBES2 with a billion rounds", REJECTED, |l, id| {
        l.job(id).with("alg", "PBES2-HS256+A128KW").with("p2c", 1_000_000_000).with("p2s", "AA").seal()
    }),
    ("enc A128GCM", REJECTED, |l, id| l.with(id, "enc", "A128GCM")),
    ("enc A256CBC-HS512", REJECTED, |l, id| l.with(id, "enc", "A256CBC-HS512")),
    ("the type of a reply", REJECTED, |l, id| l.with(id, "typ", "inferq-res+jwe")),
    ("no type", REJECTED, |l, id| l.job(id).without("typ").seal()),
    ("another content", REJECTED, |l, id| l.with(id, "cty", "text/plain")),
    ("compression", REJECTED, |l, id| l.with(id, "zip", "DEF")),
    ("crit", REJECTED, |l, id| l.with(id, "crit", serde_json::json!(["exp"]))),
    ("a key of its own", REJECTED, |l, id| l.with(id, "jwk", serde_json::json!({"kty": "oct", "k": "AA"}))),
    ("a URL of keys", REJECTED, |l, id| l.with(id, "jku", "https://attacker.example/keys")),
    ("an unknown member", REJECTED, |l, id| l.with(id, "admin", true)),
    ("no issuer", REJECTED, |l, id| l.job(id).without("iss").seal()),
    ("no expiry", REJECTED, |l, id| l.job(id).without("exp").seal()),
    ("alg twice", REJECTED, |l, id| l.text(id, |text| text.replacen('{', r#"{"alg":"A256KW","#, 1))),
    ("iss twice", REJECTED, |l, id| l.text(id, |text| text.replacen('{', r#"{"iss":"narrow","#, 1))),
    ("an escaped member twice", REJECTED, |l, id| l.text(id, |text| text.replacen('{', r#"{"\u0069ss":"acme","#, 1))),
    ("an array of the values", REJECTED, |l, id| {
        let values: Vec<_> = l.job(id).header.into_iter().map(|(_, value)| value).collect();
        l.text(id, |_| serde_json::Value::from(values).to_string())
    }),
    ("null", REJECTED, |l, id| l.text(id, |_| "null".to_owned())),
    ("two objects", REJECTED, |l, id| l.text(id, |text| format!("{text}{text}"))),
    ("no UTF-8", REJECTED, |l, id| l.text(id, |text| text.replace("acme", "acm\u{0}e"))),
    ("iat as a word", REJECTED, |l, id| l.with(id, "iat", UnixSeconds::now().0.to_string())),
    ("iat before the epoch", REJECTED, |l, id| l.with(id, "iat", -1)),
    ("exp as a fraction", REJECTED, |l, id| l.with(id, "exp", 1.8e9 + 0.5)),
    ("exp beyond 64 bits", REJECTED, |l, id| l.text(id, |text| text.replacen("\"exp\":", "\"exp\":9999999999999", 1))),
    ("no id", REJECTED, |l, id| l.with(id, "jti", "")),
    ("an id of 256 characters", REJECTED, |l, id| l.with(id, "jti", "x".repeat(256))),
    ("a line break in an id", REJECTED, |l, id| l.with(id, "jti", "1\n2026-01-01 ERROR forged")),
    ("an escape sequence in an id", REJECTED, |l, id| l.with(id, "cid", "\u{1b}[2J")),
    ("a line break in a queue", REJECTED, |l, id| l.with(id, "rto", "acme.q\r\nx")),
    ("a model that climbs", REJECTED, |l, id| l.with(id, "mdl", "../topic")),
    ("version 0 of a model", REJECTED, |l, id| l.with(id, "mdl", "topic:0")),
];

/// Keys that are not the one that the header may name.
const KEYS: &[Row] = &[
    ("an unknown key id", REJECTED, |l, id| l.with(id, "kid", "acme.req.AAAAAAAAAAAAAAAA")),
    ("no key id", REJECTED, |l, id| l.with(id, "kid", "")),
    ("a key id that climbs", REJECTED, |l, id| l.with(id, "kid", "../acme/request")),
    ("a key id with a blank behind it", REJECTED, |l, id| l.with(id, "kid", format!("{} ", l.acme.id))),
    ("another tenant's key under ours", REJECTED, |l, id| Forgery { key: l.narrow.clone(), ..l.job(id) }.seal()),
    ("another tenant's key and its id, as us", REJECTED, |l, id| {
        Forgery { key: l.narrow.clone(), ..l.job(id) }.with("kid", l.narrow.id.clone()).seal()
    }),
    ("our key as another tenant", REJECTED, |l, id| l.with(id, "iss", "narrow")),
    ("the key that seals replies", REJECTED, |l, id| {
        Forgery { key: l.acme_response.clone(), ..l.job(id) }.with("kid", l.acme_response.id.clone()).seal()
    }),
    ("the key that seals replies under the other's id", REJECTED, |l, id| {
        Forgery { key: l.acme_response.clone(), ..l.job(id) }.seal()
    }),
    ("a reply, sent back as a job", REJECTED, |l, _| {
        let mut reflected = l.reply.clone();
        reflected.properties.reply_to = Some(REPLIES.to_owned());
        reflected
    }),
];

/// Authentic envelopes that do not fit their message, their time, or their tenant.
const BINDINGS: &[Row] = &[
    ("another audience", UNBOUND, |l, id| l.with(id, "aud", "inferq.v2")),
    ("an audience with a blank", UNBOUND, |l, id| l.with(id, "aud", "inferq.v1 ")),
    ("another message id", UNBOUND, |l, id| l.property(id, |m| m.properties.message_id = Some("other".into()))),
    ("no message id", UNBOUND, |l, id| l.property(id, |m| m.properties.message_id = None)),
    ("another correlation id", UNBOUND, |l, id| l.property(id, |m| m.properties.correlation_id = Some("x".into()))),
    ("no correlation id", UNBOUND, |l, id| l.property(id, |m| m.properties.correlation_id = None)),
    ("another reply queue outside", UNBOUND, |l, id| l.property(id, |m| m.properties.reply_to = Some(FOREIGN.into()))),
    ("no reply queue", UNBOUND, |l, id| l.property(id, |m| m.properties.reply_to = None)),
    ("expired", UNTIMELY, |l, id| {
        let now = UnixSeconds::now().0;
        l.job(id).with("iat", now - 400).with("exp", now - 100).seal()
    }),
    ("from the future", UNTIMELY, |l, id| {
        let now = UnixSeconds::now().0;
        l.job(id).with("iat", now + 100).with("exp", now + 200).seal()
    }),
    ("valid for too long", UNTIMELY, |l, id| l.with(id, "exp", UnixSeconds::now().0 + 3_600)),
    ("valid for ever", UNTIMELY, |l, id| l.with(id, "exp", u64::MAX)),
    ("over before it began", UNTIMELY, |l, id| l.with(id, "exp", UnixSeconds::now().0 - 1)),
    ("another tenant's reply queue", NO_QUEUE, |l, id| l.with(id, "rto", FOREIGN)),
    ("a job queue for the reply", NO_QUEUE, |l, id| l.with(id, "rto", "inferq.jobs.topic")),
    ("the prefix alone", NO_QUEUE, |l, id| l.with(id, "rto", "acme.")),
    ("a prefix that only begins like ours", NO_QUEUE, |l, id| l.with(id, "rto", "acmex.replies")),
    ("a model without a grant", Dead("REPLY_QUEUE_FORBIDDEN"), |l, id| {
        Forgery::honest(&l.narrow, id, REPLIES, &text_request("x")).seal()
    }),
];

/// Copies of a job that was answered.
const REPLAYS: &[Row] = &[
    ("the same job again", Dropped, |l, _| l.answered.clone()),
    ("the same job as its second attempt", Dropped, |l, _| {
        let mut copy = l.answered.clone();
        copy.properties.headers.insert(HEADER_ATTEMPT.to_owned(), HeaderValue::Integer(1));
        copy
    }),
    ("the same job, urgent, from another program", Dropped, |l, _| {
        let mut copy = l.answered.clone();
        (copy.properties.priority, copy.properties.app_id) = (Some(9), Some("attacker".to_owned()));
        copy
    }),
    ("its id on another ciphertext", Dead("REPLAY_CONFLICT"), |l, _| {
        let id = l.answered.properties.message_id.clone().unwrap();
        l.payload(&id, &text_request("another text"))
    }),
];

/// Authentic jobs whose payload is an attack.
const PAYLOADS: &[Row] = &[
    ("no JSON", Told("MALFORMED_REQUEST"), |l, id| l.payload(id, "\u{0}\u{1}")),
    ("an empty payload", Told("MALFORMED_REQUEST"), |l, id| l.payload(id, "")),
    ("JSON of a million brackets", Told("MALFORMED_REQUEST"), |l, id| l.payload(id, &"[".repeat(1_000_000))),
    ("parameters of a million brackets", Told("MALFORMED_REQUEST"), |l, id| {
        l.payload(id, &format!("{{\"inputs\":[],\"parameters\":{{\"x\":{}", "[".repeat(1_000_000)))
    }),
    ("a shape whose product overflows", Told("INVALID_INPUT"), |l, id| {
        let side = u64::from(u32::MAX);
        let json = format!(
            r#"{{"inputs":[{{"name":"text","shape":[{side},{side},{side}],"datatype":"BYTES","data":["x"]}}]}}"#
        );
        l.payload(id, &json)
    }),
    ("a negative axis", Told("INVALID_INPUT"), |l, id| {
        l.payload(id, r#"{"inputs":[{"name":"text","shape":[-1],"datatype":"BYTES","data":["x"]}]}"#)
    }),
    ("more rows than a request may have", Told("INPUT_TOO_LARGE"), |l, id| {
        let texts = vec!["x"; 1_025];
        let input = serde_json::json!({"name": "text", "shape": [1_025], "datatype": "BYTES", "data": texts});
        l.payload(id, &serde_json::json!({"inputs": [input]}).to_string())
    }),
    ("JSON said to end beyond the payload", Told("MALFORMED_REQUEST"), |l, id| {
        let mut message = l.job(id).with("cty", "x-tensor").seal();
        message.properties.headers.insert(HEADER_JSON_LENGTH.to_owned(), HeaderValue::Integer(i64::MAX));
        message
    }),
    ("a model that is not served", Told("UNKNOWN_MODEL"), |l, id| l.with(id, "mdl", "nosuch")),
];

#[tokio::test(start_paused = true)]
async fn every_attack_comes_to_the_end_that_the_table_says() {
    let house = House::build();
    let worker = house.start();
    for queue in [REPLIES, FOREIGN] {
        house.broker.declare_reply_queue(&house.names.replies_exchange(), queue);
    }
    let loot = loot(&house).await;
    let mut cases = 0;
    for rows in [FORMS, SPLICES, HEADERS, KEYS, BINDINGS, REPLAYS, PAYLOADS] {
        for (index, (name, end, make)) in rows.iter().enumerate() {
            cases += 1;
            attack(&house, name, *end, make(&loot, &format!("case-{cases}-{index}"))).await;
        }
    }
    assert!(cases >= 100, "{cases} cases");
    assert_eq!(house.broker.depth(FOREIGN), Some(0), "the other tenant got nothing");
    // All of it in one process, which still answers an honest job.
    attack(&house, "an honest job", Told("OK"), loot.job("honest").seal()).await;
    assert_eq!(worker.stop().await.abandoned, 0);
}

/// Publishes `message` and checks that it comes to `end`.
async fn attack(house: &House, name: &str, end: End, message: Message) {
    let dead = house.names.dead_queue("topic");
    let (letters_before, replies_before) = (house.broker.peek(&dead).len(), house.broker.peek(REPLIES).len());
    house.publish(message.clone()).await;
    settle().await;
    let (letters, replies) = (house.broker.peek(&dead), house.broker.peek(REPLIES));
    let came = match (&letters[letters_before..], &replies[replies_before..]) {
        ([letter], []) => {
            assert_eq!(letter.body, message.body, "{name}: the body is untouched");
            format!("{:?}", ("dead", code_of(letter)))
        }
        ([], [reply]) => format!("{:?}", ("told", told(house, &message, reply))),
        ([], []) => "dropped".to_owned(),
        other => panic!("{name}: {other:?}"),
    };
    let expected = match end {
        Dead(code) => format!("{:?}", ("dead", code)),
        Told(code) => format!("{:?}", ("told", code)),
        Dropped => "dropped".to_owned(),
    };
    assert_eq!(came, expected, "{name}");
    assert_eq!(house.broker.depth(&house.names.undeliverable_queue()), Some(0), "{name}");
    assert_eq!(house.broker.depth(&house.names.job_queue("topic")), Some(0), "{name}");
}

/// The code that the producer of `request` reads in `reply`.
fn told(house: &House, request: &Message, reply: &Message) -> String {
    let word = |word: &Option<String>| word.clone().unwrap();
    let pending = PendingReply {
        message_id: word(&request.properties.message_id),
        correlation_id: word(&request.properties.correlation_id),
        reply_to: word(&request.properties.reply_to),
        audience: "inferq.v1".to_owned(),
        request_tag: String::from_utf8(request.body.rsplit(|byte| *byte == b'.').next().unwrap().to_vec()).unwrap(),
    };
    match house.read(&pending, reply) {
        ResponseBody::Error(error) => error.code,
        ResponseBody::Result(_) => "OK".to_owned(),
    }
}

async fn loot(house: &House) -> Loot {
    let read = |tenant: &str, file: &str| StolenKey::read(house.ring(), tenant, file);
    let acme = read(TENANT, "request.jwk");
    let answered = Forgery::honest(&acme, "answered", REPLIES, &text_request("hockey")).seal();
    house.publish(answered.clone()).await;
    settle().await;
    let reply = house.broker.peek(REPLIES).remove(0);
    Loot { acme, acme_response: read(TENANT, "response.jwk"), narrow: read("narrow", "request.jwk"), reply, answered }
}
