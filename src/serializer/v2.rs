//! Protocol 2.0.0: JSON arrays `[join_ref, ref, topic, event, payload]` and binary frames.

use std::fmt;

use serde::de::{Deserializer as _, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tower_channels_transports::Message;

use super::json::{self, decode_event, decode_topic, write_reply, write_string, write_topic};
use super::server_message::ServerMessage;
use crate::message::{ClientMessage, ClientPayload, DecodeError, Event, Ref, Topic};

/// The kind, the first byte of a binary frame.
const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

/// The size of a reply without its refs, topic, status and response.
const REPLY_SIZE: usize = r#"[,,"","phx_reply",{"status":"","response":}]"#.len();

/// Decodes a text frame. Elements past the fifth are ignored.
pub(super) fn decode_text(text: &str) -> Result<ClientMessage<'_>, DecodeError> {
    let [join_ref, reference, topic, event, payload] = match decode_fast(text) {
        Some(five) => five,
        None => decode_slow(text).map_err(|_| DecodeError)?,
    };
    Ok(ClientMessage {
        join_ref: Ref::from_json(join_ref).ok_or(DecodeError)?,
        reference: Ref::from_json(reference).ok_or(DecodeError)?,
        topic: decode_topic(topic)?,
        event: decode_event(event)?,
        payload: json::validate(text, payload)?,
    })
}

/// Splits a frame as clients usually write it: no spaces, and before the payload only `null` and
/// strings without escapes. Takes a fraction of the time that a JSON parser does.
fn decode_fast(text: &str) -> Option<[&str; 5]> {
    let mut rest = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut next = || {
        let size = match rest.strip_prefix('"') {
            Some(string) => {
                let end = string.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
                end + "\"\"".len()
            }
            None => "null".len(),
        };
        let (element, after) = rest.split_at_checked(size)?;
        rest = after.strip_prefix(',')?;
        let is_string = element.starts_with('"') && element.ends_with('"');
        (is_string || element == "null").then_some(element)
    };
    let [join_ref, reference, topic, event] = [next()?, next()?, next()?, next()?];
    let payload: &RawValue = serde_json::from_str(rest).ok()?;
    Some([join_ref, reference, topic, event, payload.get()])
}

/// Splits any array of five or more elements.
fn decode_slow(text: &str) -> serde_json::Result<[&str; 5]> {
    let mut json = serde_json::Deserializer::from_str(text);
    let five = json.deserialize_seq(Five)?;
    json.end().map(|()| five.map(RawValue::get))
}

/// Collects the first five elements of an array.
struct Five;

impl<'de> Visitor<'de> for Five {
    type Value = [&'de RawValue; 5];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of five elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut next = || seq.next_element()?.ok_or_else(|| A::Error::custom("too short"));
        let five = [next()?, next()?, next()?, next()?, next()?];
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(five)
    }
}

/// Decodes a binary frame: the kind, four lengths of a byte each, the four texts, the data.
pub(super) fn decode_binary(frame: &[u8]) -> Result<ClientMessage<'_>, DecodeError> {
    let [PUSH, lengths @ ..] = frame else { return Err(DecodeError) };
    let (lengths, mut rest) = lengths.split_at_checked(4).ok_or(DecodeError)?;
    let mut next = |length: u8| {
        let (text, after) = rest.split_at_checked(length.into()).ok_or(DecodeError)?;
        rest = after;
        Ok(text)
    };
    let join_ref = Ref::from_bytes(next(lengths[0])?).ok_or(DecodeError)?;
    let reference = Ref::from_bytes(next(lengths[1])?).ok_or(DecodeError)?;
    // No channel can be joined under a topic that is not UTF-8, and no JSON reply can repeat it.
    let topic = Topic::from(str::from_utf8(next(lengths[2])?).map_err(|_| DecodeError)?);
    // No handler matches an event that is not UTF-8.
    let event = Event::Text(String::from_utf8_lossy(next(lengths[3])?));
    Ok(ClientMessage { join_ref, reference, topic, event, payload: ClientPayload::Binary(rest) })
}

