//! What the scripts write and answer.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tower_channels::adapter::{Keep, Kept, StoreError};
use tower_channels::history::Position;

/// How many bits of a number are the second part of an id. The first is a time in milliseconds; a server counts the
/// messages of one millisecond, or goes on counting while its clock is behind.
const SEQUENCE: u32 = 20;

/// The size of a [`head`], in bytes.
const HEAD: usize = 42;

/// The longest time for which messages are kept: some thousand years.
const MAX_WITHIN_MS: u128 = 1 << 45;

/// Reads an id, such as `1764240000000-0`.
pub(super) fn number(id: &[u8]) -> Option<u64> {
    let (time, sequence) = str::from_utf8(id).ok()?.split_once('-')?;
    let (time, sequence): (u64, u64) = (time.parse().ok()?, sequence.parse().ok()?);
    let is_valid = time < 1 << (u64::BITS - SEQUENCE) && sequence < 1 << SEQUENCE;
    is_valid.then_some(time << SEQUENCE | sequence)
}

/// Writes the id of a number.
pub(super) fn id(number: u64) -> String {
    format!("{}-{}", number >> SEQUENCE, number & ((1 << SEQUENCE) - 1))
}

/// The number of a message that is kept at this time, before all others of that time.
pub(super) fn number_at(milliseconds: u64) -> u64 {
    milliseconds.min(u64::MAX >> SEQUENCE) << SEQUENCE
}

/// Something else than a script answers.
pub(super) fn unexpected() -> StoreError {
    StoreError::new("Redis has answered something else than a history")
}

/// Takes eight bytes off the front.
pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*first))
}

/// Reads where a message is: the epoch and the id.
pub(super) fn position(mut answer: &[u8]) -> Option<Position> {
    let epoch = take_u64(&mut answer)?;
    Some(Position { epoch, number: number(answer)? })
}

/// Writes the head of a message for the script: the index of its topic, the sender and its number for the message, and how
/// much of the topic is kept.
pub(super) fn head(place: usize, id: [u64; 2], keep: &Keep) -> Vec<u8> {
    // Lua counts up to there.
    let count = |count: usize| (count as u64).clamp(1, 1 << 52);
    let place = u16::try_from(place + 1).expect("no more than are sent together");
    let mut head = Vec::with_capacity(HEAD);
    head.extend(place.to_be_bytes());
    for number in [id[0], id[1], count(keep.messages), count(keep.bytes), within(keep.within)] {
        head.extend(number.to_be_bytes());
    }
    head
}

/// For how many milliseconds messages are kept.
fn within(within: Duration) -> u64 {
    u64::try_from(within.as_millis().clamp(1, MAX_WITHIN_MS)).expect("clamped")
}

/// Reads the number of the message before, of which there may be none.
fn previous(id: &[u8]) -> Option<u64> {
    if id.is_empty() { Some(0) } else { number(id) }
}

/// Reads what was published: the epoch, the id, the id before and the content.
pub(super) fn published(message: Vec<u8>) -> Option<Kept> {
    let message = Bytes::from(message);
    let mut rest = &message[..];
    let epoch = take_u64(&mut rest)?;
    let mut parts = rest.splitn(3, |byte| *byte == b' ');
    let (id, before, content) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Kept {
        position: Position { epoch, number: number(id)? },
        previous: previous(before)?,
        content: message.slice_ref(content),
    })
}

/// What the server knows of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) epoch: u64,
    /// The number of the last message, or that from which on there will be some.
    pub(super) last: u64,
    pub(super) is_new: bool,
}

impl Topic {
    pub(super) fn parse(mut text: &[u8]) -> Option<Self> {
        let [epoch, _bytes, due, _within] = [(); 4].map(|()| take_u64(&mut text));
        Some(Self { epoch: epoch?, last: number(text)?, is_new: due? == 0 })
    }
}

/// Reads when a run of the server began.
pub(super) fn run(text: &[u8]) -> Option<u64> {
    let (_, since) = str::from_utf8(text).ok()?.rsplit_once(' ')?;
    Some(number_at(since.parse().ok()?))
}

/// Reads the number of the message before from a header.
pub(super) fn header(header: &[u8]) -> Option<u64> {
    previous(header.get(24..)?)
}

/// Reads an entry.
pub(super) fn entry(entry: Value, epoch: u64) -> Option<Kept> {
    let Value::Array(entry) = entry else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = <[_; 2]>::try_from(entry).ok()? else {
        return None;
    };
    let [_, Value::BulkString(before), _, Value::BulkString(content)] =
        <[_; 4]>::try_from(fields).ok()?
    else {
        return None;
    };
    Some(Kept {
        position: Position { epoch, number: number(&id)? },
        previous: header(&before)?,
        content: content.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_in_the_order_of_ids() {
        let ids = ["0-1", "0-1048575", "1-0", "1764240000000-0", "1764240000000-7"];
        let numbers = ids.map(|it| number(it.as_bytes()).unwrap());
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(numbers.map(id), ids);
        assert_eq!(number_at(1), 1 << 20);
        assert_eq!(id(u64::MAX), "17592186044415-1048575");
        assert_eq!(number(id(u64::MAX).as_bytes()), Some(u64::MAX));
        assert_eq!(number_at(u64::MAX), u64::MAX << 20);
    }

    #[test]
    fn a_head_has_numbers_with_which_the_script_can_count() {
        let head = |messages, within| head(0, [7, 8], &Keep { messages, bytes: 9, within });
        let numbers = |head: Vec<u8>| -> Vec<u64> {
            assert_eq!((head.len(), &head[..2]), (HEAD, &[0, 1][..]));
            head[2..].chunks(8).map(|it| u64::from_be_bytes(it.try_into().unwrap())).collect()
        };
        assert_eq!(numbers(head(0, Duration::ZERO)), [7, 8, 1, 9, 1]);
        assert_eq!(numbers(head(500, Duration::from_secs(1))), [7, 8, 500, 9, 1000]);
        assert_eq!(numbers(head(usize::MAX, Duration::MAX)), [7, 8, 1 << 52, 9, 1 << 45]);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in ["", "-", "1", "1-", "-1", "1-1048576", "17592186044416-0", "a-b", "1-0 "] {
            assert_eq!(number(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_published_has_any_content() {
        for (before, previous) in [("", 0), ("1-1", 1 << 20 | 1)] {
            let message = format!("\0\0\0\0\0\0\0\x091-2 {before}  a b\0");
            let kept = published(message.into_bytes()).unwrap();
            let position = Position { epoch: 9, number: 1 << 20 | 2 };
            assert_eq!(kept, Kept { position, previous, content: " a b\0".into() });
        }
        for message in ["", "12345678", "123456781-2", "123456781-2 ", "12345678x  content"] {
            assert_eq!(published(message.into()), None, "{message:?}");
        }
    }

    #[test]
    fn a_topic_has_messages_once_it_had_upkeep() {
        let text = |due: u8| [&[0; 23][..], &[due], &[0; 8], b"1-0"].concat();
        let topic = |is_new| Topic { epoch: 0, last: 1 << 20, is_new };
        assert_eq!(Topic::parse(&text(0)), Some(topic(true)));
        assert_eq!(Topic::parse(&text(1)), Some(topic(false)));
        assert_eq!(Topic::parse(&text(1)[..32]), None);
        assert_eq!(run(b"name 3"), Some(3 << 20));
        assert_eq!(run(b"name"), None);
    }
}
