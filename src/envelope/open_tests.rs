//! Tests of the order of validation: each step refuses with its code, and says no more than it may.

use std::time::Duration;

use super::*;
use crate::envelope::{Grant, ProducerKeys, RequestDraft, generate, seal_reply};
use crate::protocol::request::InferenceRequest;
use crate::protocol::response::ErrorBody;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

struct House {
    _folder: tempfile::TempDir,
    ring: Keyring,
    acme: ProducerKeys,
    other: ProducerKeys,
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), "acme", &Grant::new("acme", vec!["topic".into()])).unwrap();
    generate(folder.path(), "other", &Grant::new("other", vec!["*".into()])).unwrap();
    House {
        ring: Keyring::load(folder.path()).unwrap(),
        acme: ProducerKeys::load(folder.path(), "acme").unwrap(),
        other: ProducerKeys::load(folder.path(), "other").unwrap(),
        _folder: folder,
    }
}

fn policy() -> OpenPolicy {
    OpenPolicy {
        audience: "inferq.v1".into(),
        max_lifetime: Duration::from_secs(300),
        clock_skew: Duration::from_secs(60),
        max_body_bytes: 10_000,
        max_plaintext_bytes: 1_000,
    }
}

fn draft() -> RequestDraft {
    RequestDraft::new("topic".parse().unwrap(), "acme.replies", "inferq.v1", Duration::from_secs(300))
}

fn body() -> EncodedBody {
    let json = br#"{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["x"]}]}"#;
    InferenceRequest::decode(json, None, &crate::protocol::request::RequestBounds { max_rows: 1 })
        .unwrap()
        .encode()
        .unwrap()
}

use crate::protocol::body::EncodedBody;

fn sealed(keys: &ProducerKeys, draft: &RequestDraft) -> Message {
    keys.seal_request(draft, &body(), NOW).unwrap().0
}

fn code(house: &House, message: &Message, now: UnixSeconds) -> ErrorCode {
    open_request(&house.ring, &policy(), message, now).expect_err("it must be rejected").code
}

#[test]
fn a_job_opens_and_its_reply_proves_to_answer_it() {
    let house = house();
    let (message, pending) = house.acme.seal_request(&draft(), &body(), NOW).unwrap();
    let opened = open_request(&house.ring, &policy(), &message, NOW).unwrap();
    assert_eq!(opened.plaintext, body().bytes);
    assert_eq!(opened.claims.tenant, "acme");

    let answer = ErrorBody { error: "e".into(), code: "INVALID_INPUT".into(), id: None }.encode();
    let reply = seal_reply(&house.ring, &opened.reply, &answer, "inferq.v1", NOW).unwrap();
    assert_eq!(reply.reply_queue, "acme.replies");
    assert_eq!(house.acme.open_reply(&pending, &reply.message, NOW).unwrap().plaintext, answer.bytes);

    let (_, another) = house.acme.seal_request(&draft(), &body(), NOW).unwrap();
    let rejected = house.acme.open_reply(&another, &reply.message, NOW).err();
    assert!(matches!(rejected, Some(ReplyRejected::Binding(_))), "{rejected:?}");
    assert!(house.other.open_reply(&pending, &reply.message, NOW).is_err());
    let late = UnixSeconds(NOW.0 + 25 * 3_600);
    assert_eq!(house.acme.open_reply(&pending, &reply.message, late).err(), Some(ReplyRejected::Window));
}

use crate::envelope::ReplyRejected;

