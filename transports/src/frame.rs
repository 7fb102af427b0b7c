//! What crosses the session contract: inbound messages, outbound messages and close reasons.

mod parts;

use bytes::Bytes;
use fastwebsockets::OpCode;

use crate::memory::{Cost, Memory};

pub(crate) use self::parts::{Kind, Parts};

/// A complete message from a client, borrowed from the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inbound<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// A message for a client. Cloning is cheap and shares the bytes.
///
/// A resumable session gives its messages sequence numbers when it sends them. A text message
/// carries its number in a *placeholder*, a `null` in its text that is replaced by the number or a string
/// `"p:…"` that takes it in; a binary message is [numbered](Self::numbered) without carrying the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The payload, preceded by its WebSocket frame header if [shared](Self::for_many).
    bytes: Bytes,
    /// Length of that header; 0 without one.
    header: u8,
    form: Form,
    /// Of [`VOLATILE`] and [`HELD`].
    flags: u8,
    /// How many connections were lost over this message; see [`add_try`](Self::add_try).
    tries: u8,
    /// Offset of the placeholder in the payload, for the forms that have one.
    placeholder: u32,
    /// The recipient's own beginning of a shared payload.
    start: Option<Box<Start>>,
    /// The sequence number; 0 for none.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// With a `null` that is replaced by the number.
    Placeholder,
    /// With a string `"p:…"` that becomes `"s:N:…"`.
    PositionPlaceholder,
    Binary,
    /// Takes a number that the client counts by itself.
    NumberedBinary,
}

impl Form {
    /// The form of a text by what stands at `offset`.
    fn of_placeholder(text: &[u8], offset: usize) -> Option<Self> {
        let rest = text.get(offset..)?;
        if rest.starts_with(PLACEHOLDER) {
            Some(Self::Placeholder)
        } else {
            rest.starts_with(POSITION_PLACEHOLDER).then_some(Self::PositionPlaceholder)
        }
    }
}

/// Stands in place of the first bytes of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    text: Box<str>,
    replaces: usize,
}

/// A message is dropped instead of replayed.
const VOLATILE: u8 = 1;

/// The bytes of a message are reserved once for all queues that hold them.
const HELD: u8 = 2;

/// The text of a placeholder.
const PLACEHOLDER: &[u8] = b"null";

/// The beginning of a placeholder that says where its message stands in the history of a topic.
const POSITION_PLACEHOLDER: &[u8] = b"\"p:";

impl Message {
    /// Creates a text message.
    pub fn text(text: impl Into<String>) -> Self {
        // Exactly as large as the text: the queues of a client count its length.
        Self::new(text.into().into_boxed_str().into_boxed_bytes().into(), Form::Text)
    }

    /// Creates a text message with a sequence-number placeholder at byte `offset`: a `null`, which a
    /// resumable session replaces by the JSON string `"s:N"`, or a JSON string `"p:P"`, which becomes
    /// `"s:N:P"`. If there is neither, the message has no placeholder and is never numbered.
    pub fn with_placeholder(text: impl Into<String>, offset: usize) -> Self {
        let message = Self::text(text);
        match (Form::of_placeholder(&message.bytes, offset), u32::try_from(offset)) {
            (Some(form), Ok(placeholder)) => Self { form, placeholder, ..message },
            _ => message,
        }
    }

