//! What the envelope costs: opening and validating a request, and refusing one, on one core.
//!
//! Run by `make bench-envelope`. Prints the median, the least and the 99th percentile of many single runs, in microseconds.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use inferq::envelope::{Grant, Keyring, OpenPolicy, ProducerKeys, RequestDraft, UnixSeconds, generate, open_request};
use inferq::envelope::{ReplyContext, seal_reply};
use inferq::protocol::body::EncodedBody;
use inferq::protocol::properties::Message;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a small job's plaintext, and of a large one's.
const SMALL: usize = 200;
const LARGE: usize = 600 << 10;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    generate(folder.path(), "bench", &Grant::new("bench", vec!["topic".to_owned()]))?;
    let ring = Keyring::load(folder.path())?;
    let keys = ProducerKeys::load(folder.path(), "bench")?;
    let stranger = tempfile::tempdir()?;
    generate(stranger.path(), "bench", &Grant::new("bench", vec!["topic".to_owned()]))?;
    let bogus = ProducerKeys::load(stranger.path(), "bench")?;
    println!("{:<44} {:>10} {:>10} {:>10}", "microseconds", "median", "least", "p99");
    for (name, keys, bytes, is_binary) in [
        ("open and validate, 200 B, compact", &keys, SMALL, false),
        ("open and validate, 200 B, binary", &keys, SMALL, true),
        ("open and validate, 600 KiB, compact", &keys, LARGE, false),
        ("open and validate, 600 KiB, binary", &keys, LARGE, true),
        ("refuse an unknown key id, 600 KiB, compact", &bogus, LARGE, false),
        ("refuse an unknown key id, 600 KiB, binary", &bogus, LARGE, true),
    ] {
        let message = sealed(keys, bytes, is_binary)?;
        measure(name, || drop(black_box(open_request(&ring, &policy(), &message, UnixSeconds::now()))));
    }
    for (name, bytes) in [("seal a reply, 200 B", SMALL), ("seal a reply, 600 KiB", LARGE)] {
        let (context, body) = (context()?, body(bytes, false));
        measure(name, || drop(black_box(seal_reply(&ring, &context, &body, "inferq.v1", UnixSeconds::now()))));
    }
    Ok(())
}

fn policy() -> OpenPolicy {
    OpenPolicy {
        audience: "inferq.v1".to_owned(),
        max_lifetime: Duration::from_secs(300),
        clock_skew: Duration::from_secs(60),
        max_body_bytes: 12 << 20,
        max_plaintext_bytes: 8 << 20,
    }
}

fn body(bytes: usize, is_binary: bool) -> EncodedBody {
    EncodedBody { bytes: vec![b'x'; bytes].into(), json_length: is_binary.then_some(bytes) }
}

fn sealed(keys: &ProducerKeys, bytes: usize, is_binary: bool) -> Result<Message> {
    let draft = RequestDraft::new("topic".parse()?, "bench.replies", "inferq.v1", Duration::from_secs(300));
    Ok(keys.seal_request(&draft, &body(bytes, is_binary), UnixSeconds::now())?.0)
}

fn context() -> Result<ReplyContext> {
    Ok(ReplyContext {
        tenant: "bench".to_owned(),
        message_id: "0198c0de-0000-7000-8000-000000000000".to_owned(),
        correlation_id: "0198c0de-0000-7000-8000-000000000000".to_owned(),
        reply_to: "bench.replies".to_owned(),
        request_tag: "5HBdFzfSDwOUE6sBZi4f1Q".to_owned(),
        model: "topic".parse()?,
    })
}

/// Runs `work` for two seconds, after a tenth of that unmeasured, and prints what one run took.
fn measure(name: &str, mut work: impl FnMut()) {
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(200) {
        work();
    }
    let (began, mut runs) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        work();
        runs.push(start.elapsed());
    }
    runs.sort_unstable();
    let at = |share: usize| runs.get(runs.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e6;
    println!("{name:<44} {:>10.2} {:>10.2} {:>10.2}", at(50), at(0), at(99));
}
