//! What crosses the contract: messages in, messages out, and the reasons for which a connection ends.

use std::io::Write;

use bytes::Bytes;
use fastwebsockets::OpCode;

/// A message from a client, borrowed from the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// Text: valid UTF-8, whole.
    Text(&'a str),
    /// Bytes, whole.
    Binary(&'a [u8]),
}

/// A message for a client. Cloning shares the bytes.
///
/// A resumable session numbers what it sends: a message may have a *slot* for that, a `null` in its text
/// that gives way to the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its own, behind the head of its WebSocket frame if it [is for many](Self::for_many).
    bytes: Bytes,
    /// How long that head is.
    head: u8,
    form: Form,
    volatile: bool,
    /// Where the slot begins in its own bytes, if it is with_placeholder.
    slot: u32,
    /// 0 for none.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Placeholder,
    Binary,
    /// It takes a number although it has no place for it: its reader counts.
    NumberedBinary,
}

/// What stands in a slot as long as there is no number.
const PLACEHOLDER: &[u8] = b"null";

impl Message {
    /// A text message. The bytes must be UTF-8: nothing checks them again, and a client closes the
    /// connection over text that is not.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::new(text.into(), Form::Text)
    }

    /// A text message with a slot: the `null` at `slot`, in bytes, in the place of which the string
    /// `s:` and a number may be written. If there is none the message has no slot.
    pub fn with_placeholder(text: impl Into<Bytes>, slot: usize) -> Self {
        let message = Self::text(text);
        let is_slot = message.bytes.get(slot..).is_some_and(|rest| rest.starts_with(PLACEHOLDER));
        match u32::try_from(slot) {
            Ok(slot) if is_slot => Self { form: Form::Placeholder, slot, ..message },
            _ => message,
        }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes.into(), Form::Binary)
    }

    fn new(bytes: Bytes, form: Form) -> Self {
        Self { bytes, head: 0, form, volatile: false, slot: 0, number: 0 }
    }

    /// The same message, put together once with what a WebSocket writes before it: worth a copy of
    /// its bytes where it goes to many.
    #[must_use]
    pub fn for_many(self) -> Self {
        let mut head = FrameHead::default();
        let size = frame_head(self.is_binary(), self.own().len(), &mut head);
        Self { bytes: [&head[..size], self.own()].concat().into(), head: size as u8, ..self }
    }

    /// Makes a binary message one that takes a number.
    pub fn numbered(self) -> Self {
        let form = if self.form == Form::Binary { Form::NumberedBinary } else { self.form };
        Self { form, ..self }
    }

    /// Makes it one that is worthless later, in a stream that [is refreshed](crate::outbox::Sender::refresh).
    pub fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// Whether it is worthless later.
    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Whether it leaves as a binary frame; otherwise it is UTF-8.
    pub fn is_binary(&self) -> bool {
        matches!(self.form, Form::Binary | Form::NumberedBinary)
    }

    /// Whether a resumable session numbers it.
    pub(crate) fn takes_number(&self) -> bool {
        matches!(self.form, Form::Placeholder | Form::NumberedBinary)
    }

    /// Gives it a number.
    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Its number; 0 for none.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its bytes without any transport's framing. They are put together if it has a number.
    pub fn to_bytes(&self) -> Bytes {
        if self.numbered_placeholder().is_none() {
            return self.bytes.slice(usize::from(self.head)..);
        }
        let mut bytes = Vec::with_capacity(self.size());
        self.write_head(&mut bytes);
        bytes.extend_from_slice(self.rest());
        bytes.into()
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.head_len() + self.rest().len()
    }

    /// Adds what comes before [`rest`](Self::rest): nothing, unless it was numbered.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>) {
        if let Some(slot) = self.numbered_placeholder() {
            out.extend_from_slice(&self.own()[..slot]);
            // Writing into memory cannot fail.
            let _ = write!(out, "\"s:{}\"", self.number);
        }
    }

    /// How much [`write_head`](Self::write_head) adds.
    pub(crate) fn head_len(&self) -> usize {
        let digits = || self.number.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.numbered_placeholder().map_or(0, |slot| slot + "\"s:\"".len() + digits())
    }

    /// All of it, or what comes after its number.
    pub(crate) fn rest(&self) -> &[u8] {
        let own = self.own();
        self.numbered_placeholder().map_or(own, |slot| &own[slot + PLACEHOLDER.len()..])
    }

    /// Its whole WebSocket frame, if that was put together before and no number changes it.
    pub(crate) fn frame(&self) -> Option<&[u8]> {
        (self.head > 0 && self.numbered_placeholder().is_none()).then_some(&self.bytes)
    }

    /// Where its number is written.
    fn numbered_placeholder(&self) -> Option<usize> {
        (self.number != 0 && self.form == Form::Placeholder).then_some(self.slot as usize)
    }

    /// Its bytes without a number, and without any transport's framing.
    fn own(&self) -> &[u8] {
        &self.bytes[usize::from(self.head)..]
    }

    /// What it counts against the outbox limit: its bytes and what its place in a queue costs.
    pub fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