    /// Creates a binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes.into(), Form::Binary)
    }

    fn new(bytes: Bytes, form: Form) -> Self {
        Self { bytes, header: 0, form, flags: 0, tries: 0, placeholder: 0, start: None, number: 0 }
    }

    /// Prepares the message for many recipients: its WebSocket frame is built once and shared, at the
    /// cost of one copy of its bytes.
    #[must_use]
    pub fn for_many(self) -> Self {
        let mut header = FrameHead::default();
        let size = frame_head(self.is_binary(), self.payload().len(), &mut header);
        let bytes = [&header[..size], self.payload()].concat().into();
        Self { bytes, header: size as u8, ..self }
    }

    /// Replaces the first `replaces` bytes of a text by a text of the recipient's own; the rest stays
    /// shared between the clones. It takes no sequence number. Without effect on a binary message, or
    /// if the text has no character boundary there.
    #[must_use]
    pub fn with_start(self, start: impl Into<Box<str>>, replaces: usize) -> Self {
        let is_continuation = |byte: &u8| byte & 0xc0 == 0x80;
        let splits = match self.payload().get(replaces..) {
            Some(rest) => rest.first().is_some_and(is_continuation),
            None => true,
        };
        if self.is_binary() || self.start.is_some() || splits {
            return self;
        }
        let start = Some(Box::new(Start { text: start.into(), replaces }));
        Self { start, form: Form::Text, ..self }
    }

    /// Makes a binary message take a sequence number. The number is not sent: the client counts one
    /// for each such message. Without effect on text.
    #[must_use]
    pub fn numbered(self) -> Self {
        let form = if self.form == Form::Binary { Form::NumberedBinary } else { self.form };
        Self { form, ..self }
    }

    /// Marks the message as volatile: it is dropped instead of replayed to the client's next
    /// connection, in a stream that
    /// [discards volatile messages](crate::outbox::Sender::discard_volatile).
    #[must_use]
    pub fn volatile(self) -> Self {
        Self { flags: self.flags | VOLATILE, ..self }
    }

    /// Returns whether the message is [volatile](Self::volatile).
    pub(crate) fn is_volatile(&self) -> bool {
        self.flags & VOLATILE != 0
    }

    /// Returns whether this is a binary message.
    pub fn is_binary(&self) -> bool {
        matches!(self.form, Form::Binary | Form::NumberedBinary)
    }

    /// Returns whether a resumable session gives this message a number.
    pub(crate) fn takes_number(&self) -> bool {
        !matches!(self.form, Form::Text | Form::Binary)
    }

    /// Sets the sequence number; 0 for none.
    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Returns the sequence number; 0 for none.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Records that a connection was lost on which this message was sent first and did not arrive.
    pub(crate) fn add_try(&mut self) {
        self.tries = self.tries.saturating_add(1);
    }

    /// Returns how many connections were lost over this message.
    pub(crate) fn tries(&self) -> u8 {
        self.tries
    }

    /// Returns the bytes to send, without any transport's framing. They are valid UTF-8 unless the
    /// message [is binary](Self::is_binary). Copies only if a number has to be filled in.
    pub fn to_bytes(&self) -> Bytes {
        if self.head_len() == 0 {
            return self.bytes.slice(usize::from(self.header)..);
        }
        let mut bytes = Vec::with_capacity(self.size());
        self.write_head(&mut bytes);
        bytes.extend_from_slice(self.rest());
        bytes.into()
    }

    /// Returns the number of bytes to send, without any transport's framing.
    pub fn size(&self) -> usize {
        self.head_len() + self.rest().len()
    }

    /// Appends the bytes that precede [`rest`](Self::rest): everything up to and including the
    /// filled-in number, the recipient's own start, or nothing without either.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>) {
        if let Some(start) = &self.start {
            out.extend_from_slice(start.text.as_bytes());
        } else if let Some((offset, placeholder)) = self.numbered_placeholder() {
            out.extend_from_slice(&self.payload()[..offset]);
            out.extend_from_slice(b"\"s:");
            out.extend_from_slice(itoa::Buffer::new().format(self.number).as_bytes());
            out.push(if placeholder == PLACEHOLDER { b'"' } else { b':' });
        }
    }

    /// Returns the number of bytes that [`write_head`](Self::write_head) appends.
    pub(crate) fn head_len(&self) -> usize {
        if let Some(start) = &self.start {
            return start.text.len();
        }
        let digits = || self.number.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.numbered_placeholder().map_or(0, |(offset, _)| offset + "\"s:\"".len() + digits())
    }

    /// Returns the shared bytes after the [head](Self::write_head).
    pub(crate) fn rest(&self) -> &[u8] {
        let payload = self.payload();
        if let Some(start) = &self.start {
            return &payload[start.replaces..];
        }
        let behind = |(at, placeholder): (usize, &[u8])| &payload[at + placeholder.len()..];
        self.numbered_placeholder().map_or(payload, behind)
    }

    /// Returns the complete WebSocket frame, if it was built ahead and no head changes it.
    pub(crate) fn frame(&self) -> Option<&[u8]> {
        (self.header > 0 && self.head_len() == 0).then_some(&self.bytes)
    }

    /// Returns the offset of the placeholder and what the number replaces there, if there is one to fill in.
    fn numbered_placeholder(&self) -> Option<(usize, &'static [u8])> {
        let replaced = match self.form {
            Form::Placeholder => PLACEHOLDER,
            Form::PositionPlaceholder => POSITION_PLACEHOLDER,
            Form::Text | Form::Binary | Form::NumberedBinary => return None,
        };
        (self.number != 0).then_some((self.placeholder as usize, replaced))
    }

    /// Returns the bytes without a number and without any framing.
    fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header)..]
    }

    /// Returns what the message counts against [`Limits::max_outbox`](crate::Limits::max_outbox), in
    /// bytes: its size and its place in a queue, which may be twice as large as what waits in it.
    pub fn cost(&self) -> Cost {
        let shared = if self.flags & HELD != 0 { self.bytes.len() } else { 0 };
        Cost::with_shared(self.bytes.len() + 2 * size_of::<Self>(), shared)
    }

    /// Reserves the bytes in `memory` once for all queues that hold the message, unless they are few.
    #[must_use]
    pub fn held_in(self, memory: &Memory) -> Self {
        match memory.hold(self.bytes) {
            Ok(bytes) => Self { bytes, flags: self.flags | HELD, ..self },
            Err(bytes) => Self { bytes, ..self },
        }
    }
}

/// Room for the longest WebSocket frame header that a server sends.
pub(crate) type FrameHead = [u8; 10];

/// Writes the header of an unfragmented, unmasked WebSocket frame (RFC 6455 section 5.2) and returns
/// its length.
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

/// Reason for which a connection ends. A WebSocket sends its [code](Self::code) to the client; a
/// long-poll client learns of the end from the answer to its next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Close {
    /// The client closed the connection.
    Normal,
    /// The application disconnected this client.
    GoingAway,
    /// The client violated the WebSocket protocol, or was silent for the idle timeout.
    Protocol,
    /// A text message was not valid UTF-8.
    InvalidUtf8,
    /// The client sent a legal but useless frame, such as an empty continuation, or far more than its
    /// [rate](crate::Limits::rate).
    Policy,
    /// A message exceeded the size limit.
    TooBig,
    /// The session could not decode a message.
    Malformed,
    /// The server is shutting down; the client should reconnect.
    Restart,
    /// The client did not read fast enough and its outbox is full.
    Overflow,
}

impl Close {
    /// Returns the WebSocket close code (RFC 6455 section 7.4.1 and the IANA registry).
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
mod tests;
