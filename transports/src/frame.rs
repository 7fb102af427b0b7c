//! What crosses the contract: messages in, messages out, and the reasons for which a connection ends.

use std::fmt::{self, Write as _};

use bytes::Bytes;

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
/// A kept session numbers what it sends: a message may have a *slot* for that between a head and the
/// shared rest of it. Where there is no number the slot holds `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    form: Form,
    transient: bool,
    /// 0 for none.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// What stands before the slot; the bytes follow it.
    Slotted(&'static str),
    Binary,
    /// It takes a number although it has no place for it: its reader counts.
    CountedBinary,
}

impl Message {
    /// A text message. The bytes must be UTF-8: nothing checks them again, and a client closes the
    /// connection over text that is not.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self { bytes: text.into(), form: Form::Text, transient: false, number: 0 }
    }

    /// A text message: `head`, `null` or the string `s:` and a number, and `rest`.
    pub fn slotted(head: &'static str, rest: impl Into<Bytes>) -> Self {
        Self { bytes: rest.into(), form: Form::Slotted(head), transient: false, number: 0 }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), form: Form::Binary, transient: false, number: 0 }
    }

    /// Makes a binary message one that takes a number.
    pub fn counted(self) -> Self {
        let form = if self.form == Form::Binary { Form::CountedBinary } else { self.form };
        Self { form, ..self }
    }

    /// Makes it one that is worthless later, in a lane that [is refreshed](crate::Outbox::refresh).
    pub fn transient(self) -> Self {
        Self { transient: true, ..self }
    }

    /// Whether it is worthless later.
    pub(crate) fn is_transient(&self) -> bool {
        self.transient
    }

    /// Whether it leaves as a binary frame; otherwise it is UTF-8.
    pub fn is_binary(&self) -> bool {
        matches!(self.form, Form::Binary | Form::CountedBinary)
    }

    /// Whether a kept session numbers it.
    pub(crate) fn takes_number(&self) -> bool {
        matches!(self.form, Form::Slotted(_) | Form::CountedBinary)
    }

    /// Gives it a number.
    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Its number; 0 for none.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its bytes without any transport's framing. They are put together if it has a slot.
    pub fn to_bytes(&self) -> Bytes {
        let head = self.head();
        if head.as_str().is_empty() {
            return self.bytes.clone();
        }
        [head.as_str().as_bytes(), &self.bytes].concat().into()
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.head().as_str().len() + self.bytes.len()
    }

    /// What comes before [`rest`](Self::rest): nothing, or all up to the slot's end.
    pub(crate) fn head(&self) -> MessageHead {
        let mut head = MessageHead { bytes: [0; 40], len: 0 };
        if let Form::Slotted(before) = self.form {
            // What does not fit is a mistake of this crate's users, and spoils their own messages.
            let _ = head.write_str(before).and_then(|()| match self.number {
                0 => head.write_str("null"),
                number => write!(head, "\"s:{number}\""),
            });
        }
        head
    }

    /// The part that is shared.
    pub(crate) fn rest(&self) -> &Bytes {
        &self.bytes
    }

    /// What it counts against the outbox limit: its bytes and what its place in a queue costs.
    pub fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

/// The head of a message, on the stack.
#[derive(Debug)]
pub(crate) struct MessageHead {
    bytes: [u8; 40],
    len: usize,
}

impl MessageHead {
    pub(crate) fn as_str(&self) -> &str {
        // It was written as text.
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for MessageHead {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
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
