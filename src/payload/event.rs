//! Deserializes a push as an enum whose variants are events and whose content is the payload.

use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    Unexpected, VariantAccess, Visitor,
};
use serde_json::Error;

use super::{EventError, InvalidPayload, Payload, Repr};

/// Parses an event and its payload as a variant of `T`.
pub(super) fn parse<T: DeserializeOwned>(event: &str, payload: &Payload) -> Result<T, EventError> {
    let mut known = false;
    let push = Push { event, payload, known: &mut known };
    T::deserialize(push).map_err(|error| {
        if known {
            EventError::Payload(InvalidPayload::new(&error))
        } else {
            EventError::Unknown(event.into())
        }
    })
}

/// A push, as serde sees it: an enum.
struct Push<'de, 'a> {
    event: &'de str,
    payload: &'de Payload,
    /// Set when `T` has a variant for the event.
    known: &'a mut bool,
}

impl<'de> Deserializer<'de> for Push<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Push<'de, '_> {
    type Error = Error;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Error> {
        let variant = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(self.event))?;
        *self.known = true;
        Ok((variant, Content(self.payload)))
    }
}

/// The payload, as the content of a variant.
struct Content<'a>(&'a Payload);

impl<'de> VariantAccess<'de> for Content<'de> {
    type Error = Error;

    /// An event that needs no payload takes any.
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        match &self.0.0 {
            Repr::Json(text) => {
                let mut json = serde_json::Deserializer::from_str(text);
                let value = seed.deserialize(&mut json)?;
                json.end()?;
                Ok(value)
            }
            Repr::Binary(bytes) => seed.deserialize(Binary(bytes)),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.newtype_variant_seed(Fields(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.newtype_variant_seed(Fields(visitor))
    }
}

/// Deserializes the fields of a variant from an array or an object.
struct Fields<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Fields<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

/// A binary payload: bytes or a sequence of them, and nothing else. A text is none, though it may be of
/// the same bytes.
struct Binary<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for Binary<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.0.iter().copied()))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Err(Error::invalid_type(Unexpected::Bytes(self.0), &visitor))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum In {
        Typing,
        NewMsg {
            body: String,
        },
        Delete(u64),
        Move(u32, u32),
        Upload(Bytes),
        Append(Vec<u8>),
        Replace(Option<Content>),
        #[serde(rename = "user:rename")]
        Rename(Option<String>),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Content(Bytes);

    fn parsed(event: &str, payload: impl Into<Payload>) -> Result<In, String> {
        payload.into().parse_event(event).map_err(|error| error.to_string())
    }

    #[test]
    fn an_event_and_its_payload_are_a_variant() {
        for (event, payload, expected) in [
            ("typing", json!({}), In::Typing),
            ("typing", json!([1]), In::Typing),
            ("new_msg", json!({ "body": "a\nb", "more": 1 }), In::NewMsg { body: "a\nb".into() }),
            ("delete", json!(7), In::Delete(7)),
            ("move", json!([1, 2]), In::Move(1, 2)),
            ("user:rename", json!(null), In::Rename(None)),
        ] {
            assert_eq!(parsed(event, payload), Ok(expected));
        }
    }

    #[test]
    fn a_binary_payload_is_bytes_by_any_name_and_no_text() {
        for (event, expected) in [
            ("typing", In::Typing),
            ("upload", In::Upload("abc".into())),
            ("append", In::Append("abc".into())),
            ("replace", In::Replace(Some(Content("abc".into())))),
        ] {
            assert_eq!(parsed(event, Bytes::from("abc")), Ok(expected));
        }
        let text = parsed("user:rename", Bytes::from("abc")).unwrap_err();
        assert_eq!(text, "invalid type: byte array, expected a string");
    }

    #[test]
    fn bytes_are_also_taken_from_json() {
        assert_eq!(parsed("append", json!([97, 98])), Ok(In::Append("ab".into())));
        assert_eq!(parsed("upload", json!([97, 98])), Ok(In::Upload("ab".into())));
        assert_eq!(parsed("replace", json!(null)), Ok(In::Replace(None)));
    }

    #[test]
    fn an_unknown_event_is_not_an_invalid_payload() {
        for event in ["", "NewMsg", "new_msg "] {
            let error = Payload::EMPTY.parse_event::<In>(event).unwrap_err();
            assert!(matches!(error, EventError::Unknown(_)), "{error}");
        }
    }

    #[test]
    fn an_invalid_payload_names_the_field_as_serde_does() {
        let missing = parsed("new_msg", json!({})).unwrap_err();
        assert!(missing.contains("missing field `body`"), "{missing}");
        let binary = parsed("new_msg", Bytes::from("{}")).unwrap_err();
        assert!(binary.contains("byte array"), "{binary}");
        parsed("delete", json!({})).unwrap_err();
        parsed("move", json!([1, 2, 3])).unwrap_err();
        parsed("upload", json!({})).unwrap_err();
    }
}
