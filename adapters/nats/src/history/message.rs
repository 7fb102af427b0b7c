//! [`Stored`]: a message of the stream, and what its headers say.

use std::time::{Duration, SystemTime};

use async_nats::{HeaderMap, Message, datetime};
use bytes::Bytes;
use tower_channels::adapter::{Keep, NodeId};

/// How much of the topic is kept: `MESSAGES BYTES MILLISECONDS`. What has it not stands for its number alone.
const KEEP: &str = "Tc-Keep";

/// What a message that is sent twice is known by: the node, and its number there.
const ID: &str = "Nats-Msg-Id";

const NUMBER: &str = "Nats-Sequence";
const PREVIOUS: &str = "Nats-Last-Sequence";
const TIME: &str = "Nats-Time-Stamp";
const PENDING: &str = "Nats-Num-Pending";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// A shorter content is copied: as a slice it would keep the buffer that it was read into.
const SHORT: usize = 4096;

/// A message that the stream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) number: u64,
    pub(crate) at: SystemTime,
    /// `None` for a mark: nothing to hand over.
    pub(crate) keep: Option<Keep>,
    pub(crate) content: Bytes,
}

/// The headers of a message to keep.
pub(crate) fn headers(node: NodeId, number: u64, keep: Keep) -> HeaderMap {
    let Keep { messages, bytes, within } = keep;
    let mut headers = HeaderMap::new();
    headers.insert(ID, format!("{node}.{number}"));
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    headers.insert(KEEP, format!("{messages} {bytes} {within}"));
    headers
}

/// The headers of a mark, which is kept if the topic has nothing.
pub(crate) fn mark_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(EXPECTED, "0");
    headers
}

/// The number at a node of a message that it has sent.
pub(crate) fn own_number(message: &Message, node: NodeId) -> Option<u64> {
    let (of, number) = message.headers.as_ref()?.get(ID)?.as_str().split_once('.')?;
    if of.parse() == Ok(node) { number.parse().ok() } else { None }
}

/// Where a copy stands, and the message of its topic before it, if there was one.
pub(crate) fn place(message: &Message) -> Option<(u64, u64)> {
    Some((number(message, NUMBER)?, number(message, PREVIOUS)?))
}

/// How many messages follow in a topic.
pub(crate) fn pending(message: &Message) -> Option<u64> {
    number(message, PENDING)
}

fn number(message: &Message, header: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get_last(header)?.as_str().parse().ok()
}

/// Reads a message that the server has answered with.
pub(crate) fn stored(message: Message) -> Option<Stored> {
    let headers = message.headers.as_ref()?;
    let at = SystemTime::from(datetime::parse_rfc3339(headers.get_last(TIME)?.as_str()).ok()?);
    let number = number(&message, NUMBER)?;
    Some(Stored { number, at, keep: keep(headers), content: content(message.payload) })
}

/// How much is kept of the topic of a message; `None` for a mark, and what is not of this crate.
pub(crate) fn keep(headers: &HeaderMap) -> Option<Keep> {
    let mut parts = headers.get(KEEP)?.as_str().split(' ');
    let mut next = || parts.next()?.parse::<u64>().ok();
    let (messages, bytes, within) = (next()?, next()?, next()?);
    Some(Keep {
        messages: usize::try_from(messages).unwrap_or(usize::MAX),
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        within: Duration::from_millis(within),
    })
}

pub(crate) fn content(payload: Bytes) -> Bytes {
    if payload.len() < SHORT { Bytes::copy_from_slice(&payload) } else { payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Keep = Keep { messages: 500, bytes: 1 << 20, within: Duration::from_millis(1500) };

    #[test]
    fn what_is_kept_of_a_topic_comes_back() {
        assert_eq!(keep(&headers(NodeId(1), 2, SOME)), Some(SOME));
        let forever = Keep { messages: usize::MAX, bytes: usize::MAX, within: Duration::MAX };
        let forever = keep(&headers(NodeId(1), 2, forever)).unwrap();
        assert_eq!(forever.within, Duration::from_millis(u64::MAX));
        assert_eq!(keep(&mark_headers()), None);
    }
}
