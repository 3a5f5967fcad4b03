//! What several test programs share: a private RabbitMQ node, and both brokers behind one face.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

pub mod brokers;
pub mod certificates;
pub mod cluster;
pub mod rabbitmq;
pub mod steps;

use std::time::Duration;

use inferq::protocol::properties::{Message, Properties};
use inferq::settings::{BrokerSettings, TlsSettings};
use secrecy::SecretString;

/// How long anything may take before a test gives it up: far more than it needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a test waits for what must not come.
pub const QUIET: Duration = Duration::from_millis(400);

/// Settings of a broker at `url` with bounds that a test reaches.
pub fn broker_settings(url: SecretString) -> BrokerSettings {
    BrokerSettings {
        url,
        allow_plaintext: false,
        tls: TlsSettings::default(),
        name_prefix: "inferq".to_owned(),
        prefetch: 16,
        adaptive_prefetch: false,
        connect_timeout: Duration::from_secs(10),
        publish_timeout: PATIENCE,
        heartbeat: Duration::from_secs(10),
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
        publisher_channels: 4,
        job_queue_max_bytes: 1 << 20,
        delivery_limit: 3,
        dead_letter_ttl: Duration::from_secs(3_600),
        undeliverable_ttl: Duration::from_secs(3_600),
    }
}

/// A message with this id; its body is the id as well.
pub fn message(id: &str) -> Message {
    Message {
        body: id.as_bytes().to_vec().into(),
        properties: Properties { message_id: Some(id.to_owned()), ..Properties::default() },
    }
}

/// The message id, for comparing.
pub fn id_of(message: &Message) -> String {
    message.properties.message_id.clone().unwrap_or_default()
}

/// Waits for `future` as long as [`PATIENCE`] lasts.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(output) = tokio::time::timeout(PATIENCE, future).await else { panic!("{what} did not happen") };
    output
}
