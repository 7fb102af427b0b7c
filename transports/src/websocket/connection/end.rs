//! Why a connection is no longer open.

use std::io;

use crate::frame::Close;
use crate::outbox::Loss;
use crate::websocket::framed_io::ReadError;

/// Why a connection is no longer open.
pub(super) enum End {
    /// The peer is gone, and writing makes no sense.
    Disconnected,
    /// The client closed it, in order or not.
    Client(Loss),
    /// The client broke a rule or was idle.
    Connection(Close),
    /// The outbox was closed, has overflowed, or belongs to a newer connection now.
    Outbox(Close),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Disconnected
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Close(close) => Self::Connection(close),
            ReadError::Io => Self::Disconnected,
        }
    }
}
