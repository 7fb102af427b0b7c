//! Text frames of protocol 2.0.0: `[join_ref, ref, topic, event, payload]`.

use serde_json::Value;
use tower_channels::internals::{ClientMessage, ClientPayload, Event, Topic, Version};
use tower_channels_transports::Inbound;

use crate::json;

/// Nothing panics; what decodes means what a JSON parser says, can be read, and written by another
/// client means the same; what does not decode is no array of five with good refs and short names.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let parsed = serde_json::from_str::<Vec<Value>>(text).ok();
    match decode(text) {
        Some(message) => {
            same_when_written_anew(&message);
            if let Some(elements) = parsed {
                assert_means(&message, &elements);
            } else {
                assert!(json::has_endless_integer(data), "decoded, and yet no JSON array");
            }
        }
        None => assert!(!parsed.is_some_and(|elements| is_message(&elements)), "refused"),
    }
}

fn decode(text: &str) -> Option<ClientMessage<'_>> {
    Version::V2.decode(Inbound::Text(text)).ok()
}

fn same_when_written_anew(message: &ClientMessage<'_>) {
    let ClientPayload::Json(payload) = message.payload else { panic!("no JSON: {message:?}") };
    json::assert_readable(payload);
    let written = format!(
        "\t[{} ,{}, {} ,\n{}, {}, \"more\" ]\r\n",
        json::respelt(message.join_ref.as_json().expect("a text has a text's ref")),
        json::respelt(message.reference.as_json().expect("a text has a text's ref")),
        json::topic(&message.topic),
        json::event(&message.event),
        payload,
    );
    assert_eq!(decode(&written).as_ref(), Some(message), "written as {written}");
}

fn assert_means(message: &ClientMessage<'_>, elements: &[Value]) {
    let [join_ref, reference, topic, event, payload, ..] = elements else {
        panic!("decoded from {} elements", elements.len())
    };
    let ClientPayload::Json(json) = message.payload else { panic!("no JSON: {message:?}") };
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

/// Whether there is no reason to refuse it. Of numbers a parsed value does not say how they were
/// written, so those are no reason to accept it.
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
