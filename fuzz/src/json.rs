//! JSON as a client might write it and nobody else does.

use serde_json::Value;
use tower_channels::internals::{Event, Topic};

/// A string with every character but letters and digits as an escape.
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

/// A ref's JSON, spelt anew if it is a string.
pub(crate) fn respelt(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => escaped(&text),
        _ => json.to_owned(),
    }
}

/// The JSON of a topic, escaped if it is a string.
pub(crate) fn topic(topic: &Topic<'_>) -> String {
    match topic {
        Topic::Text(text) => escaped(text),
        Topic::Other(json) => (*json).to_owned(),
    }
}

/// The JSON of an event, escaped if it is a string.
pub(crate) fn event(event: &Event<'_>) -> String {
    match event {
        Event::Text(text) => escaped(text),
        Event::Other => "null".to_owned(),
    }
}

/// What every payload that was let in must be: JSON that a handler can read. An integer of more
/// digits than a double has is passed on, though not every parser takes it.
pub(crate) fn assert_readable(payload: &str) {
    if !has_endless_integer(payload.as_bytes()) {
        serde_json::from_str::<Value>(payload).expect("a payload that was let in can be read");
    }
}

/// Whether there is a run of digits that is out of the range of a double.
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
    fn an_endless_integer_is_seen() {
        let digits = "9".repeat(309);
        assert!(has_endless_integer(format!("[1,{digits}]").as_bytes()));
        assert!(!has_endless_integer(format!("[1,{}]", &digits[1..]).as_bytes()));
        assert!(!has_endless_integer(" ".repeat(400).as_bytes()));
    }
}
