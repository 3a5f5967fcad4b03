//! Between lapin's messages and ours.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::protocol::properties::{HEADER_DELIVERY_COUNT, HeaderValue, Headers, Message, Properties};

const PERSISTENT: u8 = 2;

/// Sets one of the properties that are texts.
type WithText = fn(BasicProperties, ShortString) -> BasicProperties;

/// A delivered message as ours. Headers of kinds that this protocol does not use are left out.
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

fn headers(table: &FieldTable) -> Headers {
    table.inner().iter().filter_map(|(name, value)| Some((name.to_string(), header(value)?))).collect()
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
    fn a_copy_does_not_carry_the_count_of_another_queue() {
        let headers =
            [(HEADER_DELIVERY_COUNT.to_owned(), HeaderValue::Integer(19)), ("t".to_owned(), "v".into())].into();
        let made = to_lapin(&Properties { headers, ..Properties::default() });
        let names: Vec<&str> = made.headers().as_ref().unwrap().inner().keys().map(ShortString::as_str).collect();
        assert_eq!(names, ["t"]);
    }
}
