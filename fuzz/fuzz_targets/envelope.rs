//! Any bytes at all as the body of a job, in both forms, where the worker has the keys that the corpus was sealed with: what is opened is
//! the sound job and no other, and nothing panics.
//!
//! Of the first byte, bit 0 chooses the form, and bit 1 whether the rest is the body, or is put into the sound one: two bytes of the place,
//! one of how many bytes make room, and what is put there.
#![no_main]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::LazyLock;
use std::time::Duration;

use inferq::envelope::{Keyring, OpenPolicy, UnixSeconds, open_request};
use inferq::protocol::properties::{Message, Properties};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const KEYS: &str = include_str!("../../tests/vectors/keys.json");
const JOBS: [&str; 2] =
    [include_str!("../../tests/vectors/request-text.json"), include_str!("../../tests/vectors/request-tensor.json")];

/// The keys of the vectors, which are public.
static RING: LazyLock<Keyring> = LazyLock::new(|| {
    let keys: Value = serde_json::from_str(KEYS).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let tenant = folder.path().join(keys["tenant"].as_str().expect("a name"));
    fs::create_dir(&tenant).expect("a tenant's folder");
    fs::write(tenant.join("tenant.toml"), "models = [\"*\"]\nreply_prefix = \"acme.\"\n").expect("a grant");
    for (file, member) in [("request.jwk", "request_jwk"), ("response.jwk", "response_jwk")] {
        let path = tenant.join(file);
        fs::write(&path, keys[member].to_string()).expect("a key file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
    }
    Keyring::load(folder.path()).expect("the keys just written")
});

/// A sound job of each form.
static SOUND: LazyLock<[Message; 2]> = LazyLock::new(|| JOBS.map(sound));

fn sound(vector: &str) -> Message {
    let vector: Value = serde_json::from_str(vector).expect("JSON");
    let property = |name: &str| vector["properties"][name].as_str().map(str::to_owned);
    let properties = Properties {
        content_type: property("content_type"),
        message_id: property("message_id"),
        correlation_id: property("correlation_id"),
        reply_to: property("reply_to"),
        ..Properties::default()
    };
    let hexadecimal = |text: &str| {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
        (0..text.len()).step_by(2).map(byte).collect()
    };
    let body: Vec<u8> = match vector["body"].as_str() {
        Some(text) => text.into(),
        None => hexadecimal(vector["body_hex"].as_str().expect("a body")),
    };
    Message { body: body.into(), properties }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((form, rest)) = bytes.split_first() else { return };
    let sound = &SOUND[usize::from(form & 1)];
    let body = if form & 2 == 0 {
        rest.to_vec()
    } else {
        let Some(([high, low, room], put)) = rest.split_first_chunk() else { return };
        let mut body = sound.body.to_vec();
        let place = usize::from(u16::from_be_bytes([*high, *low])) % (body.len() + 1);
        let end = (place + usize::from(*room)).min(body.len());
        body.splice(place..end, put.iter().copied());
        body
    };
    let policy = OpenPolicy {
        audience: "inferq.v1".to_owned(),
        max_lifetime: Duration::from_secs(300),
        clock_skew: Duration::from_secs(60),
        max_body_bytes: 1 << 20,
        max_plaintext_bytes: 1 << 19,
    };
    let is_sound = body == sound.body;
    let message = Message { body: body.into(), properties: sound.properties.clone() };
    let opened = open_request(&RING, &policy, &message, UnixSeconds(1_800_000_100)).is_ok();
    assert_eq!(opened, is_sound, "opened: {opened}, the sound job: {is_sound}");
});
