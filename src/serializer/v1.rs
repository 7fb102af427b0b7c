//! Protocol 1.0.0: JSON objects `{"ref":…,"event":…,"payload":…,"topic":…}`, no binary frames.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tower_channels_transports::Message;

use super::json::{self, decode_event, decode_topic, write_reply, write_string, write_topic};
use super::server_message::ServerMessage;
use crate::message::{ClientMessage, DecodeError, JOIN, Ref, Topic};

/// Decodes a text frame. Unknown keys are ignored, and of a repeated key the first one counts. A join may have the key
/// `after`, with the position in the history of its topic that the client has received last.
pub(super) fn decode(text: &str) -> Result<ClientMessage<'_>, DecodeError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(Object).and_then(|object| json.end().map(|()| object));
    let [join_ref, reference, topic, event, payload, after] = fields.map_err(|_| DecodeError)?;
    let event = decode_event(event.ok_or(DecodeError)?.get())?;
    Ok(ClientMessage {
        join_ref: join_ref
            .map_or(Some(Ref::NULL), |raw| Ref::from_json(raw.get()))
            .ok_or(DecodeError)?,
        reference: Ref::from_json(reference.ok_or(DecodeError)?.get()).ok_or(DecodeError)?,
        topic: decode_topic(topic.ok_or(DecodeError)?.get())?,
        after: after
            .filter(|_| event.as_text() == Some(JOIN))
            .and_then(|raw| json::position(raw.get())),
        event,
        payload: json::validate(text, payload.ok_or(DecodeError)?.get())?,
    })
}

/// Collects `join_ref, ref, topic, event, payload, after`, in this order.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = [Option<&'de RawValue>; 6];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = [None; 6];
        while let Some(Key(key)) = map.next_key()? {
            match key.map(|index| &mut fields[index]) {
                Some(field @ None) => *field = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// The index of a key among the fields; `None` if it is unknown.
struct Key(Option<usize>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                let keys = ["join_ref", "ref", "topic", "event", "payload", "after"];
                Ok(Key(keys.iter().position(|known| *known == key)))
            }
        }
        deserializer.deserialize_identifier(Text)
    }
}

/// Encodes a message. `None` for a binary payload or a ref that is not UTF-8.
pub(super) fn encode(message: &ServerMessage<'_>) -> Option<Message> {
    match message {
        ServerMessage::Reply { reference, topic, status, response, .. } => {
            let payload = status.len() + response.len() + REPLY_SIZE;
            let mut out = head(reference.as_json()?, "phx_reply", topic, payload);
            write_reply(&mut out, status, response)?;
            Some(Message::text(tail(out, topic)))
        }
        ServerMessage::Push { topic, event, payload, position, .. }
        | ServerMessage::Broadcast { topic, event, payload, position } => {
            let message = match position {
                None => text("null", event, topic, payload.as_json()?),
                Some(position) => {
                    text(&json::position_ref(*position), event, topic, payload.as_json()?)
                }
            };
            Some(Message::with_placeholder(message, HEAD.len()))
        }
        ServerMessage::End { join_ref, topic, event, payload, .. } => {
            let message = text(join_ref.as_json()?, event, topic, payload);
            Some(if join_ref.is_null() {
                Message::with_placeholder(message, HEAD.len())
            } else {
                Message::text(message)
            })
        }
    }
}

fn text(reference: &str, event: &str, topic: &str, payload: &str) -> String {
    let topic = Topic::from(topic);
    let mut out = head(reference, event, &topic, payload.len());
    out.push_str(payload);
    tail(out, &topic)
}

/// The text before the ref.
const HEAD: &str = "{\"ref\":";

/// The size of a message without its ref, event, payload and topic.
const SIZE: usize = r#"{"ref":,"event":"","payload":,"topic":""}"#.len();

/// The size of the payload of a reply without its status and response.
const REPLY_SIZE: usize = r#"{"status":"","response":}"#.len();

/// Returns everything before a payload of `size` bytes, with room for the rest: exact unless the topic
/// or the event has escapes, so that the message can use the allocation as is.
fn head(reference: &str, event: &str, topic: &Topic<'_>, size: usize) -> String {
    let topic = topic.as_text().unwrap_or_default();
    let size = SIZE + reference.len() + event.len() + topic.len() + size;
    let mut out = String::with_capacity(size);
    out.push_str(HEAD);
    out.push_str(reference);
    out.push_str(",\"event\":");
    write_string(&mut out, event);
    out.push_str(",\"payload\":");
    out
}

