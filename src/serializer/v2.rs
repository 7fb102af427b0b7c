//! Protocol 2.0.0: JSON arrays `[join_ref, ref, topic, event, payload]` and binary frames.
//!
//! A join may have a sixth element, `{"after": P}`, with the position in the history of its topic that the client has
//! received last.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tower_channels_transports::Message;

use super::json::{self, decode_event, decode_topic, write_reply, write_string, write_topic};
use super::server_message::ServerMessage;
use crate::history::Position;
use crate::message::{ClientMessage, ClientPayload, DecodeError, Event, JOIN, Ref, Topic};

/// The kind, the first byte of a binary frame.
const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

/// The size of a reply without its refs, topic, status and response.
const REPLY_SIZE: usize = r#"[,,"","phx_reply",{"status":"","response":}]"#.len();

/// Decodes a text frame. Elements past the fifth are ignored but for the sixth of a join.
pub(super) fn decode_text(text: &str) -> Result<ClientMessage<'_>, DecodeError> {
    let (five, sixth) = match decode_fast(text) {
        Some(five) => (five, None),
        None => decode_slow(text).map_err(|_| DecodeError)?,
    };
    let [join_ref, reference, topic, event, payload] = five;
    let event = decode_event(event)?;
    Ok(ClientMessage {
        join_ref: Ref::from_json(join_ref).ok_or(DecodeError)?,
        reference: Ref::from_json(reference).ok_or(DecodeError)?,
        topic: decode_topic(topic)?,
        after: sixth.filter(|_| event.as_text() == Some(JOIN)).and_then(json::position_in),
        event,
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

/// Splits any array of five or more elements, into the first five and the sixth.
fn decode_slow(text: &str) -> serde_json::Result<([&str; 5], Option<&str>)> {
    let mut json = serde_json::Deserializer::from_str(text);
    let (five, sixth) = json.deserialize_seq(Elements)?;
    json.end().map(|()| (five.map(RawValue::get), sixth.map(RawValue::get)))
}

/// Collects the first five elements of an array, and the sixth if there is one.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = ([&'de RawValue; 5], Option<&'de RawValue>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of five elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut next = || seq.next_element()?.ok_or_else(|| A::Error::custom("too short"));
        let five = [next()?, next()?, next()?, next()?, next()?];
        let sixth = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok((five, sixth))
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
    let payload = ClientPayload::Binary(rest);
    Ok(ClientMessage { join_ref, reference, topic, event, payload, after: None })
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
            let (join_ref, reference) = (join_ref.as_json()?, reference.as_json()?);
            let texts = [join_ref, reference, topic_text, status];
            let size = texts.map(str::len).iter().sum::<usize>() + response.len();
            // Exact unless the topic has escapes, so that the message can use the allocation as is.
            let mut out = String::with_capacity(size + REPLY_SIZE);
            head(&mut out, join_ref, reference, topic);
            out.push_str(",\"phx_reply\",");
            write_reply(&mut out, status, response)?;
            out.push(']');
            Some(Message::text(out))
        }
        ServerMessage::Push { join_ref, topic, event, payload, position } => {
            match payload.as_binary() {
                Some(data) => push(join_ref, *position, topic, event, data),
                None => {
                    Some(numbered(join_ref.as_json()?, *position, topic, event, payload.as_json()?))
                }
            }
        }
        ServerMessage::Broadcast { topic, event, payload, position } => {
            match (payload.as_binary(), position) {
                (Some(data), None) => {
                    let texts = [topic.as_bytes(), event.as_bytes()];
                    Some(binary(BROADCAST, &texts, data)?.numbered())
                }
                // A broadcast has no room for it.
                (Some(data), Some(_)) => push(&Ref::NULL, *position, topic, event, data),
                (None, _) => Some(numbered("null", *position, topic, event, payload.as_json()?)),
            }
        }
        ServerMessage::End { join_ref, reference, topic, event, payload } => {
            let (join_ref, reference_text) = (join_ref.as_json()?, reference.as_json()?);
            Some(if reference.is_null() {
                numbered(join_ref, None, topic, event, payload)
            } else {
                Message::text(text(join_ref, reference_text, topic, event, payload))
            })
        }
    }
}

/// Encodes a message whose ref is the placeholder of a number.
fn numbered(
    join_ref: &str,
    position: Option<Position>,
    topic: &str,
    event: &str,
    payload: &str,
) -> Message {
    let message = match position {
        None => text(join_ref, "null", topic, event, payload),
        Some(position) => text(join_ref, &json::position_ref(position), topic, event, payload),
    };
    Message::with_placeholder(message, "[,".len() + join_ref.len())
}

fn text(join_ref: &str, reference: &str, topic: &str, event: &str, payload: &str) -> String {
    let texts = [join_ref, reference, topic, event, payload];
    // Exact unless the topic or the event has escapes, as above.
    let size = texts.map(str::len).iter().sum::<usize>() + r#"[,,"","",]"#.len();
    let mut out = String::with_capacity(size);
    head(&mut out, join_ref, reference, &Topic::from(topic));
    out.push(',');
    write_string(&mut out, event);
    out.push(',');
    out.push_str(payload);
    out.push(']');
    out
}

/// Appends `[join_ref,ref,topic`.
fn head(out: &mut String, join_ref: &str, reference: &str, topic: &Topic<'_>) {
    out.push('[');
    out.push_str(join_ref);
    out.push(',');
    out.push_str(reference);
    out.push(',');
    write_topic(out, topic);
}

/// Encodes a binary push, with the position in place of the join_ref if there is one.
fn push(
    join_ref: &Ref,
    position: Option<Position>,
    topic: &str,
    event: &str,
    data: &[u8],
) -> Option<Message> {
    let position = position.map(|position| format!("p:{position}"));
    let first = match &position {
        Some(position) => Cow::Borrowed(position.as_bytes()),
        None => join_ref.to_bytes(),
    };
    Some(binary(PUSH, &[&first, topic.as_bytes(), event.as_bytes()], data)?.numbered())
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
mod tests;