/// Encodes a message. `None` for a ref that is not UTF-8 in a text frame.
pub(super) fn encode(message: &ServerMessage<'_>) -> Option<Message> {
    match message {
        ServerMessage::Reply { join_ref, reference, topic, status, response } => {
            if let Some(data) = response.as_binary() {
                let topic = topic.as_text()?;
                let texts = [
                    &*join_ref.to_bytes(),
                    &reference.to_bytes(),
                    topic.as_bytes(),
                    status.as_bytes(),
                ];
                return binary(REPLY, &texts, data);
            }
            let topic_text = topic.as_text().unwrap_or_default();
            let texts = [join_ref.as_json()?, reference.as_json()?, topic_text, status];
            let size = texts.map(str::len).iter().sum::<usize>() + response.len();
            // Exact unless the topic has escapes, so that the message can use the allocation as is.
            let mut out = String::with_capacity(size + REPLY_SIZE);
            head(&mut out, join_ref, reference, topic)?;
            out.push_str(",\"phx_reply\",");
            write_reply(&mut out, status, response)?;
            out.push(']');
            Some(Message::text(out))
        }
        ServerMessage::Push { join_ref, topic, event, payload } => {
            if let Some(data) = payload.as_binary() {
                let texts = [&*join_ref.to_bytes(), topic.as_bytes(), event.as_bytes()];
                return Some(binary(PUSH, &texts, data)?.numbered());
            }
            text(join_ref, &Ref::NULL, topic, event, payload.as_json()?)
        }
        ServerMessage::Broadcast { topic, event, payload } => {
            if let Some(data) = payload.as_binary() {
                let texts = [topic.as_bytes(), event.as_bytes()];
                return Some(binary(BROADCAST, &texts, data)?.numbered());
            }
            text(&Ref::NULL, &Ref::NULL, topic, event, payload.as_json()?)
        }
        ServerMessage::End { join_ref, reference, topic, event, payload } => {
            text(join_ref, reference, topic, event, payload)
        }
    }
}

fn text(
    join_ref: &Ref,
    reference: &Ref,
    topic: &str,
    event: &str,
    payload: &str,
) -> Option<Message> {
    let texts = [join_ref.as_json()?, reference.as_json()?, topic, event, payload];
    // Exact unless the topic or the event has escapes, as above.
    let size = texts.map(str::len).iter().sum::<usize>() + r#"[,,"","",]"#.len();
    let mut out = String::with_capacity(size);
    head(&mut out, join_ref, reference, &Topic::from(topic))?;
    out.push(',');
    write_string(&mut out, event);
    out.push(',');
    out.push_str(payload);
    out.push(']');
    // A null ref is the placeholder of a number.
    Some(if reference.is_null() {
        Message::with_placeholder(out, "[,".len() + join_ref.as_json()?.len())
    } else {
        Message::text(out)
    })
}

/// Appends `[join_ref,ref,topic`.
fn head(out: &mut String, join_ref: &Ref, reference: &Ref, topic: &Topic<'_>) -> Option<()> {
    out.push('[');
    out.push_str(join_ref.as_json()?);
    out.push(',');
    out.push_str(reference.as_json()?);
    out.push(',');
    write_topic(out, topic);
    Some(())
}

/// Encodes a binary frame. `None` if a text is too long for its length byte.
fn binary(kind: u8, texts: &[&[u8]], data: &[u8]) -> Option<Message> {
    let size = 1 + texts.iter().map(|text| 1 + text.len()).sum::<usize>() + data.len();
    let mut out = Vec::with_capacity(size);
    out.push(kind);
    for text in texts {
        out.push(length_byte(text)?);
    }
    for text in texts {
        out.extend_from_slice(text);
    }
    out.extend_from_slice(data);
    Some(Message::binary(out))
}