/// Appends everything after the payload.
fn tail(mut out: String, topic: &Topic<'_>) -> String {
    out.push_str(",\"topic\":");
    write_topic(&mut out, topic);
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Position;
    use crate::message::{ClientPayload, Event};
    use crate::payload::Payload;

    fn encoded(message: &ServerMessage<'_>) -> String {
        let message = encode(message).expect("representable");
        String::from_utf8_lossy(&message.to_bytes()).into_owned()
    }

    #[test]
    fn a_frame_is_an_object_with_keys_in_any_order() {
        let frame =
            decode(r#"{"x":[{}],"payload":{"a":1},"event":"e","ref":"1","topic":"t","ref":"2"}"#)
                .expect("valid");
        assert_eq!(frame.reference.as_json(), Some("\"1\""));
        assert_eq!((frame.topic, frame.event), (Topic::from("t"), Event::from("e")));
        assert_eq!(frame.payload, ClientPayload::Json(r#"{"a":1}"#));
        assert!(frame.join_ref.is_null());
    }

    #[test]
    fn a_join_names_a_position_in_a_field() {
        let decode = |event: &str, after: &str| {
            let text = format!(
                r#"{{"topic":"t","event":"{event}","payload":{{}},"ref":"1","after":{after}}}"#
            );
            super::decode(&text).expect("valid").after
        };
        let position = Some(Position { epoch: 1, number: 17 });
        assert_eq!(decode("phx_join", r#""AAAAAAAAAAE.17""#), position);
        assert_eq!(decode("phx_join", r#""AAAAAAAAAAE.1\u0037""#), position);
        for after in [r#""AAAAAAAAAAE""#, "17", "null", "[]", r#"{"after":"AAAAAAAAAAE.17"}"#] {
            assert_eq!(decode("phx_join", after), None, "{after}");
        }
        assert_eq!(decode("e", r#""AAAAAAAAAAE.17""#), None);
    }

    #[test]
    fn a_missing_key_or_anything_but_an_object_is_malformed() {
        for text in [
            "",
            "[]",
            r#"["1","1","t","e",{}]"#,
            "{}",
            r#"{"topic":"t","event":"e","payload":{}}"#,
            r#"{"topic":"t","event":"e","ref":"1"}"#,
            r#"{"topic":"t","payload":{},"ref":"1"}"#,
            r#"{"event":"e","payload":{},"ref":"1"}"#,
            r#"{"topic":"t","event":"e","payload":{},"ref":"1"}}"#,
        ] {
            assert_eq!(decode(text), Err(DecodeError), "{text}");
        }
    }

    #[test]
    fn messages_are_encoded_as_phoenix_encodes_them() {
        let one = Ref::from_json("\"1\"").expect("a ref");
        let payload = Payload::from_json_text(r#"{"a":1}"#);
        let reply = ServerMessage::Reply {
            join_ref: &one,
            reference: &one,
            topic: &Topic::from("t"),
            status: "error",
            response: &payload,
        };
        assert_eq!(
            encoded(&reply),
            r#"{"ref":"1","event":"phx_reply","payload":{"status":"error","response":{"a":1}},"topic":"t"}"#
        );
        let push = |position| {
            let (topic, event, payload) = ("t", "e", &payload);
            ServerMessage::Push { join_ref: &one, topic, event, payload, position }
        };
        assert_eq!(
            encoded(&push(None)),
            r#"{"ref":null,"event":"e","payload":{"a":1},"topic":"t"}"#
        );
        let position = Some(Position { epoch: 1, number: 17 });
        assert_eq!(
            encoded(&push(position)),
            r#"{"ref":"p:AAAAAAAAAAE.17","event":"e","payload":{"a":1},"topic":"t"}"#
        );
        let end = ServerMessage::End {
            join_ref: &Ref::NULL,
            reference: &Ref::NULL,
            topic: "t",
            event: "phx_close",
            payload: "{}",
        };
        assert_eq!(encoded(&end), r#"{"ref":null,"event":"phx_close","payload":{},"topic":"t"}"#);
        let end = ServerMessage::End {
            join_ref: &one,
            reference: &Ref::NULL,
            topic: "t",
            event: "phx_close",
            payload: "{}",
        };
        assert_eq!(encoded(&end), r#"{"ref":"1","event":"phx_close","payload":{},"topic":"t"}"#);
        let (topic, event, payload) = ("t", "e", &Payload::binary("d"));
        let binary = ServerMessage::Broadcast { topic, event, payload, position };
        assert_eq!(encode(&binary), None);
    }

    #[test]
    fn a_message_uses_one_allocation() {
        let (one, payload) =
            (Ref::from_json("\"1\"").expect("a ref"), Payload::from_json_text("[1]"));
        let topic = Topic::from("room:a");
        let reply = ServerMessage::Reply {
            join_ref: &one,
            reference: &one,
            topic: &topic,
            status: "ok",
            response: &payload,
        };
        let (topic, event) = ("room:a", "phx_close");
        let broadcast =
            ServerMessage::Broadcast { topic, event, payload: &payload, position: None };
        let (join_ref, reference, payload) = (&one, &one, "{}");
        let end = ServerMessage::End { join_ref, reference, topic, event, payload };
        for message in [reply, broadcast, end] {
            let used = allocation_counter::measure(|| drop(encode(&message)));
            assert_eq!(used.count_total, 1, "{}", encoded(&message));
        }
    }
}
