//! Between lapin's messages and ours.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::limits::{LEAST_FRAME_BYTES, MAX_ID_CHARS, MAX_KNOWN_HEADER_BYTES, MAX_OTHER_HEADERS_BYTES};
use crate::protocol::properties::{HEADER_DELIVERY_COUNT, HeaderValue, Headers, KNOWN_HEADERS, Message, Properties};

const PERSISTENT: u8 = 2;

/// Beginnings of the headers in which the broker tells where a message died before; nobody reads them.
const OF_THE_BROKER: [&str; 2] = ["x-first-death-", "x-last-death-"];

const _: () = assert!(
    KNOWN_HEADERS.len() * MAX_KNOWN_HEADER_BYTES + MAX_OTHER_HEADERS_BYTES + 6 * (MAX_ID_CHARS + 1) + 64
        <= LEAST_FRAME_BYTES,
    "a copy of a message must fit into a frame with its six texts and what stands around them"
);

/// Sets one of the properties that are texts.
type WithText = fn(BasicProperties, ShortString) -> BasicProperties;

/// A delivered message as ours. Headers of kinds that this protocol does not use are left out, and so are those
/// that there is no room for.
pub(super) fn from_lapin(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Message {
        body: Bytes::from(body),
        properties: Properties {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            content_type: text(properties.content_type()),
            kind: text(properties.kind()),
            app_id: text(properties.app_id()),
            timestamp: *properties.timestamp(),
            priority: *properties.priority(),
            headers: properties.headers().as_ref().map(headers).unwrap_or_default(),
        },
    }
}

/// The headers in `table`, as far as there is room: a copy of a message whose headers filled a frame would not fit into one, and the
/// broker would close the connection on it. Known ones take no room from others, so that a letter that is read keeps what its job had.
fn headers(table: &FieldTable) -> Headers {
    let readable = |(name, value): (&ShortString, &AMQPValue)| Some((name.to_string(), header(value)?));
    let headers = table.inner().iter().filter_map(readable);
    let (mut known, mut others): (Vec<_>, Vec<_>) =
        headers.partition(|(name, _)| KNOWN_HEADERS.contains(&name.as_str()));
    known.retain(|(name, value)| size(name, value) <= MAX_KNOWN_HEADER_BYTES);
    others.retain(|(name, _)| !OF_THE_BROKER.iter().any(|beginning| name.starts_with(beginning)));
    others.sort_by_cached_key(|(name, value)| size(name, value));
    let mut taken = 0;
    others.retain(|(name, value)| {
        taken += size(name, value);
        taken <= MAX_OTHER_HEADERS_BYTES
    });
    known.into_iter().chain(others).collect()
}

/// Bytes of a header as it is sent on.
fn size(name: &str, value: &HeaderValue) -> usize {
    let value = match value {
        HeaderValue::Text(text) => size_of::<u32>() + text.len(),
        HeaderValue::Integer(_) => size_of::<i64>(),
        HeaderValue::Boolean(_) => size_of::<bool>(),
    };
    // Each of the two begins with a byte: the name's length, the value's kind.
    1 + name.len() + 1 + value
}

fn header(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::Boolean(truth) => HeaderValue::Boolean(*truth),
        AMQPValue::ShortShortInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::ShortInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::ShortUInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::LongInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::LongUInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::LongLongInt(number) => HeaderValue::Integer(*number),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::LongString(text) => HeaderValue::Text(std::str::from_utf8(text.as_bytes()).ok()?.to_owned()),
        _ => return None,
    })
}

