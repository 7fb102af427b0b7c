//! Unusual but valid encodings of JSON.

use serde_json::Value;
use tower_channels::internals::{Event, Topic};

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

/// Asserts that an accepted payload is JSON that a handler can parse. Integers beyond the range of
/// a double are accepted, although not every parser supports them.
pub(crate) fn assert_readable(payload: &str) {
    if !has_endless_integer(payload.as_bytes()) {
        serde_json::from_str::<Value>(payload).expect("an accepted payload can be parsed");
    }
}

/// Returns whether the text contains an integer beyond the range of a double.
pub(crate) fn has_endless_integer(text: &[u8]) -> bool {
    text.chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit())
        .any(|run| run.len() >= 309 && run[0].is_ascii_digit())
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

    #[test]
    fn an_endless_integer_is_detected() {
        let digits = "9".repeat(309);
        assert!(has_endless_integer(format!("[1,{digits}]").as_bytes()));
        assert!(!has_endless_integer(format!("[1,{}]", &digits[1..]).as_bytes()));
        assert!(!has_endless_integer(" ".repeat(400).as_bytes()));
    }
}