/// Returns the length byte of a text in a binary frame. `None` if the text is too long.
fn length_byte(text: &[u8]) -> Option<u8> {
    text.len().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    fn encoded(message: &ServerMessage<'_>) -> String {
        let message = encode(message).expect("representable");
        String::from_utf8_lossy(&message.to_bytes()).into_owned()
    }

    #[test]
    fn a_text_frame_is_an_array_of_at_least_five() {
        let frame =
            decode_text(r#" ["1",2,"room:a","ping",{"a":[1, 2]},"more",[]] "#).expect("valid");
        assert_eq!(frame.join_ref.as_json(), Some("\"1\""));
        assert_eq!(frame.reference.as_json(), Some("2"));
        assert_eq!(frame.topic, Topic::from("room:a"));
        assert_eq!(frame.event, Event::from("ping"));
        assert_eq!(frame.payload, ClientPayload::Json(r#"{"a":[1, 2]}"#));
    }

    #[test]
    fn both_ways_to_split_a_frame_agree() {
        for text in [
            r#"["1","23","room:a","ping",{"a":[1, "é"]}]"#,
            r#"[null,"é","","phx_join",null]"#,
            r#"[null,null,"t","e","\u0041"]"#,
        ] {
            assert_eq!(decode_fast(text), decode_slow(text).ok(), "{text}");
            assert!(decode_fast(text).is_some(), "{text}");
        }
        for text in [
            r#"["1","2","t","e",{},"more"]"#,
            r#"["1","2","t\n","e",{}]"#,
            r#"["1",2,"t","e",{}]"#,
            r#"["1","2","t","e",{}"#,
            r#"["1","2","t","e",]"#,
            r#"["1""2","t","e",{}]"#,
            r#"["1","2",null"t","e",{}]"#,
            r#"["1","2",é"e",{}]"#,
            "[\"1\",\"2\",\"t\n\",\"e\",{}]",
            r#"[123","2","t","e",{}]"#,
            r#"["1","2","t","e",{}]]"#,
            "[]",
            "[",
        ] {
            assert_eq!(decode_fast(text), None, "{text}");
        }
    }

    #[test]
    fn anything_but_an_array_of_five_is_malformed() {
        for text in [
            "",
            " ",
            "x",
            "{}",
            "[]",
            r#"["1","1","t","e"]"#,
            r#"["1","1","t","e",{}"#,
            r#"["1","1","t","e",{}]]"#,
            r#"["1","1","t","e",{},1e400]"#,
            r#"[1.5,"1","t","e",{}]"#,
            r#"["1",{},"t","e",{}]"#,
            r#"["1","1","\ud83d","e",{}]"#,
        ] {
            assert_eq!(decode_text(text), Err(DecodeError), "{text}");
        }
    }

    #[test]
    fn a_payload_that_not_every_parser_reads_is_invalid() {
        for payload in ["1e400", r#"{"a":"\ud83d"}"#, &"1".repeat(400)] {
            for refs in [r#""1","1""#, r#""1",1"#] {
                let text = format!(r#"[{refs},"t","e",{payload}]"#);
                let message = decode_text(&text).expect("a sound envelope");
                assert_eq!(message.payload, ClientPayload::Invalid, "{text}");
                assert_eq!(message.topic, Topic::from("t"));
            }
        }
    }

    #[test]
    fn topics_and_events_may_be_any_json_and_are_bounded() {
        let frame = decode_text(r#"[null,null,5,null,null]"#).expect("valid");
        assert_eq!((frame.topic, frame.event), (Topic::Other("5"), Event::Other));
        let escaped = decode_text(r#"[null,null,"a\u0062","e",null]"#).expect("valid");
        assert_eq!(escaped.topic, Topic::from("ab"));
        assert!(decode_text(&format!(r#"[null,null,"{}","e",null]"#, "x".repeat(255))).is_ok());
        assert!(decode_text(&format!(r#"[null,null,"{}","e",null]"#, "x".repeat(256))).is_err());
    }

    #[test]
    fn a_binary_frame_is_split_by_its_lengths() {
        let frame = decode_binary(b"\x00\x01\x02\x01\x04123tping\x00\xff").expect("valid");
        assert_eq!(frame.join_ref, Ref::from_bytes(b"1").expect("short"));
        assert_eq!(frame.reference, Ref::from_bytes(b"23").expect("short"));
        assert_eq!((frame.topic, frame.event), (Topic::from("t"), Event::from("ping")));
        assert_eq!(frame.payload, ClientPayload::Binary(b"\x00\xff"));
    }

    #[test]
    fn a_truncated_binary_frame_or_one_of_another_kind_is_malformed() {
        for frame in [
            &b""[..],
            b"\x00",
            b"\x00\x01\x02\x01",
            b"\x00\x01\x02\x01\x04123tpin",
            b"\x01\0\0\0\0",
            b"[\"1\"]",
        ] {
            assert_eq!(decode_binary(frame), Err(DecodeError), "{frame:?}");
        }
        assert_eq!(decode_binary(b"\x00\0\0\x01\0\xff"), Err(DecodeError));
    }

    #[test]
    fn messages_are_encoded_as_phoenix_encodes_them() {
        let one = Ref::from_json("\"1\"").expect("a ref");
        let payload = Payload::from_json_text(r#"{"a":1}"#);
        let (null, topic) = (Ref::NULL, Topic::from("t"));
        let reply = |response| ServerMessage::Reply {
            join_ref: &one,
            reference: &null,
            topic: &topic,
            status: "ok",
            response,
        };
        assert_eq!(
            encoded(&reply(&payload)),
            r#"["1",null,"t","phx_reply",{"status":"ok","response":{"a":1}}]"#
        );
        assert_eq!(encoded(&reply(&Payload::binary("d"))), "\u{1}\u{1}\u{0}\u{1}\u{2}1tokd");
        let push =
            |payload| ServerMessage::Push { join_ref: &one, topic: "t", event: "e", payload };
        assert_eq!(encoded(&push(&payload)), r#"["1",null,"t","e",{"a":1}]"#);
        assert_eq!(encoded(&push(&Payload::binary("d"))), "\u{0}\u{1}\u{1}\u{1}1ted");
        let broadcast = |payload| ServerMessage::Broadcast { topic: "t\"", event: "e", payload };
        assert_eq!(encoded(&broadcast(&payload)), r#"[null,null,"t\"","e",{"a":1}]"#);
        assert_eq!(encoded(&broadcast(&Payload::binary("d"))), "\u{2}\u{2}\u{1}t\"ed");
        let end = |reference| {
            let (event, payload) = ("phx_close", "{}");
            ServerMessage::End { join_ref: &one, reference, topic: "t", event, payload }
        };
        assert_eq!(encoded(&end(&one)), r#"["1","1","t","phx_close",{}]"#);
        assert_eq!(encoded(&end(&null)), r#"["1",null,"t","phx_close",{}]"#);
    }
}
