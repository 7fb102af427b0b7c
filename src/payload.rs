//! What a message carries: JSON text as it came, or bytes.

use std::fmt;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;

/// What a message carries: JSON or bytes. Cloning shares them.
///
/// JSON from a client is kept as the text that came and parsed only when asked for; an echo or a
/// broadcast of it is never encoded again.
#[derive(Clone)]
pub struct Payload(Repr);

#[derive(Clone)]
enum Repr {
    /// Valid JSON text.
    Json(SmolStr),
    Binary(Bytes),
}

impl Payload {
    /// `{}`, what Phoenix sends where there is nothing to say.
    pub const EMPTY: Self = Self(Repr::Json(SmolStr::new_static("{}")));

    /// Encodes `value` as JSON. Fails where serde_json does, as for a map whose keys are no strings.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(Repr::Json(serde_json::to_string(value)?.into())))
    }

    /// A binary payload. Clients of protocol 1.0.0 cannot receive one.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self(Repr::Binary(bytes.into()))
    }

    /// JSON text that was checked already.
    pub(crate) fn from_json_text(text: &str) -> Self {
        if text == "{}" { Self::EMPTY } else { Self(Repr::Json(text.into())) }
    }

    /// Reads JSON as a `T`, which may borrow from the payload. A binary payload is an error.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        match &self.0 {
            Repr::Json(text) => serde_json::from_str(text),
            Repr::Binary(_) => Err(serde_json::Error::custom("the payload is binary, not JSON")),
        }
    }

    /// The JSON text, unless the payload is binary.
    pub fn as_json(&self) -> Option<&str> {
        match &self.0 {
            Repr::Json(text) => Some(text),
            Repr::Binary(_) => None,
        }
    }

    /// The bytes of a binary payload.
    pub fn as_binary(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Json(_) => None,
            Repr::Binary(bytes) => Some(bytes),
        }
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Repr::Json(text) => text.len(),
            Repr::Binary(bytes) => bytes.len(),
        }
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self(Repr::Json(value.to_string().into()))
    }
}

/// The same bytes, or JSON of the same meaning.
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
    fn json_is_equal_by_meaning_and_bytes_by_themselves() {
        assert_eq!(
            Payload::from_json_text(r#"{"b": 1, "a":2}"#),
            Payload::from(json!({"a":2,"b":1}))
        );
        assert_ne!(Payload::from_json_text("1"), Payload::binary("1"));
    }

    #[test]
    fn a_binary_payload_does_not_parse() {
        assert!(Payload::binary("{}").parse::<Value>().is_err());
    }
}