/// The properties of one of our messages, persistent.
pub(super) fn to_lapin(properties: &Properties) -> BasicProperties {
    let mut table = FieldTable::default();
    // A queue writes its count only from the second delivery on: on a copy, the count of the queue that the original lay in
    // would pass for that of the queue that the copy goes to.
    for (name, value) in properties.headers.iter().filter(|(name, _)| *name != HEADER_DELIVERY_COUNT) {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            HeaderValue::Integer(number) => AMQPValue::LongLongInt(*number),
            HeaderValue::Boolean(truth) => AMQPValue::Boolean(*truth),
        };
        table.insert(name.as_str().into(), value);
    }
    let mut made = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(table);
    let texts: [(&Option<String>, WithText); 6] = [
        (&properties.message_id, BasicProperties::with_message_id),
        (&properties.correlation_id, BasicProperties::with_correlation_id),
        (&properties.reply_to, BasicProperties::with_reply_to),
        (&properties.content_type, BasicProperties::with_content_type),
        (&properties.kind, BasicProperties::with_type),
        (&properties.app_id, BasicProperties::with_app_id),
    ];
    for (text, with) in texts {
        if let Some(text) = text {
            made = with(made, text.as_str().into());
        }
    }
    if let Some(timestamp) = properties.timestamp {
        made = made.with_timestamp(timestamp);
    }
    if let Some(priority) = properties.priority {
        made = made.with_priority(priority);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_way_there_and_back() {
        let properties = Properties {
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to: Some("r".into()),
            content_type: Some("application/jose".into()),
            kind: Some("k".into()),
            app_id: Some("a".into()),
            timestamp: Some(7),
            priority: Some(1),
            headers: [("x-attempt".to_owned(), HeaderValue::Integer(2)), ("t".to_owned(), "v".into())].into(),
        };
        let message = Message { body: Bytes::from_static(b"body"), properties };
        assert_eq!(from_lapin(&to_lapin(&message.properties), b"body".to_vec()), message);
    }

    fn text(length: usize) -> AMQPValue {
        AMQPValue::LongString("y".repeat(length).into())
    }

    #[test]
    fn others_are_taken_as_far_as_there_is_room_and_known_ones_always() {
        let mut table = FieldTable::default();
        table.insert("a-long-one".into(), text(MAX_OTHER_HEADERS_BYTES));
        table.insert("x-first-death-queue".into(), text(20));
        table.insert("x-attempt".into(), AMQPValue::LongLongInt(2));
        table.insert(HEADER_DELIVERY_COUNT.into(), AMQPValue::LongLongInt(3));
        for number in 0..1_000 {
            table.insert(format!("short-{number:03}").as_str().into(), AMQPValue::Boolean(true));
        }
        let headers = headers(&table);
        let (short, rest): (Vec<_>, Vec<_>) = headers.iter().partition(|(name, _)| name.starts_with("short"));
        let names: Vec<_> = rest.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-attempt", HEADER_DELIVERY_COUNT]);
        assert_eq!(short.len(), MAX_OTHER_HEADERS_BYTES / 12, "of 12 bytes each");
    }

    #[test]
    fn a_known_one_that_is_too_long_is_none() {
        let mut table = FieldTable::default();
        table.insert("tracestate".into(), text(512));
        table.insert("x-deadline-ms".into(), text(MAX_KNOWN_HEADER_BYTES));
        let headers = headers(&table);
        assert_eq!(headers.keys().map(String::as_str).collect::<Vec<_>>(), ["tracestate"]);
    }

    #[test]
    fn a_letter_that_is_read_keeps_what_its_job_had() {
        let mut table = FieldTable::default();
        for (number, length) in [(1, 1_000), (2, 2_000), (3, 1_050)] {
            table.insert(format!("x-{number}").as_str().into(), text(length));
        }
        let of_the_job = headers(&table);
        assert_eq!(of_the_job.len(), 3);
        for name in KNOWN_HEADERS {
            table.insert(name.into(), text(MAX_KNOWN_HEADER_BYTES - 40));
        }
        let of_the_letter = headers(&table);
        assert_eq!(of_the_letter.len(), 3 + KNOWN_HEADERS.len());
        assert!(of_the_job.iter().all(|(name, value)| of_the_letter.get(name) == Some(value)));
    }

    #[test]
    fn a_copy_does_not_carry_the_count_of_another_queue() {
        let headers =
            [(HEADER_DELIVERY_COUNT.to_owned(), HeaderValue::Integer(19)), ("t".to_owned(), "v".into())].into();
        let made = to_lapin(&Properties { headers, ..Properties::default() });
        let names: Vec<&str> = made.headers().as_ref().unwrap().inner().keys().map(ShortString::as_str).collect();
        assert_eq!(names, ["t"]);
    }
}
