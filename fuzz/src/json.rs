//! Unusual but valid encodings of JSON.

use serde_json::Value;
use tower_channels::internals::{ClientPayload, Event, Topic};

/// Encodes a string with every character escaped except letters and digits.
pub(crate) fn escaped(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            json.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                json.push_str(&format!("\\u{unit:04X}"));
            }
        }
    }
    json + "\""
}

/// Re-encodes the JSON of a ref if it is a string.
pub(crate) fn reencoded(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => escaped(&text),
        _ => json.to_owned(),
    }
}

/// Re-encodes a topic, which may be any JSON.
pub(crate) fn topic(topic: &Topic<'_>) -> String {
    match topic {
        Topic::Text(text) => escaped(text),
        Topic::Other(json) => (*json).to_owned(),
    }
}

/// Re-encodes an event; one that is not a string becomes `null`.
pub(crate) fn event(event: &Event<'_>) -> String {
    match event {
        Event::Text(text) => escaped(text),
        Event::Other => "null".to_owned(),
    }
}

/// Asserts that a payload is invalid exactly if serde_json cannot read it.
pub(crate) fn assert_validated(payload: ClientPayload<'_>, text: &str) {
    match payload {
        ClientPayload::Json(json) => {
            assert_eq!(json, text);
            assert!(is_readable(text), "accepted, but cannot be parsed: {text}");
        }
        ClientPayload::Invalid => assert!(!is_readable(text), "invalid: {text}"),
        ClientPayload::Binary(_) => panic!("not JSON: {text}"),
    }
}

/// Returns whether a handler can parse the text.
pub(crate) fn is_readable(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_text_means_the_same() {
        for text in ["", "room:1", "\"\\/\n\0", "é😀"] {
            let json = escaped(text);
            assert!(json.is_ascii());
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
