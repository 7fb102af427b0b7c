//! A session on its way to another node, and its encoded form: a byte for the version, then a protobuf message.
//!
//! A later release may add fields, which this one ignores. A session in a form that cannot be read begins anew.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::state::Conduct;
use crate::frame::{Kind, Message, Parts};
use crate::outbox::{MAX_RETAINED, MovedOutbox, MovedStream};
use crate::{ByteBudget, Cost};

/// What lets another node continue a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovedSession {
    pub(crate) conduct: Conduct,
    /// What [`Session::pack`](crate::Session::pack) has yielded.
    pub(crate) packed: Bytes,
    pub(crate) outbox: MovedOutbox,
}

/// The encoded session cannot be read, or is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUnderstood;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// No number or stream id is as high: there are always more.
const HIGHEST: u64 = 1 << 62;

#[derive(Clone, PartialEq, prost::Message)]
struct EncodedSession {
    /// How long ago there were conflicts, in milliseconds.
    #[prost(uint64, repeated, tag = "1")]
    conflicts: Vec<u64>,
    #[prost(uint32, tag = "2")]
    short_lived: u32,
    #[prost(bytes = "bytes", tag = "4")]
    packed: Bytes,
    #[prost(uint64, tag = "5")]
    next_number: u64,
    #[prost(uint64, tag = "6")]
    evicted: u64,
    #[prost(bool, tag = "7")]
    was_cut: bool,
    #[prost(uint64, tag = "8")]
    last_stream: u64,
    #[prost(message, repeated, tag = "9")]
    streams: Vec<EncodedStream>,
    #[prost(message, repeated, tag = "10")]
    sent: Vec<EncodedMessage>,
    #[prost(uint64, tag = "11")]
    acked: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncodedStream {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bool, tag = "2")]
    has_reply_arrived: bool,
    #[prost(bool, tag = "3")]
    discards_volatile: bool,
    #[prost(message, repeated, tag = "4")]
    waiting: Vec<EncodedMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncodedMessage {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
    #[prost(bool, tag = "2")]
    is_binary: bool,
    /// Of a text: the offset of the placeholder plus one. Of a binary message: 1 if it takes a number.
    #[prost(uint32, tag = "3")]
    numbered: u32,
    #[prost(bool, tag = "4")]
    is_volatile: bool,
    #[prost(uint32, tag = "5")]
    tries: u32,
    #[prost(uint64, tag = "6")]
    number: u64,
    /// Only of those that were sent.
    #[prost(uint64, tag = "7")]
    stream: u64,
}

impl MovedSession {
    pub(crate) fn encode(&self) -> Bytes {
        let Self { conduct, packed, outbox } = self;
        let encoded = EncodedSession {
            conflicts: conduct.conflicts.iter().map(|age| millis(*age)).collect(),
            short_lived: conduct.short_lived,
            packed: packed.clone(),
            next_number: outbox.next_number,
            evicted: outbox.evicted,
            was_cut: outbox.was_cut,
            last_stream: outbox.last_stream,
            streams: outbox.streams.iter().map(encode_stream).collect(),
            sent: outbox.sent.iter().map(|(stream, it)| encode_message(it, *stream)).collect(),
            acked: outbox.acked as u64,
        };
        let mut bytes = BytesMut::with_capacity(1 + encoded.encoded_len());
        bytes.extend_from_slice(&[VERSION]);
        encoded.encode(&mut bytes).expect("a buffer that grows");
        bytes.freeze()
    }

