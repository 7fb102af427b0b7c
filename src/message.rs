//! The parts of a Phoenix message: refs, names, and what a client sent.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::payload::Payload;

/// The longest topic, event or ref, in bytes: what one byte can say in a binary frame.
pub(crate) const LONGEST_NAME: usize = 255;

/// The mark by which a client knows an answer (`ref`) or the join that a message belongs to
/// (`join_ref`). It is echoed as it came: a string stays a string, an integer an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref(Repr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    /// JSON text: a string in its quotes, an integer, or `null`. Strings are spelt in one way, so
    /// that equal refs are equal text.
    Json(SmolStr),
    /// From a binary frame, and not UTF-8: it can be echoed in a binary frame only.
    Opaque(Arc<[u8]>),
}

impl Ref {
    /// No ref.
    pub const NULL: Self = Self(Repr::Json(SmolStr::new_static("null")));

    /// Reads valid JSON text. `None` if it is no string, integer or null, or too long.
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

    /// Reads the ref of a binary frame, which is always a string, though it may be empty.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST_NAME {
            return None;
        }
        Some(Self(match str::from_utf8(bytes) {
            Ok(text) => Repr::Json(serde_json::Value::from(text).to_string().into()),
            Err(_) => Repr::Opaque(bytes.into()),
        }))
    }

    /// Whether there is none.
    pub fn is_null(&self) -> bool {
        matches!(&self.0, Repr::Json(text) if text == "null")
    }

    /// Its JSON text. `None` for the bytes of a binary frame that are no text.
    pub fn as_json(&self) -> Option<&str> {
        match &self.0 {
            Repr::Json(text) => Some(text),
            Repr::Opaque(_) => None,
        }
    }

    /// Its bytes in a binary frame: a string's, an integer's digits, nothing for `null`.
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

/// A topic or an event. Clients may send any JSON in its place, and Phoenix answers that too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// Any other JSON value, as it was written.
    Other(&'a str),
}

impl<'a> Name<'a> {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// A message from a client, borrowed from what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// The join that it belongs to.
    pub join_ref: Ref,
    /// What its answer will carry.
    pub reference: Ref,
    /// Its topic.
    pub topic: Name<'a>,
    /// Its event.
    pub event: Name<'a>,
    /// What it carries.
    pub payload: ClientPayload<'a>,
}

/// The payload of an [`ClientMessage`] message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPayload<'a> {
    /// Valid JSON text.
    Json(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

impl ClientPayload<'_> {
    /// Copies it out of the buffer that it came in.
    pub fn to_payload(self) -> Payload {
        match self {
            Self::Json(text) => Payload::from_json_text(text),
            Self::Binary(bytes) => Payload::binary(Bytes::copy_from_slice(bytes)),
        }
    }
}

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
    fn equal_strings_are_equal_refs_however_they_were_spelt() {
        assert_eq!(Ref::from_json(r#""\u0031""#), Ref::from_json(r#""1""#));
        assert_eq!(Ref::from_bytes(b"1"), Ref::from_json(r#""1""#));
        assert_ne!(Ref::from_json("1"), Ref::from_json(r#""1""#));
        assert_ne!(Ref::from_bytes(b""), Some(Ref::NULL));
    }

    #[test]
    fn a_ref_of_more_than_255_bytes_is_none() {
        assert!(Ref::from_json(&format!("\"{}\"", "x".repeat(255))).is_some());
        assert!(Ref::from_json(&format!("\"{}\"", "x".repeat(256))).is_none());
        assert!(Ref::from_json(&"1".repeat(256)).is_none());
    }

    #[test]
    fn a_binary_ref_keeps_its_bytes() {
        for bytes in [&b"7"[..], b"", b"a\"b\\", b"\xff\x00"] {
            assert_eq!(*Ref::from_bytes(bytes).expect("short enough").to_bytes(), *bytes);
        }
    }
}
