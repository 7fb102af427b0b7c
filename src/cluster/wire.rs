//! The frames that nodes exchange.
//!
//! ```text
//! 0       0x10 + version
//! 1..9    the sender, 64 random bits
//! 9..17   the number of the frame among the sender's frames to topics, from 1; 0 for others
//! 17..    the body, a protobuf message
//! ```
//!
//! A later release may add fields and kinds of bodies, which this one ignores. A change that this release
//! would misinterpret needs a new version. A node writes the highest version that all nodes read which it hears,
//! and a release reads at least the version before its own: a cluster is upgraded one node at a time.
//!
//! Anyone who can publish to the engine can impersonate the application: frames are validated as far as a broken one could
//! harm the node, no further. JSON is not parsed, only checked to be UTF-8.
//!
//! Questions, tags 10 to 14, needed no new version: a node appears in tokens and records, and so is asked, only if it
//! knows them.

pub(crate) mod questions;

use std::str;

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{
    WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint,
};
use prost::{Message, Oneof};

use self::questions::{Answered, Ask, Ids, Notify};
use crate::adapter::NodeId;

/// The length of what precedes the body.
const HEADER: usize = 17;

/// The first byte without the version.
const MAGIC: u8 = 0x10;

/// The versions that a node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: u8,
    pub(crate) max: u8,
}

/// Those of this release.
pub(crate) const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// What every frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) from: NodeId,
    pub(crate) number: u64,
}

/// A frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// A node of another release has sent it, or something else.
    Version,
    Malformed,
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    body: Option<Body>,
}

/// What a frame says.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Body {
    #[prost(message, tag = "1")]
    Broadcast(Broadcast),
    #[prost(message, tag = "2")]
    Beat(Beat),
    /// The sender leaves the cluster, and this was the number of its last frame to a topic.
    #[prost(uint64, tag = "3")]
    Bye(u64),
    #[prost(message, tag = "4")]
    Disconnects(Disconnects),
    /// The recipient is asked for its disconnects.
    #[prost(message, tag = "5")]
    Resend(Resend),
    #[prost(message, tag = "6")]
    Lost(Lost),
    #[prost(message, tag = "7")]
    Presence(Presence),
    #[prost(message, tag = "8")]
    Part(Part),
    /// Says nothing: the sender wants to know whether anybody hears it.
    #[prost(message, tag = "9")]
    Probe(()),
    #[prost(message, tag = "10")]
    Ask(Ask),
    #[prost(message, tag = "11")]
    Answer(Answered),
    /// The sender works at these questions of the recipient.
    #[prost(message, tag = "12")]
    Accepted(Ids),
    /// The sender does not wait for the answers to these questions of its own any more.
    #[prost(message, tag = "13")]
    Cancel(Ids),
    #[prost(message, tag = "14")]
    Notice(Notify),
}

/// A broadcast to the subscribers of a topic.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Broadcast {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) event: Bytes,
    /// JSON text, or bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
    #[prost(bool, tag = "4")]
    pub(crate) is_binary: bool,
}

/// What a node says of itself every second.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Beat {
    /// For how long the node has existed, in milliseconds.
    #[prost(uint64, tag = "1")]
    pub(crate) age: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) sessions: u64,
    #[prost(bool, tag = "3")]
    pub(crate) is_draining: bool,
    /// The versions that it reads.
    #[prost(uint32, tag = "4")]
    pub(crate) min_version: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) max_version: u32,
    /// The number of its last frame to a topic.
    #[prost(uint64, tag = "6")]
    pub(crate) topics: u64,
    /// The number of its last disconnect.
    #[prost(uint64, tag = "7")]
    pub(crate) disconnects: u64,
    /// It asks the others to beat at once.
    #[prost(bool, tag = "8")]
    pub(crate) is_hello: bool,
    /// How many operations each shard of its presence has performed.
    #[prost(uint64, repeated, tag = "9")]
    pub(crate) clocks: Vec<u64>,
}

/// Sockets to disconnect, by id: consecutive disconnects of the sender.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Disconnects {
    /// The number of the first.
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    #[prost(string, repeated, tag = "2")]
    pub(crate) ids: Vec<String>,
    /// They answer a [`Body::Resend`]: the sender no longer has older ones.
    #[prost(bool, tag = "3")]
    pub(crate) is_answer: bool,
}

/// Asks for the disconnects of the recipient that are not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Resend {
    /// From this number on.
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    /// Those since the recipient had this age, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub(crate) since: u64,
}

/// The sender could not send some of its frames.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Lost {
    /// The topics that they were for. None for any topic.
    #[prost(string, repeated, tag = "1")]
    pub(crate) topics: Vec<String>,
    /// Their numbers, of those that had one.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) numbers: Vec<u64>,
}

