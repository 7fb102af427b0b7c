//! JSON shared by both versions: topics, events and strings, and checks that serde_json skips for a
//! value it does not deserialize.
//!
//! The parsers of other clients fail at a number that is not a finite double, at a lone surrogate and at
//! deep nesting. In a payload they are an error of that message, anywhere else of the connection.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::history::Position;
use crate::message::{ClientPayload, DecodeError, Event, LONGEST_NAME, Topic};
use crate::payload::Payload;

/// Decodes a topic from valid JSON text.
pub(super) fn decode_topic(json: &str) -> Result<Topic<'_>, DecodeError> {
    Ok(decode_name(json)?.map_or(Topic::Other(json), Topic::Text))
}

/// Decodes an event from valid JSON text.
pub(super) fn decode_event(json: &str) -> Result<Event<'_>, DecodeError> {
    Ok(decode_name(json)?.map_or(Event::Other, Event::Text))
}

/// Decodes a JSON string of bounded length. `None` for any other JSON value.
fn decode_name(json: &str) -> Result<Option<Cow<'_, str>>, DecodeError> {
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(None);
    };
    let text = if inner.contains('\\') {
        Cow::Owned(serde_json::from_str(json).map_err(|_| DecodeError)?)
    } else {
        Cow::Borrowed(inner)
    };
    if text.len() > LONGEST_NAME { Err(DecodeError) } else { Ok(Some(text)) }
}

/// Decodes a position in a history. `None` for anything else.
pub(super) fn position(json: &str) -> Option<Position> {
    let text: &str = &serde_json::from_str::<Text<'_>>(json).ok()?.0;
    text.parse().ok()
}

/// Decodes the position in the key `after` of an object. `None` for anything else.
pub(crate) fn position_in(json: &str) -> Option<Position> {
    let After { after } = serde_json::from_str(json).ok()?;
    after.0.parse().ok()
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct After<'a> {
    #[serde(borrow)]
    after: Text<'a>,
}

/// The ref of a message that stands there in the history of its topic.
pub(super) fn position_ref(position: Position) -> String {
    format!("\"p:{position}\"")
}

/// Appends `{"status":…,"response":…}`. `None` if the response is binary.
pub(super) fn write_reply(out: &mut String, status: &str, response: &Payload) -> Option<()> {
    out.push_str("{\"status\":\"");
    out.push_str(status);
    out.push_str("\",\"response\":");
    out.push_str(response.as_json()?);
    out.push('}');
    Some(())
}

/// Appends a topic as JSON.
pub(super) fn write_topic(out: &mut String, topic: &Topic<'_>) {
    match topic {
        Topic::Text(topic) => write_string(out, topic),
        Topic::Other(json) => out.push_str(json),
    }
}

/// Appends a JSON string.
pub(super) fn write_string(out: &mut String, text: &str) {
    let needs_escape = |byte| matches!(byte, ..b' ' | b'"' | b'\\');
    if text.bytes().any(needs_escape) {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// The deepest nesting of arrays and objects: serde_json's own limit for values.
const DEEPEST: usize = 128;

/// Validates a frame, which is valid JSON text, and returns its payload, a part of it.
///
/// # Errors
/// If anything but the payload is unacceptable.
pub(super) fn validate<'a>(
    frame: &str,
    payload: &'a str,
) -> Result<ClientPayload<'a>, DecodeError> {
    if is_acceptable(frame) {
        return Ok(ClientPayload::Json(payload));
    }
    let start = payload.as_ptr().addr().wrapping_sub(frame.as_ptr().addr());
    let around = frame.get(..start).zip(frame.get(start.saturating_add(payload.len())..));
    match around {
        Some((head, tail)) if scan(head).and(scan(tail)).is_some() => Ok(ClientPayload::Invalid),
        _ => Err(DecodeError),
    }
}

/// Returns whether valid JSON text is also acceptable to every client's parser.
fn is_acceptable(text: &str) -> bool {
    !is_suspicious(text.as_bytes()) || scan(text).is_some()
}

/// Returns whether the text needs a full scan: it has an exponent, a `\u`, a long run of digits, or
/// many brackets. A cheap pass without branches that settles nearly every message.
fn is_suspicious(text: &[u8]) -> bool {
    let pairs = text.iter().zip(text.get(1..).unwrap_or_default());
    let found = pairs.fold(0, |found, (first, second)| {
        let exponent = first.is_ascii_digit() & (second | 0x20 == b'e');
        let unit = (*first == b'\\') & (*second == b'u');
        found | u8::from(exponent) | u8::from(unit)
    });
    // A finite double has at most 309 digits before its point: a longer run shows in two samples.
    let mut before = false;
    let mut long = false;
    for byte in text.iter().step_by(150) {
        long |= before & byte.is_ascii_digit();
        before = byte.is_ascii_digit();
    }
    found != 0 || long || (text.len() > DEEPEST && brackets(text) > DEEPEST)
}