    /// Decodes a session whose outbox holds no more than one of this limit could.
    pub(crate) fn decode(mut bytes: Bytes, limit: usize) -> Result<Self, NotUnderstood> {
        if bytes.first() != Some(&VERSION) {
            return Err(NotUnderstood);
        }
        bytes.advance(1);
        let encoded = EncodedSession::decode(bytes).map_err(|_| NotUnderstood)?;
        let mut room = Room(ByteBudget::new(limit.saturating_add(MAX_RETAINED)));
        let highest = encoded.next_number.max(encoded.evicted).max(encoded.last_stream);
        let mut ids = encoded.streams.iter().map(|stream| stream.id);
        let is_sound = highest < HIGHEST
            && encoded.next_number > 0
            && ids.all(|id| (1..=encoded.last_stream).contains(&id))
            && encoded.streams.is_sorted_by(|a, b| a.id < b.id)
            && encoded.acked <= encoded.sent.len() as u64;
        if !is_sound {
            return Err(NotUnderstood);
        }
        let streams = encoded.streams.iter().map(|it| decode_stream(it, &mut room));
        let streams = streams.collect::<Result<_, _>>()?;
        let sent = encoded.sent.iter().map(|it| Ok((it.stream, decode_message(it, &mut room)?)));
        let sent = sent.collect::<Result<_, _>>()?;
        Ok(Self {
            conduct: Conduct {
                conflicts: encoded.conflicts.into_iter().map(Duration::from_millis).collect(),
                short_lived: encoded.short_lived,
            },
            // It does not keep the rest of the bytes.
            packed: Bytes::copy_from_slice(&encoded.packed),
            outbox: MovedOutbox {
                next_number: encoded.next_number,
                evicted: encoded.evicted,
                was_cut: encoded.was_cut,
                last_stream: encoded.last_stream,
                acked: encoded.acked as usize,
                streams,
                sent,
            },
        })
    }
}

/// What may still be decoded.
struct Room(ByteBudget);

impl Room {
    fn take(&mut self, cost: impl Into<Cost>) -> Result<(), NotUnderstood> {
        if self.0.try_acquire(cost) { Ok(()) } else { Err(NotUnderstood) }
    }
}

fn millis(age: Duration) -> u64 {
    age.as_millis().try_into().unwrap_or(u64::MAX)
}

fn encode_stream(stream: &MovedStream) -> EncodedStream {
    let &MovedStream { id, has_reply_arrived, discards_volatile, .. } = stream;
    let waiting = stream.waiting.iter().map(|message| encode_message(message, 0)).collect();
    EncodedStream { id, has_reply_arrived, discards_volatile, waiting }
}

fn decode_stream(encoded: &EncodedStream, room: &mut Room) -> Result<MovedStream, NotUnderstood> {
    room.take(size_of::<MovedStream>())?;
    let &EncodedStream { id, has_reply_arrived, discards_volatile, .. } = encoded;
    let waiting = encoded.waiting.iter().map(|message| decode_message(message, room));
    let waiting = waiting.collect::<Result<_, _>>()?;
    Ok(MovedStream { id, has_reply_arrived, discards_volatile, waiting })
}

fn encode_message(message: &Message, stream: u64) -> EncodedMessage {
    let Parts { bytes, kind, is_volatile, tries, number } = message.to_parts();
    let (is_binary, numbered) = match kind {
        Kind::Text => (false, 0),
        Kind::Placeholder(at) => (false, at.saturating_add(1)),
        Kind::Binary => (true, 0),
        Kind::NumberedBinary => (true, 1),
    };
    let tries = tries.into();
    EncodedMessage { bytes, is_binary, numbered, is_volatile, tries, number, stream }
}

fn decode_message(encoded: &EncodedMessage, room: &mut Room) -> Result<Message, NotUnderstood> {
    let kind = match (encoded.is_binary, encoded.numbered) {
        (false, 0) => Kind::Text,
        (false, behind) => Kind::Placeholder(behind - 1),
        (true, 0) => Kind::Binary,
        (true, _) => Kind::NumberedBinary,
    };
    let message = Message::from_parts(&Parts {
        bytes: encoded.bytes.clone(),
        kind,
        is_volatile: encoded.is_volatile,
        tries: encoded.tries.try_into().unwrap_or(u8::MAX),
        number: encoded.number,
    });
    let message = message.ok_or(NotUnderstood)?;
    room.take(message.cost())?;
    Ok(message)
}

#[cfg(test)]
mod tests;
