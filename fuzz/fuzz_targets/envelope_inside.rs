//! A sound job with one place of it changed: either nothing has changed, or it is not opened.
//!
//! Bytes: form, two of the place, one to be put there; the rest is the plaintext.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use inferq::envelope::{Grant, Keyring, OpenPolicy, ProducerKeys, RequestDraft, UnixSeconds, generate, open_request};
use inferq::protocol::body::EncodedBody;
use inferq::protocol::properties::Message;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<(Keyring, ProducerKeys)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).expect("fresh keys");
    let ring = Keyring::load(folder.path()).expect("the keys just made");
    (ring, ProducerKeys::load(folder.path(), "acme").expect("the keys just made"))
});

fuzz_target!(|bytes: &[u8]| {
    let Some(([form, high, low, put], plaintext)) = bytes.split_first_chunk() else { return };
    let (ring, keys) = &*KEYS;
    let now = UnixSeconds(1_800_000_000);
    let draft =
        RequestDraft::new("topic".parse().expect("a name"), "acme.replies", "inferq.v1", Duration::from_secs(60));
    let json_length = (form % 2 == 1).then_some(plaintext.len());
    let body = EncodedBody { bytes: plaintext.to_vec().into(), json_length };
    let (message, _) = keys.seal_request(&draft, &body, now).expect("it can be sealed");
    let policy = OpenPolicy {
        audience: "inferq.v1".to_owned(),
        max_lifetime: Duration::from_secs(300),
        clock_skew: Duration::from_secs(60),
        max_body_bytes: 1 << 21,
        max_plaintext_bytes: 1 << 20,
    };
    let opened = open_request(ring, &policy, &message, now).expect("a sound job is opened");
    assert_eq!(&opened.plaintext[..], plaintext);
    let mut changed = message.body.to_vec();
    let place = usize::from(u16::from_be_bytes([*high, *low])) % changed.len();
    let before = std::mem::replace(&mut changed[place], *put);
    let message = Message { body: changed.into(), properties: message.properties };
    assert_eq!(open_request(ring, &policy, &message, now).is_ok(), before == *put, "byte {place}: {before} to {put}");
});
