//! The parts of a Phoenix message: refs, topics, events, and the decoded message of a client.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::history::Position;
use crate::payload::{ALLOCATION, Payload, heap_size};

/// The longest topic, event or ref, in bytes: a binary frame has one byte for its length.
pub(crate) const LONGEST_NAME: usize = 255;

/// The event that joins a topic.
pub(crate) const JOIN: &str = "phx_join";

/// A `ref`, by which a client matches replies to pushes, or a `join_ref`, which names the join that a
/// message belongs to. It is echoed as received: a string stays a string, an integer an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref(Repr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    /// JSON text: a quoted string, an integer, or `null`. Strings are normalized, so that equal refs
    /// have equal text.
    Json(SmolStr),
    /// Bytes from a binary frame that are not UTF-8. They can be echoed in a binary frame only.
    Opaque(Arc<[u8]>),
}

impl Ref {
    /// The absent ref, `null`.
    pub const NULL: Self = Self(Repr::Json(SmolStr::new_static("null")));

    /// Creates a ref from valid JSON text. `None` unless it is a string of at most 255 bytes, an
    /// integer of at most 255 digits, or `null`.
    pub fn from_json(text: &str) -> Option<Self> {
        match text.as_bytes() {
            b"null" => Some(Self::NULL),
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
                (inner.len() <= LONGEST_NAME).then(|| Self(Repr::Json(text.into())))
            }
            [b'"', ..] => Self::from_bytes(serde_json::from_str::<String>(text).ok()?.as_bytes()),
            [b'-', digits @ ..] | digits => {
                let integer = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
                (integer && text.len() <= LONGEST_NAME).then(|| Self(Repr::Json(text.into())))
            }
        }
    }

    /// Creates a ref from a binary frame, where it is always a string. `None` if it is longer than
    /// 255 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST_NAME {
            return None;
        }
        Some(Self(match str::from_utf8(bytes) {
            Ok(text) => Repr::Json(serde_json::Value::from(text).to_string().into()),
            Err(_) => Repr::Opaque(bytes.into()),
        }))
    }

    /// Returns whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.0, Repr::Json(text) if text == "null")
    }

    /// Returns the JSON text. `None` for bytes of a binary frame that are not UTF-8.
    pub fn as_json(&self) -> Option<&str> {
        match &self.0 {
            Repr::Json(text) => Some(text),
            Repr::Opaque(_) => None,
        }
    }

    /// The bytes that it holds outside of itself.
    pub(crate) fn heap_size(&self) -> usize {
        match &self.0 {
            Repr::Json(text) => heap_size(text),
            Repr::Opaque(bytes) => bytes.len() + ALLOCATION,
        }
    }

    /// Returns the bytes for a binary frame: those of the string, the digits of the integer, none for
    /// `null`.
    pub(crate) fn to_bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Repr::Opaque(bytes) => Cow::Borrowed(bytes),
            Repr::Json(text) => match text.as_bytes() {
                b"null" => Cow::Borrowed(b""),
                [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Cow::Borrowed(inner),
                [b'"', ..] => {
                    Cow::Owned(serde_json::from_str::<String>(text).unwrap_or_default().into())
                }
                integer => Cow::Borrowed(integer),
            },
        }
    }
}

/// The topic of a client's message. Like Phoenix, the server replies to any JSON value, repeating it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// The JSON text of any other value.
    Other(&'a str),
}

impl Topic<'_> {
    /// Returns the topic, if it is a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

impl<'a> From<&'a str> for Topic<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// The event of a client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// Any other JSON value, which no handler accepts.
    Other,
}

impl Event<'_> {
    /// Returns the event, if it is a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other => None,
        }
    }
}

impl<'a> From<&'a str> for Event<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// A message from a client, borrowed from the frame it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// The join that the message belongs to.
    pub join_ref: Ref,
    /// The ref that the reply will carry.
    pub reference: Ref,
    /// The topic.
    pub topic: Topic<'a>,
    /// The event.
    pub event: Event<'a>,
    /// The payload.
    pub payload: ClientPayload<'a>,
    /// The last message that the client has received of a topic that it joins, if it names one.
    pub after: Option<Position>,
}

impl ClientMessage<'_> {
    /// Returns the topic and the event for a log line. Nothing bounds what is not a string.
    pub(crate) fn loggable(&self) -> (&str, &str) {
        let Self { topic, event, .. } = self;
        (topic.as_text().unwrap_or("not a string"), event.as_text().unwrap_or("not a string"))
    }
}

/// The payload of a [`ClientMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPayload<'a> {
    /// Valid JSON text.
    Json(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
    /// JSON that not every parser can read: no channel receives it.
    Invalid,
}

impl ClientPayload<'_> {
    /// Copies the payload out of the frame. An invalid one is empty.
    pub fn to_payload(self) -> Payload {
        match self {
            Self::Invalid => Payload::EMPTY,
            Self::Json(text) => Payload::from_json_text(text),
            Self::Binary(bytes) => Payload::binary(Bytes::copy_from_slice(bytes)),
        }
    }
}

/// Error returned for a frame that is not a valid message. It ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError;

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the frame is not a valid message")
    }
}

impl Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_strings_integers_or_null() {
        for text in [r#""1""#, r#""""#, "1", "-7", "0", "123456789012345678901234567890", "null"] {
            assert_eq!(Ref::from_json(text).expect(text).as_json(), Some(text));
        }
        for text in ["1.5", "1e3", "true", "{}", "[1]", "-"] {
            assert_eq!(Ref::from_json(text), None, "{text}");
        }
    }

    #[test]
    fn strings_are_equal_refs_however_they_are_escaped() {
        assert_eq!(Ref::from_json(r#""\u0031""#), Ref::from_json(r#""1""#));
        assert_eq!(Ref::from_bytes(b"1"), Ref::from_json(r#""1""#));
        assert_ne!(Ref::from_json("1"), Ref::from_json(r#""1""#));
        assert_ne!(Ref::from_bytes(b""), Some(Ref::NULL));
    }

    #[test]
    fn a_ref_of_more_than_255_bytes_is_rejected() {
        assert!(Ref::from_json(&format!("\"{}\"", "x".repeat(255))).is_some());
        assert!(Ref::from_json(&format!("\"{}\"", "x".repeat(256))).is_none());
        assert!(Ref::from_json(&"1".repeat(256)).is_none());
    }

    #[test]
    fn a_binary_ref_round_trips() {
        for bytes in [&b"7"[..], b"", b"a\"b\\", b"\xff\x00"] {
            assert_eq!(*Ref::from_bytes(bytes).expect("short enough").to_bytes(), *bytes);
        }
    }
}
