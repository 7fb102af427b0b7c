//! How the connection of a resumable outbox was lost.

/// How a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It was cut. The client reads what has reached its network.
    Cut,
    /// The client gave it up, because of an error or for a newer one, and may have discarded what it
    /// had not read yet.
    GivenUp,
    /// The client closed it in order, with the same effect.
    Closed,
}

impl Loss {
    /// The loss of a WebSocket that its client closed with this code. A client that goes away closes
    /// with 1000, 1001 or without a code; others report an error.
    pub(crate) fn by_close_code(code: Option<u16>) -> Self {
        if matches!(code, None | Some(1000 | 1001)) { Self::Closed } else { Self::GivenUp }
    }
}