/// Messages of the presence replicas of the sender.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Presence {
    #[prost(message, repeated, tag = "1")]
    pub(crate) messages: Vec<ShardMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShardMessage {
    #[prost(uint32, tag = "1")]
    pub(crate) shard: u32,
    /// JSON.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) json: Bytes,
}

/// A part of a body that is too long for one frame.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Part {
    /// The same for all parts of a body, and for no other of the sender.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) index: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) count: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) bytes: Bytes,
    /// The topic of a broadcast, to be named if a part is lost.
    #[prost(string, tag = "5")]
    pub(crate) topic: String,
    /// The body is for the recipient alone, which misses no broadcast without it.
    #[prost(bool, tag = "6")]
    pub(crate) is_private: bool,
}

impl Versions {
    /// Returns whether a frame of this version can be read.
    fn contains(self, version: u8) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// Encodes a frame with number 0.
pub(crate) fn encode(version: u8, from: NodeId, body: Body) -> BytesMut {
    let envelope = Envelope { body: Some(body) };
    let mut frame = begin(version, from, envelope.encoded_len());
    envelope.encode(&mut frame).expect("a buffer that grows");
    frame
}

/// Encodes a frame with a broadcast and number 0, as [`encode`] does, without copies of its parts on the way.
pub(crate) fn encode_broadcast(
    version: u8,
    from: NodeId,
    topic: &str,
    event: &str,
    payload: &[u8],
    is_binary: bool,
) -> BytesMut {
    let fields = [(1, topic.as_bytes()), (2, event.as_bytes()), (3, payload)];
    let lengths =
        fields.map(|(_, bytes)| if bytes.is_empty() { 0 } else { field_len(bytes.len()) });
    let len = lengths.into_iter().sum::<usize>() + if is_binary { 2 } else { 0 };
    let mut frame = begin(version, from, field_len(len));
    encode_key(1, WireType::LengthDelimited, &mut frame);
    encode_varint(len as u64, &mut frame);
    for (tag, bytes) in fields {
        if !bytes.is_empty() {
            encode_key(tag, WireType::LengthDelimited, &mut frame);
            encode_varint(bytes.len() as u64, &mut frame);
            frame.extend_from_slice(bytes);
        }
    }
    if is_binary {
        encode_key(4, WireType::Varint, &mut frame);
        encode_varint(1, &mut frame);
    }
    frame
}

/// The length of a field of so many bytes, with a key of one byte.
fn field_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// Returns the body of an encoded frame.
pub(crate) fn body_of(frame: BytesMut) -> Bytes {
    frame.freeze().split_off(HEADER)
}

fn begin(version: u8, from: NodeId, body: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEADER + body);
    frame.extend_from_slice(&[MAGIC | version]);
    frame.extend_from_slice(&from.0.to_be_bytes());
    frame.extend_from_slice(&[0; 8]);
    frame
}

/// Sets the number of an encoded frame.
pub(crate) fn set_number(frame: &mut BytesMut, number: u64) {
    frame[9..HEADER].copy_from_slice(&number.to_be_bytes());
}

/// Reads the header of a frame, and returns what follows.
pub(crate) fn decode_header(
    mut frame: Bytes,
    readable: Versions,
) -> Result<(Header, Bytes), DecodeError> {
    let first = *frame.first().ok_or(DecodeError::Malformed)?;
    if first & 0xf0 != MAGIC || frame.len() < HEADER {
        return Err(DecodeError::Malformed);
    }
    if !readable.contains(first & 0x0f) {
        return Err(DecodeError::Version);
    }
    frame.advance(1);
    let header = Header { from: NodeId(frame.get_u64()), number: frame.get_u64() };
    Ok((header, frame))
}

/// Reads only the topic of a body that is a broadcast. `None` if it does not come first, as it does in this release.
pub(crate) fn topic_of(body: &[u8]) -> Option<&str> {
    let mut rest = body;
    let mut begin = || match decode_key(&mut rest) {
        Ok((1, WireType::LengthDelimited)) => usize::try_from(decode_varint(&mut rest).ok()?).ok(),
        _ => None,
    };
    let (_broadcast, topic) = (begin()?, begin()?);
    str::from_utf8(rest.get(..topic)?).ok()
}

/// Reads a body. `None` is one of a kind that this release does not know.
pub(crate) fn decode_body(body: Bytes) -> Result<Option<Body>, DecodeError> {
    Ok(Envelope::decode(body).map_err(|_| DecodeError::Malformed)?.body)
}

#[cfg(test)]
mod tests;
