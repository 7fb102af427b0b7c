//! Text frames of protocol 2.0.0: `[join_ref, ref, topic, event, payload]`.

use serde_json::Value;
use serde_json::value::RawValue;
use tower_channels::Position;
use tower_channels::internals::{ClientMessage, Event, Topic, Version};
use tower_channels_transports::Inbound;

use crate::json;

/// Asserts that a message decodes as a JSON parser reads it, that its payload is invalid exactly if it
/// cannot be parsed, and that a different encoding decodes to the same; and that only input other than
/// an array of five with valid refs and short names is rejected.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let elements = serde_json::from_str::<Vec<&RawValue>>(text);
    let elements = elements.map(|raw| raw.into_iter().map(RawValue::get).collect::<Vec<_>>()).ok();
    match decode(text) {
        Some(message) => {
            let elements = elements.expect("decoded, but not a JSON array");
            assert_equals(&message, &elements);
            assert_reencoding_is_equal(&message, elements[4]);
        }
        None => assert!(!elements.is_some_and(|elements| is_message(&elements)), "rejected"),
    }
}

fn decode(text: &str) -> Option<ClientMessage<'_>> {
    Version::V2.decode(Inbound::Text(text)).ok()
}

fn assert_reencoding_is_equal(message: &ClientMessage<'_>, payload: &str) {
    let sixth = match message.after {
        Some(after) => {
            format!(r#"{{ "more" : [], "a\u0066ter":{} }}"#, json::escaped(&after.to_string()))
        }
        None => r#""more""#.to_owned(),
    };
    let written = format!(
        "\t[{} ,{}, {} ,\n{}, {}, {sixth} ]\r\n",
        json::reencoded(message.join_ref.as_json().expect("a ref of a text frame")),
        json::reencoded(message.reference.as_json().expect("a ref of a text frame")),
        json::topic(&message.topic),
        json::event(&message.event),
        payload,
    );
    assert_eq!(decode(&written).as_ref(), Some(message), "encoded as {written}");
}

fn assert_equals(message: &ClientMessage<'_>, elements: &[&str]) {
    let [join_ref, reference, topic, event, payload, ..] = elements else {
        panic!("decoded from {} elements", elements.len())
    };
    let parse = |json: &str| serde_json::from_str::<Value>(json).expect("readable");
    let (topic, event) = (parse(topic), parse(event));
    assert_eq!(message.join_ref.as_json().map(parse), Some(parse(join_ref)));
    assert_eq!(message.reference.as_json().map(parse), Some(parse(reference)));
    match &message.topic {
        Topic::Text(text) => assert_eq!(topic, text.as_ref()),
        Topic::Other(json) => {
            assert!(!topic.is_string());
            assert_eq!(parse(json), topic);
        }
    }
    match &message.event {
        Event::Text(text) => assert_eq!(event, text.as_ref()),
        Event::Other => assert!(!event.is_string()),
    }
    json::assert_validated(message.payload, payload);
    assert_eq_after(message, elements.get(5).copied());
}

/// Asserts that the position is the one that the sixth element of a join names.
fn assert_eq_after(message: &ClientMessage<'_>, sixth: Option<&str>) {
    let is_join = message.event.as_text() == Some("phx_join");
    let sixth = sixth.filter(|_| is_join).unwrap_or("null");
    let value = serde_json::from_str::<Value>(sixth).unwrap_or_default();
    let named =
        value.as_object().and_then(|it| it.get("after")?.as_str()?.parse::<Position>().ok());
    // A key that comes twice names nothing.
    let may_repeat = sixth.contains('\\') || sixth.matches("\"after\"").count() > 1;
    assert!(message.after == named || message.after.is_none() && may_repeat, "{sixth}");
}

/// Returns whether a message must be accepted. Numeric refs may be rejected, since a parsed value
/// does not preserve their original form.
fn is_message(elements: &[&str]) -> bool {
    let [join_ref, reference, topic, event, _, more @ ..] = elements else { return false };
    let is_ref = |json: &str| match serde_json::from_str(json) {
        Ok(Value::Null) => true,
        Ok(Value::String(text)) => text.len() <= 255,
        _ => false,
    };
    let is_name = |json: &str| {
        serde_json::from_str::<Value>(json)
            .is_ok_and(|value| value.as_str().is_none_or(|text| text.len() <= 255))
    };
    is_ref(join_ref)
        && is_ref(reference)
        && is_name(topic)
        && is_name(event)
        && more.iter().all(|json| json::is_readable(json))
}