#[test]
fn steps_one_to_seven_look_the_same() {
    let house = house();
    let good = sealed(&house.acme, &draft());
    let with_body = |body: Vec<u8>| Message { body: body.into(), properties: good.properties.clone() };
    let mut no_type = good.clone();
    no_type.properties.content_type = None;
    let mut other_type = good.clone();
    other_type.properties.content_type = Some("application/json".into());
    // The reply direction's key, and a key of a tenant that this ring does not know.
    let stranger = self::house();
    let cases = [
        ("no content type", no_type),
        ("another content type", other_type),
        ("too large", with_body(vec![b'x'; 10_001])),
        ("not a JWE", with_body(b"hello".to_vec())),
        ("empty", with_body(Vec::new())),
        ("a stranger's key", sealed(&stranger.acme, &draft())),
        ("a broken tag", {
            let mut body = good.body.to_vec();
            let last = body.len() - 1;
            body[last] = if body[last] == b'A' { b'Q' } else { b'A' };
            with_body(body)
        }),
    ];
    let faces: Vec<_> = cases
        .into_iter()
        .map(|(name, message)| (name, open_request(&house.ring, &policy(), &message, NOW).unwrap_err()))
        .collect();
    for (name, face) in &faces {
        assert_eq!(face, &faces[0].1, "{name}");
        assert_eq!(face.code, ErrorCode::EnvelopeRejected, "{name}");
        assert_eq!(face.reply, None, "{name} must not be answered");
    }
}

#[test]
fn the_properties_are_the_headers() {
    let house = house();
    let good = sealed(&house.acme, &draft());
    let change: [fn(&mut Message); 6] = [
        |m| m.properties.message_id = Some("another".into()),
        |m| m.properties.correlation_id = Some("another".into()),
        |m| m.properties.reply_to = Some("acme.another".into()),
        |m| m.properties.message_id = None,
        |m| m.properties.correlation_id = None,
        |m| m.properties.reply_to = None,
    ];
    for change in change {
        let mut message = good.clone();
        change(&mut message);
        assert_eq!(code(&house, &message, NOW), ErrorCode::BindingMismatch);
    }
    let message = sealed(&house.acme, &RequestDraft { audience: "inferq.v2".into(), ..draft() });
    assert_eq!(code(&house, &message, NOW), ErrorCode::BindingMismatch);
}

#[test]
fn the_time_window_has_its_bounds() {
    let house = house();
    let message = sealed(&house.acme, &draft());
    for (offset, passes) in [(-61, false), (-60, true), (0, true), (360, true), (361, false)] {
        let now = UnixSeconds(NOW.0.checked_add_signed(offset).unwrap());
        let opened = open_request(&house.ring, &policy(), &message, now);
        assert_eq!(opened.is_ok(), passes, "{offset}");
        if !passes {
            assert_eq!(opened.unwrap_err().code, ErrorCode::OutsideTimeWindow);
        }
    }
    let long = sealed(&house.acme, &RequestDraft { lifetime: Duration::from_secs(301), ..draft() });
    assert_eq!(code(&house, &long, NOW), ErrorCode::OutsideTimeWindow);
}

#[test]
fn a_tenant_reaches_only_its_own() {
    let house = house();
    let foreign_queue = sealed(&house.acme, &RequestDraft { reply_to: "other.replies".into(), ..draft() });
    assert_eq!(code(&house, &foreign_queue, NOW), ErrorCode::ReplyQueueForbidden);

    let foreign_model = sealed(&house.acme, &RequestDraft { model: "secret".parse().unwrap(), ..draft() });
    let rejection = open_request(&house.ring, &policy(), &foreign_model, NOW).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::ModelForbidden);
    assert!(rejection.reply.is_some(), "the tenant is authentic and may be told");
}

#[test]
fn a_revoked_key_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [request_key, _] = generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
    let acme = ProducerKeys::load(folder.path(), "acme").unwrap();
    let message = sealed(&acme, &draft());
    assert!(open_request(&Keyring::load(folder.path()).unwrap(), &policy(), &message, NOW).is_ok());

    let grant = Grant { revoked_keys: vec![request_key], ..Grant::new("acme", vec!["*".into()]) };
    std::fs::write(folder.path().join("acme/tenant.toml"), toml::to_string(&grant).unwrap()).unwrap();
    let rejection = open_request(&Keyring::load(folder.path()).unwrap(), &policy(), &message, NOW).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::EnvelopeRejected);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
    let file = folder.path().join("acme/request.jwk");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Keyring::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
}

#[test]
fn a_key_cannot_take_anothers_id_or_direction() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
    std::fs::copy(folder.path().join("acme/request.jwk"), folder.path().join("acme/response.jwk")).unwrap();
    let error = Keyring::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("kid is"), "{error}");
}

