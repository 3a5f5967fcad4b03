//! Between lapin's messages and ours.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::limits::MAX_HEADERS_BYTES;
use crate::protocol::properties::{HEADER_DELIVERY_COUNT, HEADERS, HeaderValue, Headers, Message, Properties};

const PERSISTENT: u8 = 2;

/// Sets one of the properties that are texts.
type WithText = fn(BasicProperties, ShortString) -> BasicProperties;

/// A delivered message as ours. Headers of kinds that this protocol does not use are left out, and so is what goes beyond
/// [`MAX_HEADERS_BYTES`].
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

/// The headers in `table`, as far as there is room: those that mean something before others, and short ones before long ones. A
/// copy of a message whose headers filled a frame would not fit into one, and the broker would close the connection on it.
fn headers(table: &FieldTable) -> Headers {
    let known = |(name, value): (&ShortString, &AMQPValue)| Some((name.to_string(), header(value)?));
    let mut headers: Vec<(String, HeaderValue)> = table.inner().iter().filter_map(known).collect();
    headers.sort_by_cached_key(|(name, value)| (!HEADERS.contains(&name.as_str()), size(name, value)));
    let mut room = MAX_HEADERS_BYTES;
    let fits = |(name, value): &(String, HeaderValue)| match room.checked_sub(size(name, value)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    headers.into_iter().filter(fits).collect()
}

/// Bytes of a header on the wire.
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

    #[test]
    fn what_means_something_is_taken_before_what_does_not() {
        let text = |length: usize| AMQPValue::LongString("y".repeat(length).into());
        let mut table = FieldTable::default();
        table.insert("a-long-one".into(), text(MAX_HEADERS_BYTES));
        table.insert("tracestate".into(), text(MAX_HEADERS_BYTES - 200));
        table.insert("x-attempt".into(), AMQPValue::LongLongInt(2));
        table.insert(HEADER_DELIVERY_COUNT.into(), AMQPValue::LongLongInt(3));
        for number in 0..100 {
            table.insert(format!("a-short-one-{number:02}").as_str().into(), AMQPValue::Boolean(true));
        }
        let headers = headers(&table);
        let names: Vec<&str> = headers.keys().map(String::as_str).filter(|name| !name.starts_with("a-short")).collect();
        assert_eq!(names, ["tracestate", "x-attempt", HEADER_DELIVERY_COUNT]);
        assert_eq!(headers.len(), 3 + 8, "as many short ones as there is room for");
        assert!(headers.iter().map(|(name, value)| size(name, value)).sum::<usize>() <= MAX_HEADERS_BYTES);
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