/// Room for the longest head of a WebSocket frame that a server sends.
pub(crate) type FrameHead = [u8; 10];

/// The head of a whole WebSocket frame (RFC 6455 section 5.2): unmasked, as a server's are. Says how
/// long it is.
pub(crate) fn frame_head(binary: bool, len: usize, head: &mut FrameHead) -> usize {
    const FIN: u8 = 0x80;
    head[0] = FIN | if binary { OpCode::Binary } else { OpCode::Text } as u8;
    if len <= 125 {
        head[1] = len as u8;
        2
    } else if let Ok(len) = u16::try_from(len) {
        head[1] = 126;
        head[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        head[1] = 127;
        head[2..].copy_from_slice(&(len as u64).to_be_bytes());
        10
    }
}

/// Why a connection ends. The WebSocket close code is [`Close::code`]; a long-poll session ends
/// silently and its next request learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Close {
    /// The client closed.
    Normal,
    /// The application disconnected this client.
    GoingAway,
    /// The client broke the WebSocket protocol, or was silent for the idle timeout.
    Protocol,
    /// A text message was not UTF-8.
    InvalidUtf8,
    /// A frame that is legal and useless, such as an empty continuation.
    Policy,
    /// A message was larger than the limit.
    TooBig,
    /// A message made no sense to the session.
    Malformed,
    /// The server is going down: come back, perhaps to another one.
    Restart,
    /// The client did not read and its outbox is full.
    Overflow,
}

impl Close {
    /// The WebSocket close code (RFC 6455 section 7.4.1 and its registry).
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::InvalidUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Malformed => 1011,
            Self::Restart => 1012,
            Self::Overflow => 1013,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_the_place_of_the_slot() {
        let mut message = Message::with_placeholder("[null,null,1]", 6);
        assert_eq!((message.to_bytes(), message.size()), ("[null,null,1]".into(), 13));
        for number in [1, 9, 10, 99, 100, u64::MAX] {
            message.set_number(number);
            let expected = format!("[null,\"s:{number}\",1]");
            assert_eq!((message.size(), message.to_bytes()), (expected.len(), expected.into()));
        }
    }

    #[test]
    fn a_message_for_many_is_the_same_message() {
        for size in [0, 4, 125, 126, 65_535, 65_536] {
            let text = format!("null{}", "x".repeat(size));
            let mut plain = Message::with_placeholder(text, 0);
            let mut many = plain.clone().for_many();
            assert!(many.frame().is_some_and(|frame| frame.ends_with(&plain.to_bytes())));
            for number in [0, 7] {
                plain.set_number(number);
                many.set_number(number);
                assert_eq!((many.to_bytes(), many.size()), (plain.to_bytes(), plain.size()));
            }
            assert_eq!(many.frame(), None, "a number is no part of it");
        }
    }

    #[test]
    fn where_no_null_is_there_is_no_slot() {
        for slot in [0, 2, 8, 9, 100, usize::MAX] {
            let mut message = Message::with_placeholder("[null,nul", slot);
            message.set_number(7);
            assert_eq!(message.to_bytes(), "[null,nul");
        }
    }
}
