//! [`Entry`]: the content of a message that is kept, a protobuf message.
//!
//! Later releases may add fields, which this one ignores.

use std::str;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use smol_str::SmolStr;

use crate::payload::Payload;

/// A message that is kept.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) event: SmolStr,
    pub(super) payload: Payload,
    /// Who has sent it, if that one is left out.
    pub(super) from: Option<Token>,
}

/// Names the channel that a broadcast leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Drawn by each [`PubSub`](crate::PubSub).
    pub(super) node: u64,
    /// Among the broadcasts of the node, from 1.
    pub(super) number: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(bytes = "bytes", tag = "1")]
    event: Bytes,
    /// JSON text, or bytes.
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
    #[prost(bool, tag = "3")]
    is_binary: bool,
    #[prost(fixed64, tag = "4")]
    node: u64,
    #[prost(uint64, tag = "5")]
    token: u64,
}

/// Encodes a message, with one copy of its payload.
pub(super) fn encode(event: &str, payload: &Payload, from: Option<Token>) -> Bytes {
    let (bytes, is_binary) = match payload.as_binary() {
        Some(bytes) => (&bytes[..], true),
        None => (payload.as_json().unwrap_or_default().as_bytes(), false),
    };
    let Token { node, number: token } = from.unwrap_or(Token { node: 0, number: 0 });
    let rest = Encoded { is_binary, node, token, ..Encoded::default() };
    let len = len_of(1, event.as_bytes()) + len_of(2, bytes) + rest.encoded_len();
    let mut content = Vec::with_capacity(len);
    put(1, event.as_bytes(), &mut content);
    put(2, bytes, &mut content);
    // It has room.
    let _ = rest.encode(&mut content);
    content.into()
}

/// Decodes a message. `None` if it is not one.
pub(super) fn decode(content: Bytes) -> Option<Entry> {
    let Encoded { event, payload, is_binary, node, token } = Encoded::decode(content).ok()?;
    let event = str::from_utf8(&event).ok()?.into();
    let payload = if is_binary {
        Payload::binary(payload)
    } else {
        Payload::from_json_text(str::from_utf8(&payload).ok()?)
    };
    Some(Entry { event, payload, from: (token > 0).then_some(Token { node, number: token }) })
}

fn len_of(tag: u32, bytes: &[u8]) -> usize {
    key_len(tag) + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn put(tag: u32, bytes: &[u8], content: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, content);
    encode_varint(bytes.len() as u64, content);
    content.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_decoded_as_it_was_encoded_and_takes_no_more_than_its_length() {
        let from = Some(Token { node: u64::MAX, number: 7 });
        for (event, payload, from) in [
            ("new_msg", Payload::from_json_text("{\"a\":1}"), None),
            ("", Payload::EMPTY, from),
            ("ä", Payload::binary(vec![0, 255]), from),
            ("e", Payload::binary(vec![7; 70_000]), None),
        ] {
            let content = encode(event, &payload, from);
            let copy = Vec::from(content.clone());
            let held = allocation_counter::measure(|| drop(encode(event, &payload, from)));
            assert_eq!(held.bytes_max as usize, content.len());
            assert_eq!(decode(copy.into()), Some(Entry { event: event.into(), payload, from }));
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_and_unknown_fields_are_ignored() {
        for content in [&b"\xff"[..], b"\x0a\x05ab", b"\x0a\x01\xff", b"\x12\x01\xff"] {
            assert_eq!(decode(Bytes::copy_from_slice(content)), None, "{content:?}");
        }
        let mut content = Vec::from(encode("e", &Payload::EMPTY, None));
        content.extend_from_slice(b"\xa2\x06\x01x");
        let entry = decode(content.into()).expect("an entry");
        assert_eq!((&*entry.event, entry.payload), ("e", Payload::EMPTY));
    }
}