/// A message sealed with the request key under a header of the test's own making.
fn with_header(house: &House, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Message {
    let good = sealed(&house.acme, &draft());
    let parts = Parts::parse(Framing::Compact, &good.body).unwrap();
    let mut header = serde_json::from_slice(&parts.header_json().unwrap()).unwrap();
    change(&mut header);
    let json = serde_json::to_vec(&header).unwrap();
    let key = house.ring.request_key("acme").unwrap();
    let body = crate::envelope::jwe::seal(Framing::Compact, &key.wrapping, &json, b"{}").unwrap().body;
    Message { body, properties: good.properties }
}

#[test]
fn a_header_other_than_the_pinned_one_opens_nothing_though_its_key_is_good() {
    let house = house();
    let response_key = house.ring.sealing_key("acme").unwrap().id.clone();
    for (name, value) in [
        ("alg", "dir"),
        ("enc", "A128GCM"),
        ("typ", "inferq-res+jwe"),
        ("cty", "text"),
        ("zip", "DEF"),
        ("kid", response_key.as_str()),
        ("kid", "acme.req.AAAAAAAAAAAAAAAA"),
        ("iss", "other"),
        ("mdl", "../topic"),
        ("jti", ""),
        ("iat", "1800000000"),
    ] {
        let message = with_header(&house, |header| drop(header.insert(name.into(), value.into())));
        assert_eq!(code(&house, &message, NOW), ErrorCode::EnvelopeRejected, "{name} {value}");
    }
    assert!(open_request(&house.ring, &policy(), &with_header(&house, |_| {}), NOW).is_ok(), "else nothing is shown");
    // Between the bound of a request's header and that of a reply's.
    let long = with_header(&house, |header| {
        for id in ["jti", "cid", "rto"] {
            header.insert(id.into(), "\"".repeat(230).into());
        }
    });
    assert_eq!(code(&house, &long, NOW), ErrorCode::EnvelopeRejected);
    let mut small = policy();
    small.max_plaintext_bytes = body().bytes.len() - 1;
    let message = sealed(&house.acme, &draft());
    assert_eq!(open_request(&house.ring, &small, &message, NOW).unwrap_err().code, ErrorCode::EnvelopeRejected);
}

#[test]
fn a_request_with_the_longest_header_can_be_answered() {
    let house = house();
    // As long as ids may be, in characters that JSON writes with two.
    let id = |length: usize| "\"".repeat(length);
    let mut length = 255;
    let message = loop {
        let reply_to = format!("acme.{}", id(length));
        let draft = RequestDraft { message_id: id(length), correlation_id: id(length), reply_to, ..draft() };
        match house.acme.seal_request(&draft, &body(), NOW) {
            Ok((message, _)) if length <= 250 => break message,
            Ok(_) | Err(_) => length -= 1,
        }
    };
    let header_chars = message.body.split(|byte| *byte == b'.').next().unwrap().len();
    assert!(header_chars > MAX_HEADER_CHARS - 16, "{header_chars} characters are not the longest");
    let opened = open_request(&house.ring, &policy(), &message, NOW).unwrap();
    assert!(seal_reply(&house.ring, &opened.reply, &body(), "inferq.v1", NOW).is_ok());
}

#[test]
fn what_is_just_large_enough_to_be_taken_is_taken() {
    let house = house();
    let message = sealed(&house.acme, &draft());
    let opens_within = |body: usize, plaintext: usize| {
        let policy = OpenPolicy { max_body_bytes: body, max_plaintext_bytes: plaintext, ..policy() };
        open_request(&house.ring, &policy, &message, NOW).is_ok()
    };
    let (sealed, plain) = (message.body.len(), body().bytes.len());
    assert!(opens_within(sealed, plain));
    assert!(!opens_within(sealed - 1, plain) && !opens_within(sealed, plain - 1));
}

#[test]
fn an_operator_sees_the_tenant_that_a_message_claims_to_come_from() {
    let house = house();
    assert_eq!(claimed_tenant(&sealed(&house.acme, &draft())).as_deref(), Some("acme"));
    let mut garbage = sealed(&house.acme, &draft());
    garbage.body = "no envelope".into();
    assert_eq!(claimed_tenant(&garbage), None);
}
