//! Text frames of protocol 2.0.0: `[join_ref, ref, topic, event, payload]`.

use serde_json::Value;
use tower_channels::internals::{ClientMessage, ClientPayload, Event, Topic, Version};
use tower_channels_transports::Inbound;

use crate::json;

/// Asserts that a message decodes as a JSON parser reads it, that its payload can be parsed, and
/// that a different encoding decodes to the same; and that only input other than an array of five
/// with valid refs and short names is rejected.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let parsed = serde_json::from_str::<Vec<Value>>(text).ok();
    match decode(text) {
        Some(message) => {
            assert_reencoding_is_equal(&message);
            if let Some(elements) = parsed {
                assert_equals(&message, &elements);
            } else {
                assert!(json::has_endless_integer(data), "decoded, but not a JSON array");
            }
        }
        None => assert!(!parsed.is_some_and(|elements| is_message(&elements)), "rejected"),
    }
}

fn decode(text: &str) -> Option<ClientMessage<'_>> {
    Version::V2.decode(Inbound::Text(text)).ok()
}

fn assert_reencoding_is_equal(message: &ClientMessage<'_>) {
    let ClientPayload::Json(payload) = message.payload else { panic!("not JSON: {message:?}") };
    json::assert_readable(payload);
    let written = format!(
        "\t[{} ,{}, {} ,\n{}, {}, \"more\" ]\r\n",
        json::reencoded(message.join_ref.as_json().expect("a ref of a text frame")),
        json::reencoded(message.reference.as_json().expect("a ref of a text frame")),
        json::topic(&message.topic),
        json::event(&message.event),
        payload,
    );
    assert_eq!(decode(&written).as_ref(), Some(message), "encoded as {written}");
}

fn assert_equals(message: &ClientMessage<'_>, elements: &[Value]) {
    let [join_ref, reference, topic, event, payload, ..] = elements else {
        panic!("decoded from {} elements", elements.len())
    };
    let ClientPayload::Json(json) = message.payload else { panic!("not JSON: {message:?}") };
    let parse = |json: Option<&str>| serde_json::from_str::<Value>(json?).ok();
    assert_eq!(parse(message.join_ref.as_json()).as_ref(), Some(join_ref));
    assert_eq!(parse(message.reference.as_json()).as_ref(), Some(reference));
    match &message.topic {
        Topic::Text(text) => assert_eq!(topic, text.as_ref()),
        Topic::Other(json) => {
            assert!(!topic.is_string());
            assert_eq!(parse(Some(json)).as_ref(), Some(topic));
        }
    }
    match &message.event {
        Event::Text(text) => assert_eq!(event, text.as_ref()),
        Event::Other => assert!(!event.is_string()),
    }
    assert_eq!(parse(Some(json)).as_ref(), Some(payload));
}

/// Returns whether a message must be accepted. Numeric refs may be rejected, since a parsed value
/// does not preserve their original form.
fn is_message(elements: &[Value]) -> bool {
    let [join_ref, reference, topic, event, _, ..] = elements else { return false };
    let is_ref = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.len() <= 255,
        _ => false,
    };
    let is_name = |value: &Value| value.as_str().is_none_or(|text| text.len() <= 255);
    is_ref(join_ref) && is_ref(reference) && is_name(topic) && is_name(event)
}
