//! A message as the broker carries it: opaque body, AMQP properties, headers, and the names of all of them.
//!
//! Both brokers translate to and from [`Message`]; nothing here knows an AMQP library. Bodies are ciphertext.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Content type of a compact JWE.
pub const CONTENT_TYPE_COMPACT: &str = "application/jose";
/// Content type of the binary framing of a JWE.
pub const CONTENT_TYPE_BINARY: &str = "application/vnd.inferq.jwe";
/// `type` of a prediction job.
pub const TYPE_REQUEST: &str = "inferq.request.v1";
/// `type` of a reply, be it a result or an error.
pub const TYPE_REPLY: &str = "inferq.reply.v1";

/// `type` of a worker's announcement of its models.
pub const TYPE_ANNOUNCEMENT: &str = "inferq.models.v1";
/// `type` of the question which models there are.
pub const TYPE_QUERY: &str = "inferq.query.v1";

/// Header of a query: the tenant who asks.
pub const HEADER_TENANT: &str = "x-inferq-tenant";
/// Header: the moment by which the job must have been begun, in milliseconds since the epoch.
pub const HEADER_DEADLINE_MS: &str = "x-deadline-ms";
/// Header: how often the job was retried, 0 at first.
pub const HEADER_ATTEMPT: &str = "x-attempt";
/// Header: length of the JSON part of a body with binary tensor data.
pub const HEADER_JSON_LENGTH: &str = "inference-header-content-length";
/// Stands for the length where [`HEADER_JSON_LENGTH`] is missing or no length: beyond every body.
pub const JSON_LENGTH_MISSING: usize = usize::MAX;
/// Header: W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";
/// Header: W3C trace state.
pub const HEADER_TRACESTATE: &str = "tracestate";
/// Header on a dead or undeliverable letter: the error code.
pub const HEADER_ERROR: &str = "x-inferq-error";
/// Header on a dead or undeliverable letter: the attempt at which it failed.
pub const HEADER_FAILED_ATTEMPT: &str = "x-inferq-attempt";
/// Header on a dead or undeliverable letter: the worker that gave it up.
pub const HEADER_WORKER: &str = "x-inferq-worker";
/// Header on a dead or undeliverable letter: when it became one, in seconds since the epoch.
pub const HEADER_FAILED_AT: &str = "x-inferq-failed-at";
/// Header on an undeliverable reply: the queue it was meant for.
pub const HEADER_REPLY_QUEUE: &str = "x-inferq-reply-queue";
/// Header that a quorum queue sets: how often the message was delivered before.
pub const HEADER_DELIVERY_COUNT: &str = "x-delivery-count";

/// The headers that this protocol names.
pub const KNOWN_HEADERS: [&str; 12] = [
    HEADER_TENANT,
    HEADER_DEADLINE_MS,
    HEADER_ATTEMPT,
    HEADER_JSON_LENGTH,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
    HEADER_ERROR,
    HEADER_FAILED_ATTEMPT,
    HEADER_WORKER,
    HEADER_FAILED_AT,
    HEADER_REPLY_QUEUE,
    HEADER_DELIVERY_COUNT,
];

/// A header's value; the forms that this protocol uses, of the many that AMQP has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// A string of UTF-8.
    Text(String),
    /// Any of AMQP's integers.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// The headers of a message, sorted by name.
pub type Headers = BTreeMap<String, HeaderValue>;

/// The AMQP properties that this protocol reads and writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `message_id`: the job's id, bound as `jti`.
    pub message_id: Option<String>,
    /// `correlation_id`: the producer's own word for the exchange, bound as `cid`.
    pub correlation_id: Option<String>,
    /// `reply_to`: the reply queue, bound as `rto`.
    pub reply_to: Option<String>,
    /// `content_type`: which framing of JWE the body has.
    pub content_type: Option<String>,
    /// `type`: [`TYPE_REQUEST`], [`TYPE_REPLY`], [`TYPE_ANNOUNCEMENT`] or [`TYPE_QUERY`].
    pub kind: Option<String>,
    /// `app_id`: the program that published.
    pub app_id: Option<String>,
    /// `timestamp`: seconds since the epoch.
    pub timestamp: Option<u64>,
    /// `priority`: 0 to 255; quorum queues know two classes.
    pub priority: Option<u8>,
    /// The headers.
    pub headers: Headers,
}

impl Properties {
    /// The text of header `name`, if it is there and is text.
    #[must_use]
    pub fn text_header(&self, name: &str) -> Option<&str> {
        match self.headers.get(name) {
            Some(HeaderValue::Text(text)) => Some(text),
            Some(HeaderValue::Integer(_) | HeaderValue::Boolean(_)) | None => None,
        }
    }

    /// The number in header `name`, if it is there and is one.
    #[must_use]
    pub fn integer_header(&self, name: &str) -> Option<i64> {
        match self.headers.get(name) {
            Some(HeaderValue::Integer(number)) => Some(*number),
            Some(HeaderValue::Text(_) | HeaderValue::Boolean(_)) | None => None,
        }
    }

    /// Where the JSON of a body with binary tensor data ends; [`JSON_LENGTH_MISSING`] where nothing or nonsense stands.
    #[must_use]
    pub fn json_length(&self) -> usize {
        let length = self.integer_header(HEADER_JSON_LENGTH);
        length.and_then(|length| usize::try_from(length).ok()).unwrap_or(JSON_LENGTH_MISSING)
    }

    /// How often the job was retried; 0 where nothing or nonsense stands.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.integer_header(HEADER_ATTEMPT).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }
}

/// A message: ciphertext and its properties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The body; never plaintext.
    pub body: Bytes,
    /// The properties.
    pub properties: Properties,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_is_none_reads_as_missing() {
        let mut properties = Properties::default();
        assert_eq!(properties.json_length(), JSON_LENGTH_MISSING);
        for nonsense in [HeaderValue::Integer(-1), HeaderValue::Text("244".into()), HeaderValue::Boolean(true)] {
            properties.headers.insert(HEADER_JSON_LENGTH.into(), nonsense);
            assert_eq!(properties.json_length(), JSON_LENGTH_MISSING);
        }
        properties.headers.insert(HEADER_JSON_LENGTH.into(), HeaderValue::Integer(244));
        assert_eq!(properties.json_length(), 244);
    }

    #[test]
    fn every_header_that_is_named_is_known() {
        let named = include_str!("properties.rs").lines().filter(|line| line.starts_with("pub const HEADER_")).count();
        assert_eq!(KNOWN_HEADERS.len(), named);
    }

    #[test]
    fn an_attempt_that_is_no_count_reads_as_the_first() {
        let mut properties = Properties::default();
        assert_eq!(properties.attempt(), 0);
        properties.headers.insert(HEADER_ATTEMPT.into(), HeaderValue::Integer(-3));
        assert_eq!(properties.attempt(), 0);
        properties.headers.insert(HEADER_ATTEMPT.into(), HeaderValue::Text("2".into()));
        assert_eq!(properties.attempt(), 0);
        properties.headers.insert(HEADER_ATTEMPT.into(), HeaderValue::Integer(2));
        assert_eq!(properties.attempt(), 2);
    }
}
