//! What crosses the contract: messages in, messages out, and the reasons for which a connection ends.

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    binary: bool,
}

impl Message {
    /// A text message. The bytes must be UTF-8: nothing checks them again, and a client closes the
    /// connection over text that is not.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self { bytes: text.into(), binary: false }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), binary: true }
    }

    /// Whether it leaves as a binary frame; otherwise its bytes are UTF-8.
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// The message's bytes, without any transport's framing.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it counts against the outbox limit: its bytes and what its place in a queue costs.
    pub fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
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