/// Counts the opening brackets, in chunks small enough for a counter of one byte (vectorized).
fn brackets(text: &[u8]) -> usize {
    let opens = |byte: &u8| u8::from(matches!(byte, b'[' | b'{'));
    text.chunks(128).map(|piece| usize::from(piece.iter().map(opens).sum::<u8>())).sum()
}

/// Scans valid JSON text. `None` if it is not acceptable.
fn scan(text: &str) -> Option<()> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => at = number(text, at)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return None;
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    Some(())
}

/// Returns the offset after the string whose content begins at `at`.
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => match unit(bytes, at)? {
                0xD800..=0xDBFF => {
                    if !matches!(unit(bytes, at + 6)?, 0xDC00..=0xDFFF) {
                        return None;
                    }
                    at += 12;
                }
                0xDC00..=0xDFFF => return None,
                _ => at += 6,
            },
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Returns the UTF-16 unit of the escape `\uXXXX` at `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    let hex = escape.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()
}

/// Returns the offset after the number that begins at `at`.
fn number(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let is_number = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    let length = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
    let number = &rest[..length];
    number.parse::<f64>().is_ok_and(f64::is_finite).then_some(at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_doubles_are_rejected() {
        let digits = "1".repeat(400);
        for text in
            ["1e400", "[-1E999]", r#"{"a":1e309}"#, &format!("{digits}.5"), &digits, &digits[..310]]
        {
            assert!(!is_acceptable(text), "{text}");
        }
        let (finite, text) = (&digits[..309], format!("\"{digits}\""));
        for text in
            ["1e308", "[1E5,1e-7,-0.0]", r#""1e400""#, r#"["a1e400\"1e400"]"#, finite, &text]
        {
            assert!(is_acceptable(text), "{text}");
        }
    }

    #[test]
    fn a_lone_surrogate_is_rejected() {
        for text in
            [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\ud83dx""#, r#""\uDC00""#]
        {
            assert!(!is_acceptable(text), "{text}");
        }
        for text in [r#""\ud83d\ude00""#, r#""\u0000""#, r#""\\ud83d""#, "\"😀\"", r#""\u00e9""#]
        {
            assert!(is_acceptable(text), "{text}");
        }
    }

    #[test]
    fn long_integers_are_found_wherever_they_stand() {
        let digits = "1".repeat(310);
        for before in 0..400 {
            let text = format!("[\"{}\",{digits}]", "x".repeat(before));
            assert!(!is_acceptable(&text), "{before}");
        }
    }

    #[test]
    fn only_the_payload_may_be_unacceptable() {
        let of = |frame: &'static str, payload: &str| {
            let start = frame.find(payload).expect("a part");
            validate(frame, &frame[start..start + payload.len()])
        };
        assert_eq!(of(r#"["a","b"]"#, r#""b""#), Ok(ClientPayload::Json(r#""b""#)));
        assert_eq!(of(r#"["a",1e400]"#, "1e400"), Ok(ClientPayload::Invalid));
        assert_eq!(of(r#"[1e400,"b"]"#, r#""b""#), Err(DecodeError));
        assert_eq!(of(r#"["b",1e400]"#, r#""b""#), Err(DecodeError));
        assert_eq!(of(r#"["\ud83d",1e400,2]"#, "1e400"), Err(DecodeError));
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(is_acceptable(&nested(128)));
        assert!(!is_acceptable(&nested(129)));
        assert!(is_acceptable(&format!("\"{}\"", "[".repeat(1000))));
        assert!(is_acceptable(&format!("[{}1]", "[1],".repeat(1000))));
        assert_eq!(brackets(nested(1000).replace("[]", "[{}]").as_bytes()), 1001);
    }

    #[test]
    fn strings_are_escaped_as_serde_json_escapes_them() {
        for text in ["", "room:1", "é😀\u{7f}", "\"", "\\", "line\nbreak", "\u{0}\u{1f} /"] {
            let mut out = String::from("[");
            write_string(&mut out, text);
            assert_eq!(out[1..], serde_json::to_string(text).expect("a string"));
        }
    }
}
