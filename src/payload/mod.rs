//! [`Payload`]: JSON text as it was received, or bytes.

mod error;
mod event;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;
use smol_str::SmolStr;

pub use self::error::{EventError, InvalidPayload};

/// The content of a message: JSON or bytes. A cheap clone.
///
/// JSON from a client is kept as the text that was received, and parsed on demand: an echo or a
/// broadcast of it is not encoded again.
#[derive(Clone)]
pub struct Payload(Repr);

#[derive(Clone)]
enum Repr {
    /// Valid JSON text.
    Json(SmolStr),
    Binary(Bytes),
}

impl Payload {
    /// `{}`, which Phoenix sends as an empty payload.
    pub const EMPTY: Self = Self(Repr::Json(SmolStr::new_static("{}")));

    /// Encodes `value` as JSON.
    ///
    /// # Errors
    /// If serde_json cannot encode it, such as a map whose keys are not strings.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(Repr::Json(serde_json::to_string(value)?.into())))
    }

    /// Creates a binary payload. Protocol 1.0.0 cannot carry one: its clients do not receive the
    /// message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self(Repr::Binary(bytes.into()))
    }

    /// Creates a payload of valid JSON text.
    pub(crate) fn from_json_text(text: &str) -> Self {
        if text == "{}" { Self::EMPTY } else { Self(Repr::Json(text.into())) }
    }

    /// Parses the JSON as a `T`.
    ///
    /// `T` owns its data: a string with an escape has no slice in the text that could be borrowed.
    /// Use [`as_json`](Self::as_json) to parse without copies.
    ///
    /// # Errors
    /// If the payload is binary, or the JSON is not that of a `T`. With `?` in a callback, the client
    /// receives the error as a reply, and the channel goes on.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, InvalidPayload> {
        match &self.0 {
            Repr::Json(text) => serde_json::from_str(text),
            Repr::Binary(_) => Err(serde_json::Error::custom("the payload is binary, not JSON")),
        }
        .map_err(|error| InvalidPayload::new(&error))
    }

    /// Parses the payload of `event` as a variant of the enum `T`: the variants are the events, and
    /// what they contain is the payload. `T` is tagged externally, as enums are by default, and its
    /// data is owned, as in [`parse`](Self::parse).
    ///
    /// | variant | payload |
    /// | --- | --- |
    /// | `Typing` | any |
    /// | `NewMsg { body: String }`, `NewMsg(Message)` | an object |
    /// | `Move(u32, u32)` | an array |
    /// | `Upload(Bytes)`, `Upload(Vec<u8>)` | binary, or JSON of which serde makes such a value: an array of numbers, for `Bytes` also a string |
    ///
    /// `Bytes` copies a binary payload; [`as_binary`](Self::as_binary) does not.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tower_channels::{EventError, Payload};
    ///
    /// #[derive(Debug, Deserialize, PartialEq)]
    /// #[serde(rename_all = "snake_case")]
    /// enum In {
    ///     Typing,
    ///     NewMsg { body: String },
    /// }
    ///
    /// let payload = Payload::from(serde_json::json!({ "body": "hi" }));
    /// assert_eq!(payload.parse_event::<In>("new_msg")?, In::NewMsg { body: "hi".into() });
    /// # Ok::<_, EventError>(())
    /// ```
    ///
    /// # Errors
    /// If `T` has no such variant, or the payload is not what it contains. With `?` in a callback, an
    /// unknown event crashes the channel as [`Error::unmatched`] does, and an invalid payload is an
    /// error reply.
    ///
    /// [`Error::unmatched`]: crate::channel::Error::unmatched
    pub fn parse_event<T: DeserializeOwned>(&self, event: &str) -> Result<T, EventError> {
        event::parse(event, self)
    }

    /// The JSON text, or `None` if the payload is binary.
    pub fn as_json(&self) -> Option<&str> {
        match &self.0 {
            Repr::Json(text) => Some(text),
            Repr::Binary(_) => None,
        }
    }

    /// The bytes of a binary payload, or `None` if the payload is JSON.
    pub fn as_binary(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Json(_) => None,
            Repr::Binary(bytes) => Some(bytes),
        }
    }

    /// The bytes that it holds outside of itself.
    pub(crate) fn heap_size(&self) -> usize {
        match &self.0 {
            Repr::Json(text) => heap_size(text),
            Repr::Binary(bytes) => bytes.len() + ALLOCATION,
        }
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Repr::Json(text) => text.len(),
            Repr::Binary(bytes) => bytes.len(),
        }
    }
}

/// The bytes that a string holds outside of itself: none if it is short.
pub(crate) fn heap_size(text: &SmolStr) -> usize {
    if text.is_heap_allocated() { text.len() + ALLOCATION } else { 0 }
}

/// What a shared allocation holds beside its bytes.
pub(crate) const ALLOCATION: usize = 2 * size_of::<usize>();

/// A JSON string.
impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Value::from(text).into()
    }
}

/// A JSON string.
impl From<String> for Payload {
    fn from(text: String) -> Self {
        Value::from(text).into()
    }
}

/// A binary payload.
impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

/// A binary payload.
impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self(Repr::Json(value.to_string().into()))
    }
}

/// Compares JSON by meaning and binary payloads by bytes.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Json(a), Repr::Json(b)) => {
                let value = |text| serde_json::from_str::<Value>(text).ok();
                a == b || value(a).is_some_and(|a| value(b) == Some(a))
            }
            (Repr::Binary(a), Repr::Binary(b)) => a == b,
            _ => false,
        }
    }
}

impl PartialEq<Value> for Payload {
    fn eq(&self, other: &Value) -> bool {
        self.parse::<Value>().is_ok_and(|value| value == *other)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Json(text) => f.write_str(text),
            Repr::Binary(bytes) => write!(f, "{bytes:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_compared_by_meaning_and_never_equals_bytes() {
        assert_eq!(
            Payload::from_json_text(r#"{"b": 1, "a":2}"#),
            Payload::from(json!({"a":2,"b":1}))
        );
        assert_ne!(Payload::from_json_text("1"), Payload::binary("1"));
    }

    #[test]
    fn texts_are_json_strings_and_bytes_are_binary() {
        assert_eq!(Payload::from("a\nb"), Payload::from_json_text(r#""a\nb""#));
        assert_eq!(Payload::from(String::from("ä")), Payload::from("ä"));
        assert_eq!(Payload::from(vec![0, 255]), Payload::binary(Bytes::from_static(&[0, 255])));
    }

    #[test]
    fn a_binary_payload_does_not_parse() {
        assert!(Payload::binary("{}").parse::<Value>().is_err());
    }

    #[test]
    fn a_string_with_an_escape_parses_like_any_other() {
        let texts = [r#""line\nbreak""#, r#""line break""#].map(Payload::from_json_text);
        let parsed = texts.map(|text| text.parse::<String>().expect("a string"));
        assert_eq!(parsed, ["line\nbreak", "line break"]);
    }
}
