//! Any bytes at all as the body of a job, in both forms: what is not authentic is never opened, and nothing panics.
//!
//! The first byte chooses the form, the rest is the body.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use inferq::envelope::{Grant, Keyring, OpenPolicy, UnixSeconds, generate, open_request};
use inferq::protocol::properties::{Message, Properties};
use libfuzzer_sys::fuzz_target;

static RING: LazyLock<Keyring> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).expect("fresh keys");
    Keyring::load(folder.path()).expect("the keys just made")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((form, body)) = bytes.split_first() else { return };
    let content_type = if form % 2 == 0 { "application/jose" } else { "application/vnd.inferq.jwe" };
    let properties = Properties {
        content_type: Some(content_type.to_owned()),
        message_id: Some("job-1".to_owned()),
        correlation_id: Some("exchange-1".to_owned()),
        reply_to: Some("acme.replies.1".to_owned()),
        ..Properties::default()
    };
    let policy = OpenPolicy {
        audience: "inferq.v1".to_owned(),
        max_lifetime: Duration::from_secs(300),
        clock_skew: Duration::from_secs(60),
        max_body_bytes: 1 << 20,
        max_plaintext_bytes: 1 << 19,
    };
    let message = Message { body: body.to_vec().into(), properties };
    // The keys are drawn anew by each process: nothing that a corpus holds can be authentic.
    assert!(open_request(&RING, &policy, &message, UnixSeconds(1_800_000_100)).is_err(), "opened without a key");
});
